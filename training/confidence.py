"""How far a proxy label can be trusted: hand-made measures, 0..1 each, and what judges any measure.

Hu and Mordohai, "A Quantitative Evaluation of Confidence Measures for Stereo Vision", TPAMI 2012: left-right
difference, peak ratio, and the area under the error curve of sparsification. Poggi et al., ICCV 2017, for deviation
from the median and texture. The learned one is `training.models.ccnn`.
"""

from collections.abc import Callable
from types import MappingProxyType
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from training.proxies import Floats, Match, Pictures, disagreement, largest_disparity, matching_costs

Measure = Callable[[Pictures, Pictures, Match], Floats]
MeasureName = Literal["left_right", "uniqueness", "texture", "median", "combined"]

_DOUBT_PX = 2.0  # a difference that leaves no confidence; half of it leaves half
_SQUARE = 5  # pixels
_DULL = 8.0  # grey levels of mean gradient that make half a confidence
_LARGEST_FLOAT_MEDIAN = 5  # of OpenCV


def left_right(left: Pictures, right: Pictures, match: Match) -> Floats:
    """1 where both views say the same, 0.5 where they differ by a pixel, 0 from two on or where one says nothing."""
    return _falling(disagreement(match))


def _falling(difference_px: Floats) -> Floats:
    return np.maximum(1 - difference_px / _DOUBT_PX, 0).astype(np.float32)


def uniqueness(left: Pictures, right: Pictures, match: Match) -> Floats:
    """1 - ratio of the label's cost to the least of all disparities but its neighbours; 0 where another is cheaper.

    The inverse of the peak ratio (PKRN), in costs of AD-Census whatever the matcher, on a scale from 0 to 1.
    """
    count = max(largest_disparity(left.shape[1]), int(np.ceil(match.disparity_px.max())) + 2)
    costs = matching_costs(left, right, count)
    label = np.rint(match.disparity_px).astype(np.int64).clip(0, count - 1)
    own = np.take_along_axis(costs, label[None], 0)[0]
    beside = np.abs(np.arange(count)[:, None, None] - label) <= 1
    other = np.where(beside, np.inf, costs).min(0)
    found = 1 - own / np.maximum(other, 1e-6)
    return np.where(match.disparity_px > 0, found, 0).clip(0, 1).astype(np.float32)


def texture(left: Pictures, right: Pictures, match: Match) -> Floats:
    """How much the left picture changes along its rows: mean gradient / (mean gradient + 8 grey levels)."""
    grey = left if left.ndim == 2 else cv2.cvtColor(left, cv2.COLOR_RGB2GRAY)
    gradient = cv2.blur(np.abs(np.gradient(grey.astype(np.float32), axis=1)), (_SQUARE, _SQUARE))
    return np.asarray(gradient / (gradient + _DULL), np.float32)


def median(left: Pictures, right: Pictures, match: Match) -> Floats:
    """1 where the label is the median of its 5 x 5 neighbours, 0 from two pixels of difference on."""
    middle = cv2.medianBlur(match.disparity_px, _LARGEST_FLOAT_MEDIAN)
    deviation = np.where(match.disparity_px > 0, np.abs(match.disparity_px - middle), np.inf)
    return _falling(deviation.astype(np.float32))


def combined(left: Pictures, right: Pictures, match: Match) -> Floats:
    """Geometric mean of left-right check, uniqueness and texture: low where any of them is."""
    measures = (left_right, uniqueness, texture)
    product = np.prod([measure(left, right, match) for measure in measures], axis=0)
    return np.asarray(np.cbrt(product), np.float32)


MEASURES: MappingProxyType[MeasureName, Measure] = MappingProxyType(
    {
        "left_right": left_right,
        "uniqueness": uniqueness,
        "texture": texture,
        "median": median,
        "combined": combined,
    }
)
"""Each takes left, right and match, and gives float32 (H, W)."""


def sparsification_area(confidence: npt.ArrayLike, wrong: npt.ArrayLike) -> float:
    """Area under the error curve: the share of wrong labels among the most confident ones, mean over how many are kept.

    Args:
        confidence: (N,); of equal ones the wrong are taken to lie evenly among the others.
        wrong: Bool (N,).

    Returns:
        0..1, lower is better. A measure that says nothing has the share of wrong labels; see `optimal_area`.

    Raises:
        ValueError: No labels, or not one confidence each.
    """
    values, wrongs = np.asarray(confidence, np.float64).ravel(), np.asarray(wrong, np.float64).ravel()
    if values.shape != wrongs.shape or not values.size:
        raise ValueError(f"{values.size} confidences of {wrongs.size} labels")
    _, group, sizes = np.unique(-values, return_inverse=True, return_counts=True)
    shares = np.bincount(group, wrongs) / sizes
    kept = np.cumsum(np.repeat(shares, sizes)) / np.arange(1, values.size + 1)
    return float(kept.mean())


def optimal_area(wrong_share: float) -> float:
    """The area of a measure that knows all wrong labels, e + (1 - e) ln(1 - e) for a share e of them."""
    right = 1 - wrong_share
    return float(wrong_share + (right * np.log(right) if right > 0 else 0.0))
