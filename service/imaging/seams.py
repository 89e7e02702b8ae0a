"""The line between two people who touch side by side.

From the top of a mask to its bottom, one column per row and never more than one column further than in the row above:
the cheapest such line, by dynamic programming (Avidan and Shamir 2007, Seam Carving, section 3, with a cost of our
own). Off the mask the line is nearly free; on it, it is cheap along edges of colour and depth.
"""

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

FloatMap = NDArray[np.float32]

_OFF_MASK: Final = 0.03  # cost of a pixel that shows nobody; 1 is one of a person without any edge
_COLOUR_EDGE: Final = 24.0  # of 255: contrast from which an edge of the picture halves the cost
_DEPTH_EDGE: Final = 0.02  # the same for relative inverse depth
_OFF_CENTRE: Final = 0.3  # added at the very heads, none half way between them
_STEP: Final = 0.05  # cost of a step to the side


def costs(mask: NDArray[np.bool_], inverse_depth: FloatMap, image: NDArray[np.uint8] | None) -> FloatMap:
    """What a line that goes down pays for each pixel: float32 (H, W) in 0..1.

    Args:
        mask: bool (H, W), people.
        inverse_depth: (H, W) in 0..1.
        image: uint8 (H, W, 3), RGB, or None.
    """
    edge = _across(inverse_depth) * np.float32(1 / _DEPTH_EDGE)
    if image is not None:
        colours: NDArray[Any] = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2LAB), (0, 0), 1.0)
        contrast = _across(colours.astype(np.float32)).max(axis=2)
        edge = edge + contrast * np.float32(1 / _COLOUR_EDGE)
    return np.where(mask, 1 / (1 + edge), np.float32(_OFF_MASK)).astype(np.float32)


def _across(values: FloatMap) -> FloatMap:
    """Contrast between the pixels to the left and to the right."""
    wide = np.pad(values, ((0, 0), (1, 1), *((0, 0),) * (values.ndim - 2)), mode="edge")
    result: FloatMap = np.abs(wide[:, 2:] - wide[:, :-2])
    return result


def cheapest(cost: FloatMap, left: int, right: int) -> NDArray[np.intp]:
    """The column of the cheapest line in every row, left <= column <= right; pixels from it on belong to the right.

    Args:
        cost: (H, W) of `costs`.
        left: column of the head on the left.
        right: column of the head on the right, at least `left`.
    """
    place = np.linspace(-1, 1, right - left + 1, dtype=np.float32)
    corridor = cost[:, left : right + 1] * (1 + np.float32(_OFF_CENTRE) * place * place)
    height, width = corridor.shape
    came = np.zeros((height, width), np.int8)
    total = corridor[0].copy()
    options = np.full((3, width), np.inf, np.float32)
    columns = np.arange(width)
    for row in range(1, height):
        options[0, 1:] = total[:-1] + _STEP
        options[1] = total
        options[2, :-1] = total[1:] + _STEP
        best = options.argmin(axis=0)
        came[row] = best - 1
        total = options[best, columns] + corridor[row]
    line = np.empty(height, np.intp)
    line[-1] = int(total.argmin())
    for row in range(height - 1, 0, -1):
        line[row - 1] = line[row] + came[row, line[row]]
    return line + left
