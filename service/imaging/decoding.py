"""Bytes to pixels: the one decode function, `codec.decode`.

Pixels are 8-bit sRGB in the displayed orientation (`colour` states the conversions); of an animation or a multi-page
file the first frame.

Pillow decodes everything: measured on 12-megapixel JPEGs it is within a fifth of OpenCV's time with the same bits out,
tells a cut-off file where OpenCV fills the rest with gray, and writes nothing to stderr.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.imaging.colour import to_rgb
from service.imaging.errors import ImageError, ImageTooCostly
from service.imaging.header import ORIENTATION_TAG, ImageHeader, damaged, inspect, open_lazily, quiet, read_exif
from service.imaging.structure import Limits

_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation to the turn that undoes it (EXIF 2.32, tag 274)."""

_KEPT_TAGS: Final = frozenset(
    {
        *(0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298),  # what, camera, software, when, who
        *(ORIENTATION_TAG, 0x011A, 0x011B, 0x0128),  # resolution
        *(0x8769, 0x8825),  # the blocks of exposure and of place
    }
)
"""EXIF tags that describe the photo. The others of a TIFF describe how its pixels lay in the file, or are its ICC
profile, and would be wrong for the answer's."""

_MAX_EXIF_BYTES = 65_000  # what one JPEG APP1 segment can carry, with some room for its own header


@dataclass(frozen=True, slots=True, eq=False)
class Photo:
    """A decoded picture.

    `pixels`: uint8 (H, W, 3), sRGB, displayed orientation, read-only. `header` describes the file at its full size;
    `scale` is 1, or 2, 4, 8 when `decode` was allowed to halve a JPEG that often. `exif`: the EXIF block with the
    orientation set to upright, without thumbnail, for the answer's file; None when there is none, it is broken, or it
    would not fit a JPEG.
    """

    pixels: NDArray[np.uint8]
    header: ImageHeader
    exif: bytes | None = None
    scale: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of `pixels`."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes held, for caches that are bounded by them."""
        return self.pixels.nbytes + len(self.exif or b"")


def decode(
    data: bytes, header: ImageHeader | None = None, *, limits: Limits | None = None, min_side: int | None = None
) -> Photo:
    """Decode a picture to upright 8-bit sRGB.

    Args:
        data: the whole file.
        header: what `inspect` said of the same bytes; when None they are inspected first.
        limits: for that inspection.
        min_side: when the caller only needs this many pixels on the shorter side, a plain JPEG may be decoded at a
            half, a quarter or an eighth of its size (never below `min_side`), in a third of the time.

    Raises:
        ImageError: as `inspect`; TruncatedImage instead of a half picture; ImageTooCostly without the memory for it.
    """
    header = header or inspect(data, limits)
    with quiet():
        image = open_lazily(data, header.format)
        try:
            stored = image.size
            if header.format == "jpeg" and min_side is not None:
                image.draft(None, (min_side, min_side))
            exif = _upright_exif(image)  # before load(): reading it must not depend on what load() leaves open
            image.load()
            scale = round(max(stored) / max(image.size)) if header.format == "jpeg" else 1
            rgb = to_rgb(image, header.bit_depth)
            if header.format != "tiff" and (turn := _UPRIGHT.get(header.orientation)) is not None:
                rgb = rgb.transpose(turn)  # Pillow itself turns TIFF, and only TIFF, while loading
            pixels = np.asarray(rgb)
        except ImageError:
            raise
        except MemoryError as error:
            raise ImageTooCostly(
                f"Decoding {header.width} x {header.height} pixels of this {header.format.upper()} takes more memory "
                "than allowed; shrink the picture, or save it anew."
            ) from error
        except Exception as error:  # Pillow's decoders raise nearly every built-in exception on hostile content
            raise damaged(data, header.format, error) from error
    pixels.flags.writeable = False
    return Photo(pixels=pixels, header=header, exif=exif, scale=scale)


def _upright_exif(image: Image.Image) -> bytes | None:
    try:
        exif = read_exif(image)
        if not exif:
            return None
        exif = _copied(exif)
        for tag in set(exif) - _KEPT_TAGS:
            del exif[tag]
        if ORIENTATION_TAG in exif:
            exif[ORIENTATION_TAG] = 1
        if not exif:
            return None
        block = exif.tobytes()
    except Exception:  # broken EXIF never costs the picture
        return None
    return block if len(block) <= _MAX_EXIF_BYTES else None


def _copied(exif: Image.Exif) -> Image.Exif:
    """A copy: Pillow turns a TIFF by the very object it handed out, so that one must keep its orientation."""
    copy = Image.Exif()
    copy.load(exif.tobytes())
    return copy
