"""Display values to linear light and back, and the light that a clipped lamp has lost.

A lens adds light, not display values: blurring in display values costs 10 dB against ray-traced truth. sRGB transfer
function of IEC 61966-2-1.
"""

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from service.imaging.geometry import bounded_long_side

_LINEAR_STEPS: Final = 65_536  # 20 of them make the smallest display step, so the way there and back is exact
_STRIP_ROWS: Final = 32
_CLIPPED: Final = 250  # all channels from here on: what the sensor could not hold
_SPOT_SHARE: Final = 0.012  # of the long side: a clipped area wider than this is a sky or a wall, not a lamp
_DARK_LINEAR: Final = 0.25  # mean linear light round a lamp, above which it does not outshine its surroundings


def _decode(display: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(display <= 0.04045, display / 12.92, ((display + 0.055) / 1.055) ** 2.4)


def _encode(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


_TO_LINEAR: Final = _decode(np.arange(256) / 255).astype(np.float32)
_TO_DISPLAY: Final = np.rint(_encode(np.arange(_LINEAR_STEPS) / (_LINEAR_STEPS - 1)) * 255).astype(np.uint8)


def to_linear(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Linear light float32 0..1 of uint8 sRGB display values, any shape."""
    linear: NDArray[Any] = cv2.LUT(np.ascontiguousarray(image), _TO_LINEAR)
    return linear


def to_display(linear: NDArray[np.float32]) -> NDArray[np.uint8]:
    """uint8 sRGB display values of linear light, clipped to 0..1; the exact inverse of `to_linear` on its values.

    Args:
        linear: (H, W) or (H, W, C); a fourth channel is left out.
    """
    channels = 1 if linear.ndim == 2 else linear.shape[2]
    display = np.empty(linear.shape[:2] if linear.ndim == 2 else (*linear.shape[:2], min(channels, 3)), np.uint8)
    scale = np.full(4, _LINEAR_STEPS - 1, np.float64)
    for start in range(0, linear.shape[0], _STRIP_ROWS):  # what is worked on stays in the processor's cache
        strip = linear[start : start + _STRIP_ROWS]
        index: NDArray[Any] = cv2.multiply(strip, scale, dtype=cv2.CV_16U)  # rounds, and stays within 16 bits
        shown: NDArray[Any] = _TO_DISPLAY[index]
        display[start : start + _STRIP_ROWS] = cv2.cvtColor(shown, cv2.COLOR_RGBA2RGB) if channels == 4 else shown
    return display


def lamps(image: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Where small clipped spots stand in dark surroundings: lamps, whose true brightness the picture has lost.

    Args:
        image: uint8 (H, W, 3).

    Returns:
        uint8 (H, W), 1 on a lamp; None when there is none. Large clipped areas and those in bright scenes never count:
        brightening them costs more than it gains.
    """
    least = cv2.min(cv2.min(image[..., 0], image[..., 1]), image[..., 2])
    clipped: NDArray[Any] = (np.asarray(least) >= _CLIPPED).astype(np.uint8)
    if not clipped.any():
        return None
    side = 2 * max(1, round(_SPOT_SHARE * bounded_long_side(image.shape) / 2)) + 1
    element = cv2.getStructuringElement(cv2.MORPH_RECT, (side, side))
    wide: NDArray[Any] = cv2.morphologyEx(clipped, cv2.MORPH_OPEN, element)
    reach = 4 * side + 1
    gray: NDArray[Any] = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    surroundings: NDArray[Any] = cv2.boxFilter(to_linear(gray), -1, (reach, reach))
    spots: NDArray[Any] = clipped & (1 - wide) & (surroundings < _DARK_LINEAR).astype(np.uint8)
    return spots if spots.any() else None
