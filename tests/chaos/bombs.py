"""Small files that ask for much: pixels, scans, text, frames, sizes that lie. All valid, so that a decoder obeys."""

import io
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GIF_DOT = b"\0\0\0\0\1\0\1\0\0\2\2L\1\0"


def chunk(kind: bytes, payload: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def png(width: int, height: int, *, bits: int = 8, before: bytes = b"", after: bytes = b"") -> bytes:
    """A black gray PNG, with further chunks before and after its pixels."""
    packer = zlib.compressobj(6)
    row = bytes(1 + (width * bits + 7) // 8)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return _SIGNATURE + chunk(b"IHDR", header) + before + chunk(b"IDAT", pixels) + after + chunk(b"IEND", b"")


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of 8 x 8 whose header says otherwise."""
    data = png(8, 8)
    return _SIGNATURE + chunk(b"IHDR", struct.pack(">II", width, height) + data[24:29]) + data[33:]


def png_twice(width: int, height: int) -> bytes:
    """A PNG of 8 x 8 with a second header, which says otherwise."""
    data = png(8, 8)
    return data[:33] + chunk(b"IHDR", struct.pack(">II", width, height) + data[24:29]) + data[33:]


def tiff(width: int, height: int, *, rows: int = 1000, tile: int | None = None) -> bytes:
    """A black gray TIFF, every strip of which is the same few bytes; `tile` adds tiles of that side, and no pixels."""
    strip = zlib.compress(bytes(width * rows), 6) if tile is None else b""
    strips = height // rows
    tags = {256: width, 257: height, 258: 8, 259: 8, 262: 1, 277: 1}
    if tile is not None:
        tags |= {322: tile, 323: tile, 324: 8, 325: 64}
    entries = [(tag, 4, 1, value) for tag, value in tags.items()]
    if tile is None:
        directory = 8 + 2 + (len(entries) + 3) * 12 + 4
        offsets = [directory + 8 * strips] * strips
        entries += [(273, 4, strips, directory), (278, 4, 1, rows), (279, 4, strips, directory + 4 * strips)]
        payload = struct.pack(f"<{2 * strips}I", *offsets, *([len(strip)] * strips)) + strip
    else:
        payload = bytes(64)
    packed = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + bytes(4) + payload


def gif(width: int, height: int, *, frames: int = 1) -> bytes:
    """A GIF with that screen, and frames of one pixel."""
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + (b"," + _GIF_DOT) * frames + b";"


def gif_reaching(x: int, y: int) -> bytes:
    """A GIF of 8 x 8 whose first frame lies far outside it."""
    dot = struct.pack("<HH", x - 1, y - 1) + _GIF_DOT[4:]
    return b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0x80, 0, 0) + bytes(6) + b"," + dot + b";"


def webp(width: int, height: int) -> bytes:
    """A lossless WebP of one colour: with codes of a single symbol, pixels take no bits at all."""
    fields = [(0x2F, 8), (width - 1, 14), (height - 1, 14), (0, 1), (0, 3)]
    fields += [(0, 1), (0, 1), (0, 1)]  # no transform, no colour cache, no meta codes
    for symbol in (90, 60, 30, 255, 0):  # green, red, blue, alpha, distance: simple, one symbol, of eight bits
        fields += [(1, 1), (0, 1), (1, 1), (symbol, 8)]
    value = shift = 0
    for number, bits in fields:
        value |= number << shift
        shift += bits
    body = value.to_bytes((shift + 7) // 8 + 2, "little")
    body += bytes(len(body) % 2)
    packed = b"WEBPVP8L" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(packed)) + packed


def jpeg(width: int, height: int, scans: int) -> bytes:
    """A gray progressive JPEG with its last scan over and over."""
    buffer = io.BytesIO()
    Image.new("L", (width, height), 128).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data.rindex(b"\xff\xda")
    missing = scans - data.count(b"\xff\xda")
    return data[:-2] + data[last:-2] * missing + data[-2:]


def png_text(size: int) -> bytes:
    """A PNG with a compressed text of `size` bytes."""
    return png(8, 8, before=chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(size), 9)))


def apng(stated: int, present: int = 1) -> bytes:
    """An animated PNG that states one number of frames and has another."""
    control = struct.pack(">IIIIHHBB", 8, 8, 0, 0, 1, 10, 0, 0)
    pixels = zlib.compress(bytes(9 * 8))
    before = chunk(b"acTL", struct.pack(">II", stated, 0)) + chunk(b"fcTL", struct.pack(">I", 0) + control)
    numbers: Iterator[int] = iter(range(1, 2 * present))
    after = b"".join(
        chunk(b"fcTL", struct.pack(">I", next(numbers)) + control)
        + chunk(b"fdAT", struct.pack(">I", next(numbers)) + pixels)
        for _ in range(present - 1)
    )
    return png(8, 8, before=before, after=after)
