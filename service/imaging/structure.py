"""How a file is built, by the lengths and counts it states: sizes, frames, scans, blocks; nothing is decoded.

Read by a few lines of our own per format before any library sees the bytes. Each is bounded in steps and in memory
whatever the bytes say, so that 64 MiB of hostile ones cost milliseconds: lengths are followed, never searched for, and
a file cut into more pieces than any encoder would make is refused. What these parsers do not understand they leave to
the decoder. They also draw the one line between files: an `ordinary` one may be decoded in the caller's own process,
anything else belongs into a process that can be killed.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from service.imaging.errors import EmptyImage, ImageTooLarge, UnsupportedFormat
from service.imaging.formats import sniff

ORDINARY_PIXELS: Final = 4_000_000
"""Pixels up to which a file can be ordinary: decoding takes 10 bytes for each, hence 40 MB, and cannot be stopped. What
another process costs is 2 to 4 ms by megapixel (docs/results/decoding.md)."""
ORDINARY_SCANS: Final = 20
"""Scans of an ordinary JPEG, of which the progressive scripts in use have 8 to 12: 1.2 ns by pixel and scan, 0.1 s."""
_ORDINARY_METADATA_BYTES: Final = 64 * 1024
_ORDINARY_COMPRESSED_BYTES: Final = 4 * 1024
"""Of a PNG's deflated texts: they may be a thousand times as long unpacked."""

