"""Metrics, one picture at a time; means over pictures are the caller's.

Definitions of delta1 and AbsRel: Eigen et al., arXiv:1406.2283. Alignment: least squares in inverse depth, as MiDaS
(arXiv:1907.01341) evaluates networks whose scale and shift are free. Boundary F1: Bochkovskii et al., Depth Pro,
arXiv:2410.02073, with a tolerance as in DAVIS (Perazzi et al., CVPR 2016); see `boundary_f1`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_DENSE_SHARE = 0.75  # the sets at hand have at least 0.95 (depth cameras, stereo) or at most 0.37 (LiDAR on KITTI)
_FEWEST_CONTOURS = 50  # pixels of true contours at a threshold: below, a speck of noise moves the score by percents
_THRESHOLDS = np.linspace(1.05, 1.25, 10)  # Depth Pro's


@dataclass(frozen=True)
class DepthMetrics:
    """Of one picture.

    Attributes:
        delta1: Share of valid pixels with max(d / t, t / d) < 1.25, d and t depths, after alignment.
        abs_rel: Mean |d - t| / t after alignment.
        polarity: Pearson correlation of predicted and true inverse depth; negative means near and far are swapped.
    """

    delta1: float
    abs_rel: float
    polarity: float


@dataclass(frozen=True)
class BoundaryForm:
    """At which resolution contours are compared, and how exactly they must agree.

    Attributes:
        long_side: Both maps are first reduced to about this many cells on the longer side, each the median of a square
            of pixels; None compares pixels.
        radius: A contour counts as found when one of the same direction lies at most this many rows and columns away.
        thin: Whether of contour pixels in a run across the contour only the steepest stays, in both maps (Depth Pro's
            non-maximum suppression).
    """

    long_side: int | None
    radius: int
    thin: bool


TOLERANT = BoundaryForm(long_side=320, radius=1, thin=True)
"""The form to compare networks by."""

STRICT = BoundaryForm(long_side=None, radius=0, thin=False)
"""Depth Pro's F1 as its authors released it: pixel for pixel, nothing thinned (they thin for recall on masks only)."""


@dataclass(frozen=True)
class Boundaries:
    """Agreement of occluding contours in one picture, 0..1 each."""

    f1: float
    precision: float
    recall: float


def align(prediction: Array, target: Array) -> Array:
    """`scale * prediction + shift` nearest to `target` in least squares, with scale >= 0.

    A negative best scale would reward a prediction that takes near for far, so it becomes 0: the mean of the target.

    Args:
        prediction: (N,) relative inverse depth.
        target: (N,) inverse depth.

    Returns:
        (N,) aligned prediction.
    """
    scale, shift = scale_and_shift(prediction, target)
    aligned: Array = scale * prediction + shift
    return aligned


def scale_and_shift(prediction: Array, target: Array) -> tuple[float, float]:
    """The two numbers of `align`."""
    mean = prediction.mean()
    centred = prediction - mean
    variance = float(centred @ centred)
    scale = max(0.0, float(centred @ (target - target.mean())) / variance) if variance > 1e-12 else 0.0
    return scale, float(target.mean() - scale * mean)


def depth_metrics(prediction: npt.ArrayLike, target: npt.ArrayLike, valid: Mask) -> DepthMetrics:
    """Aligned delta1 and AbsRel, and polarity.

    The aligned inverse depth is clamped from below at the smallest true one: the customary depth cap, at the farthest
    true depth of the picture.

    Args:
        prediction: (H, W) relative inverse depth, larger = nearer.
        target: (H, W) true inverse depth up to scale, > 0 where valid.
        valid: (H, W); at least two pixels.

    Raises:
        ValueError: Fewer than two valid pixels, or a target that is not positive there.
    """
    p = np.asarray(prediction, np.float64)[valid]
    t = _true_values(target, valid)
    aligned = np.maximum(align(p, t), t.min())
    ratio = np.maximum(aligned / t, t / aligned)
    # depths are the inverses: |1/a - 1/t| * t = |t/a - 1|
    abs_rel = np.abs(t / aligned - 1).mean()
    spread = p.std() * t.std()
    polarity = float(((p - p.mean()) * (t - t.mean())).mean() / spread) if spread > 1e-12 else 0.0
    return DepthMetrics(float((ratio < 1.25).mean()), float(abs_rel), polarity)


def _true_values(target: npt.ArrayLike, valid: Mask) -> Array:
    values = np.asarray(target, np.float64)[valid]
    if values.size < 2:
        raise ValueError(f"{values.size} valid pixels: at least 2 are needed")
    if values.min() <= 0:
        raise ValueError(f"inverse depth {values.min()} at a valid pixel: it must be positive")
    return values


