"""What reading a header may do with any bytes whatever, and files to start from.

Bytes are a picture within the limits, or an `ImageError` with a code; nothing else, and a size is never larger once a
library looks at the file than our own parser said, where we let it look at all.
"""

import random
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

from service.imaging.codec import Limits, inspect, survey
from service.imaging.errors import ImageError
from tests.chaos import bombs
from tests.support.fakes import encoded, picture

LIMITS = Limits(max_pixels=40_000, max_side=500, max_jpeg_scans=20, max_frames=50, max_blocks=300)


def check(data: bytes) -> str:
    """One file; returns its format, or the code it was refused with.

    Raises:
        AssertionError: a rule is broken; any other exception is a find, too.
    """
    try:
        structure = survey(data, LIMITS)
        header = inspect(data, LIMITS)
    except ImageError as error:
        if not error.code or error.field != "image":
            raise RuntimeError("an error that does not say what is wrong") from error
        return error.code
    assert header.format == structure.format, (header, structure)
    assert 0 < header.width * header.height <= LIMITS.max_pixels, header
    assert max(header.size) <= LIMITS.max_side, header
    if structure.ordinary:
        assert header.format in ("jpeg", "png"), header
        assert structure.sizes[0] in (header.size, header.size[::-1]), (header, structure)
        assert header.frames == 1, header
    return header.format


def seeds() -> list[bytes]:
    """Small files of every format and of every trick that is known."""
    photo, exif = picture(24, 16), Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    several = {"save_all": True, "append_images": [picture(24, 16).rotate(angle) for angle in (90, 180)]}
    return [
        *(encoded(photo, format, exif=exif) for format in ("JPEG", "PNG", "WEBP", "AVIF", "TIFF")),
        *(encoded(photo, format, **several) for format in ("GIF", "PNG", "WEBP", "TIFF")),
        *(encoded(photo, "TIFF", compression=kind) for kind in ("tiff_lzw", "jpeg", "tiff_deflate")),
        encoded(photo, "BMP"),
        encoded(photo, "JPEG", progressive=True, comment=b"c" * 30),
        encoded(photo.convert("P"), "PNG", transparency=3),
        encoded(photo, "WEBP", lossless=True),
        bombs.jpeg(64, 64, 30),
        bombs.png_text(2000),
        bombs.png_twice(600, 600),
        bombs.png_claiming(2**31 - 1, 5),
        bombs.apng(2**31 - 1),
        bombs.apng(3, 3),
        bombs.gif(70, 70, frames=3),
        bombs.gif_reaching(600, 70),
        bombs.tiff(8, 8, tile=600),
        bombs.tiff(30, 40, rows=20),
        bombs.webp(100, 100),
        big_tiff(),
        b"II+\0\x08\0\0\0" + b"\xff" * 20,  # a find: an offset that no C type holds
    ]


def big_tiff() -> bytes:
    """A BigTIFF of 8 x 8, uncompressed."""
    tags = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: 200, 277: 1, 278: 8, 279: 64}
    entries = b"".join(struct.pack("<HHQQ", tag, 4, 1, value) for tag, value in tags.items())
    head = b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, len(tags)) + entries + bytes(8)
    return head.ljust(200, b"\0") + bytes(64)


def mutated(count: int, seed: int = 0) -> Iterator[bytes]:
    """Seeds with bytes changed, cut out, doubled, spliced; the checksums of PNG chunks made right half of the time."""
    rng = random.Random(seed)
    sources = seeds()
    interesting = (0, 1, 0x7F, 0x80, 0xFF, 0xD8, 0xDA, 0x2C, 0x21)
    for _ in range(count):
        data = bytearray(rng.choice(sources))
        for _ in range(rng.choice((1, 1, 2, 5))):
            at = rng.randrange(min(len(data), 300) if rng.random() < 0.7 else len(data))
            kind = rng.randrange(5)
            if kind == 0:
                data[at] = rng.choice(interesting)
            elif kind == 1:
                data[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", bytes(4), b"\0\0\0\1", b"\x7f\xff\xff\xff"))
            elif kind == 2:
                del data[at : at + rng.choice((1, 4, 40, len(data)))]
            elif kind == 3:
                data[at:at] = data[at : at + rng.choice((1, 12, 60))] * rng.choice((1, 3, 40))
            else:
                data[at:] = rng.choice(sources)[at:]
            data = data or bytearray(b"\xff")
        yield _summed(bytes(data)) if rng.random() < 0.5 else bytes(data)


def _summed(data: bytes) -> bytes:
    if not data.startswith(b"\x89PNG"):
        return data
    whole, at = bytearray(data), 8
    while at + 12 <= len(whole):
        end = at + 8 + int.from_bytes(whole[at : at + 4], "big")
        if end + 4 <= len(whole):
            whole[end : end + 4] = struct.pack(">I", zlib.crc32(whole[at + 4 : end]))
        at = end + 4
    return bytes(whole)
