"""Geometry of rectified pairs: disparity, and what the right camera cannot see."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_TOLERANCE_PX = 1.0


def disparity_px(inverse_depth: Floats, focal_baseline: float) -> Floats:
    """Disparity in pixels, float32 (H, W): a left pixel at x shows what the right camera has at x - disparity.

    `inverse_depth` in 1/m, `focal_baseline` = focal length in pixels times baseline in metres.
    """
    return np.asarray(inverse_depth * focal_baseline, np.float32)


def occluded(left: Floats, right: Floats, focal_baseline: float) -> npt.NDArray[np.bool_]:
    """Left pixels that are hidden from, or outside of, the right picture, bool (H, W); inverse depths (H, W) in 1/m."""
    width = left.shape[1]
    disparity = disparity_px(left, focal_baseline)
    x = np.rint(np.arange(width) - disparity).astype(np.int64)
    outside = x < 0
    there = np.take_along_axis(disparity_px(right, focal_baseline), x.clip(0), axis=1)
    return np.asarray(outside | (there > disparity + _TOLERANCE_PX))