def is_dense(valid: Mask) -> bool:
    """Whether truth can show contours: three quarters of the neighbouring pixel pairs that have any have it twice.

    Depth cameras and stereo leave holes, but keep 95 % of the pairs and more; projected LiDAR leaves single points (2
    to 37 % on the KITTI sets), between which a contour cannot be told from a gap.
    """
    whole = int((valid[:, 1:] & valid[:, :-1]).sum() + (valid[1:] & valid[:-1]).sum())
    touched = int((valid[:, 1:] | valid[:, :-1]).sum() + (valid[1:] | valid[:-1]).sum())
    return touched > 0 and whole >= _DENSE_SHARE * touched


def boundary_f1(
    prediction: npt.ArrayLike, target: npt.ArrayLike, valid: Mask, form: BoundaryForm = TOLERANT
) -> Boundaries | None:
    """Precision, recall and F1 of occluding contours: how sharp, and how well placed, depth edges are.

    Two neighbouring pixels lie across a contour when the ratio of their depths exceeds t. There are four kinds, by the
    side on which the nearer pixel lies (left, right, above, below), so an edge of swapped polarity matches nothing. F1
    is averaged over ten t from 1.05 to 1.25 with weights proportional to t. An edge that is spread over many pixels has
    small ratios and drops out at the larger t: that makes it a measure of sharpness.

    Ours differs from the paper's: The prediction has a free scale and shift, so it is first aligned and capped as in
    `depth_metrics`. Pairs count only where truth is valid on both sides. The four kinds are pooled, so that a picture
    without one of them can still reach 1. A t at which truth has fewer than 50 contour pixels is left out.

    And there is the form. Truth from depth cameras has ragged edges, off by a pixel or two and with holes along them,
    and the network's map, at most 416 wide, is enlarged to the photo: pixel for pixel, hardly anything agrees however
    sharp it looks. `TOLERANT` therefore compares at about the network's own resolution, where the median also closes
    holes of a pixel; it accepts one cell, 1 or 2 pixels of these photos, and thins the contours of both maps first, so
    that thick ones gain nothing by that. What it makes of truth itself (at most two pictures a set, mean over 8 sets):
    reduced to the network's size and enlarged again 0.84, half of that size 0.61, a quarter 0.24; blurred by 1.5, 3 and
    6 pixels 0.64, 0.34, 0.10; shifted by 2 and 5 pixels 0.82, 0.42. `STRICT` is for comparison with the literature, and
    for what upsampling does to the photo's own pixels.

    Args:
        prediction: (H, W) relative inverse depth, larger = nearer.
        target: (H, W) true inverse depth up to scale, > 0 where valid.
        valid: (H, W).
        form: See `BoundaryForm`.

    Returns:
        None where it is not defined: truth that is too sparse (`is_dense`) or has too few contours.

    Raises:
        ValueError: A target that is not positive where it is valid.
    """
    if not is_dense(valid):
        return None
    p, t = np.asarray(prediction, np.float64), np.asarray(target, np.float64)
    true_values = _true_values(t, valid)
    scale, shift = scale_and_shift(p[valid], true_values)
    aligned = np.maximum(scale * p + shift, true_values.min())
    pixels = max(1, round(max(valid.shape) / form.long_side)) if form.long_side else 1
    found, counted = _cells(aligned, valid, pixels)
    true, _ = _cells(t, valid, pixels)
    # per t: found contours, those that are true, true contours, those that were found
    counts = np.zeros((len(_THRESHOLDS), 4))
    for pair in ((found, true, counted), (found.T, true.T, counted.T)):
        found_steps, true_steps = _steps(*pair)
        for sign in (1, -1):
            counts += _agreement(sign * found_steps, sign * true_steps, form)
    judged = counts[:, 2] >= _FEWEST_CONTOURS
    if not judged.any():
        return None
    n_found, n_true_found, n_true, n_found_true = counts[judged].T
    precision, recall = n_true_found / np.maximum(n_found, 1), n_found_true / n_true
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    weights = _THRESHOLDS[judged]
    return Boundaries(*(float(np.average(values, weights=weights)) for values in (f1, precision, recall)))


