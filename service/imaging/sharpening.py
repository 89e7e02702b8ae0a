"""Bringing a network's small map, of depth or of people, to the photo's size with its steps on the photo's edges.

Only steps are touched; slopes and flat parts are plain interpolation, so no texture can be copied into them. On a step
the map is far + share * (near - far), and the photo decides the share: it is fitted in windows as a straight line in
red, green and blue (He, Sun and Tang 2013, Guided Image Filtering, doi 10.1109/TPAMI.2012.213, section 3.4), each pixel
weighted by how surely the map itself gives it to one side. As in the fast guided filter (He and Sun 2015, arXiv
1505.00996) the fits are made on a small copy and their coefficients are interpolated. Where the line explains little,
the map's own contour stands, made hard.

The share is held within 0..1: a pixel is never nearer or farther than both sides of its step are.
"""

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from service.contract import Size
from service.imaging.errors import InvalidMap
from service.imaging.geometry import resize, row_strips
from service.imaging.guided import EPSILON, box, products, solved
from service.imaging.steps import find_steps

FloatMap = NDArray[np.float32]

_FIT_PIXELS: Final = 384 * 288  # of the copy: about the map's own; on three times as many the mattes were no better
_FIT_SCALE: Final = 4  # per axis, of the map: bounds the windows on photos that are all width or all height
_WINDOW_PX: Final = 4.0  # half width of the fitted windows in pixels of the network's map
_LEAST_GAP: Final = 0.02  # of the map's range: less between far and near is no step
_LEAST_WEIGHT: Final = 1e-4  # keeps windows without a step defined
_STRIP_ROWS: Final = 32  # of the photo at a time: what is worked on stays in the processor's cache
_DOUBT: Final = 8.0  # the photo decides where the map's share is between 1/16 and 15/16, less beyond
_LEAST_GAIN: Final = 6.0
_CONTOUR_PX: Final = 1.5  # of the photo: how wide a hard contour may be, so that it is not a staircase


def sharp_upsample(
    network_map: NDArray[np.float32], photo: NDArray[np.uint8], window_px: float = _WINDOW_PX
) -> NDArray[np.float32]:
    """Enlarge a map to the photo's size, its steps made hard and put on the photo's edges.

    Scaling the map or adding to it does the same to the result, and so does its sign.

    Args:
        network_map: (h, w), finite, any range; covers exactly the photo's area.
        photo: uint8 (H, W, 3).
        window_px: half width of the windows that colours are learned in, in pixels of the map.

    Returns:
        float32 (H, W); nowhere outside the range that the map has within three and a half windows of its own pixels.
    """
    if network_map.ndim != 2 or network_map.size == 0:
        raise InvalidMap(f"The map has the shape {network_map.shape}, not (h, w).", value=list(network_map.shape))
    source = np.ascontiguousarray(network_map, dtype=np.float32)
    height, width = photo.shape[:2]
    low, high = float(source.min()), float(source.max())
    if high <= low or height * width <= source.size:
        return resize(source, (height, width))
    relative = (source - np.float32(low)) / np.float32(high - low)
    # pixels that a network's head doubles would make every contour a staircase
    even: NDArray[Any] = cv2.GaussianBlur(relative, (3, 3), 0, borderType=cv2.BORDER_REFLECT)
    steps = find_steps(even)
    if not steps.ramp.any():
        return resize(source, (height, width))
    size, per_map_px = working_grid((height, width), (source.shape[0], source.shape[1]))
    radius = max(1, round(window_px * per_map_px))
    plain, ramp = resize(relative, size), resize(steps.ramp.astype(np.float32), size)
    # levels count only as far as they are known: on ramps
    inverse = 1 / np.maximum(ramp, np.float32(_LEAST_WEIGHT))
    far = resize(np.where(steps.ramp, steps.far, 0), size) * inverse
    near = resize(np.where(steps.ramp, steps.near, 0), size) * inverse
    guide = resize(photo, size).astype(np.float32) * np.float32(1 / 255)
    slopes, offset = _shares(resize(even, size), far, near, ramp, guide, radius)
    moves = ramp > 0
    far = np.where(moves, np.minimum(far, plain), plain)
    gap = np.where(moves, np.maximum(near, plain) - far, np.float32(0))
    gain = max(_LEAST_GAIN, max(height / size[0], width / size[1]) / _CONTOUR_PX)
    return _applied(photo, slopes * np.float32(gain / 255), (offset - 0.5) * gain + 0.5, far, gap, (low, high))


def working_grid(photo_size: Size, map_size: Size) -> tuple[Size, float]:
    """(height, width) of the copy that windows are fitted on, and its pixels per pixel of the map, at most 4."""
    shrink = min(1.0, (_FIT_PIXELS / (photo_size[0] * photo_size[1])) ** 0.5)
    height = min(max(1, round(photo_size[0] * shrink)), _FIT_SCALE * map_size[0])
    width = min(max(1, round(photo_size[1] * shrink)), _FIT_SCALE * map_size[1])
    return (height, width), max(height / map_size[0], width / map_size[1])


