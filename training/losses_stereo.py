"""Losses of stereo networks: truth, photometric, smoothness, and regression on proxy labels guided by confidence.

Photometric and smoothness: Godard et al., arXiv:1609.03677; SSIM of 3 x 3 blocks as Tonioni et al. use it online,
arXiv:1810.05424. Confidence-guided regression with a fixed or a learned threshold: Tonioni et al., arXiv:1909.03943.
All of them differentiate twice where learning to adapt needs it.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.models.matching import warped

ALPHA = 0.85
"""Share of SSIM in the photometric loss; the rest is the absolute difference."""
LARGEST_PX = 192.0
"""Truth and proxies of more disparity do not count."""

_C1, _C2 = 0.01**2, 0.03**2
_GREYS = 256.0
_GATE_SLOPE = 20.0
"""Of the soft gate about a learned threshold: from 0.12 to 0.88 within 0.2 of confidence."""


def ssim_error(ours: Tensor, theirs: Tensor) -> Tensor:
    """(1 - SSIM) / 2 of 3 x 3 blocks, cut to 0..1.

    Args:
        ours: Float (B, C, H, W), 0..1.
        theirs: The same.

    Returns:
        (B, C, H - 2, W - 2).
    """
    mean_a, mean_b = F.avg_pool2d(ours, 3, 1), F.avg_pool2d(theirs, 3, 1)
    variance_a = F.avg_pool2d(ours * ours, 3, 1) - mean_a * mean_a
    variance_b = F.avg_pool2d(theirs * theirs, 3, 1) - mean_b * mean_b
    covariance = F.avg_pool2d(ours * theirs, 3, 1) - mean_a * mean_b
    above = (2 * mean_a * mean_b + _C1) * (2 * covariance + _C2)
    below = (mean_a * mean_a + mean_b * mean_b + _C1) * (variance_a + variance_b + _C2)
    return ((1 - above / below) / 2).clamp(0, 1)


def _picture(image: Tensor) -> Tensor:
    picture = image.permute(0, 3, 1, 2)
    return (picture if picture.is_floating_point() else picture.float()) / _GREYS


def photometric(left: Tensor, right: Tensor, disparity: Tensor) -> Tensor:
    """How badly the right picture, moved by the disparity, explains the left one; needs no truth.

    Args:
        left: uint8 or float (B, H, W, 3), 0..255.
        right: The same.
        disparity: (B, H, W), pixels. What it takes from beyond the right picture's border is black, as in the
            reference.

    Returns:
        Scalar, 0..1: `ALPHA` * mean SSIM error + (1 - `ALPHA`) * mean absolute difference.
    """
    ours, theirs = _picture(left), warped(_picture(right), disparity)
    return ALPHA * ssim_error(ours, theirs).mean() + (1 - ALPHA) * (ours - theirs).abs().mean()


def photometric_error(left: Tensor, right: Tensor, disparity: Tensor) -> Tensor:
    """The photometric loss pixel by pixel, (B, 3, H - 2, W - 2), for what learns where to trust it.

    Its mean is `photometric`, but for the outermost pixels' absolute differences, which have no block of their own.
    """
    ours, theirs = _picture(left), warped(_picture(right), disparity)
    return ALPHA * ssim_error(ours, theirs) + (1 - ALPHA) * (ours - theirs).abs()[..., 1:-1, 1:-1]


def weighted_photometric(left: Tensor, right: Tensor, disparity: Tensor, error_weights: nn.Module) -> Tensor:
    """The photometric loss where a network of `training.models.wad` says how much each pixel's error counts.

    The network sees the errors as they are and sends no gradient back through them: they fall only by falling, not by
    looking different.

    Returns:
        Scalar, 0..1: at most `photometric`, to the border's pixels.
    """
    error = photometric_error(left, right, disparity)
    weights: Tensor = error_weights(error.detach())
    return (error.mean(1, keepdim=True) * weights).sum()


def smoothness(disparity: Tensor, image: Tensor) -> Tensor:
    """Mean absolute gradient of disparity, less where the picture has an edge.

    Args:
        disparity: (B, H, W), pixels.
        image: uint8 or float (B, H, W, 3), 0..255.

    Returns:
        Scalar: mean over rows plus mean over columns of |gradient| * exp(-mean over channels of the picture's).
    """
    picture = _picture(image)
    total = disparity.new_zeros(())
    for axis in (1, 2):
        edges = picture.diff(dim=axis + 1).abs().mean(1)
        total = total + (disparity.diff(dim=axis).abs() * torch.exp(-edges)).mean()
    return total


def known(disparity: Tensor) -> Tensor:
    """Where truth or a proxy counts, bool: above 0, below `LARGEST_PX`."""
    return (disparity > 0) & (disparity < LARGEST_PX)


def disparity_error(prediction: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute error where truth is known.

    Args:
        prediction: (B, H, W), pixels.
        truth: The same; see `known`.

    Returns:
        Scalar: mean over the pictures that have truth of the mean over their pixels; 0, with a gradient of 0, if none.
    """
    valid = known(truth)
    error = torch.where(valid, prediction - truth, 0.0).abs().sum((1, 2))
    count = valid.sum((1, 2))
    return (error / count.clamp(min=1)).sum() / (count > 0).sum().clamp(min=1)


def proxy_regression(
    prediction: Tensor, proxy: Tensor, confidence: Tensor | None = None, threshold: float = 0.0
) -> Tensor:
    """Confidence-guided regression: sum of C |prediction - proxy| over where C is above the threshold, by their number.

    Args:
        prediction: (B, H, W), pixels.
        proxy: The same, from a matcher that makes mistakes; see `known`.
        confidence: (B, H, W), 0..1; None = 1 everywhere.
        threshold: tau; what is not above it does not count.

    Returns:
        Scalar; 0, with a gradient of 0, where nothing counts.
    """
    weight = torch.ones_like(proxy) if confidence is None else confidence
    counts = known(proxy) & (weight > threshold)
    error = torch.where(counts, weight * (prediction - proxy).abs(), 0.0)
    return error.sum() / counts.sum().clamp(min=1)


class LearnedThreshold(nn.Module):
    """Confidence-guided regression whose threshold is learned with the network.

    A hard gate has no gradient, so confidence counts through sigmoid(slope * (C - tau)) here, and the sum is divided
    by the gates' own. Errors push tau up, where labels are better; -log(1 - tau) keeps it below 1.

    Args:
        first: Where tau begins, above 0 and below 1.
        penalty: Of -log(1 - tau).
        speed: How many times faster than the parameter tau's logit moves: Adam moves all parameters alike, a network's
            by far too little for this one.
    """

    def __init__(self, first: float = 0.5, penalty: float = 0.1, speed: float = 1.0) -> None:
        super().__init__()
        self._first, self._penalty, self._speed = math.log(first / (1 - first)), penalty, speed
        self.moved = nn.Parameter(torch.zeros(()))

    @property
    def threshold(self) -> Tensor:
        """tau, 0..1."""
        return torch.sigmoid(self._first + self._speed * self.moved)

    def forward(self, prediction: Tensor, proxy: Tensor, confidence: Tensor) -> Tensor:
        """Scalar; arguments as `proxy_regression` takes them."""
        tau = self.threshold
        gate = torch.where(known(proxy), torch.sigmoid(_GATE_SLOPE * (confidence - tau)), 0.0)
        error = (gate * confidence * torch.where(known(proxy), prediction - proxy, 0.0).abs()).sum()
        return error / gate.sum().clamp(min=1e-6) - self._penalty * torch.log1p(-tau)
