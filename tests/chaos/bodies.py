"""F20, F21: bodies that are malformed, endless, lied about or compressed."""

import asyncio
import zlib
from collections.abc import Sequence
from itertools import repeat
from pathlib import Path

from .arena import Arena, Gateway
from .fault import Unmet, fault
from .pictures import PHOTO
from .pulse import TRIES, Pulse, gone_s, until_answered
from .wire import head


@fault(
    "F20a",
    "8 GB declared, as raw bytes and as a form, with and without Expect: 100-continue",
    expected="413 within 100 ms, nothing invited; closed 2 s later",
    without="upload-bounds",
)
async def declared_length(arena: Arena) -> str:
    gateway = await arena.gateway()
    seconds = []
    for extra in ({}, {"Expect": "100-continue"}, {"Content-Type": "multipart/form-data; boundary=b"}):
        wire = await gateway.connect()
        answer = await until_answered(wire, [head("POST", "/depth", 8_000_000_000, extra)], 0.0, 1.0)
        answer.expect(413, code="body_too_large")
        seconds.append(answer.seconds)
    if min(seconds) > arena.limit(0.1):
        raise Unmet(f"413 after {min(seconds) * 1000:.0f} ms")
    closed_s = await gone_s(gateway, 2.0 + arena.limit(0.5))
    return f"413 after {min(seconds) * 1000:.0f} to {max(seconds) * 1000:.0f} ms, closed after {closed_s:.1f} s"


@fault(
    "F20b",
    "a chunked body without an end",
    expected="413 at the cap of 2 MB, resident memory +10 MB at most",
    without="upload-bounds",
)
async def endless_body(arena: Arena) -> str:
    gateway = await arena.gateway(max_body_bytes=2_000_000)
    await gateway.ask("POST", "/depth", PHOTO)
    before_mb = gateway.rss_mb()
    wire = await gateway.connect()
    first = head("POST", "/depth", None, {"Transfer-Encoding": "chunked"})
    answer = await until_answered(wire, [first, *repeat(b"10000\r\n" + bytes(65_536) + b"\r\n", 2000)], 0.0, 5.0)
    grown_mb = gateway.rss_mb() - before_mb
    answer.expect(413, code="body_too_large")
    if grown_mb > 10:
        raise Unmet(f"413, but +{grown_mb:.0f} MB")
    return f"413 after {answer.seconds * 1000:.0f} ms, {grown_mb:+.0f} MB"


def _form(*parts: bytes, boundary: bytes = b"b") -> bytes:
    return b"".join(b"--%b\r\n%b\r\n" % (boundary, part) for part in parts) + b"--%b--\r\n" % boundary


def _part(name: str, content: bytes = PHOTO, kind: str = "image/png") -> bytes:
    return (
        f'Content-Disposition: form-data; name="{name}"; filename="p"\r\nContent-Type: {kind}\r\n\r\n'.encode()
        + content
    )


_FORMS: dict[str, tuple[bytes, str, Sequence[int]]] = {
    "1,001 parts": (_form(*[_part(f"p{number}", b"x") for number in range(1001)]), "; boundary=b", (400,)),
    "no boundary": (_form(_part("image")), "", (400,)),
    "nested": (
        _form(_part("image", _form(_part("image"), boundary=b"c"), "multipart/mixed; boundary=c")),
        "; boundary=b",
        (415,),
    ),
    "a field twice": (_form(_part("image"), _part("image")), "; boundary=b", (400,)),
    "cut off": (_form(_part("image"), _part("more"))[:-20], "; boundary=b", (400,)),
    "1 MB of part headers": (_form(b"A: " + b"x" * 1_000_000), "; boundary=b", (400,)),
    "look-alikes of the boundary": (_form(_part("image", b"\r\n--" * 500_000)), "; boundary=b", (415,)),
}


