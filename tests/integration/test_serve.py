"""`make serve` and the README's curl lines, run as written, on the committed model repository."""

import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fakes import encoded, picture
from PIL import Image

ROOT = Path(__file__).parents[2]
READY_TIMEOUT_S = 120

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def readme_port() -> int:
    """8080, as the README says, unless something else has it."""
    try:
        with socket.create_server(("127.0.0.1", 8080)):
            return 8080
    except OSError:
        return free_port()


def get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
    except OSError:
        return 0, b""


def wait_for(url: str, status: int, timeout_s: float) -> float:
    """Seconds until `url` answers `status`."""
    start = time.monotonic()
    while time.monotonic() - start < timeout_s:
        if get(url)[0] == status:
            return time.monotonic() - start
        time.sleep(0.05)
    raise AssertionError(f"{url} did not answer {status} within {timeout_s} s: {get(url)}")


def descendants(pid: int) -> dict[int, str]:
    """Every process below `pid`, with its command name."""
    parents: dict[int, tuple[int, str]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text()
            except OSError:
                continue
            name, rest = fields[fields.index("(") + 1 : fields.rindex(")")], fields[fields.rindex(")") + 2 :].split()
            if rest[0] != "Z":
                parents[int(entry.name)] = (int(rest[1]), name)
    below: dict[int, str] = {}
    frontier = {pid}
    while frontier:
        frontier = {child for child, (parent, _) in parents.items() if parent in frontier}
        below |= {child: parents[child][1] for child in frontier}
    return below


def alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids if Path(f"/proc/{pid}").exists()}


class Served:
    """A `make serve` that runs."""

    def __init__(self, log: Path) -> None:
        self.port = readme_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.shm_before = set(os.listdir("/dev/shm"))
        self.log = log
        environment = os.environ | {"DEPTHLENS_PORT": str(self.port)}
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                ["make", "serve"], cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
            )
        try:
            wait_for(f"{self.url}/health/ready", 200, READY_TIMEOUT_S)
        except AssertionError:
            self.stop(signal.SIGKILL)
            raise AssertionError(log.read_text()[-4000:]) from None

    def gateway_pid(self) -> int:
        """The process that serves: make runs it through a shell."""
        below = descendants(self.process.pid)
        return min((pid for pid, name in below.items() if name.startswith("depthlens")), default=self.process.pid)

    def stop(self, how: signal.Signals) -> None:
        for pid in [*descendants(self.process.pid)][:1] or [self.process.pid]:
            if Path(f"/proc/{pid}").exists():
                os.kill(pid, how)
        self.process.wait(60)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    running = Served(tmp_path_factory.mktemp("serve") / "log")
    yield running
    if running.process.poll() is None:
        running.stop(signal.SIGTERM)


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
    return image


def readme_blocks(first_word: str) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return [block for block in blocks if block.startswith(first_word)]


def test_the_readmes_curl_lines(served: Served, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    image = picture(320, 240)
    (tmp_path / "p.jpg").write_bytes(encoded(image, "JPEG", quality=92))
    script = (
        "".join(readme_blocks("curl"))
        .replace("localhost:8080", f"localhost:{served.port}")
        .replace("curl ", "curl --fail-with-body -sS ")
    )
    done = subprocess.run(
        ["bash", "-euc", script], cwd=tmp_path, capture_output=True, timeout=120, check=False, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    depth, person, focus = (opened(tmp_path / name) for name in ("depth.png", "person.png", "focus.jpg"))
    assert (depth.mode, depth.size) == ("I;16", image.size)
    assert (person.mode, person.size) == ("L", image.size)
    assert (focus.format, focus.mode, focus.size) == ("JPEG", "RGB", image.size)
    for name in ("plane.jpg", "again.jpg", "own.jpg"):
        assert opened(tmp_path / name).size == image.size
    with Image.open(tmp_path / "pull.webp") as pull:
        assert (pull.format, pull.n_frames) == ("WEBP", 12)
    assert "people" in json.loads((tmp_path / "people.json").read_text())
    report = json.loads(done.stdout)
    assert [point["x"] for point in report["points"]] == [10, 30]


def test_it_says_where_it_listens(served: Served) -> None:
    assert served.url in served.log.read_text()


def test_multipart_and_raw_give_the_same_bytes(served: Served) -> None:
    body = encoded(picture(200, 150), "JPEG")
    form = b"--b\r\nContent-Disposition: form-data; name=image; filename=p\r\n\r\n" + body + b"\r\n--b--\r\n"
    answers = []
    for data, kind in ((body, "image/jpeg"), (form, "multipart/form-data; boundary=b")):
        request = urllib.request.Request(f"{served.url}/depth", data, {"Content-Type": kind})
        with urllib.request.urlopen(request, timeout=30) as answer:
            answers.append(answer.read())
    assert answers[0] == answers[1]


def test_eight_orientations_give_one_map(served: Served) -> None:
    """One displayed photo stored in eight ways (losslessly): the same map, and the same focus for the same click."""
    shown = picture(160, 120)
    turns = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    answers: dict[str, set[bytes]] = {"/depth?format=npy": set(), "/focus?x=120&y=60&format=png": set()}
    for orientation, turn in turns.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = shown if turn is None else shown.transpose(turn)
        body = encoded(stored, "PNG", exif=exif)
        for route, seen in answers.items():
            request = urllib.request.Request(f"{served.url}{route}", body, {"Content-Type": "image/png"})
            with urllib.request.urlopen(request, timeout=60) as answer:
                content = answer.read()
            pixels = np.load(io.BytesIO(content)) if "npy" in route else np.asarray(Image.open(io.BytesIO(content)))
            assert pixels.shape[:2] == (120, 160)
            seen.add(pixels.tobytes())
    assert all(len(seen) == 1 for seen in answers.values())


def test_a_killed_stub_is_noticed_and_healed(served: Served) -> None:
    stubs = [pid for pid, name in descendants(served.process.pid).items() if name.startswith("triton_python")]
    assert stubs
    os.kill(stubs[0], signal.SIGKILL)
    noticed_s = wait_for(f"{served.url}/health/ready", 503, 5)
    healed_s = wait_for(f"{served.url}/health/ready", 200, 10)
    request = urllib.request.Request(f"{served.url}/depth", encoded(picture()), {"Content-Type": "image/png"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200
    print(f"noticed after {noticed_s:.1f} s, healed after {healed_s:.1f} s more")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_stopping_leaves_nothing_behind(tmp_path: Path, how: signal.Signals) -> None:
    running = Served(tmp_path / "log")
    family = set(descendants(running.process.pid))
    assert any("tritonserver" in name for name in descendants(running.process.pid).values())
    running.stop(how)
    assert not alive(family)
    assert set(os.listdir("/dev/shm")) <= running.shm_before
    assert get(f"{running.url}/health/live")[0] == 0