def _cells(values: Array, valid: Mask, pixels: int) -> tuple[Array, Mask]:
    """Logarithms of the (lower) medians of the valid pixels of each square of `pixels`; valid where half of them are.

    Values are positive where valid; results elsewhere are 0.
    """
    height, width = (side // pixels for side in valid.shape)
    squares = np.where(valid, values, np.inf)[: height * pixels, : width * pixels]
    squares = squares.reshape(height, pixels, width, pixels).swapaxes(1, 2).reshape(height, width, pixels**2)
    ordered = np.sort(squares, axis=2)
    count = np.isfinite(ordered).sum(axis=2)
    median = np.take_along_axis(ordered, np.maximum(count - 1, 0)[..., None] // 2, axis=2)[..., 0]
    counted = 2 * count >= pixels**2
    return np.log(np.where(counted, median, 1)), counted


def _steps(found: Array, true: Array, valid: Mask) -> tuple[Array, Array]:
    """Steps from each cell to the next one of its row, (H, W - 1) each; 0 where truth is missing on either side."""
    pairs = valid[:, 1:] & valid[:, :-1]
    return np.where(pairs, np.diff(found, axis=1), 0), np.where(pairs, np.diff(true, axis=1), 0)


def _agreement(found_steps: Array, true_steps: Array, form: BoundaryForm) -> Array:
    """(thresholds, 4): found contours, those that are true, true contours, those that were found."""
    element = np.ones((2 * form.radius + 1,) * 2, np.uint8)
    counts = []
    for found, true in zip(_contours(found_steps, form.thin), _contours(true_steps, form.thin), strict=True):
        near_found, near_true = cv2.dilate(found, element) > 0, cv2.dilate(true, element) > 0
        counts.append([found.sum(), found[near_true].sum(), true.sum(), true[near_found].sum()])
    return np.array(counts, np.float64)


def _contours(steps: Array, thin: bool) -> Iterator[npt.NDArray[np.uint8]]:
    """Where `steps` exceed the log of each threshold, uint8 0 or 1; thinned along rows to the steepest of each run."""
    rows, columns = np.nonzero(steps > np.log(_THRESHOLDS[0]))
    values = steps[rows, columns]
    for threshold in np.log(_THRESHOLDS):
        kept = values > threshold
        rows, columns, values = rows[kept], columns[kept], values[kept]
        chosen = _steepest(rows, columns, values) if thin else np.arange(rows.size)
        contours = np.zeros(steps.shape, np.uint8)
        contours[rows[chosen], columns[chosen]] = 1
        yield contours


def _steepest(rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp], values: Array) -> npt.NDArray[np.intp]:
    """Index of the largest value of each run of neighbours within a row; of equal ones the middle one."""
    if not rows.size:
        return np.zeros(0, np.intp)
    run = np.cumsum(np.r_[True, (np.diff(rows) != 0) | (np.diff(columns) != 1)]) - 1
    starts = np.flatnonzero(np.r_[True, np.diff(run) != 0])
    largest = np.flatnonzero(values >= np.maximum.reduceat(values, starts)[run])
    _, first, count = np.unique(run[largest], return_index=True, return_counts=True)
    chosen: npt.NDArray[np.intp] = largest[first + count // 2]
    return chosen


def iou(prediction: Mask, truth: Mask, counted: Mask) -> float:
    """Intersection over union of two masks where `counted`; 1 when both are empty there."""
    p, t = prediction & counted, truth & counted
    union = int((p | t).sum())
    return float((p & t).sum()) / union if union else 1.0


def touching(prediction: Mask, truth: Mask) -> Mask:
    """The connected pieces of a mask that share a pixel with the true one; bool (H, W)."""
    _, pieces = cv2.connectedComponents(prediction.astype(np.uint8), connectivity=8)
    found: Mask = prediction & np.isin(pieces, np.unique(pieces[prediction & truth]))
    return found


@dataclass(frozen=True)
class DisparityMetrics:
    """Of one pair.

    Attributes:
        epe: Mean absolute error, pixels.
        bad3: Share of pixels that are wrong by more than 3 pixels.
        d1: Share of pixels that are wrong by more than 3 pixels and by more than 5 % of the true disparity: KITTI's
            D1-all (Menze and Geiger, CVPR 2015).
    """

    epe: float
    bad3: float
    d1: float


def disparity_metrics(
    prediction: npt.ArrayLike, target: npt.ArrayLike, counted: Mask | None = None
) -> DisparityMetrics:
    """Errors of disparity where truth is above 0; a prediction that is not finite is wrong by the true disparity.

    Args:
        prediction: (H, W), pixels.
        target: (H, W), pixels, 0 = unknown.
        counted: (H, W), pixels to leave out are False; None counts all.

    Raises:
        ValueError: No pixel counts.
    """
    p, t = np.asarray(prediction, np.float64), np.asarray(target, np.float64)
    valid = (t > 0) & np.isfinite(t) & (True if counted is None else counted)
    if not valid.any():
        raise ValueError("no pixel with truth to judge")
    error = np.abs(np.where(np.isfinite(p), p, 0) - t)[valid]
    wrong = error > 3
    return DisparityMetrics(float(error.mean()), float(wrong.mean()), float((wrong & (error > 0.05 * t[valid])).mean()))
