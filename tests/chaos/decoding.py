"""F14 to F17 and F26: files made to harm who decodes them, odd files, and the end of the process that does."""

import asyncio
import io
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from tests.support.fakes import encoded, picture

from . import bombs
from .arena import Arena, Gateway, until
from .fault import Unmet, fault
from .pictures import PHOTO
from .process import descendants
from .wire import Answer

_GROWTH_MB = 60.0
_GIVE_UP_MB = 300.0  # of growth: then the gateway is killed, for the sake of this machine
_ANSWER_S = 0.3
_WORKERS = 2
_REFUSED = (413, 422)
WEBP = encoded(picture(), "WEBP")


class _Growth:
    """Peak memory of a gateway beyond what it had at the start, in MB."""

    def __init__(self, gateway: Gateway) -> None:
        self._status = Path(f"/proc/{gateway.pid}/status")
        with suppress(OSError):
            Path(f"/proc/{gateway.pid}/clear_refs").write_text("5")  # the peak starts again from what is resident
        self._before = self._read("VmRSS")
        self.mb = 0.0

    def _read(self, field: str) -> int:
        with suppress(OSError, StopIteration):
            return int(
                next(line for line in self._status.read_text().splitlines() if line.startswith(field)).split()[1]
            )
        return 0

    def look(self) -> float:
        """The growth so far."""
        self.mb = max(self.mb, (self._read("VmHWM") - self._before) * 1024 / 1e6)
        return self.mb


@asynccontextmanager
async def _watched(gateway: Gateway) -> AsyncIterator[_Growth]:
    """Measures the gateway's growth, and kills a gateway that grows and grows."""
    growth = _Growth(gateway)

    async def watch() -> None:
        while growth.look() < _GIVE_UP_MB:
            await asyncio.sleep(0.005)
        gateway.signal(signal.SIGKILL)

    watching = asyncio.create_task(watch())
    unmet = None
    try:
        yield growth
        growth.look()
    except Unmet as reason:
        unmet = str(reason)
    finally:
        watching.cancel()
    if growth.mb > _GROWTH_MB:
        raise Unmet(f"{unmet + '; ' if unmet else ''}the gateway grew by {growth.mb:.0f} MB")
    if unmet:
        raise Unmet(unmet)


async def _warm(arena: Arena, **settings: object) -> Gateway:
    """A gateway whose libraries and workers have all worked before."""
    gateway = await arena.gateway(**settings)
    for photo in (PHOTO, WEBP):
        (await gateway.ask("POST", "/depth", photo)).expect(200)
    await until(lambda: len(workers_of(gateway)) == _WORKERS, 10.0, "the workers")
    return gateway


async def _refused(arena: Arena, files: Mapping[str, Callable[[], bytes]]) -> str:
    """Every file is refused in time, and the gateway serves on."""
    gateway = await _warm(arena)
    slowest, bodies = 0.0, {name: make() for name, make in files.items()}
    async with _watched(gateway) as growth:
        for name, body in bodies.items():
            try:
                answer = await gateway.ask("POST", "/depth", body, timeout_s=10.0)
                answer.expect(*_REFUSED)
            except Unmet as reason:
                raise Unmet(f"{name}: {reason}") from None
            if answer.seconds > arena.limit(_ANSWER_S):
                raise Unmet(f"{name}: {answer.seconds * 1e3:.0f} ms")
            slowest = max(slowest, answer.seconds)
    (await gateway.ask("POST", "/depth", PHOTO)).expect(200)
    return f"{len(bodies)} refused, slowest {slowest * 1e3:.0f} ms, +{growth.mb:.0f} MB"


@fault(
    "F14a",
    "PNG 900 Mpx, TIFF 625 Mpx, GIF 65,535 squared, WebP 144 Mpx, PNG 100,000 px wide",
    expected="413 or 422 within 300 ms, the gateway grows by less than 60 MB, and serves on",
    without="header-limits",
    fast=True,
)
async def bombs_of_pixels(arena: Arena) -> str:
    return await _refused(
        arena,
        {
            "PNG 100,000 px wide": lambda: bombs.png(100_000, 400),
            "TIFF 625 Mpx": lambda: bombs.tiff(25_000, 25_000),
            "PNG 900 Mpx": lambda: bombs.png(30_000, 30_000, bits=1),
            "WebP 144 Mpx": lambda: bombs.webp(12_000, 12_000),
            "GIF 65,535 squared": lambda: bombs.gif(65_535, 65_535),
        },
    )


