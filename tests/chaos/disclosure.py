"""F30: what the answers to errors do not say."""

import importlib.metadata
import platform
import re
import socket
from collections.abc import Iterator

import orjson

from .arena import Arena, Gateway, until
from .fault import Unmet, fault
from .pictures import PHOTO, photo
from .puppet import Puppet
from .wire import Answer

_LIBRARIES = ("uvicorn", "starlette", "fastapi", "pydantic", "tritonclient", "grpcio", "pillow", "numpy", "uvloop")
_SECRETS = {
    "path": r"/(?:root|home|opt|usr|tmp|var|proc|dev|work|models?|weights|site-packages)/[\w.]",
    "source file": r"\w+\.(?:py|pyx|so|cc|onnx|pbtxt)\b",
    "traceback": r"Traceback|File \\?\"|line \d+, in ",
    "shared memory": r"shm|python_backend|region_",
    "gRPC": r"StatusCode|GRPC",
    "library": rf"\b(?:{'|'.join(_LIBRARIES)}|h11|httptools|triton|grpc|PIL|cv2|opencv|openvino)\b",
    "object": r"<\w[\w.]* object|0x[0-9a-f]{6,}|\b\w+(?:Error|Exception)\b",
}


def secrets_in(answer: Answer, more: dict[str, str]) -> Iterator[str]:
    """What an error gives away, each as `kind: text`.

    What the caller sent himself is no secret: the member `value` is left out.

    Args:
        answer: an error.
        more: further patterns by kind.
    """
    body = answer.body.decode(errors="replace")
    if answer.headers.get("content-type", "").startswith("application/problem+json"):
        said = orjson.loads(answer.body)
        said.pop("value", None)
        body = orjson.dumps(said).decode()
    headers = "\n".join(f"{name}: {value}" for name, value in answer.headers.items())
    for kind, pattern in (_SECRETS | more).items():
        for text in (body, headers):
            if found := re.search(pattern, text, re.IGNORECASE if kind == "library" else 0):
                yield f"{kind}: {text[max(0, found.start() - 20) : found.end() + 20]!r}"


def _of_this_machine(gateway: Gateway, ports: tuple[int, ...]) -> dict[str, str]:
    versions = {importlib.metadata.version(name) for name in _LIBRARIES} | {platform.python_version()}
    return {
        "host": rf"\b{re.escape(socket.gethostname())}\b",
        "port": "|".join(rf"\b{port}\b" for port in (gateway.port, *ports)),
        "process": rf"\b{gateway.pid}\b",
        "version": "|".join(rf"(?<![\d.]){re.escape(version)}(?![\d.])" for version in versions),
    }


@fault(
    "F30",
    "errors of every kind provoked, and all that the rows before it have seen",
    expected="no path, traceback, name of shared memory, version, host or library in any body or header",
    without="silent-errors",
    fast=True,
)
async def errors_say_nothing(arena: Arena) -> str:
    triton, puppet = await arena.puppet()
    gateway = await arena.gateway(triton, canary_period_s=3600)
    await _provoke(arena, gateway, puppet)
    ports = (triton.ports.grpc, triton.ports.http, triton.ports.metrics)
    more = _of_this_machine(gateway, ports)
    errors = list((arena.stage.errors | arena.errors).values())
    found = sorted({secret for error in errors for secret in secrets_in(error, more)})
    if found:
        raise Unmet(f"{len(found)} in {len(errors)} kinds of errors, as {'; '.join(found[:3])}")
    statuses = sorted({error.status for error in errors})
    return f"nothing in {len(errors)} kinds of errors: {', '.join(map(str, statuses))}"


async def _provoke(arena: Arena, gateway: Gateway, puppet: Puppet) -> None:
    """At least one error of every status that can be had from outside."""
    failures = ({"fails": True}, {"nan": True}, {"misshapes": True})
    for number, strings in enumerate(failures):
        puppet.tell(**strings)
        for route in ("/depth", "/segmentation", "/focus?rx=0.5&ry=0.5"):
            (await gateway.ask("POST", route, photo(100 + number))).expect(500, 502, 503)
    puppet.tell(delay_s=0.4)
    (await gateway.ask("POST", "/depth", photo(110), {"X-Request-Timeout": "0.2"})).expect(504)
    puppet.tell()
    await until(lambda: len(puppet.notes("cancelled")) + len(puppet.notes("ended")) > 3, 5.0, "an idle model")
    for method, target, body, headers in _BAD_REQUESTS:
        answer = await gateway.ask(method, target, body, headers)
        if not 400 <= answer.status < 500:
            raise Unmet(f"{method} {target}: {answer.status}")
    wire = await gateway.connect()
    await wire.send(b"NONSENSE\r\n\r\n")
    await wire.answer(5.0)


_FORM = {"Content-Type": "multipart/form-data; boundary=b"}
_BAD_REQUESTS: tuple[tuple[str, str, bytes, dict[str, str]], ...] = (
    ("GET", "/nothing", b"", {}),
    ("DELETE", "/depth", b"", {}),
    ("POST", "/depth", b"", {}),
    ("POST", "/depth", b"text", {}),
    ("POST", "/depth", PHOTO[:-40], {}),
    ("POST", "/depth", PHOTO[:20] + bytes(4) + PHOTO[24:], {}),
    ("POST", "/depth", b"GIF89a" + bytes(20), {}),
    ("POST", "/depth", b"\xff\xd8\xff\xe0" + bytes(60), {}),
    ("POST", "/depth", b"RIFF\x10\0\0\0WEBPVP8 " + bytes(40), {}),
    ("POST", "/depth", b"II*\0\x08\0\0\0\xff\xff" + bytes(40), {}),
    ("POST", "/depth", b"\0\0\0\x1cftypavif" + bytes(60), {}),
    ("POST", "/depth", PHOTO, {"Content-Type": "text/html"}),
    ("POST", "/depth", PHOTO, {"Content-Encoding": "gzip"}),
    ("POST", "/depth", PHOTO, _FORM),
    ("POST", "/depth", b"--b\r\n\r\n--b--\r\n", _FORM),
    ("POST", "/depth", PHOTO, {"Accept": "text/css"}),
    ("POST", "/depth?near=x", PHOTO, {}),
    ("POST", "/depth?unknown=1", PHOTO, {}),
    ("POST", "/depth?model=none", PHOTO, {}),
    ("POST", "/focus", PHOTO, {}),
    ("POST", "/focus?x=1e9&y=0", PHOTO, {}),
    ("POST", "/focus?rx=0&ry=0&scene=none", b"", {}),
    ("POST", "/focus?rx=0.1&ry=0.1&mode=subject", PHOTO, {}),
)
