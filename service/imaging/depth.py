"""Relative inverse depth maps: range, 16-bit storage, colours, values at points.

A map is float32 (H, W), larger = nearer, in the network's own unit. `relative` means the same map stretched to 0..1 per
image. Not-a-number and infinite values count as the farthest finite value. A constant map has no range: its relative
value is 0 everywhere, it is stored as zeros, with scale 1 and its value as the offset.
"""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from service.contract import Size
from service.imaging.errors import InvalidMap
from service.imaging.geometry import check_inside
from service.imaging.sharpening import sharp_upsample

Colormap = Literal["turbo", "inferno", "magma", "viridis", "plasma", "gray"]

COLORMAPS: Final[Mapping[str, int | None]] = MappingProxyType(
    {
        "turbo": cv2.COLORMAP_TURBO,
        "inferno": cv2.COLORMAP_INFERNO,
        "magma": cv2.COLORMAP_MAGMA,
        "viridis": cv2.COLORMAP_VIRIDIS,
        "plasma": cv2.COLORMAP_PLASMA,
        "gray": None,
    }
)
"""Colour maps by name. Near is the upper end: red in turbo, bright in all others."""

_PERCENTILES: Final = (1, 5, 25, 50, 75, 95, 99)
_MIDDLE: Final = (2, 98)
_LEVELS_16: Final = 65_535


def finite(values: NDArray[Any]) -> NDArray[np.float32]:
    """The map as float32 (H, W) with every NaN and infinity set to the farthest finite value.

    Raises:
        InvalidMap: not two-dimensional, empty, or without one finite value.
    """
    if values.ndim != 2 or values.size == 0:
        raise InvalidMap(f"A map has the shape (H, W), not {values.shape}.", field=None, value=list(values.shape))
    result: NDArray[np.float32] = np.ascontiguousarray(values, dtype=np.float32)
    if math.isfinite(float(result.sum(dtype=np.float64))):  # one pass: float32 sums cannot overflow float64
        return result
    valid = np.isfinite(result)
    if not valid.any():
        raise InvalidMap("The map holds no finite value.", field=None)
    return np.where(valid, result, result[valid].min())


def _range(values: NDArray[np.float32]) -> tuple[float, float]:
    low, high, _, _ = cv2.minMaxLoc(values)
    return float(low), float(high)


def normalise(inverse_depth: NDArray[Any]) -> tuple[NDArray[np.float32], float, float]:
    """Stretch a map to 0..1.

    Args:
        inverse_depth: (H, W), larger = nearer.

    Returns:
        relative float32 (H, W), 1 = nearest; scale and offset with value = relative * scale + offset.
    """
    values = finite(inverse_depth)
    low, high = _range(values)
    if high <= low:
        return np.zeros(values.shape, np.float32), 1.0, low
    relative = (values - np.float32(low)) * np.float32(1 / (high - low))
    return np.clip(relative, 0, 1, out=relative), high - low, low


