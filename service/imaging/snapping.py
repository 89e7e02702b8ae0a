"""Depth edges made as sharp as the photo's own.

A network's depth is soft at edges: between a near object and what is behind it lie depths where nothing is, and a lens
focused between the two would show them as a ghost band. Each such pixel is given to one of the two sides; where there
is a person's matte, the matte decides which.
"""

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from service.contract import Size
from service.imaging.filling import push_pull
from service.imaging.geometry import bounded_long_side, neighbourhood, resize

FloatMap = NDArray[np.float32]

_NETWORK_LONG_SIDE: Final = 384  # pixels of the network's map: what its edges are soft by is measured in them
_EDGE_REACH: Final = 1.5  # network pixels to each side
_MATTE_REACH: Final = 2.5
_LEAST_MATTE_REACH_PX: Final = 6  # on small photos too
_EDGE_STEP: Final = 0.05  # inverse depth difference that counts as an edge
_RAMP_GROWTH: Final = 1.4  # a step keeps its height when looked at twice as widely, a ramp doubles it
_FLAT_WINDOW: Final = 5
_FLAT_COUNT: Final = 8  # of its pixels as far as the one in the middle: no ramp
_ALIKE: Final = 0.08  # of the step: as far
_FILL_PIXELS: Final = 400_000


def _reach_px(size: tuple[int, ...], network_px: float) -> int:
    return max(1, round(network_px * bounded_long_side(size) / _NETWORK_LONG_SIDE))


def snap_edges(inverse_depth: FloatMap, reach_px: int | None = None) -> FloatMap:
    """Give the in-between pixels of soft depth steps to the nearer or the farther side; leave slopes alone.

    Args:
        inverse_depth: float32 (H, W) in 0..1.
        reach_px: how far a soft step may reach to each side; by default 1.5 pixels of a network's map of this photo.
    """
    reach = reach_px or _reach_px(inverse_depth.shape, _EDGE_REACH)

    def extremes(radius: int) -> tuple[Any, Any]:
        element = cv2.getStructuringElement(cv2.MORPH_RECT, (2 * radius + 1, 2 * radius + 1))
        return cv2.erode(inverse_depth, element), cv2.dilate(inverse_depth, element)

    low, high = extremes(reach)
    step = high - low
    wide_low, wide_high = extremes(2 * reach)
    edge = (step > _EDGE_STEP) & (wide_high - wide_low < _RAMP_GROWTH * step)
    _spare_flat(edge, inverse_depth, low, high)
    nearer = inverse_depth - low > high - inverse_depth
    snapped: FloatMap = np.where(edge, np.where(nearer, high, low), inverse_depth)
    return _smoothed(snapped, np.abs(snapped - inverse_depth) > np.float32(_EDGE_STEP / 2))


def _spare_flat(edge: NDArray[np.bool_], inverse_depth: FloatMap, low: FloatMap, high: FloatMap) -> None:
    """Take from `edge` what lies between low and high by itself: a third thing where two others meet, and no ramp.

    A ramp is alike along the edge only, so of the 25 pixels round about, 5 have the depth of the one in the middle; of
    a thing two pixels wide, 10 do.
    """
    share = (inverse_depth - low) / np.maximum(high - low, np.float32(_EDGE_STEP))
    places = np.flatnonzero(edge & (share > _ALIKE) & (share < 1 - _ALIKE))
    reach = _FLAT_WINDOW // 2
    wide: NDArray[Any] = cv2.copyMakeBorder(inverse_depth, reach, reach, reach, reach, cv2.BORDER_REPLICATE)
    rows, columns = np.divmod(places, inverse_depth.shape[1])
    here = inverse_depth.ravel()[places]
    alike = np.float32(_ALIKE) * (high.ravel()[places] - low.ravel()[places])
    count = np.zeros(places.size, np.uint8)
    for down in range(_FLAT_WINDOW):
        for right in range(_FLAT_WINDOW):
            count += np.abs(wide[rows + down, columns + right] - here) <= alike
    edge.ravel()[places[count >= _FLAT_COUNT]] = False


def _smoothed(values: FloatMap, changed: NDArray[np.bool_]) -> FloatMap:
    """Take single pixels that landed on the other side than their neighbours back; only near what was changed."""
    if not changed.any() or min(values.shape) < 3:
        return values
    near: NDArray[Any] = cv2.dilate(changed.astype(np.uint8), np.ones((5, 5), np.uint8))
    median: NDArray[Any] = cv2.medianBlur(values, 5)
    result: FloatMap = np.where(near > 0, median, values)
    return result


def snap_to_matte(inverse_depth: FloatMap, matte: NDArray[np.uint8]) -> FloatMap:
    """Let a person's matte decide where his depth ends.

    In a band round the matte's border, pixels inside whose depth leans to the surroundings take the person's depth, and
    pixels outside whose depth leans to the person take that of the surroundings.

    Args:
        inverse_depth: float32 (H, W).
        matte: uint8 (H, W), 255 = the person.
    """
    reach_px = max(_LEAST_MATTE_REACH_PX, _reach_px(inverse_depth.shape, _MATTE_REACH))
    occupied = matte > 127
    rows, columns = np.flatnonzero(occupied.any(axis=1)), np.flatnonzero(occupied.any(axis=0))
    if rows.size == 0:
        return inverse_depth
    margin = 4 * reach_px
    part = (
        slice(max(0, int(rows[0]) - margin), int(rows[-1]) + 1 + margin),
        slice(max(0, int(columns[0]) - margin), int(columns[-1]) + 1 + margin),
    )
    result = inverse_depth.copy()
    result[part] = _snapped_to(occupied[part], inverse_depth[part], reach_px)
    return result


def _snapped_to(inside: NDArray[np.bool_], inverse_depth: FloatMap, reach_px: int) -> FloatMap:
    size = _reduced(inside.shape)
    small = cv2.resize(inside.astype(np.uint8), (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
    element = neighbourhood(max(1, round(reach_px * size[1] / inside.shape[1])))
    core: NDArray[Any] = cv2.erode(small, element, borderType=cv2.BORDER_REPLICATE)
    beyond: NDArray[Any] = 1 - np.asarray(cv2.dilate(small, element))
    if not core.any() or not beyond.any():
        return inverse_depth
    full = (inverse_depth.shape[0], inverse_depth.shape[1])
    in_band = cv2.resize(1 - core - beyond, (full[1], full[0]), interpolation=cv2.INTER_NEAREST) > 0
    values = resize(np.ascontiguousarray(inverse_depth), size)
    person, surroundings = _continued(values, core, full), _continued(values, beyond, full)
    gap = person - surroundings
    share = (inverse_depth - surroundings) / np.where(np.abs(gap) > _EDGE_STEP, gap, np.float32(np.inf))
    band = in_band & (np.abs(gap) > _EDGE_STEP)
    result = np.where(band & inside & (share < 0.9), person, inverse_depth)
    return np.where(band & ~inside & (share > 0.1) & (share < 1.2), surroundings, result)


def _reduced(shape: tuple[int, ...]) -> Size:
    factor = min(1.0, (_FILL_PIXELS / (shape[0] * shape[1])) ** 0.5)
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def _continued(values: FloatMap, where: NDArray[Any], full: Size) -> FloatMap:
    """`values` as they are where `where` is 1, continued smoothly elsewhere; enlarged to `full`."""
    weight = where.astype(np.float32)
    filled = push_pull((values * weight)[..., None], weight)
    return resize(np.ascontiguousarray(filled[..., 0]), full)
