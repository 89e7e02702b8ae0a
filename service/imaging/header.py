"""What the first bytes of a picture say: format, displayed size, orientation; checked against limits before any decode.

The format comes from the magic bytes alone, never from a name or a Content-Type, and Pillow is only ever asked for that
one format. Sizes are those of the displayed picture, EXIF orientation applied.
"""

import io
import re
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from PIL import Image

from service.imaging.errors import (
    DamagedImage,
    EmptyImage,
    ImageError,
    ImageTooLarge,
    TruncatedImage,
    UnsupportedFormat,
)
from service.imaging.formats import MIME, sniff

# The limits below are checked on every header, so Pillow's own process-wide one would only add a warning.
Image.MAX_IMAGE_PIXELS = None

ORIENTATION_TAG: Final = 0x0112

_PILLOW_NAME = {name: "HEIF" if name == "heic" else name.upper() for name in MIME}
_SOF_READ = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}  # baseline, extended, progressive; Huffman and arithmetic
_SOF_OTHER = {0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF}  # lossless and hierarchical
_MOST_CHUNKS = 20_000  # of a PNG that are walked through; a real one has a chunk for every 8 to 64 KiB
_CUT_OFF = ("truncated", "not enough", "too short", "unexpected end", "end of file", "no more data")
_JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a header may promise.

    `max_jpeg_scans`: pixels do not bound the cost of a progressive JPEG, scans do; libjpeg-turbo's report on the
    standard's weaknesses (2016) advises a limit, and no real picture was found to need more than 100.
    """

    max_pixels: int = 50_000_000
    max_side: int = 65_535
    max_jpeg_scans: int = 100


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What is known of a picture without decoding it.

    `width` and `height` are of the displayed picture; `orientation` is the EXIF value 1..8 that turns the stored one
    into it. `frames` is 1 for a still picture; of an animation or a multi-page file the number its header states, or 2
    where only walking the whole file would tell (GIF, TIFF, MPO).
    """

    format: str
    mime: str
    width: int
    height: int
    orientation: int
    mode: str
    bit_depth: int
    frames: int
    has_alpha: bool
    has_icc: bool

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) as displayed."""
        return self.height, self.width


class _Quiet:
    """Silences Pillow's and tifffile's warnings for as long as any thread is inside.

    `warnings.catch_warnings` saves and restores process-wide state and two threads that overlap would restore each
    other's; so only the first in saves and only the last out restores.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._saved: warnings.catch_warnings[None] | None = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            self._inside += 1
            if self._saved is None:
                self._saved = warnings.catch_warnings()
                self._saved.__enter__()
                warnings.filterwarnings("ignore", module=r"(PIL|pi_heif|tifffile)\b")
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0 and self._saved is not None:
                    self._saved.__exit__(None, None, None)
                    self._saved = None


quiet = _Quiet()


def jpeg_scans(data: bytes, limit: int) -> int:
    """Number of scans (start-of-scan markers) of a JPEG; exact once above `limit`, an upper bound below it."""
    rough = data.count(b"\xff\xda")
    if (
        rough <= limit
    ):  # the cheap count also finds thumbnails and chance pairs inside metadata: too high, never too low
        return rough
    scans, at = 0, 2
    while (found := _JPEG_MARKER.search(data, at)) is not None:
        marker, at = data[found.start() + 1], found.end()
        if marker == 0xD9:  # end of image
            break
        if marker == 0xDA:
            scans += 1
        if marker != 0x01:
            at += int.from_bytes(data[at : at + 2], "big")
    return scans


def _jpeg_frame(data: bytes) -> tuple[int, int, int] | None:
    """(precision, height, width) of the frame header; None when the bytes end before it."""
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            at += 1
            continue
        marker = data[at + 1]
        if marker == 0xFF or marker <= 0x01 or 0xD0 <= marker <= 0xD8:
            at += 1 if marker == 0xFF else 2
        elif marker in _SOF_READ or marker in _SOF_OTHER:
            precision, height, width = struct.unpack_from(">BHH", data, at + 4)
            if marker in _SOF_OTHER or precision != 8:
                kind = f"{precision}-bit" if marker in _SOF_READ else "lossless or hierarchical"
                raise UnsupportedFormat(f"This JPEG is {kind}; send a plain 8-bit one.", value=f"SOF{marker - 0xC0}")
            return precision, height, width
        elif marker in (0xDA, 0xD9):
            return None
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _webp_canvas(data: bytes) -> tuple[int, int] | None:
    """(height, width) of an extended WebP's canvas: its decoder reserves it as soon as it is opened."""
    if data[12:16] != b"VP8X" or len(data) < 30:
        return None
    return 1 + int.from_bytes(data[27:30], "little"), 1 + int.from_bytes(data[24:27], "little")


def _check_size(height: int, width: int, limits: Limits) -> None:
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


def _ends_early(data: bytes, name: str) -> bool:
    """True when a length written in the file itself points past the last byte."""
    if name == "png":
        at = 8
        while at + 8 <= len(data):
            if data[at + 4 : at + 8] == b"IEND":
                return False
            at += 12 + int.from_bytes(data[at : at + 4], "big")
        return True
    if name == "webp":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if name == "jpeg":
        return data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda") or b"\xff\xda" not in data
    if name == "gif":
        return not data.rstrip(b"\0").endswith(b";")
    return name == "bmp" and len(data) > 6 and int.from_bytes(data[2:6], "little") > len(data)


