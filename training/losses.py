"""Losses: scale-and-shift-invariant depth with trimming and gradients, metric depth, person cross-entropy and Dice.

Depth: Ranftl et al., "Towards Robust Monocular Depth Estimation" (MiDaS), arXiv:1907.01341, equations 5 to 11.
Prediction and target are each brought to median 0 and mean absolute deviation 1 over *valid* pixels, and the trimmed
form really drops the largest residuals; both go wrong in widely copied code (isl-org/MiDaS issues 73 and 93).
Unlike a least-squares alignment, this one cannot turn far into near: its scale is positive by construction; a term of
its own turns round what runs the wrong way, which trimming may forgive. The
least-squares form, `ssi_mse`, is what the code of FocusOnDepth runs in its place.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

_MIN_VALID = 64  # pixels; below, median and deviation say nothing
_EPSILON = 1e-6
_FARTHEST = 100.0  # times the nearest depth of a picture; beyond, everything is background
_NEAREST_M = 1e-3  # smallest depth that has a logarithm (the lower cap of the NYU and KITTI protocols)

DepthForm = Literal["trimmed", "mse"]
"""Of the depth loss: trimmed and median-aligned as the MiDaS paper has it, or least squares as FocusOnDepth's code."""


@dataclass(frozen=True)
class DepthLoss:
    """The parts of the depth loss, means over `pictures`; zero, with a gradient of zero, without any depth."""

    ssi: Tensor
    gradient: Tensor
    log: Tensor
    pictures: int


def normalise(values: Tensor, valid: Tensor) -> Tensor:
    """Shift by the median, scale by the mean absolute deviation, both over valid pixels.

    Args:
        values: (H, W) float.
        valid: (H, W) bool, at least one True.

    Returns:
        (H, W); invalid pixels are shifted and scaled alike.
    """
    inside = values[valid]
    median = inside.median()
    return (values - median) / ((inside - median).abs().mean() + _EPSILON)


def trimmed_mean(residual: Tensor, trim: float) -> Tensor:
    """Mean over the smallest residuals, divided by the count of all (MiDaS equation 7).

    Args:
        residual: (N,) absolute residuals.
        trim: Share of the largest residuals that is dropped, 0 <= trim < 1.

    Returns:
        Scalar: sum of the kept residuals / N.
    """
    count = residual.numel()
    kept = count - int(trim * count)
    if kept == count:
        return residual.mean()
    # kthvalue is several times faster than a sort; ties at the threshold are all kept
    threshold = residual.detach().kthvalue(kept).values
    return residual[residual <= threshold].sum() / count


