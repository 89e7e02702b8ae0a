"""A real headless Chromium (Debian's) at the real gateway with the real Triton, started once for all tests here."""

import base64
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crowds import CrowdClient
from PIL import Image
from playwright.sync_api import Browser, Error, Page, Request, expect, sync_playwright
from running import RunningGateway

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "service" / "web" / "example.webp"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WAIT_MS = 60_000  # for one picture, on two cores that others use, too
NETWORK_NOISE = "ERR_NETWORK_CHANGED"  # another container's network came or went on this machine

expect.set_options(timeout=WAIT_MS)


# For a module, not the session: while Playwright is open this thread has a running event loop, in which no test of
# another folder could call asyncio.run().
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium (make test does it when run as root)")
    flags = ["--disable-gpu", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    if os.getuid() == 0:
        flags.append("--no-sandbox")  # Chromium's own sandbox refuses root; the pages are ours
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield running
        running.close()


@pytest.fixture(scope="session")
def real_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`depthlens serve` with the committed network; or one that runs already, at DEPTHLENS_BROWSER_URL."""
    if running := os.environ.get("DEPTHLENS_BROWSER_URL"):
        yield running
        return
    pytest.importorskip("pytriton", reason="the extra `embedded` is not installed, so there is no tritonserver")
    log = tmp_path_factory.mktemp("gateway") / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "service", "serve", "--port", "0"], cwd=ROOT, stdout=output, stderr=output
        )
    try:
        deadline = time.monotonic() + 120
        while "is ready: " not in log.read_text():
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.1)
        yield log.read_text().split("is ready: ")[1].split()[0]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()[-3000:]


@pytest.fixture
def gateway() -> Iterator[Callable[..., str]]:
    """Starts real gateways with settings of one's own on a network by rule: two people, no Triton."""
    started: list[RunningGateway] = []

    def start(**settings: Any) -> str:
        started.append(RunningGateway(CrowdClient(), **settings))
        return "http://{}:{}".format(*started[-1].address)

    yield start
    for running in started:
        running.close()


class Visit:
    """One tab, with what it has asked for and complained of."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.complaints: list[str] = []
        self.requests: list[Request] = []
        self.expected: tuple[str, ...] = ()
        """What complaints may contain: the browser logs every answer from 400 up as an error."""
        page.on("console", self._listen)
        page.on("pageerror", lambda error: self.complaints.append(f"exception: {error}"))
        page.on("request", lambda request: self.requests.append(request))

    def _listen(self, message: Any) -> None:
        if message.type in ("error", "warning") and NETWORK_NOISE not in message.text:
            self.complaints.append(message.text)

    def load(self) -> "Visit":
        for _ in range(8):
            try:
                self.page.goto(self.url, wait_until="load")
                self.page.wait_for_selector("html[data-ready]", timeout=10_000)
                return self
            except Error as error:
                if NETWORK_NOISE not in str(error) and "Timeout" not in str(error):
                    raise
        raise AssertionError("the page does not load")

    def asked(self, path: str = "focus") -> list[str]:
        """Addresses of the requests to a route, in order."""
        return [request.url for request in self.requests if request.method == "POST" and f"/{path}" in request.url]

    def expect_status(self, text: str) -> None:
        expect(self.page.locator("#status")).to_contain_text(text)

    def give(self, data: bytes, name: str = "photo.jpg", kind: str = "image/jpeg") -> None:
        self.page.set_input_files("#file", {"name": name, "mimeType": kind, "buffer": data})

    def open(self, data: bytes, name: str = "photo.jpg", kind: str = "image/jpeg") -> "Visit":
        self.give(data, name, kind)
        self.ready()
        return self

    def ready(self) -> None:
        self.page.wait_for_selector("main[data-state=ready]", timeout=WAIT_MS)
        self.expect_status("in focus")

    def click(self, x: float, y: float) -> tuple[float, float]:
        """Click near these shares of the photo, in the middle of a pixel of the screen; returns where that is."""
        box = self.page.locator("#frame").bounding_box()
        left, top = int(box["x"] + x * box["width"]), int(box["y"] + y * box["height"])
        self.page.mouse.click(left, top)
        return (left - box["x"]) / box["width"], (top - box["y"]) / box["height"]

    def hover(self, x: float, y: float) -> None:
        box = self.page.locator("#frame").bounding_box()
        self.page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])

    def pixels(self, canvas: str) -> np.ndarray:
        """RGBA of a canvas: (H, W, 4) uint8."""
        width, height, data = self.page.evaluate(
            """(id) => {
                const canvas = document.getElementById(id);
                const context = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d");
                context.drawImage(canvas, 0, 0);
                const {data} = context.getImageData(0, 0, canvas.width, canvas.height);
                const some = 8192;
                let text = "";
                for (let at = 0; at < data.length; at += some)
                    text += String.fromCharCode(...data.subarray(at, at + some));
                return [canvas.width, canvas.height, btoa(text)];
            }""",
            canvas,
        )
        return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)

    def settled(self) -> None:
        """Nothing is being rendered."""
        self.page.wait_for_timeout(150)  # longer than a slider has to rest
        expect(self.page.locator("#progress")).to_be_hidden()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Opens tabs; afterwards none may have complained, or have asked another host for anything."""
    visits: list[Visit] = []
    contexts = []

    def begin(url: str, **options: Any) -> Visit:
        contexts.append(browser.new_context(**{"viewport": {"width": 1200, "height": 800}, **options}))
        contexts[-1].set_default_timeout(WAIT_MS)
        visits.append(Visit(contexts[-1].new_page(), url))
        return visits[-1].load()

    yield begin
    for context in contexts:
        context.close()
    for one in visits:
        unexpected = [text for text in one.complaints if not any(word in text for word in one.expected)]
        assert not unexpected, unexpected
        foreign = [request.url for request in one.requests if not request.url.startswith((one.url, "blob:", "data:"))]
        assert not foreign, foreign


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    """The example at a size that two cores render quickly: a woman in front at the left, a man behind at the right."""
    return Image.open(EXAMPLE).convert("RGB").resize((640, 480), Image.Resampling.LANCZOS)