def inverted(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """1/x of each value: depth in metres to inverse depth in 1/m and back; what is nearer than 1 mm counts as 1 mm."""
    result: NDArray[np.float32] = np.float32(1) / np.maximum(finite(values), np.float32(1e-3))
    return result


def quantise16(inverse_depth: NDArray[Any]) -> tuple[NDArray[np.uint16], float, float]:
    """Store a map in 16 bits: 65535 = nearest, 0 = farthest, value = stored * scale + offset.

    Args:
        inverse_depth: (H, W), larger = nearer.

    Returns:
        stored uint16 (H, W), scale, offset. The error is half a step, scale / 2, and float32's own.
    """
    values = finite(inverse_depth)
    low, high = _range(values)
    if high <= low:
        return np.zeros(values.shape, np.uint16), 1.0, low
    scale = (high - low) / _LEVELS_16
    stored = (values - np.float32(low)) * np.float32(1 / scale)
    np.rint(stored, out=stored)
    return np.clip(stored, 0, _LEVELS_16, out=stored).astype(np.uint16), scale, low


def metres16(depth_m: NDArray[np.float32]) -> tuple[NDArray[np.uint16], float, float]:
    """Store depth in metres in 16 bits, 0 at the camera: millimetres, centimetres where more than 65.535 m are seen.

    Args:
        depth_m: (H, W), > 0; farther than 655.35 m is stored as that.

    Returns:
        stored uint16 (H, W), scale, offset with metres = stored * scale + offset, as `quantise16`.
    """
    values = finite(depth_m)
    scale = 0.001 if float(values.max()) < (_LEVELS_16 + 0.5) * 0.001 else 0.01
    stored = np.rint(values * np.float32(1 / scale))
    return np.clip(stored, 0, _LEVELS_16).astype(np.uint16), scale, 0.0


def statistics(inverse_depth: NDArray[Any]) -> dict[str, float | dict[str, float]]:
    """Minimum, maximum, mean, median, standard deviation and percentiles of a map, in its own unit, JSON-ready."""
    values = finite(inverse_depth)
    percentiles = np.percentile(values, _PERCENTILES)
    return {
        "min": float(values.min()),
        "max": float(values.max()),
        "mean": float(values.mean(dtype=np.float64)),
        "median": float(percentiles[_PERCENTILES.index(50)]),
        "std": float(values.std(dtype=np.float64)),
        "percentiles": {str(share): float(value) for share, value in zip(_PERCENTILES, percentiles, strict=True)},
    }


def values_at(
    values: NDArray[Any], points: Sequence[tuple[float, float]], photo_size: Size | None = None
) -> list[float]:
    """Read a map at points, linearly between its pixels.

    Args:
        values: (h, w).
        points: (x, y) in pixels of the displayed photo; the centre of its first pixel is (0, 0).
        photo_size: (height, width) of the photo when the map has another size; the map covers the same area.

    Raises:
        OutsideImage: a point beyond the photo.
    """
    height, width = photo_size or (values.shape[0], values.shape[1])
    return [_value_at(values, x, y, height, width) for x, y in points]


def _value_at(values: NDArray[Any], x: float, y: float, height: int, width: int) -> float:
    check_inside(x, y, height, width, fields=("points", "points"))
    row = min(max((y + 0.5) * values.shape[0] / height - 0.5, 0.0), values.shape[0] - 1.0)
    column = min(max((x + 0.5) * values.shape[1] / width - 0.5, 0.0), values.shape[1] - 1.0)
    top, left = int(row), int(column)
    bottom, right = min(top + 1, values.shape[0] - 1), min(left + 1, values.shape[1] - 1)
    down, across = row - top, column - left
    upper = float(values[top, left]) * (1 - across) + float(values[top, right]) * across
    lower = float(values[bottom, left]) * (1 - across) + float(values[bottom, right]) * across
    return upper * (1 - down) + lower * down


def middle_span(inverse_depth: NDArray[Any]) -> tuple[float, float]:
    """The 2nd and 98th percentile of a map: a few odd pixels do not take all the colours."""
    low, high = np.percentile(finite(inverse_depth), _MIDDLE)
    return float(low), float(high)


def colourise(
    inverse_depth: NDArray[Any],
    colormap: Colormap | str = "turbo",
    near: float = 1.0,
    far: float = 0.0,
    span: tuple[float, float] | None = None,
) -> NDArray[np.uint8]:
    """A picture of a map for people to look at; near is red in turbo, bright in the others.

    Args:
        inverse_depth: (H, W), larger = nearer, any range.
        colormap: a key of `COLORMAPS`.
        near: share of the span (1 = its upper end) that gets the colour map's upper end; beyond is clipped.
        far: share of the span that gets the lower end.
        span: inverse depths, lower first, that the shares are of; the map's own smallest and largest when None.

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        ValueError: an unknown colour map, or near <= far.
    """
    if colormap not in COLORMAPS:
        raise ValueError(f"there is no colour map {colormap!r}; choose one of {', '.join(COLORMAPS)}")
    if not near > far:
        raise ValueError(f"near ({near}) must be larger than far ({far})")
    relative = normalise(inverse_depth)[0] if span is None else _within(finite(inverse_depth), span)
    levels = np.clip((relative - np.float32(far)) * np.float32(255 / (near - far)), 0, 255)
    gray = np.rint(levels, out=levels).astype(np.uint8)
    table = COLORMAPS[colormap]
    if table is None:
        return np.repeat(gray[..., None], 3, axis=2)
    coloured: NDArray[Any] = cv2.cvtColor(cv2.applyColorMap(gray, table), cv2.COLOR_BGR2RGB)
    return coloured


def _within(values: NDArray[np.float32], span: tuple[float, float]) -> NDArray[np.float32]:
    low, high = span
    if high <= low:
        return np.zeros(values.shape, np.float32)
    return (values - np.float32(low)) * np.float32(1 / (high - low))


def upsample_guided(inverse_depth: NDArray[Any], photo: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A map brought to the photo's size, its steps hard and on the photo's edges, never beyond the map's own range.

    Args:
        inverse_depth: (h, w), covering exactly the photo's area.
        photo: uint8 (H, W, 3).
    """
    return sharp_upsample(finite(inverse_depth), photo)
