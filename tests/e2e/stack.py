"""The compose project under test, and what is said to a gateway over HTTP."""

import io
import itertools
import json
import os
import socket
import struct
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from engine import ROOT, run
from PIL import Image
from steps import check

STORED_SIZE = (640, 480)
"""Width and height of the photo as stored; its EXIF orientation 6 turns it, so it is displayed as 480 x 640."""
DISPLAYED_SIZE = (480, 640)
TAG = "e2e"
REQUEST_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Caller:
    """Speaks HTTP to one gateway."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port

    def request(
        self, method: str, path: str, body: bytes | None = None, *, timeout_s: float = REQUEST_TIMEOUT_S
    ) -> Answer:
        connection = HTTPConnection(self.host, self.port, timeout=timeout_s)
        try:
            connection.request(method, path, body, {"Content-Type": "image/jpeg"} if body else {})
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, headers, response.read())
        finally:
            connection.close()

    def status(self, path: str, *, timeout_s: float = REQUEST_TIMEOUT_S) -> int:
        """Status of a GET; 0 when nobody listens."""
        try:
            return self.request("GET", path, timeout_s=timeout_s).status
        except (OSError, HTTPException):
            return 0


class Stack(Caller):
    """The compose project under test."""

    def __init__(self, environment: dict[str, str], compose: tuple[str, ...], models: Path) -> None:
        super().__init__("127.0.0.1", free_port())
        self.project = f"depthlens-e2e-{os.getpid()}"
        # The settings of whoever runs this must not change what is tested.
        kept = {key: value for key, value in environment.items() if not key.startswith(("DEPTHLENS_", "COMPOSE_"))}
        self.models = models
        self.environment = kept | {"PORT": str(self.port), "DEPTHLENS_TAG": TAG, "DEPTHLENS_MODELS": str(self.models)}
        self._containers: dict[str, str] = {}
        self._compose = (*compose, "-p", self.project, "-f", str(ROOT / "docker/compose.yaml"))

    def compose(self, *arguments: str, timeout_s: float = 60, env: dict[str, str] | None = None) -> str:
        return run(*self._compose, *arguments, timeout_s=timeout_s, env=self.environment | (env or {}))

    def docker(self, *arguments: str, timeout_s: float = 60) -> str:
        return run("docker", *arguments, timeout_s=timeout_s, env=self.environment)

    def container(self, service: str) -> str:
        if service not in self._containers:
            self._containers[service] = self.compose("ps", "-q", service).split()[-1]
        return self._containers[service]

    def inspect(self, service: str) -> dict:
        return json.loads(self.docker("inspect", self.container(service)))[0]

    def python(self, image: str, program: str) -> str:
        """Run a program in a fresh container of an image, as compose would confine it."""
        confined = ("--read-only", "--network", "none", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true")
        return self.docker("run", "--rm", *confined, f"{image}:{TAG}", "python", "-c", program)


def free_port() -> int:
    with socket.socket() as candidate:
        candidate.bind(("127.0.0.1", 0))
        return candidate.getsockname()[1]


_numbers = itertools.count()


def photo() -> bytes:
    """A JPEG with a gradient and a block, stored sideways as a phone does; never the same twice.

    The gateway remembers what it computed for a photo and answers it again without Triton.
    """
    picture = Image.linear_gradient("L").resize(STORED_SIZE).convert("RGB")
    left = next(_numbers) % 400
    picture.paste((250, 220, 180), (left, 120, left + 240, 400))
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90, exif=exif)
    return buffer.getvalue()


def send_photo(caller: Caller) -> None:
    """All three routes, at the displayed size."""
    jpeg = photo()
    depth = caller.request("POST", "/depth", jpeg)
    check(depth.status == 200, f"/depth answers {depth.status}: {depth.body[:300]!r}")
    check(depth.body[:8] == b"\x89PNG\r\n\x1a\n", "/depth answers no PNG")
    width, height, bits, colour = struct.unpack(">IIBB", depth.body[16:26])
    check(((width, height), bits, colour) == (DISPLAYED_SIZE, 16, 0), f"/depth: {width} x {height}, {bits} bits")
    for path in ("/segmentation", "/focus?rx=0.5&ry=0.5&mode=plane"):
        answer = caller.request("POST", path, jpeg)
        check(answer.status == 200, f"{path} answers {answer.status}: {answer.body[:300]!r}")
        with Image.open(io.BytesIO(answer.body)) as picture:
            picture.load()
            check(picture.size == DISPLAYED_SIZE, f"{path}: {picture.size}")
            check((picture.format == "JPEG") == path.startswith("/focus"), f"{path}: a {picture.format}")