def ssi_residual(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """What least squares leaves: scale * prediction + shift - target, the best scale and shift over valid pixels.

    The alignment of MiDaS' first version (arXiv:1907.01341v1), which FocusOnDepth's code still has. The scale may be
    negative, so that a prediction which takes far for near is as good as its mirror image, and a constant prediction
    has no gradient at all: start from weights that know better, or take the trimmed form.

    Args:
        prediction: (H, W) float32.
        target: (H, W) float32.
        valid: (H, W) bool, at least one True.

    Returns:
        (H, W), differentiable through scale and shift; invalid pixels are aligned alike.
    """
    p, t = prediction[valid], target[valid]
    centred, mean = p - p.mean(), t.mean()
    scale = (centred * (t - mean)).sum() / (centred.square().sum() + _EPSILON)
    return scale * (prediction - p.mean()) + mean - target


def ssi_mse(residual: Tensor, valid: Tensor) -> Tensor:
    """Sum of the squared residuals of one picture over twice its count of valid pixels (FocusOnDepth's data term).

    Args:
        residual: (H, W), of `ssi_residual`.
        valid: (H, W) bool, at least one True.
    """
    inside = residual[valid]
    return inside.square().sum() / (2 * inside.numel())


def gradient_term(residual: Tensor, valid: Tensor, scales: int = 4) -> Tensor:
    """Multi-scale gradient matching (MiDaS equation 11), per picture, then the mean.

    Args:
        residual: (B, H, W), normalised prediction minus normalised target.
        valid: (B, H, W) bool.
        scales: Number of scales; each takes every second pixel of the one before.

    Returns:
        Scalar: sum over scales of mean |d/dx| + |d/dy| over pairs of valid neighbours.
    """
    total = residual.new_zeros(())
    for scale in range(scales):
        step = 2**scale
        r, v = residual[:, ::step, ::step], valid[:, ::step, ::step]
        for axis in (1, 2):
            n = r.shape[axis] - 1
            pair = v.narrow(axis, 0, n) & v.narrow(axis, 1, n)
            difference = (r.narrow(axis, 1, n) - r.narrow(axis, 0, n)).abs() * pair
            total = total + (difference.sum((1, 2)) / pair.sum((1, 2)).clamp(min=1)).mean()
    return total


def aligned_log_term(prediction: Tensor, target: Tensor, valid: Tensor, trim: float) -> Tensor:
    """Error of log depth after a least-squares alignment of the inverse depth: what delta1 and AbsRel measure.

    The other terms compare inverse depths, where all that is far away is nearly the same; this one gives a tree at
    40 m the weight of a chair at 2 m. It needs targets whose zero is infinity: inverse depth with an unknown shift has
    no logarithm. A prediction that runs the wrong way gets no gradient from here (its scale is held at zero); the
    other terms turn it round.

    Args:
        prediction: (H, W) relative inverse depth.
        target: (H, W) true inverse depth up to scale, > 0 where valid.
        valid: (H, W) bool.
        trim: Share of the largest residuals that is dropped.

    Returns:
        Scalar: trimmed mean of |log(aligned) - log(target)|, where nothing counts as farther than 100 times the
        nearest.
    """
    p, t = prediction[valid], target[valid]
    centred, mean = p - p.mean(), t.mean()
    scale = ((centred * (t - mean)).sum() / (centred.square().sum() + _EPSILON)).clamp(min=0)
    floor = t.max() / _FARTHEST
    aligned = torch.maximum(scale * centred + mean, floor)
    return trimmed_mean((aligned.log() - torch.maximum(t, floor).log()).abs(), trim)


def wrong_way(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """How far a prediction runs against its target: minus their correlation, 0 once they run the same way.

    The trimmed loss alone has a trap: it leaves out the pixels that are worst, and a network that has begun to call the
    far near can settle where what is left is half right. One run in five did, and stayed there for good.

    Args:
        prediction: (H, W) relative inverse depth.
        target: (H, W) likewise.
        valid: (H, W) bool.

    Returns:
        Scalar, 0..1.
    """
    p, t = prediction[valid], target[valid]
    p, t = p - p.mean(), t - t.mean()
    together = (p * t).mean() / torch.sqrt(p.square().mean() * t.square().mean() + _EPSILON**2)
    return F.relu(-together)


def depth_loss(
    prediction: Tensor,
    target: Tensor,
    trim: float,
    shift_known: Tensor | None = None,
    form: DepthForm = "trimmed",
) -> DepthLoss:
    """Scale-and-shift-invariant loss, its gradient term and the log term, in inverse depth.

    Args:
        prediction: (B, H, W) float, relative inverse depth.
        target: (B, H, W) float, relative inverse depth, 0 = no data. Pictures with fewer than 64 valid pixels or
            without any variation do not count.
        trim: Share of each picture's pixels with the largest residuals that is left out of the first part, if that is
            trimmed, and of the log term.
        shift_known: (B,) bool, pictures whose target has its zero at infinity; the log term is theirs. None = none.
        form: Of the first part. `mse` measures targets in shares of the picture's largest, so that their unit does
            not matter.

    Returns:
        Means over the pictures that count.
    """
    valid = target > 0
    parts, residuals, masks, logs = [], [], [], []
    for index, (p, t, v) in enumerate(zip(prediction.float(), target, valid, strict=True)):
        if int(v.sum()) < _MIN_VALID or float(t[v].max() - t[v].min()) < _EPSILON:
            continue
        if form == "mse":
            residual = ssi_residual(p, t / t.max(), v)
            parts.append(ssi_mse(residual, v))
        else:
            residual = normalise(p, v) - normalise(t, v)
            parts.append(trimmed_mean(residual[v].abs(), trim) / 2 + wrong_way(p, t, v))
        residuals.append(residual)
        masks.append(v)
        if shift_known is not None and bool(shift_known[index]):
            logs.append(aligned_log_term(p, t / t.max(), v, trim))
    zero = prediction.sum() * 0.0
    if not parts:
        return DepthLoss(zero, zero, zero, 0)
    gradient = gradient_term(torch.stack(residuals), torch.stack(masks))
    # divided by all that count, so that a picture's weight does not depend on the company it is in
    log = torch.stack(logs).sum() / len(parts) if logs else zero
    return DepthLoss(torch.stack(parts).mean(), gradient, log, len(parts))


def silog(prediction: Tensor, target: Tensor, alpha: float = 10.0, variance_focus: float = 0.85) -> Tensor:
    """Scale-invariant logarithmic loss of metric depth.

    Eigen et al., arXiv:1406.2283, in the form of Lee et al. (BTS), arXiv:1907.10326: alpha times the root of
    mean(g^2) - variance_focus * mean(g)^2, with g = log prediction - log target. Its known ways to NaN are closed: it
    runs in float32 whatever autocast says, predictions below a millimetre count as one, and the root never sees 0.

    Args:
        prediction: (B, H, W) depth, metres.
        target: (B, H, W) depth, metres, 0 = no data. Pictures with fewer than 64 valid pixels do not count.
        alpha: Factor.
        variance_focus: 1 forgives a wrong scale, 0 does not.

    Returns:
        Scalar: mean over the pictures that count; zero, with a gradient of zero, where none does.
    """
    values = []
    with torch.autocast(prediction.device.type, enabled=False):
        for p, t in zip(prediction.float(), target.float(), strict=True):
            valid = t > 0
            if int(valid.sum()) < _MIN_VALID:
                continue
            g = p[valid].clamp(min=_NEAREST_M).log() - t[valid].clamp(min=_NEAREST_M).log()
            spread = g.square().mean() - variance_focus * g.mean().square()
            values.append(alpha * torch.sqrt(spread.clamp(min=0) + _EPSILON))
        return torch.stack(values).mean() if values else prediction.float().sum() * 0.0


def counted(target: Tensor) -> int:
    """Pictures that `silog` counts.

    Args:
        target: (B, H, W) depth, metres, 0 = no data.
    """
    return int(((target > 0).sum((1, 2)) >= _MIN_VALID).sum())


def masked_error(prediction: Tensor, target: Tensor, form: Literal["mse", "l1"] = "mse") -> Tensor:
    """Squared or absolute error of metric depth where there is truth.

    Args:
        prediction: (B, H, W) depth, metres.
        target: (B, H, W) depth, metres, 0 = no data. Pictures without any do not count.
        form: `mse`: mean of squares, square metres; `l1`: mean of absolute values, metres.

    Returns:
        Scalar: mean over the pictures that count of the mean over their valid pixels; zero, with a gradient of zero,
        where none does.
    """
    valid = target > 0
    # before the subtraction, so that what lies where nothing is known has no gradient, whatever it is
    error = torch.where(valid, prediction.float(), target.float()) - target.float()
    error = error.square() if form == "mse" else error.abs()
    count = valid.sum((1, 2))
    means = error.sum((1, 2)) / count.clamp(min=1)
    return means.sum() / (count > 0).sum().clamp(min=1)


@dataclass(frozen=True)
class PersonLoss:
    """Both parts of the person loss; zero, with a gradient of zero, where a batch holds no labels.

    Attributes:
        cross_entropy: Mean over `labelled` pictures.
        dice: Mean over `showing` pictures, those with a person.
        labelled: Pictures with labels.
        showing: Pictures that show a person.
    """

    cross_entropy: Tensor
    dice: Tensor
    labelled: int
    showing: int


def person_loss(logit: Tensor, target: Tensor) -> PersonLoss:
    """Binary cross-entropy over labelled pixels, and soft Dice over the pictures that show a person.

    Dice: Milletari et al., V-Net, arXiv:1606.04797, with squares in the denominator.

    Args:
        logit: (B, H, W) float.
        target: (B, H, W) float, probability of a person 0..1, negative = no label.

    Returns:
        Cross-entropy as the mean over pictures of the mean over their labelled pixels; Dice as a mean over pictures.
    """
    logit = logit.float()
    labelled = (target >= 0).float()
    truth = target.clamp(min=0)
    pixels = labelled.sum((1, 2))
    has_label = pixels > 0
    if not bool(has_label.any()):
        zero = logit.sum() * 0.0
        return PersonLoss(zero, zero, 0, 0)
    entropy = F.binary_cross_entropy_with_logits(logit, truth, reduction="none") * labelled
    cross_entropy = (entropy.sum((1, 2))[has_label] / pixels[has_label]).mean()

    shows_person = (truth * labelled).sum((1, 2)) >= 1
    if not bool(shows_person.any()):
        return PersonLoss(cross_entropy, logit.sum() * 0.0, int(has_label.sum()), 0)
    probability = torch.sigmoid(logit) * labelled
    truth = truth * labelled
    overlap = 2 * (probability * truth).sum((1, 2))
    extent = (probability**2).sum((1, 2)) + (truth**2).sum((1, 2))
    dice = 1 - overlap[shows_person] / (extent[shows_person] + _EPSILON)
    return PersonLoss(cross_entropy, dice.mean(), int(has_label.sum()), int(shows_person.sum()))
