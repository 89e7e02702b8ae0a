"""The camera behind a photo: its focal length in pixels, and where that number is from.

A focal length travels as a share of the photo's longer side: scaling or turning a photo changes its pixels, not that
share. Cropping changes it; EXIF whose stated size has another shape than the picture is therefore not believed.
Tags: EXIF 2.32 (CIPA DC-008), sections 4.6.3 to 4.6.5. The block is read by a few lines of our own that copy nothing
and follow two directories: what a library reads of a hostile block is without bound.
"""

import math
import struct
from dataclasses import dataclass
from typing import Final, Literal

from service.contract import Size

Source = Literal["query", "exif", "model", "default"]
"""The caller; the photo's EXIF; the camera that the network learned with; `DEFAULT_FIELD_OF_VIEW_DEG`."""

DEFAULT_FIELD_OF_VIEW_DEG: Final = 60.0
"""Along the longer side, where nothing says: between a phone's main camera (69) and a 50 mm lens (40)."""

_DEFAULT_SHARE: Final = 0.5 / math.tan(math.radians(DEFAULT_FIELD_OF_VIEW_DEG / 2))
_FILM_DIAGONAL_MM: Final = math.hypot(36, 24)  # 35 mm equivalents are by the diagonal (CIPA DCG-001)
_LEAST_SHARE: Final = 0.1  # 157 degrees: no pinhole is wider
_MOST_SHARE: Final = 100.0  # half a degree: a telescope
_MOST_BY_SENSOR: Final = 5.0  # programs that make photos smaller and keep the sensor's resolution would make it longer
_SAME_SHAPE: Final = 0.02  # of the aspect: sizes rounded to multiples of 16 still agree
_MOST_ENTRIES: Final = 1_000  # of one directory; cameras write some dozens

_EXIF_DIRECTORY: Final = 0x8769
_FOCAL_MM, _FOCAL_35MM = 0x920A, 0xA405
_PIXELS_X, _PIXELS_Y = 0xA002, 0xA003
_PLANE_X_RESOLUTION, _PLANE_UNIT = 0xA20E, 0xA210
_WANTED: Final = frozenset({_FOCAL_MM, _FOCAL_35MM, _PIXELS_X, _PIXELS_Y, _PLANE_X_RESOLUTION, _PLANE_UNIT})
_UNIT_MM: Final = {2.0: 25.4, 3.0: 10.0, 4.0: 1.0, 5.0: 0.001}


@dataclass(frozen=True, slots=True)
class Focal:
    """A focal length in pixels of the photo as displayed, and where it is from."""

    px: float
    source: Source

    @property
    def headers(self) -> dict[str, str]:
        """For an answer that it went into."""
        return {"X-Focal-Px": f"{self.px:.2f}", "X-Focal-Source": self.source}


def known_focal(size: Size, focal_px: float | None, exif_share: float | None) -> Focal | None:
    """What is known of the camera itself: the caller's word, else the photo's; None when both are silent.

    Args:
        size: (height, width) of the photo.
        focal_px: as the caller said.
        exif_share: see `read_focal_share`.
    """
    if focal_px is not None:
        return Focal(focal_px, "query")
    return None if exif_share is None else Focal(exif_share * max(size), "exif")


def assumed_focal(size: Size, learned_share: float | None) -> Focal:
    """Where nothing is known: the camera that a metric network learned with, or a field of view of 60 degrees."""
    if learned_share is not None:
        return Focal(learned_share * max(size), "model")
    return Focal(_DEFAULT_SHARE * max(size), "default")


def read_focal_share(block: bytes, size: Size) -> float | None:
    """Focal length that EXIF states, as a share of the longer side; None without one, or one that cannot be.

    From the 35 mm equivalent, or else from the focal length and the sensor's resolution.

    Args:
        block: EXIF as it stands in a file, with or without its `Exif` signature; or a whole TIFF.
        size: (height, width) of the picture, in either turn.
    """
    try:
        tags = _tags(block.removeprefix(b"Exif\0\0"))
    except (struct.error, ZeroDivisionError):
        return None
    long, short = max(size), min(size)
    stated_long, stated_short = _sides(tags)
    if stated_short > 0 and abs(stated_long / stated_short * short / long - 1) > _SAME_SHAPE:
        return None  # cropped since
    if (film_mm := tags.get(_FOCAL_35MM, 0.0)) > 0:
        share, most = film_mm / _FILM_DIAGONAL_MM * math.hypot(long, short) / long, _MOST_SHARE
    else:
        per_mm = tags.get(_PLANE_X_RESOLUTION, 0.0) / _UNIT_MM.get(tags.get(_PLANE_UNIT, 2.0), math.inf)
        share, most = tags.get(_FOCAL_MM, 0.0) * per_mm / (stated_long or long), _MOST_BY_SENSOR
    return share if _LEAST_SHARE <= share <= most else None


def _sides(tags: dict[int, float]) -> tuple[float, float]:
    sides = tags.get(_PIXELS_X, 0.0), tags.get(_PIXELS_Y, 0.0)
    return max(sides), min(sides)


def _tags(block: bytes) -> dict[int, float]:
    """The numbers of the tags that are looked for."""
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return {}
    first = _directory(block, order, struct.unpack_from(f"{order}I", block, 4)[0], frozenset({_EXIF_DIRECTORY}))
    if _EXIF_DIRECTORY not in first:
        return {}
    return _directory(block, order, int(first[_EXIF_DIRECTORY]), _WANTED)


def _directory(block: bytes, order: str, at: int, wanted: frozenset[int]) -> dict[int, float]:
    (count,) = struct.unpack_from(f"{order}H", block, at)
    found: dict[int, float] = {}
    for entry in range(min(count, _MOST_ENTRIES)):
        tag, kind, values, offset = struct.unpack_from(f"{order}HHII", block, at + 2 + 12 * entry)
        if tag not in wanted or values != 1:
            continue
        if kind == 3:
            found[tag] = float(struct.unpack_from(f"{order}H", block, at + 2 + 12 * entry + 8)[0])
        elif kind == 4:
            found[tag] = float(offset)
        elif kind == 5:
            above, below = struct.unpack_from(f"{order}II", block, offset)
            found[tag] = above / below if below else 0.0
    return found
