"""Metrics, one picture at a time; means over pictures are the caller's.

Definitions of delta1 and AbsRel: Eigen et al., arXiv:1406.2283. Alignment: least squares in inverse depth, as MiDaS
(arXiv:1907.01341) evaluates networks whose scale and shift are free.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


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


def align(prediction: Array, target: Array) -> Array:
    """`scale * prediction + shift` nearest to `target` in least squares, with scale >= 0.

    A negative best scale would reward a prediction that takes near for far, so it becomes 0: the mean of the target.

    Args:
        prediction: (N,) relative inverse depth.
        target: (N,) inverse depth.

    Returns:
        (N,) aligned prediction.
    """
    centred = prediction - prediction.mean()
    variance = float(centred @ centred)
    scale = max(0.0, float(centred @ (target - target.mean())) / variance) if variance > 1e-12 else 0.0
    aligned: Array = scale * centred + target.mean()
    return aligned


def depth_metrics(prediction: npt.ArrayLike, target: npt.ArrayLike, valid: npt.NDArray[np.bool_]) -> DepthMetrics:
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
    t = np.asarray(target, np.float64)[valid]
    if t.size < 2:
        raise ValueError(f"{t.size} valid pixels: at least 2 are needed")
    if t.min() <= 0:
        raise ValueError(f"inverse depth {t.min()} at a valid pixel: it must be positive")
    aligned = np.maximum(align(p, t), t.min())
    ratio = np.maximum(aligned / t, t / aligned)
    # depths are the inverses: |1/a - 1/t| * t = |t/a - 1|
    abs_rel = np.abs(t / aligned - 1).mean()
    spread = p.std() * t.std()
    polarity = float(((p - p.mean()) * (t - t.mean())).mean() / spread) if spread > 1e-12 else 0.0
    return DepthMetrics(float((ratio < 1.25).mean()), float(abs_rel), polarity)


def iou(prediction: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_], counted: npt.NDArray[np.bool_]) -> float:
    """Intersection over union of two masks where `counted`; 1 when both are empty there."""
    p, t = prediction & counted, truth & counted
    union = int((p | t).sum())
    return float((p & t).sum()) / union if union else 1.0
