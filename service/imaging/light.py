"""Display values to linear light and back, and the light that a clipped lamp has lost.

A lens adds light, not display values: blurring in display values costs 10 dB against ray-traced truth. sRGB transfer
function of IEC 61966-2-1.
"""

from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from service.contract import Size
from service.imaging.geometry import bounded_long_side

_LINEAR_STEPS: Final = 65_536  # 20 of them make the smallest display step, so the way there and back is exact
_STRIP_ROWS: Final = 32
_CLIPPED: Final = 250  # from here on: what the sensor could not hold
_SPOT_SHARE: Final = 0.012  # of the long side: a clipped area wider than this is a sky or a wall, not a lamp
_GLOW_PX: Final = 2.5  # round a lamp: where some of its light falls, of its colour
_AROUND_PX: Final = 7.0  # from there to here are its surroundings
_COLOURLESS: Final = 0.01  # mean linear light of a glow that says little about a lamp's colour
_BRIGHTNESS: Final = 7.0  # times white in the strongest channel, when all are clipped: best of 4 to 20 by drawn nights
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
    channels = 1 if linear.ndim == 2 else min(linear.shape[2], 3)
    display = np.empty(linear.shape[:2] if linear.ndim == 2 else (*linear.shape[:2], channels), np.uint8)
    scale = np.full(4, _LINEAR_STEPS - 1, np.float64)
    for start in range(0, linear.shape[0], _STRIP_ROWS):  # what is worked on stays in the processor's cache
        strip: NDArray[Any] = linear[start : start + _STRIP_ROWS]
        if strip.ndim == 3 and strip.shape[2] == 4:
            strip = cv2.cvtColor(strip, cv2.COLOR_RGBA2RGB)
        values = strip.reshape(len(strip), -1)  # one channel: OpenCV goes through those by vectors
        index: NDArray[Any] = cv2.multiply(values, scale, dtype=cv2.CV_16U)  # rounds, and stays within 16 bits
        shown = display[start : start + _STRIP_ROWS].reshape(values.shape)
        np.take(_TO_DISPLAY, index, out=shown, mode="clip")
    return display


@dataclass(frozen=True, slots=True, eq=False)
class Lamps:
    """Clipped lamps of a photo, n pixels of them.

    Attributes:
        index: int64 (n,), place in the flattened photo, ascending.
        lost: float32 (n, 3), linear light that the picture has lost there, by our best guess.
    """

    index: NDArray[np.int64]
    lost: NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.index.nbytes + self.lost.nbytes

    def at_size(self, size: Size, small: Size) -> "Lamps":
        """The same light on the photo shrunk from `size` to `small`."""
        if size == small:
            return self
        rows, columns = np.divmod(self.index, size[1])
        places = rows * small[0] // size[0] * small[1] + columns * small[1] // size[1]
        index, which = np.unique(places, return_inverse=True)
        share = small[0] * small[1] / (size[0] * size[1])
        sums = [np.bincount(which, self.lost[:, channel] * share, index.size) for channel in range(3)]
        return Lamps(index, np.stack(sums, axis=1).astype(np.float32))


def lamps(image: NDArray[np.uint8]) -> Lamps | None:
    """Small clipped spots in dark surroundings: lamps, whose true brightness and colour the picture has lost.

    A clipped lamp is white whatever its colour. What is left of that is in the pixels round it, where little enough of
    its light falls: their light above the surroundings has its colour. In that colour, its unclipped channels say how
    bright it is; when none is left, it counts as `_BRIGHTNESS` times white.

    Args:
        image: uint8 (H, W, 3).

    Returns:
        None when there is none. Large clipped areas and those in bright scenes never count: brightening them costs more
        than it gains.
    """
    most = cv2.max(cv2.max(image[..., 0], image[..., 1]), image[..., 2])
    clipped: NDArray[Any] = (np.asarray(most) >= _CLIPPED).astype(np.uint8)
    if not clipped.any():
        return None
    side = 2 * max(1, round(_SPOT_SHARE * bounded_long_side(image.shape) / 2)) + 1
    element = cv2.getStructuringElement(cv2.MORPH_RECT, (side, side))
    wide: NDArray[Any] = cv2.morphologyEx(clipped, cv2.MORPH_OPEN, element)
    reach = 4 * side + 1
    gray: NDArray[Any] = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    surroundings: NDArray[Any] = cv2.boxFilter(to_linear(gray), -1, (reach, reach))
    spots: NDArray[Any] = clipped & (1 - wide) & (surroundings < _DARK_LINEAR).astype(np.uint8)
    if not spots.any():
        return None
    index = np.flatnonzero(spots)
    return Lamps(index, _lost(image.reshape(-1, 3)[index], _colours(image, spots, clipped, index)))


def _colours(
    image: NDArray[np.uint8], spots: NDArray[np.uint8], clipped: NDArray[np.uint8], index: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Colour of the lamp at each of the places `index`, largest channel 1: float32 (n, 3)."""
    apart, nearest = cv2.distanceTransformWithLabels(1 - spots, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_CCOMP)
    round_it = np.flatnonzero((apart <= _AROUND_PX) & (clipped == 0))
    lamp, light = nearest.ravel()[round_it], to_linear(image.reshape(-1, 3)[round_it])
    glows = apart.ravel()[round_it] <= _GLOW_PX
    count = int(nearest.max()) + 1

    def means(where: NDArray[np.bool_], values: NDArray[np.float32]) -> NDArray[np.float64]:
        size = np.maximum(np.bincount(lamp[where], minlength=count), 1)
        return np.stack([np.bincount(lamp[where], channel, count) / size for channel in values.T], axis=1)

    around = means(~glows, light[~glows])
    glow = means(glows, np.maximum(light[glows] - around[lamp[glows]], 0).astype(np.float32)) + _COLOURLESS
    colours: NDArray[np.float32] = (glow / glow.max(axis=1, keepdims=True)).astype(np.float32)
    of_places: NDArray[np.float32] = colours[nearest.ravel()[index]]
    return of_places


def _lost(seen: NDArray[np.uint8], colour: NDArray[np.float32]) -> NDArray[np.float32]:
    """Light that clipped pixels `seen`, (n, 3), lost if they are of those colours."""
    light, clipped = to_linear(seen), seen >= _CLIPPED
    kept = np.where(clipped, np.float32(0), colour)
    level = (kept * light).sum(axis=1) / np.maximum((kept * kept).sum(axis=1), np.float32(1e-6))
    level = np.where(clipped.all(axis=1), np.float32(_BRIGHTNESS), np.minimum(level, np.float32(_BRIGHTNESS)))
    lost: NDArray[np.float32] = np.where(clipped, np.maximum(colour * level[:, None] - light, 0), np.float32(0))
    return lost
