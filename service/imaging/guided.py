"""The guided filter: a map as straight lines in a photo's red, green and blue, window by window.

He, Sun and Tang 2013, Guided Image Filtering, doi 10.1109/TPAMI.2012.213, section 3.4.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

FloatMap = NDArray[np.float32]

EPSILON: Final = 0.01**2
"""Square of the colour contrast (of 1) below which the photo is taken to say nothing."""


class Guide:
    """A photo that smooths maps of its size within its edges; what all of them need is worked out once."""

    def __init__(self, image: NDArray[np.uint8], radius: int) -> None:
        """`image` is uint8 (h, w, 3); windows reach `radius` pixels from their middle."""
        colours = image.astype(np.float32) * np.float32(1 / 255)
        self._colours: list[FloatMap] = [np.ascontiguousarray(colours[..., channel]) for channel in range(3)]
        self._radius = radius
        self._means = [box(colour, radius) for colour in self._colours]
        self._spread = {
            (i, j): box(self._colours[i] * self._colours[j], radius) - self._means[i] * self._means[j]
            for i in range(3)
            for j in range(i, 3)
        }

    def smoothed(self, values: FloatMap) -> FloatMap:
        """(h, w) float32 -> the same, the mean of the lines of all windows that hold a pixel."""
        mean = box(values, self._radius)
        along = [
            box(colour * values, self._radius) - own * mean
            for colour, own in zip(self._colours, self._means, strict=True)
        ]
        slopes = solved(self._spread, along)
        offset = mean - products(slopes, self._means)
        return products([box(slope, self._radius) for slope in slopes], self._colours) + box(offset, self._radius)


def box(values: FloatMap, radius: int) -> FloatMap:
    """Means of windows that reach `radius` pixels from each pixel of (h, w), mirrored at the border."""
    side = 2 * min(radius, max(1, min(values.shape) - 1)) + 1
    blurred: NDArray[Any] = cv2.boxFilter(values, -1, (side, side), borderType=cv2.BORDER_REFLECT)
    return blurred


def solved(spread: Mapping[tuple[int, int], FloatMap], right: Sequence[FloatMap]) -> list[FloatMap]:
    """The solution of (spread + epsilon) x = right at every pixel, by the adjugate of the symmetric 3 x 3 matrix."""
    red, green, blue = (spread[i, i] + np.float32(EPSILON) for i in range(3))
    red_green, red_blue, green_blue = spread[0, 1], spread[0, 2], spread[1, 2]
    a = green * blue - green_blue * green_blue
    b = green_blue * red_blue - red_green * blue
    c = red_green * green_blue - green * red_blue
    d = red * blue - red_blue * red_blue
    e = red_blue * red_green - red * green_blue
    f = red * green - red_green * red_green
    inverse = 1 / (red * a + red_green * b + red_blue * c)
    rows = ((a, b, c), (b, d, e), (c, e, f))
    return [products(line, right) * inverse for line in rows]


def products(left: Sequence[FloatMap], right: Sequence[FloatMap]) -> FloatMap:
    """The sum of products of three and three maps."""
    total: FloatMap = left[0] * right[0] + left[1] * right[1] + left[2] * right[2]
    return total
