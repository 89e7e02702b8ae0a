"""Metrics of depth in metres, one picture at a time, then the mean over pictures: never pooled over all pixels.

Definitions: Eigen et al., arXiv:1406.2283, as the evaluation code of AdaBins, BTS and LapDepth computes them. SSIM:
Wang et al., IEEE TIP 2004, with its authors' window. Which pixels count, and to which range predictions are held, is
a protocol's business: `training.protocols`.
"""

from collections.abc import Iterable, Mapping

import cv2
import numpy as np
import numpy.typing as npt

Depth = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_WINDOW = 11  # pixels a side, of SSIM
_SIGMA_PX = 1.5
_STABLE = (0.01, 0.03)  # K1 and K2 of SSIM

LARGER_IS_BETTER = frozenset({"delta1", "delta2", "delta3", "ssim"})
"""Of the metrics; of the others, smaller is."""


def held_to(prediction_m: npt.ArrayLike, least_m: float, most_m: float) -> Depth:
    """A prediction made fit to be judged, as AdaBins and BTS do it: infinite = farthest, not a number = nearest.

    Args:
        prediction_m: Depth in metres, any shape.
        least_m: Nearest depth, > 0.
        most_m: Farthest.

    Returns:
        The same shape, every value in `least_m`..`most_m`; minus infinity is nearest too.
    """
    prediction = np.asarray(prediction_m, np.float64)
    return np.clip(np.where(np.isnan(prediction), least_m, prediction), least_m, most_m)


def in_range(target_m: npt.ArrayLike, least_m: float, most_m: float) -> Mask:
    """Where truth counts: `least_m` < truth < `most_m`, both exclusive; 0, infinite and not a number do not."""
    target = np.asarray(target_m, np.float64)
    with np.errstate(invalid="ignore"):  # comparisons with NaN are false, which is what is wanted
        return (target > least_m) & (target < most_m)


def metric_depth_errors(
    prediction_m: npt.ArrayLike, target_m: npt.ArrayLike, valid: Mask, data_range_m: float | None = None
) -> dict[str, float]:
    """All metrics of one picture.

    With p predicted and t true depth at the N valid pixels and e = log p - log t:
    `delta1..3` share of max(p / t, t / p) < 1.25 ** k; `abs_rel` mean |p - t| / t; `sq_rel` mean (p - t) ** 2 / t, in
    metres; `sq_rel_gt2` mean (p - t) ** 2 / t ** 2, the formula on seed 3's slide, whose numbers are of the other one;
    `rmse`, `mae` in metres; `rmse_log` sqrt(mean e ** 2); `log10` mean |log10 p - log10 t|; `silog` 100 * sqrt(mean
    e ** 2 - (mean e) ** 2), as BTS and AdaBins print it; `silog_eigen` the same without root and factor, as Eigen et
    al. define it with lambda 1; `ssim` see there, absent where it is not defined.

    Args:
        prediction_m: (H, W), finite and > 0 where valid: see `held_to`.
        target_m: (H, W), finite and > 0 where valid.
        valid: (H, W).
        data_range_m: Of SSIM, the protocol's farthest depth; None leaves SSIM out.

    Raises:
        ValueError: No valid pixel, other shapes, or values there that are not positive and finite.
    """
    prediction, target = np.asarray(prediction_m, np.float64), np.asarray(target_m, np.float64)
    if not prediction.shape == target.shape == valid.shape:
        raise ValueError(f"prediction {prediction.shape}, target {target.shape}, valid mask {valid.shape}")
    p, t = prediction[valid], target[valid]
    if not t.size:
        raise ValueError("no valid pixel")
    for name, depths in (("prediction", p), ("target", t)):
        if not (np.isfinite(depths).all() and depths.min() > 0):
            raise ValueError(f"{name} holds depths that are not positive and finite at valid pixels")
    ratio = np.maximum(p / t, t / p)
    error = p - t
    log_error = np.log(p) - np.log(t)
    # a variance; rounding may leave it a hair below 0
    variance = max(0.0, float((log_error**2).mean() - log_error.mean() ** 2))
    values = {f"delta{k}": float((ratio < 1.25**k).mean()) for k in (1, 2, 3)}
    values |= {
        "abs_rel": float((np.abs(error) / t).mean()),
        "sq_rel": float((error**2 / t).mean()),
        "sq_rel_gt2": float((error**2 / t**2).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "mae": float(np.abs(error).mean()),
        "rmse_log": float(np.sqrt((log_error**2).mean())),
        "log10": float((np.abs(log_error) / np.log(10)).mean()),
        "silog": 100 * variance**0.5,
        "silog_eigen": variance,
    }
    similarity = ssim(prediction, target, valid, data_range_m) if data_range_m else None
    return values if similarity is None else values | {"ssim": similarity}


def ssim(prediction: npt.ArrayLike, target: npt.ArrayLike, valid: Mask, data_range: float) -> float | None:
    """Mean structural similarity over all 11 x 11 windows (Gaussian, sigma 1.5) that hold valid pixels only.

    Where every pixel is valid this is the customary value: no padding, weighted moments without Bessel's correction.
    Holes of truth would otherwise be structure, and to fill them would be to guess.

    Args:
        prediction: (H, W).
        target: (H, W).
        valid: (H, W).
        data_range: Largest possible difference of two values, in their unit.

    Returns:
        -1..1; None where no window is whole, as with truth from a scanning laser.
    """
    whole = cv2.erode(valid.astype(np.uint8), np.ones((_WINDOW, _WINDOW), np.uint8), borderValue=(0,)).astype(bool)
    if not whole.any():
        return None
    # holes are set to 0 so that their NaN reaches no window
    p, t = (np.where(valid, np.asarray(values, np.float64), 0.0) for values in (prediction, target))
    mean_p, mean_t = _blurred(p), _blurred(t)
    variance_p, variance_t = _blurred(p * p) - mean_p**2, _blurred(t * t) - mean_t**2
    covariance = _blurred(p * t) - mean_p * mean_t
    c1, c2 = ((k * data_range) ** 2 for k in _STABLE)
    similarity = (2 * mean_p * mean_t + c1) * (2 * covariance + c2)
    similarity = similarity / ((mean_p**2 + mean_t**2 + c1) * (variance_p + variance_t + c2))
    return float(similarity[whole].mean())


def _blurred(values: Depth) -> Depth:
    return cv2.GaussianBlur(values, (_WINDOW, _WINDOW), _SIGMA_PX).astype(np.float64, copy=False)


def mean_over_pictures(rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each metric over the pictures that have it, and `pictures`, how many there are."""
    rows = list(rows)
    names = dict.fromkeys(name for row in rows for name in row)
    means = {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}
    return {"pictures": float(len(rows))} | means