@fault(
    "F20c",
    f"malformed forms: {', '.join(_FORMS)}",
    expected="each a 4xx problem, and the next photo is answered",
    without="upload-bounds",
)
async def malformed_forms(arena: Arena) -> str:
    gateway = await arena.gateway()
    slowest = 0.0
    for name, (body, boundary, statuses) in _FORMS.items():
        answer = await gateway.ask("POST", "/depth", body, {"Content-Type": f"multipart/form-data{boundary}"})
        try:
            answer.expect(*statuses)
        except Unmet as error:
            raise Unmet(f"{name}: {error}") from None
        slowest = max(slowest, answer.seconds)
    (await gateway.ask("POST", "/depth", PHOTO)).expect(200)
    return f"{len(_FORMS)} of {len(_FORMS)} refused, the slowest after {slowest * 1000:.0f} ms"


_LENGTHS = {
    "negative": "Content-Length: -1",
    "not a number": "Content-Length: 0x10",
    "two that differ": "Content-Length: 5\r\nContent-Length: 6",
    "and chunked": "Content-Length: 5\r\nTransfer-Encoding: chunked",
    "unknown coding": "Transfer-Encoding: gzip, chunked",
}


@fault(
    "F20d",
    f"lengths: {', '.join(_LENGTHS)}",
    expected="each a 400 problem, and closed: nothing after it can be trusted",
    without="edge",
)
async def lying_lengths(arena: Arena) -> str:
    gateway = await arena.gateway()
    for name, line in _LENGTHS.items():
        wire = await gateway.connect()
        await wire.send(f"POST /depth HTTP/1.1\r\nHost: x\r\n{line}\r\n\r\n0\r\n\r\n".encode())
        try:
            (await wire.answer(2.0)).expect(400, code="malformed_request")
            await wire.closed(3.0)
        except Unmet as error:
            raise Unmet(f"{name}: {error}") from None
    return f"{len(_LENGTHS)} of {len(_LENGTHS)} answered 400 and closed"


@fault(
    "F20e",
    "240 kB of body in chunks of 1 byte",
    expected="400 within 200 ms, nobody else waits longer than 100 ms",
    without="edge",
)
async def small_chunks(arena: Arena) -> str:
    gateway = await arena.gateway()
    first = head("POST", "/depth", None, {"Transfer-Encoding": "chunked"})
    took, stalls = [], []
    for _ in range(TRIES):
        async with Pulse(gateway) as others:
            answer = await until_answered(await gateway.connect(), [first, b"1\r\nx\r\n" * 40_000], 0.0, 5.0)
        answer.expect(400, field="body")
        took.append(answer.seconds)
        stalls.append(max(others.seconds))
    seen = f"400 after {min(took) * 1000:.0f} ms; others waited {min(stalls) * 1000:.0f} ms at most"
    if min(took) > arena.limit(0.2) or min(stalls) > arena.limit(0.1):
        raise Unmet(seen)
    return seen


def _bomb(megabytes: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join([*[packer.compress(bytes(10**6)) for _ in range(megabytes)], packer.flush()])


@fault(
    "F21",
    "a body of 150 MB as 150 kB of gzip; deflate and br, too",
    expected="415 within 100 ms, unread; resident memory +10 MB at most",
    without="encoding-refused",
)
async def compressed_bomb(arena: Arena) -> str:
    bomb = await asyncio.to_thread(_bomb, 150)
    gateway = await arena.gateway()
    await gateway.ask("POST", "/depth", PHOTO)
    before_mb = _peak_mb(gateway)
    answers = [
        await gateway.ask("POST", "/depth", bomb, {"Content-Encoding": encoding})
        for encoding in ("gzip", "deflate", "br")
    ]
    grown_mb = _peak_mb(gateway) - before_mb
    took = [answer.seconds for answer in answers]
    seen = f"{answers[0].status} after {min(took) * 1000:.0f} to {max(took) * 1000:.0f} ms, {grown_mb:+.0f} MB at most"
    if grown_mb > 10 or min(took) > arena.limit(0.1):
        raise Unmet(seen)
    for answer in answers:
        answer.expect(415, code="unsupported_encoding")
    return seen


def _peak_mb(gateway: Gateway) -> float:
    """Most resident memory so far, in MB (10^6 bytes)."""
    status = Path(f"/proc/{gateway.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6