@fault(
    "F14b",
    "sizes that lie: a header of 2^31, a second header, a tile, a frame beyond its screen",
    expected="413 or 422 within 300 ms, the gateway grows by less than 60 MB, and serves on",
    without="header-limits",
)
async def sizes_that_lie(arena: Arena) -> str:
    return await _refused(
        arena,
        {
            "frame beyond the screen": lambda: bombs.gif_reaching(30_000, 9_000),
            "TIFF tile of 32,000 squared": lambda: bombs.tiff(8, 8, tile=32_000),
            "second PNG header": lambda: bombs.png_twice(30_000, 30_000),
            "PNG header of 2^31": lambda: bombs.png_claiming(2**31 - 1, 2**31 - 1),
        },
    )


@fault(
    "F15a",
    "JPEG of 1,000 scans, APNG without end, GIF without end, a text of 60 MB in a PNG",
    expected="413 or 422 within 300 ms, the gateway grows by less than 60 MB, and serves on",
    without="header-limits",
    fast=True,
)
async def bombs_of_time(arena: Arena) -> str:
    return await _refused(
        arena,
        {
            "zTXt of 60 MB": lambda: bombs.png_text(60_000_000),
            "APNG of 2^31 frames": lambda: bombs.apng(2**31 - 1),
            "APNG of 30,000 frames": lambda: bombs.apng(30_000, 30_000),
            "GIF of 20,000 frames": lambda: bombs.gif(8, 8, frames=20_000),
            "JPEG of 1,000 scans": lambda: bombs.jpeg(6000, 6000, 1000),
        },
    )


@fault(
    "F15b",
    "JPEG of 36 Mpx and 90 scans: within every limit, seconds to decode",
    expected="422 once its 0.3 s of processor time are over; photos meanwhile 200; the worker is replaced",
    without="killable-decoding",
)
async def within_every_limit(arena: Arena) -> str:
    bomb = bombs.jpeg(6000, 6000, 90)
    gateway = await _warm(arena, decode_cpu_s=0.3)
    workers = workers_of(gateway)
    async with _watched(gateway) as growth:
        costly = asyncio.create_task(gateway.ask("POST", "/depth?size=image&edges=sharp", bomb))
        meanwhile = 0
        try:
            while not costly.done():
                for photo in (PHOTO, WEBP):
                    (await gateway.ask("POST", "/depth", photo)).expect(200)
                    meanwhile += 1
            answer = (await costly).expect(422, code="too_costly_image")
        finally:
            costly.cancel()
    if answer.seconds > arena.limit(3.0):
        raise Unmet(f"refused after {answer.seconds:.1f} s")

    def replaced() -> bool:
        now = workers_of(gateway)
        return len(now) == _WORKERS and now != workers

    replaced_s = await until(replaced, 5.0, "a new worker")
    return (
        f"422 after {answer.seconds * 1e3:.0f} ms, {meanwhile} photos served meanwhile, +{growth.mb:.0f} MB, "
        f"replaced within {replaced_s * 1e3:.0f} ms"
    )


def _bytes_of(format: str, **options: object) -> bytes:
    return encoded(picture(), format, **options)


def _heic() -> bytes:
    return b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)


