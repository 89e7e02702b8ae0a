"""One person of a photo, as a caller chooses by: where, how far, how large."""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from service.imaging.errors import InvalidMap
from service.imaging.matte import THRESHOLD, Box, bounding_box

FloatMap = NDArray[np.float32]

_CORE_SHARE: Final = 0.02  # of the shorter side of a person's box: how far inside its border the core begins
_CORE_SAMPLES: Final = 40_000  # pixels of a core looked at for its median, of any number


@dataclass(frozen=True, slots=True)
class Person:
    """One person of a photo, for the caller to choose by.

    Attributes:
        index: place in the mattes, 0 = nearest.
        box: left, top, right, bottom in pixels, right and bottom exclusive, round the matte above a half; 0, 0, 0, 0
            when no pixel is.
        depth: median inverse depth of the matte's core, which leaves out the border where depths mix; 0 when empty.
        spread: 1.4826 * median |inverse depth - depth| of the core: the standard deviation, were it normal.
        area: share of the picture above a half, 0..1.
    """

    index: int
    box: Box
    depth: float
    spread: float
    area: float


def describe(mattes: FloatMap | NDArray[np.uint8], inverse_depth: FloatMap) -> list[Person]:
    """Say where each person is and how far.

    Args:
        mattes: (N, H, W), float32 in 0..1 or uint8 in 0..255, one per person.
        inverse_depth: (H, W), larger = nearer; no NaN.

    Raises:
        InvalidMap: mattes that are not of the map's size.
    """
    if mattes.ndim != 3 or mattes.shape[1:] != inverse_depth.shape:
        raise InvalidMap(
            f"The mattes are {mattes.shape}, the inverse depth {inverse_depth.shape}; they must be (N, H, W).",
            field="mask",
        )
    half = 255 * THRESHOLD if mattes.dtype == np.uint8 else THRESHOLD
    return [_describe(index, matte > half, inverse_depth) for index, matte in enumerate(mattes)]


def _describe(index: int, inside: NDArray[np.bool_], inverse_depth: FloatMap) -> Person:
    box = bounding_box(inside)
    if box is None:
        return Person(index, (0, 0, 0, 0), 0.0, 0.0, 0.0)
    left, top, right, bottom = box
    cut = inside[top:bottom, left:right]
    step = max(1, round((cut.size / _CORE_SAMPLES) ** 0.5))
    values = inverse_depth[top:bottom:step, left:right:step][_core(cut[::step, ::step])]
    depth = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(values - depth)))
    return Person(index, box, depth, spread, float(np.count_nonzero(cut)) / inside.size)


def _core(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels well inside; all of them where nothing is (thin things)."""
    apart = cv2.distanceTransform(np.pad(inside.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    core: NDArray[np.bool_] = apart > max(1.0, _CORE_SHARE * min(inside.shape))
    return core if core.any() else inside