_SOF_READ = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}  # baseline, extended, progressive; Huffman and arithmetic
_SOF_HUFFMAN = {0xC0, 0xC1, 0xC2}
_SOF_OTHER = {0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF}  # lossless and hierarchical
_JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_JPEG_MOST_JUNK: Final = 64 * 1024  # between two segments; what is behind more is the decoder's business
_WINDOW_BYTES: Final = 1 << 20
_JPEG_FILL = b"\xff" * 4096
_JPEG_TABLES = {0xC4, 0xCC, 0xDB, 0xDD, 0xFE}  # Huffman, arithmetic, quantisation, restart interval; comment
_JPEG_APPS = (  # segment and how its payload starts; MPF, FlashPix and the rest are not ordinary
    (0xE0, (b"JFIF\0", b"JFXX\0")),
    (0xE1, (b"Exif\0", b"http://ns.adobe.com/")),
    (0xE2, (b"ICC_PROFILE\0",)),
    (0xEE, (b"Adobe",)),
)
_PNG_PLAIN = {
    *(b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"bKGD", b"pHYs"),
    *(b"tIME", b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"hIST", b"cICP"),
}
_PNG_DEFLATED = {b"zTXt", b"iTXt", b"iCCP"}
_APNG_MOST_FRAMES: Final = 0x8000_0000  # beyond it the chunk is void, and the file a plain PNG
_TIFF_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}
_TIFF_SIZES = ((256, 257), (322, 323))  # the picture's and its tiles' (width, height)
_ISPE_SEARCHED_BYTES: Final = 1 << 20  # the boxes that describe an AVIF or HEIC precede its pixels
_ISPE = re.compile(rb"ispe\0\0\0\0(.{8})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a file may state.

    `max_jpeg_scans`: pixels do not bound the cost of a progressive JPEG, scans do; libjpeg-turbo's report on the
    standard's weaknesses (2016) advises a limit, and no real picture was found to need more than 100.
    `max_frames`: only the first is ever decoded; more than this is no animation somebody made.
    `max_blocks`: chunks of a PNG, segments of a JPEG, frames and chunks of a WebP: a 64 MiB PNG in pieces of 8 KiB, as
    libpng writes them, has 8,192.
    """

    max_pixels: int = 50_000_000
    max_side: int = 65_535
    max_jpeg_scans: int = 100
    max_frames: int = 10_000
    max_blocks: int = 20_000


@dataclass(frozen=True, slots=True)
class Structure:
    """What a file states about itself.

    `format`: a key of `MIME`, from the magic bytes. `sizes`: every (height, width), of the picture, its frames and its
    tiles; the first is the picture's own, as stored; none where the parser did not find it. `frames`: how many
    pictures, at least, 1 where nothing says. `scans`: of a JPEG; exact above the limit, an upper bound below.
    `ordinary`: may be decoded beside other work.
    """

    format: str
    sizes: tuple[tuple[int, int], ...] = ()
    frames: int = 1
    scans: int = 0
    ordinary: bool = False


def survey(data: bytes, limits: Limits) -> Structure:
    """Read the structure of a file and hold it against `limits`.

    Raises:
        NotAnImage, EmptyImage: as `sniff`.
        ImageTooLarge: too many pixels, scans, frames or pieces, or a side too long.
        UnsupportedFormat: a format that is not read, or a JPEG of an unusual kind.
    """
    found = _SURVEYORS[sniff(data)](data, limits)
    for height, width in found.sizes:
        if height and width:  # where there is none, the decoder may know better
            check_size(height, width, limits)
    if found.scans > limits.max_jpeg_scans:
        raise ImageTooLarge(
            f"The JPEG is cut into {found.scans} scans, more than {limits.max_jpeg_scans}; save it anew.",
            code="too_many_scans",
            value=found.scans,
            limit=limits.max_jpeg_scans,
        )
    if found.frames > limits.max_frames:
        raise ImageTooLarge(
            f"The {found.format.upper()} states more than {limits.max_frames} frames; send one of them.",
            code="too_many_frames",
            value=found.frames,
            limit=limits.max_frames,
        )
    return found


def check_size(height: int, width: int, limits: Limits) -> None:
    """ImageTooLarge or EmptyImage when a picture of this size is not accepted."""
    if height < 1 or width < 1:
        raise EmptyImage(f"The header declares {width} x {height} pixels; send a picture with at least one.")
    if height * width > limits.max_pixels:
        raise ImageTooLarge(
            f"The picture has {width} x {height} = {height * width} pixels, more than {limits.max_pixels}; shrink it.",
            value=height * width,
            limit=limits.max_pixels,
        )
    if max(height, width) > limits.max_side:
        raise ImageTooLarge(
            f"The picture's longer side has {max(height, width)} pixels, more than {limits.max_side}; shrink it.",
            code="image_too_long",
            value=max(height, width),
            limit=limits.max_side,
        )


def _too_many_blocks(name: str, limit: int) -> ImageTooLarge:
    return ImageTooLarge(
        f"The {name} is cut into more than {limit} pieces; save it anew.", code="too_many_blocks", limit=limit
    )


def _jpeg_segments(data: bytes, limits: Limits, at: int, most_between: int) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end of its payload) up to the end of the image, with at most so many bytes between two."""
    for _ in range(limits.max_blocks):
        found = _JPEG_MARKER.search(data, at, at + most_between)
        if found is None or data[found.start() + 1] == 0xD9:
            return
        marker, start = data[found.start() + 1], found.end()
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # stand alone
            at = start
            yield marker, start, start
            continue
        at = start + max(2, int.from_bytes(data[start : start + 2], "big"))
        yield marker, start + 2, at
    raise _too_many_blocks("JPEG", limits.max_blocks)


def _jpeg(data: bytes, limits: Limits) -> Structure:
    sizes, ordinary, end, metadata = [], True, 2, 0
    for marker, start, stop in _jpeg_segments(data, limits, 2, _JPEG_MOST_JUNK):
        if marker in _SOF_READ or marker in _SOF_OTHER:
            if start + 6 > len(data):
                break
            precision, height, width, components = struct.unpack_from(">BHHB", data, start)
            if marker in _SOF_OTHER or precision != 8:
                kind = f"{precision}-bit" if marker in _SOF_READ else "lossless or hierarchical"
                raise UnsupportedFormat(f"This JPEG is {kind}; send a plain 8-bit one.", value=f"SOF{marker - 0xC0}")
            sizes.append((height or 1, width))  # a height of 0 is told behind the pixels
            ordinary &= height > 0 and marker in _SOF_HUFFMAN and components in (1, 3)
        elif marker not in _JPEG_TABLES and marker != 0xDA:
            starts = next((starts for app, starts in _JPEG_APPS if app == marker), ())
            ordinary &= data.startswith(starts, start) if starts else marker == 0xED
            metadata += stop - start
        ordinary &= start - 4 == end  # no bytes between segments: Pillow would go through them one by one
        end = stop
        if marker == 0xDA:
            break
    else:
        return Structure("jpeg", tuple(sizes))
    scans = _jpeg_scans(data, end, limits)
    ordinary &= len(sizes) == 1 and 1 <= scans <= ORDINARY_SCANS and metadata <= 2 * _ORDINARY_METADATA_BYTES
    return Structure("jpeg", tuple(sizes), scans=scans, ordinary=ordinary and _small(sizes))


def _jpeg_scans(data: bytes, start: int, limits: Limits) -> int:
    """Scans from the end of the first one's header: exact above the limit, an upper bound below."""
    rough = 1
    for at in range(start, len(data), _WINDOW_BYTES):
        rough += data.count(b"\xff\xda", at, at + _WINDOW_BYTES + 1)
        if rough > limits.max_jpeg_scans:
            break
    else:  # chance pairs behind the picture are counted, too: never too low
        return rough
    if data.find(_JPEG_FILL, start) >= 0:  # nobody pads like that, and it would have to be gone through
        raise _too_many_blocks("JPEG", limits.max_blocks)
    return 1 + sum(marker == 0xDA for marker, _, _ in _jpeg_segments(data, limits, start, len(data)))


def _small(sizes: list[tuple[int, int]]) -> bool:
    return all(height * width <= ORDINARY_PIXELS for height, width in sizes)


def _png(data: bytes, limits: Limits) -> Structure:
    sizes: list[tuple[int, int]] = []
    frames, metadata, deflated = 1, 0, 0
    plain = data[12:16] == b"IHDR"
    for kind, start, stop in _png_chunks(data, limits):
        if kind == b"IHDR" and len(data) >= start + 13:
            width, height, bits, _, compression, filters, _ = struct.unpack_from(">IIBBBBB", data, start)
            plain &= not sizes and bits <= 8 and compression == filters == 0
            sizes.append((height, width))
        elif kind == b"acTL":
            stated = int.from_bytes(data[start : start + 4], "big")
            frames = max(frames, stated) if stated <= _APNG_MOST_FRAMES else frames
        elif kind == b"fcTL" and len(data) >= start + 12:
            width, height = struct.unpack_from(">4xII", data, start)
            sizes.append((height, width))
        plain &= kind in _PNG_PLAIN
        if kind in _PNG_DEFLATED:
            deflated += stop - start
        if kind != b"IDAT":
            metadata += stop - start
    plain &= deflated <= _ORDINARY_COMPRESSED_BYTES and metadata <= _ORDINARY_METADATA_BYTES
    return Structure("png", tuple(dict.fromkeys(sizes)), frames, ordinary=plain and bool(sizes) and _small(sizes))


def _png_chunks(data: bytes, limits: Limits) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end of its payload) up to the end of the image."""
    at = 8
    for _ in range(limits.max_blocks):
        if at + 8 > len(data):
            return
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        yield kind, at + 8, at + 8 + length
        if kind == b"IEND":
            return
        at += 12 + length
    raise _too_many_blocks("PNG", limits.max_blocks)


def late_exif(data: bytes, limits: Limits) -> bytes | None:
    """The EXIF block of a PNG wherever it stands: Pillow reads one behind the pixels only by decoding them."""
    for kind, start, stop in _png_chunks(data, limits):
        if kind == b"eXIf":
            return b"Exif\0\0" + data[start:stop]
    return None


def _gif(data: bytes, limits: Limits) -> Structure:
    if len(data) < 13:
        return Structure("gif")
    width, height = struct.unpack_from("<HH", data, 6)
    sizes = [(height, width)]
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    blocks = limits.max_blocks + len(data) // 128  # full ones have 255 bytes, of every frame the last fewer
    frames = 0
    while at + 1 < len(data) and data[at] in b"!," and frames <= limits.max_frames:
        blocks -= 1
        if data[at] == 0x2C:
            if at + 10 > len(data):
                break
            left, top, width, height, flags = struct.unpack_from("<HHHHB", data, at + 1)
            if not frames:  # the first frame may reach beyond the screen
                sizes.append((top + height, left + width))
            frames += 1
            at += 11 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
        else:
            at += 2
        while at < len(data) and data[at]:
            at += data[at] + 1
            blocks -= 1
            if blocks < 0:
                raise _too_many_blocks("GIF", limits.max_blocks + len(data) // 128)
        at += 1
    return Structure("gif", tuple(sizes), max(1, frames))


def _bmp(data: bytes, limits: Limits) -> Structure:
    if len(data) < 26:
        return Structure("bmp")
    if int.from_bytes(data[14:18], "little") == 12:  # OS/2
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return Structure("bmp", ((abs(height), abs(width)),))


def _webp(data: bytes, limits: Limits) -> Structure:
    sizes: list[tuple[int, int]] = []
    frames, at = 0, 12
    for _ in range(limits.max_blocks):
        kind, start = data[at : at + 4], at + 8
        if start + 10 > len(data):
            return Structure("webp", tuple(sizes), max(1, frames))
        if kind == b"VP8X":  # its decoder reserves the canvas as soon as it is opened
            sizes.append((1 + _uint24(data, start + 7), 1 + _uint24(data, start + 4)))
        elif kind == b"VP8 " and data[start + 3 : start + 6] == b"\x9d\x01\x2a":
            width, height = struct.unpack_from("<HH", data, start + 6)
            sizes.append((height & 0x3FFF, width & 0x3FFF))
        elif kind == b"VP8L" and data[start] == 0x2F:
            packed = int.from_bytes(data[start + 1 : start + 5], "little")
            sizes.append((1 + (packed >> 14 & 0x3FFF), 1 + (packed & 0x3FFF)))
        elif kind == b"ANMF":
            frames += 1
        at = start + int.from_bytes(data[at + 4 : start], "little")
        at += at & 1
    raise _too_many_blocks("WebP", limits.max_blocks)


def _uint24(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 3], "little")


def _tiff(data: bytes, limits: Limits) -> Structure:
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    try:
        (at,) = struct.unpack_from(f"{order}Q" if big else f"{order}I", data, 8 if big else 4)
        (count,) = struct.unpack_from(f"{order}Q" if big else f"{order}H", data, min(at, len(data)))
    except struct.error:
        return Structure("tiff")
    entry = struct.Struct(f"{order}HHQ8s" if big else f"{order}HHI4s")
    at += 8 if big else 2
    tags: dict[int, int] = {}
    for index in range(min(count, limits.max_blocks)):
        if at + (index + 1) * entry.size > len(data):
            break
        tag, kind, number, value = entry.unpack_from(data, at + index * entry.size)
        if number == 1 and kind in _TIFF_TYPES and struct.calcsize(_TIFF_TYPES[kind]) <= len(value):
            tags.setdefault(tag, struct.unpack_from(order + _TIFF_TYPES[kind], value)[0])
    # Tiles are decoded one by one into buffers of their own stated size.
    sizes = tuple((tags[height], tags[width]) for width, height in _TIFF_SIZES if width in tags and height in tags)
    return Structure("tiff", sizes)


def _avif(data: bytes, limits: Limits) -> Structure:
    """The size of every item (ISO/IEC 23008-12, `ispe`), of which the largest is the picture's."""
    found = {struct.unpack(">II", match[1]) for match in _ISPE.finditer(data, 0, _ISPE_SEARCHED_BYTES)}
    sizes = sorted(((height, width) for width, height in found), key=lambda size: -size[0] * size[1])
    return Structure("avif", tuple(sizes))


def _heic(data: bytes, limits: Limits) -> Structure:
    return Structure("heic", _avif(data, limits).sizes)


_SURVEYORS: Final = {
    "jpeg": _jpeg,
    "png": _png,
    "gif": _gif,
    "bmp": _bmp,
    "webp": _webp,
    "tiff": _tiff,
    "avif": _avif,
    "heic": _heic,
}
