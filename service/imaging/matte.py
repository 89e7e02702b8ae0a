"""The person matte: how much of each pixel shows a person, 0..1."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.imaging.errors import InvalidMap
from service.imaging.geometry import resize
from service.imaging.sharpening import sharp_upsample

Box = tuple[int, int, int, int]
"""left, top, right, bottom in pixels; right and bottom exclusive."""

_WINDOW_PX = 10.0  # of the network's map: a person's colours and those around him reach farther than a depth step's
_DRAFT = 2  # times the size of the map: the border is first moved on a copy of the photo, so that it can move farther

THRESHOLD = 0.5
"""Matte value from which a pixel counts as person where a yes or no is asked for."""


def probability(values: NDArray[Any]) -> NDArray[np.float32]:
    """The matte as float32 (H, W) within 0..1; NaN counts as no person.

    Raises:
        InvalidMap: not two-dimensional, or empty.
    """
    if values.ndim != 2 or values.size == 0:
        raise InvalidMap(f"A matte has the shape (H, W), not {values.shape}.", field=None, value=list(values.shape))
    result = np.array(values, dtype=np.float32)
    np.nan_to_num(result, copy=False, nan=0.0, posinf=1.0, neginf=0.0)
    return np.clip(result, 0, 1, out=result)


def to_uint8(person: NDArray[Any]) -> NDArray[np.uint8]:
    """The matte in 8 bits, 255 = person: (H, W)."""
    levels = probability(person)
    levels *= np.float32(255)
    return np.rint(levels, out=levels).astype(np.uint8)


def upsample_guided(person: NDArray[Any], photo: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The network's matte (h, w) brought to the photo's size, its borders on the photo's edges and a pixel or two wide.

    Args:
        person: probabilities, covering exactly the photo's area.
        photo: uint8 (H, W, 3).

    Returns:
        float32 (H, W) in 0..1.
    """
    matte = probability(person)
    height, width = matte.shape
    reduced = resize(photo, (min(photo.shape[0], _DRAFT * height), min(photo.shape[1], _DRAFT * width)))
    draft = sharp_upsample(matte, reduced, _WINDOW_PX)
    return sharp_upsample(resize(draft, (height, width)), photo, _WINDOW_PX)


def coverage(person: NDArray[Any]) -> float:
    """Share of the area that shows people, 0..1: the mean of the matte."""
    return float(probability(person).mean(dtype=np.float64))


def bounding_box(person: NDArray[Any], threshold: float = THRESHOLD) -> Box | None:
    """The smallest box round all pixels above `threshold`; None when there are none."""
    inside = person > threshold
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if rows.size == 0:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