def _shares(
    plain: FloatMap, far: FloatMap, near: FloatMap, ramp: FloatMap, guide: NDArray[np.float32], radius: int
) -> tuple[NDArray[np.float32], FloatMap]:
    """How near each pixel is between far, 0, and near, 1, as slopes (h, w, 3) and offset (h, w) of its colour.

    Beside a ramp, where colours are learned, the levels are the means of those on the ramp.
    """
    total = np.maximum(box(ramp, radius), np.float32(_LEAST_WEIGHT))
    mean_far, mean_near = box(far * ramp, radius) / total, box(near * ramp, radius) / total
    known = total > _LEAST_WEIGHT
    far = np.where(ramp > 0, far, mean_far)
    gap = np.where(ramp > 0, near, mean_near) - far
    share = np.clip((plain - far) / np.maximum(gap, np.float32(_LEAST_GAP)), 0, 1)
    share = np.where(known, share, np.float32(0.5))
    sure = np.abs(2 * share - 1)
    slopes, offset, trust = _window_fits(guide, _hard(share), sure * known + np.float32(_LEAST_WEIGHT), radius)
    # where the map is quite sure, the photo is not asked: what it says there is texture
    trust *= np.clip((1 - sure) * _DOUBT, 0, 1)
    slopes *= trust[..., None]
    offset *= trust
    doubt = 1 - trust
    contour = _hard(np.einsum("ijk,ijk->ij", slopes, guide) + offset + doubt * share)
    return slopes, offset + doubt * contour


def _hard(share: FloatMap) -> FloatMap:
    """The contour at one half, one pixel wide: the distance to it is the share divided by its gradient."""
    across: NDArray[Any] = cv2.Sobel(share, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
    down: NDArray[Any] = cv2.Sobel(share, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)
    hard: FloatMap = (share - np.float32(0.5)) / np.maximum(cv2.magnitude(across, down), np.float32(1 / 16))
    return np.clip(hard + np.float32(0.5), 0, 1, out=hard)


def _window_fits(
    guide: NDArray[np.float32], target: FloatMap, weight: FloatMap, radius: int
) -> tuple[NDArray[np.float32], FloatMap, FloatMap]:
    """Weighted least squares of target = slopes . guide + offset per window, averaged over the windows on each pixel.

    The third map, 0..1, is how far to trust them: r squared, the share of the target's variance that the line explains.
    """

    def mean_of(values: FloatMap) -> FloatMap:
        return box(values, radius)

    total = mean_of(weight)
    inverse = 1 / total
    colours = [np.ascontiguousarray(guide[..., channel]) for channel in range(3)]
    weighted = [weight * colour for colour in colours]
    means = [mean_of(values) * inverse for values in weighted]
    target_mean = mean_of(weight * target) * inverse
    target_variance = np.maximum(mean_of(weight * target * target) * inverse - target_mean * target_mean, 0)
    with_target: list[FloatMap] = [
        mean_of(values * target) * inverse - mean * target_mean for values, mean in zip(weighted, means, strict=True)
    ]
    spread: dict[tuple[int, int], FloatMap] = {
        (i, j): mean_of(weighted[i] * colours[j]) * inverse - means[i] * means[j] for i in range(3) for j in range(i, 3)
    }
    slopes = solved(spread, with_target)
    explained = products(slopes, with_target)
    trust = np.clip(explained / np.maximum(target_variance, np.float32(EPSILON)), 0, 1)
    offset = target_mean - products(slopes, means)
    share = 1 / mean_of(total)  # windows with more to go by count for more
    averaged = [mean_of(values * total) * share for values in (*slopes, offset, trust * trust)]
    return np.stack(averaged[:3], axis=-1), averaged[3], averaged[4]


def _applied(
    photo: NDArray[np.uint8],
    slopes: NDArray[np.float32],
    offset: FloatMap,
    far: FloatMap,
    gap: FloatMap,
    value_range: tuple[float, float],
) -> FloatMap:
    """The map: far + gap * clip(slopes . photo + offset), at the photo's size and in the map's own range."""
    height, width = photo.shape[:2]
    low, high = value_range
    scale = np.float32(high - low)
    across = (offset.shape[0], width)
    wide_slopes = resize(slopes, across).reshape(across[0], 3 * width)
    wide_far, wide_gap, wide_offset = (resize(values, across) for values in (far * scale + low, gap * scale, offset))
    add_up = np.ones((1, 3), np.float32)
    full = np.empty((height, width), np.float32)
    for rows, source, weights in row_strips(across[0], height, _STRIP_ROWS):
        strip = full[rows]
        np.matmul(weights, wide_far[source], out=strip)
        if not wide_gap[source].any():
            continue
        products = weights @ wide_slopes[source]
        products *= photo[rows].reshape(-1, 3 * width)
        share: NDArray[Any] = cv2.transform(products.reshape(-1, width, 3), add_up).reshape(-1, width)
        share += weights @ wide_offset[source]
        np.clip(share, 0, 1, out=share)
        share *= weights @ wide_gap[source]
        strip += share
    return np.clip(full, np.float32(low), np.float32(high), out=full)
