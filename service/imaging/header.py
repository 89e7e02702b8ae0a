"""What the first bytes of a picture say: format, displayed size, orientation; checked against limits before any decode.

The format comes from the magic bytes alone, never from a name or a Content-Type, and Pillow is only ever asked for that
one format. Sizes are those of the displayed picture, EXIF orientation applied.
"""

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from PIL import Image

from service.imaging.camera import read_focal_share
from service.imaging.errors import DamagedImage, ImageError, ImageTooLarge, TruncatedImage
from service.imaging.formats import MIME
from service.imaging.structure import Limits, Structure, check_size, late_exif, survey

# The limits below are checked on every header, so Pillow's own process-wide one would only add a warning.
Image.MAX_IMAGE_PIXELS = None

ORIENTATION_TAG: Final = 0x0112

_PILLOW_NAME = {name: "HEIF" if name == "heic" else name.upper() for name in MIME}
_CUT_OFF = ("truncated", "not enough", "too short", "unexpected end", "end of file", "no more data")


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What is known of a picture without decoding it.

    `width` and `height` are of the displayed picture; `orientation` is the EXIF value 1..8 that turns the stored one
    into it. `frames` is 1 for a still picture; of an animation or a multi-page file the number its header states, or 2
    where only walking the whole file would tell (GIF, TIFF, MPO). `focal_share` is the focal length that EXIF states,
    as a share of the longer side, None without one.
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
    focal_share: float | None = None

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
    if name == "png" and "exif" not in image.info and (block := late_exif(data, Limits())) is not None:
        image.info["exif"] = block
    return image


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


def inspect(data: bytes, limits: Limits | None = None, structure: Structure | None = None) -> ImageHeader:
    """Read the header of a picture and hold it against `limits`; no pixel is decoded.

    Args:
        data: the whole file.
        limits: the largest picture to accept; `Limits()` when None.
        structure: what `survey` said of the same bytes and limits; when None it is asked first.

    Raises:
        NotAnImage: the bytes start like no picture.
        UnsupportedFormat: a kind of picture that is not read here.
        EmptyImage: no bytes or no pixels.
        ImageTooLarge: over a limit, known from the header alone.
        TruncatedImage, DamagedImage: a header that ends early or contradicts itself.
    """
    limits = limits or Limits()
    name = (structure or survey(data, limits)).format
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
        check_size(int(tags.get(323, 1)), int(tags.get(322, 1)), limits)
    check_size(height, width, limits)
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
        focal_share=read_focal_share(data if name == "tiff" else _exif_block(image), (height, width)),
    )


def _exif_block(image: Image.Image) -> bytes:
    block = image.info.get("exif")
    return block if isinstance(block, bytes) else b""