def damaged(data: bytes, name: str, reason: BaseException) -> ImageError:
    """The error for a picture that its decoder gave up on; `reason` decides between cut off and contradictory."""
    words = str(reason).lower()
    cut = isinstance(reason, EOFError) or any(phrase in words for phrase in _CUT_OFF)
    if cut or _ends_early(data, name):
        return TruncatedImage(
            f"The {name.upper()} ends after {len(data)} bytes, before its last pixel; send the whole file.",
            value=len(data),
        )
    return DamagedImage(
        f"The {name.upper()} cannot be decoded: it is damaged, or of an unusual kind; save it anew.", value=len(data)
    )


def open_lazily(data: bytes, name: str) -> Image.Image:
    """Pillow's view of `data` as format `name`, its pixels not decoded yet. Call inside `quiet()`."""
    try:
        image = Image.open(io.BytesIO(data), formats=(_PILLOW_NAME[name],))
    except Exception as error:  # Pillow's plugins raise nearly every built-in exception on hostile headers
        if "decompressed data too large" in str(error).lower() or "too much memory" in str(error).lower():
            raise ImageTooLarge(
                f"The {name.upper()} holds compressed text of more than a mebibyte; strip its metadata.",
                code="metadata_too_large",
            ) from error
        raise damaged(data, name, error) from error
    if name == "png" and "exif" not in image.info and (block := _late_exif(data)) is not None:
        image.info["exif"] = block
    return image


def _late_exif(data: bytes) -> bytes | None:
    """The EXIF chunk of a PNG wherever it stands: Pillow reads one behind the pixels only by decoding them."""
    at = 8
    for _ in range(_MOST_CHUNKS):
        if at + 8 > len(data):
            return None
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind == b"eXIf":
            return b"Exif\0\0" + data[at + 8 : at + 8 + length]
        at += 12 + length
    return None


def read_exif(image: Image.Image) -> Image.Exif:
    """The EXIF data as far as the header goes: the base class's way, since PNG's own would decode the pixels."""
    return Image.Image.getexif(image)


def stored_orientation(image: Image.Image) -> int:
    """The EXIF (or TIFF, or XMP) orientation 1..8; 1 when there is none, or none that can be read."""
    try:
        value = read_exif(image).get(ORIENTATION_TAG, 1)
    except Exception:  # broken EXIF never costs the picture
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _bit_depth(data: bytes, name: str, image: Image.Image) -> int:
    if name == "png" and len(data) > 24:
        return data[24]
    if name == "tiff":
        bits = getattr(image, "tag_v2", {}).get(258, (8,))
        return int(max(bits)) if isinstance(bits, tuple) and bits else int(bits) if isinstance(bits, int) else 8
    if name == "avif" and (at := data.find(b"av1C", 0, 8192)) > 0 and at + 7 <= len(data):
        flags = data[at + 6]  # AV1 codec configuration record: high_bitdepth, twelve_bit
        return 12 if flags & 0x20 else 10 if flags & 0x40 else 8
    return 1 if image.mode == "1" else 8


def _frames(image: Image.Image, name: str) -> int:
    if name in ("gif", "tiff") or image.format == "MPO":
        return 2 if getattr(image, "is_animated", False) else 1
    return max(1, int(getattr(image, "n_frames", 1)))


def inspect(data: bytes, limits: Limits | None = None) -> ImageHeader:
    """Read the header of a picture and hold it against `limits`; no pixel is decoded.

    Args:
        data: the whole file.
        limits: the largest picture to accept; `Limits()` when None.

    Raises:
        NotAnImage: the bytes start like no picture.
        UnsupportedFormat: a kind of picture that is not read here.
        EmptyImage: no bytes or no pixels.
        ImageTooLarge: over a limit, known from the header alone.
        TruncatedImage, DamagedImage: a header that ends early or contradicts itself.
    """
    limits = limits or Limits()
    name = sniff(data)
    if name == "jpeg" and (frame := _jpeg_frame(data)) is not None:
        _check_size(frame[1] or 1, frame[2], limits)
        if (scans := jpeg_scans(data, limits.max_jpeg_scans)) > limits.max_jpeg_scans:
            raise ImageTooLarge(
                f"The JPEG is cut into {scans} scans, more than {limits.max_jpeg_scans}; save it anew.",
                code="too_many_scans",
                value=scans,
                limit=limits.max_jpeg_scans,
            )
    if name == "webp" and (canvas := _webp_canvas(data)) is not None:
        _check_size(*canvas, limits)
    with quiet():
        image = open_lazily(data, name)
        try:
            return _describe(data, name, image, limits)
        except ImageError:
            raise
        except Exception as error:
            raise damaged(data, name, error) from error


def _describe(data: bytes, name: str, image: Image.Image, limits: Limits) -> ImageHeader:
    width, height = image.size
    if name == "tiff":  # its tiles are decoded one by one into buffers of their own stated size
        tags = getattr(image, "tag_v2", {})
        _check_size(int(tags.get(323, 1)), int(tags.get(322, 1)), limits)
    _check_size(height, width, limits)
    orientation = stored_orientation(image)
    turned = name == "tiff" and getattr(image, "tag_v2", {}).get(ORIENTATION_TAG) in (5, 6, 7, 8)
    if orientation >= 5 and not turned:  # of a TIFF with that tag Pillow already states the displayed size
        width, height = height, width
    return ImageHeader(
        format=name,
        mime=MIME[name],
        width=width,
        height=height,
        orientation=orientation,
        mode=image.mode,
        bit_depth=_bit_depth(data, name, image),
        frames=_frames(image, name),
        has_alpha=image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info,
        has_icc=bool(image.info.get("icc_profile")),
    )
