"""Bringing a network's small matte to the photo's size along the photo's own edges; depth has `sharpening`.

Fast guided filter, He and Sun 2015 (arXiv 1505.00996): in every window of the small map, map = a * gray + b by least
squares; a and b, not the map, are interpolated and applied to the full photo. The window fits are made on a copy of at
most `_FIT_PIXELS`, and of at most four times the map per axis whatever the photo's aspect, so the cost per photo pixel
is one interpolation and one multiply-add.

A network's own edges are soft, and a soft edge would leave a ghost on both sides of the photo's hard one; so steps (not
slopes) of the map are made hard before the fit.

A straight line also carries texture over (a dark stripe on a near wall would come forward), so each pixel is held
between the smallest and the largest value that the plain map has nearby: edges move, nothing is invented.
"""

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from service.contract import Size
from service.imaging.errors import InvalidMap
from service.imaging.geometry import neighbourhood, resize
from service.imaging.snapping import snap_edges

FloatMap = NDArray[np.float32]

_FIT_PIXELS: Final = 640 * 480
_FIT_SCALE: Final = 4  # per axis, of the map: bounds the windows on photos that are all width or all height
_RADIUS_PX: Final = 3.0  # of the window and of the allowed range, in pixels of the network's map: its edges are as wide
_NO_STEP: Final = 0.005**2  # square of the contrast of the map (of 1) below which there is no edge to move
_SOFTNESS_PX: Final = 2.5  # of a network's depth step to each side, in pixels of its map
_EPSILON: Final = 0.03**2  # square of the gray contrast (of 1) below which the photo is taken to say nothing
"""Smaller follows fainter edges, and noise too."""


def guided_upsample(network_map: NDArray[np.float32], photo: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Enlarge a map to the photo's size, its edges snapped to those of the photo.

    Args:
        network_map: (h, w), finite, any range; covers exactly the photo's area.
        photo: uint8 (H, W, 3).

    Returns:
        float32 (H, W); never outside the range that the map has within a few of its own pixels.
    """
    if network_map.ndim != 2 or network_map.size == 0:
        raise InvalidMap(f"The map has the shape {network_map.shape}, not (h, w).", value=list(network_map.shape))
    source = np.ascontiguousarray(network_map, dtype=np.float32)
    height, width = photo.shape[:2]
    low, high = float(source.min()), float(source.max())
    if high <= low or height * width <= source.size:
        return resize(source, (height, width))
    gray = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    fit_size, per_map_px = working_grid((height, width), (source.shape[0], source.shape[1]))
    radius = max(1, round(_RADIUS_PX * per_map_px))
    guide = resize(gray, fit_size).astype(np.float32) / np.float32(255)
    target = (resize(source, fit_size) - np.float32(low)) / np.float32(high - low)
    target = snap_edges(target, max(1, round(_SOFTNESS_PX * per_map_px)))
    slope, offset, trust = _window_fits(guide, target, radius)
    full = resize(slope * trust, (height, width)) * gray
    full *= np.float32(1 / 255)
    full += resize(offset * trust + (1 - trust) * target, (height, width))
    element = neighbourhood(radius)
    np.maximum(full, resize(cv2.erode(target, element), (height, width)), out=full)
    np.minimum(full, resize(cv2.dilate(target, element), (height, width)), out=full)
    full *= np.float32(high - low)
    full += np.float32(low)
    return np.clip(full, np.float32(low), np.float32(high), out=full)


def working_grid(photo_size: Size, map_size: Size) -> tuple[Size, float]:
    """(height, width) of the copy that windows are fitted on, and its pixels per pixel of the map, at most 4."""
    shrink = min(1.0, (_FIT_PIXELS / (photo_size[0] * photo_size[1])) ** 0.5)
    height = min(max(1, round(photo_size[0] * shrink)), _FIT_SCALE * map_size[0])
    width = min(max(1, round(photo_size[1] * shrink)), _FIT_SCALE * map_size[1])
    return (height, width), max(height / map_size[0], width / map_size[1])


def _window_fits(guide: FloatMap, target: FloatMap, radius: int) -> tuple[FloatMap, FloatMap, FloatMap]:
    """Slope and offset of target = slope * guide + offset, fitted per window and averaged over those on each pixel.

    The third map is how far to trust them: the share of the target's variance that the line explains (r squared).
    """
    side = 2 * min(radius, max(1, min(guide.shape) - 1)) + 1

    def mean(values: FloatMap) -> FloatMap:
        blurred: NDArray[Any] = cv2.boxFilter(values, -1, (side, side), borderType=cv2.BORDER_REFLECT)
        return blurred

    guide_mean, target_mean = mean(guide), mean(target)
    covariance = mean(guide * target) - guide_mean * target_mean
    guide_variance = np.maximum(mean(guide * guide) - guide_mean * guide_mean, 0)
    target_variance = np.maximum(mean(target * target) - target_mean * target_mean, 0)
    slope = covariance / (guide_variance + np.float32(_EPSILON))
    spread = (guide_variance + np.float32(_EPSILON)) * (target_variance + np.float32(_NO_STEP))
    explained = mean(np.clip(covariance * covariance / spread, 0, 1))
    return mean(slope), mean(target_mean - slope * guide_mean), explained
