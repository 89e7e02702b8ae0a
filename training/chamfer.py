"""Chamfer distance of points on a line, for the centres of AdaBins' bins.

Fan et al., "A Point Set Generation Network", arXiv:1612.00603, equation 1, with means in place of sums: sums would grow
with the number of pixels. On a line the nearest point is found by bisection among sorted ones: a picture's 200,000
depths against 256 centres need no matrix of their distances, and the value is the same.
"""

import torch
from torch import Tensor

_NEAREST_M = 1e-3  # smallest depth that counts (the lower cap of the NYU and KITTI protocols)


def squared_to_nearest(points: Tensor, others: Tensor) -> Tensor:
    """Squared distance of each point to the nearest of the others.

    Args:
        points: (N,) float.
        others: (M,) float, M >= 1, in any order.

    Returns:
        (N,), with gradients for both.
    """
    line = others.sort().values
    after = torch.searchsorted(line.detach(), points.detach()).clamp(max=len(line) - 1)
    before = (after - 1).clamp(min=0)
    return torch.minimum((points - line[before]).square(), (points - line[after]).square())


def chamfer(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared distance of a's points to b's nearest, plus the same the other way round; (N,), (M,) -> scalar."""
    return squared_to_nearest(a, b).mean() + squared_to_nearest(b, a).mean()


def bin_chamfer(centres_m: Tensor, target_m: Tensor) -> Tensor:
    """How far bin centres are from the true depths of their picture, and these from them.

    Args:
        centres_m: (B, bins), metres.
        target_m: (B, H, W), metres; pixels below a millimetre have no data, pictures without any do not count.

    Returns:
        Scalar, square metres: mean over the pictures that count; zero, with a gradient of zero, where none does.
    """
    with torch.autocast(centres_m.device.type, enabled=False):
        values = []
        for centres, target in zip(centres_m.float(), target_m.float(), strict=True):
            depths = target[target >= _NEAREST_M]
            if len(depths):
                values.append(chamfer(centres, depths))
        return torch.stack(values).mean() if values else centres_m.float().sum() * 0.0