@fault(
    "F16",
    "cut off, zero bytes, PPM, ICO, EPS, PSD, SVG, HEIC, PDF, TGA, text; names and types that lie; JPEG and ZIP in one",
    expected="400, 415, or 200 with nothing of the upload's own bytes",
    without="allowlist",
)
async def odd_files(arena: Arena) -> str:
    gateway = await arena.gateway()
    tail = b"PK\x03\x04 not a picture any more"
    table: list[tuple[str, bytes, str, tuple[int, ...], str | None]] = [
        ("JPEG cut off", _bytes_of("JPEG")[:700], "image/jpeg", (400,), "truncated_image"),
        ("PNG cut off", _bytes_of("PNG")[:150], "image/png", (400,), "truncated_image"),
        ("WebP cut off", WEBP[:100], "image/webp", (400,), None),
        ("nothing", b"", "image/png", (400,), "empty_body"),
        ("zeros", bytes(4096), "image/png", (415,), "not_an_image"),
        ("PPM", _bytes_of("PPM"), "image/png", (415,), "unsupported_format"),
        ("ICO", _bytes_of("ICO"), "image/png", (415,), "unsupported_format"),
        ("EPS", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "image/jpeg", (415,), "unsupported_format"),
        ("PSD", b"8BPS\0\1" + bytes(32), "image/jpeg", (415,), "unsupported_format"),
        ("SVG", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/png", (415,), "unsupported_format"),
        ("HEIC", _heic(), "image/heic", (400, 415), None),
        ("PDF", b"%PDF-1.7\n", "image/png", (415,), "unsupported_format"),
        ("TGA", _bytes_of("TGA"), "image/png", (415,), None),
        ("text", b"hello", "image/png", (415,), "not_an_image"),
        ("PNG called JPEG", PHOTO, "image/jpeg", (200,), None),
        ("JPEG and ZIP", _bytes_of("JPEG") + tail, "image/jpeg", (200,), None),
    ]
    for name, body, kind, statuses, code in table:
        try:
            answer = await gateway.ask("POST", "/focus?rx=0.5&ry=0.5", body, {"Content-Type": kind})
            answer.expect(*statuses, code=code)
        except Unmet as reason:
            raise Unmet(f"{name}: {reason}") from None
        if answer.status == 200 and (tail in answer.body or body[:200] in answer.body):
            raise Unmet(f"{name}: the upload's own bytes came back")
    return f"{len(table)} of {len(table)} as documented"


def _turned(orientation: int) -> Image.Image:
    """How a camera stores the picture for that orientation to show it upright."""
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's Transpose
    upright = picture(96, 64)
    return upright if orientation == 1 else upright.transpose(Image.Transpose(undo[orientation]))


def _shows_the_person(answer: Answer) -> bool:
    """Whether the picture of 96 x 64 has its red person where it stands, and nowhere else."""
    image = Image.open(io.BytesIO(answer.body)).convert("RGB")
    red = np.asarray(image).astype(int) @ (1, -1, 0) > 90
    return image.size == (96, 64) and bool(red[36:40, 68:76].all()) and not red[:, :40].any()


@fault(
    "F17",
    "orientations 1 to 8, CMYK, 16 bits, palette with alpha, ICC profile, animations, 1 x 1, 1 x 65,535",
    expected="200, upright and in its own size; of an animation the first frame",
    without="orientation",
)
async def odd_photos(arena: Arena) -> str:
    gateway = await arena.gateway(max_side_px=65_535)
    checked = 0
    for format in ("JPEG", "TIFF", "WEBP", "PNG"):
        for orientation in range(1, 9):
            exif = Image.Exif()
            exif[0x0112] = orientation
            photo = encoded(_turned(orientation), format, exif=exif)
            answer = (await gateway.ask("POST", "/focus?rx=0.2&ry=0.5&blur=0&format=png", photo)).expect(200)
            if not _shows_the_person(answer):
                raise Unmet(f"{format} with orientation {orientation} is not upright")
            checked += 1
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    frames = [picture(), *(Image.new("RGB", (96, 64), (0, 0, level)) for level in (80, 160))]
    several = {"save_all": True, "append_images": frames[1:]}
    same = {
        "ICC": encoded(picture(), "JPEG", icc_profile=profile, quality=95),
        "animated WebP": encoded(frames[0], "WEBP", lossless=True, **several),
        "animated PNG": encoded(frames[0], "PNG", **several),
        "animated GIF": encoded(frames[0], "GIF", **several),
        "TIFF of pages": encoded(frames[0], "TIFF", **several),
        "palette with alpha": encoded(picture().convert("P"), "PNG", transparency=bytes([255] * 256)),
        "CMYK": encoded(picture().convert("CMYK"), "TIFF"),
    }
    for name, photo in same.items():
        answer = (await gateway.ask("POST", "/focus?rx=0.2&ry=0.5&blur=0&format=png", photo)).expect(200)
        if not _shows_the_person(answer):
            raise Unmet(f"{name} shows something else")
        checked += 1
    gray = Image.fromarray(np.tile(np.linspace(0, 65_535, 96).astype(np.uint16), (64, 1)))
    sizes = {"16 bits": (encoded(gray), (96, 64)), "1 x 1": (encoded(picture(1, 1)), (1, 1))}
    sizes["1 x 65,535"] = encoded(Image.new("L", (1, 65_535))), (1, 65_535)
    for name, (photo, size) in sizes.items():
        answer = (await gateway.ask("POST", "/depth", photo)).expect(200)
        if Image.open(io.BytesIO(answer.body)).size != size:
            raise Unmet(f"{name}: a depth map of another size")
        checked += 1
    return f"{checked} of {checked} right"


def workers_of(gateway: Gateway) -> list[int]:
    """The processes that decode: grandchildren of the gateway."""
    nurseries = {pid for pid in descendants(gateway.pid) if _parent(pid) == gateway.pid}
    return sorted(pid for pid in descendants(gateway.pid) if _parent(pid) in nurseries)


def _parent(pid: int) -> int:
    with suppress(OSError, ValueError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def _busy(used: dict[int, int]) -> int | None:
    """The process that has used 100 ms of processor time since `used`, and three times that of any other."""
    spent = sorted((_ticks(pid) - before, pid) for pid, before in used.items())
    (second, _), (most, pid) = spent[-2:]
    return pid if most >= max(os.sysconf("SC_CLK_TCK") / 10, 3 * second) else None


def _ticks(pid: int) -> int:
    with suppress(OSError, ValueError, IndexError):
        return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return 0


@fault(
    "F26a",
    "kill -9 of the process that is decoding a photo",
    expected="one 503 with Retry-After; the photos beside it and after it 200",
    without="killable-decoding",
    fast=True,
)
async def decoder_killed(arena: Arena) -> str:
    gateway = await _warm(arena)
    slow = bombs.jpeg(5000, 5000, 90)
    workers = workers_of(gateway)
    used = {pid: _ticks(pid) for pid in (gateway.pid, *workers)}
    job = asyncio.create_task(gateway.ask("POST", "/depth?edges=sharp", slow))
    found: list[int] = []

    def decoding() -> bool:
        pid = _busy(used)
        found.extend([pid] if pid else [])
        return bool(found)

    await until(decoding, 20.0, "a process that decodes")
    beside = asyncio.create_task(gateway.ask("POST", "/depth", PHOTO))
    os.kill(found[0], signal.SIGKILL)
    answer, _ = await asyncio.gather(job, beside)
    answer.expect(503, code="decoder_unavailable")
    if "retry-after" not in answer.headers:
        raise Unmet("no Retry-After")
    (await beside).expect(200)
    after = await gateway.ask("POST", "/depth", WEBP)
    after.expect(200)
    await until(lambda: len(workers_of(gateway)) == _WORKERS, 5.0, "as many workers as before")
    return f"503, the next photo 200 after {after.seconds * 1e3:.0f} ms"


@fault(
    "F26b",
    "a photo that takes more memory to decode than a worker may have",
    expected="422, the gateway grows by less than 60 MB, the next photo 200",
    without="killable-decoding",
)
async def decoder_out_of_memory(arena: Arena) -> str:
    gateway = await _warm(arena, decode_memory_bytes=100_000_000)
    async with _watched(gateway) as growth:
        answer = await gateway.ask("POST", "/depth?edges=sharp", bombs.tiff(6000, 8000))
        answer.expect(422, code="too_costly_image")
    (await gateway.ask("POST", "/depth", WEBP)).expect(200)
    return f"422 after {answer.seconds * 1e3:.0f} ms, +{growth.mb:.0f} MB, then 200"
