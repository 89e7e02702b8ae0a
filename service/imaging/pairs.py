"""Whether two pictures can be a rectified stereo pair: what their matched corners say."""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from service.imaging.geometry import resize

_LONGEST_PX: Final = 640
_CORNERS: Final = 1000
_FEWEST: Final = 25
"""Matches that agree, below which nothing is said: pictures without corners, or of different things."""
_NEAR_PX: Final = 2.0


@dataclass(frozen=True, slots=True)
class PairGeometry:
    """What matched corners of a pair say, in pixels of the pictures; None where too few agree.

    Attributes:
        vertical_px: median row in right minus row in left: 0 in a rectified pair.
        behind_share: of the matches, those whose column in right is larger: 0 in a pair that is not swapped.
    """

    vertical_px: float | None
    behind_share: float | None


def pair_geometry(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> PairGeometry:
    """Match the ORB corners of two uint8 (H, W, 3) pictures of one size, and let most of them say how they lie."""
    height, width = left.shape[:2]
    scale = min(1.0, _LONGEST_PX / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    grays = [cv2.cvtColor(resize(each, size), cv2.COLOR_RGB2GRAY) for each in (left, right)]
    orb = cv2.ORB_create(nfeatures=_CORNERS, fastThreshold=10)  # type: ignore[attr-defined]  # not in the stubs
    (ours, described), (theirs, also) = (orb.detectAndCompute(gray, None) for gray in grays)
    if described is None or also is None:
        return PairGeometry(None, None)
    matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(described, also)
    if len(matches) < _FEWEST:
        return PairGeometry(None, None)
    moved = np.array([np.subtract(theirs[m.trainIdx].pt, ours[m.queryIdx].pt) for m in matches])
    down = moved[:, 1]
    # The row that most agree on: wrong matches lie anywhere.
    agree = np.abs(down[:, None] - down[None]) <= _NEAR_PX
    agreeing = agree[agree.sum(1).argmax()]
    if agreeing.sum() < _FEWEST:
        return PairGeometry(None, None)
    vertical = float(np.median(down[agreeing])) * height / size[0]
    return PairGeometry(vertical, float((moved[agreeing, 0] > 1).mean()))


def reduced_size(height: int, width: int, max_side: int) -> tuple[int, int]:
    """(height, width) with a longest side of `max_side` at most, in the same shape."""
    longest = max(height, width)
    if longest <= max_side:
        return height, width
    return max(1, round(height * max_side / longest)), max(1, round(width * max_side / longest))
