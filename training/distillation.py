"""Losses with which a student learns metric depth from truth and from a teacher whose scale and shift are unknown.

"Monocular Depth Estimation Methods using CNN and Transformer" (anonymous CVPR submission 100), sections 3.2 and 4.2:
one SILog term against truth and one against the teacher, or a single one against truth whose holes the teacher fills.
Its students did worse than without a teacher. The paper does not say how the teacher's output, relative inverse depth,
became metres; here it is brought onto the truth picture by picture first, and `unaligned` is there to compare with.
What the paper names as future work: pair-wise distillation (Liu et al., arXiv:1903.04197, equation 2) and matching
several layers' features (Romero et al., FitNets, arXiv:1412.6550).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.losses import silog

NEAREST_M, FARTHEST_M = 1e-3, 10.0
"""Range of a teacher's depth, metres: that of the NYU protocol."""

_MIN_VALID = 64  # pixels; fewer do not fix a scale and a shift
_EPSILON = 1e-12


def unaligned(inverse_depth: Tensor, nearest_m: float = NEAREST_M, farthest_m: float = FARTHEST_M) -> Tensor:
    """A teacher's inverse depth taken for 1/m, which it is not.

    Args:
        inverse_depth: (B, H, W), relative.
        nearest_m: Smallest depth in metres.
        farthest_m: Largest.

    Returns:
        float32 (B, H, W), depth in metres, within the range.
    """
    return 1 / inverse_depth.float().clamp(1 / farthest_m, 1 / nearest_m)


def align_teacher(
    inverse_depth: Tensor, truth_m: Tensor, nearest_m: float = NEAREST_M, farthest_m: float = FARTHEST_M
) -> Tensor:
    """A teacher's inverse depth as metres: least squares of scale and shift in inverse depth, picture by picture.

    Args:
        inverse_depth: (B, H, W), relative, larger = nearer.
        truth_m: (B, H, W), depth in metres, 0 = no data.
        nearest_m: Smallest depth in metres; what the alignment brings nearer is held there.
        farthest_m: Largest; also for what lies behind infinity after it.

    Returns:
        float32 (B, H, W), depth in metres, within the range. 0 everywhere, "no data", in a picture with fewer than 64
        valid pixels, where the teacher sees no differences, or where its best scale is not positive: a teacher that
        takes near for far there has nothing to teach.
    """
    valid = truth_m > 0
    count = valid.sum((1, 2), keepdim=True)
    y = inverse_depth.double()
    wanted = torch.where(valid, 1 / torch.where(valid, truth_m, 1).double(), 0)
    mean_y = torch.where(valid, y, 0).sum((1, 2), keepdim=True) / count.clamp(min=1)
    mean_wanted = wanted.sum((1, 2), keepdim=True) / count.clamp(min=1)
    centred = torch.where(valid, y - mean_y, 0)
    variance = centred.square().sum((1, 2), keepdim=True)
    scale = (centred * (wanted - mean_wanted)).sum((1, 2), keepdim=True) / variance.clamp(min=_EPSILON)
    aligned = scale * (y - mean_y) + mean_wanted
    usable = (count >= _MIN_VALID) & (variance > _EPSILON) & (scale > 0)
    depth_m = 1 / aligned.clamp(1 / farthest_m, 1 / nearest_m)
    return torch.where(usable, depth_m, 0).float()


def fill_unknown(truth_m: Tensor, teacher_m: Tensor) -> Tensor:
    """Truth where there is any, the teacher's depth elsewhere.

    Args:
        truth_m: (B, H, W), metres, 0 = no data.
        teacher_m: The same.

    Returns:
        (B, H, W), metres, 0 where neither has data.
    """
    return torch.where(truth_m > 0, truth_m, teacher_m)


@dataclass(frozen=True)
class TwoTerms:
    """SILog against truth and against the teacher; each is zero, with a gradient of zero, where its target is empty."""

    truth: Tensor
    teacher: Tensor


def two_terms(prediction_m: Tensor, truth_m: Tensor, teacher_m: Tensor) -> TwoTerms:
    """The paper's two losses.

    Args:
        prediction_m: (B, H, W), metres, the student's.
        truth_m: (B, H, W), metres, 0 = no data.
        teacher_m: The same; of `align_teacher`.

    Returns:
        Both, unweighted.
    """
    return TwoTerms(silog(prediction_m, truth_m), silog(prediction_m, teacher_m))


def pair_wise(student: Tensor, teacher: Tensor, grid: int = 8) -> Tensor:
    """How differently two networks say which places of a picture are alike.

    A feature is averaged over a grid of cells; two cells are as alike as the cosine between their features. No channel
    is compared with a channel, so widths and scales of the two networks do not matter.

    Args:
        student: (B, C, h, w) feature.
        teacher: (B, C', h', w') feature of the same pictures.
        grid: Cells a side, at most; a smaller feature map gives as many as it has.

    Returns:
        Scalar, 0..4: mean squared difference of the similarities over all pairs of cells.
    """
    rows = min(grid, student.shape[2], teacher.shape[2])
    columns = min(grid, student.shape[3], teacher.shape[3])
    alike = []
    for feature in (student.float(), teacher.detach().float()):
        cells = F.normalize(F.adaptive_avg_pool2d(feature, (rows, columns)).flatten(2), dim=1)
        alike.append(cells.transpose(1, 2) @ cells)
    return (alike[0] - alike[1]).square().mean()


class FeatureMatch(nn.Module):
    """Several layers' features of a student, brought to the teacher's by a 1x1 convolution each, and compared.

    The convolutions learn with the student and are thrown away with the teacher.

    Args:
        student: Channels of the student's features.
        teacher: Channels of the teacher's, as many.
    """

    def __init__(self, student: Sequence[int], teacher: Sequence[int]) -> None:
        super().__init__()
        if len(student) != len(teacher):
            raise ValueError(f"{len(student)} features of the student, {len(teacher)} of the teacher: give as many")
        self.adapters = nn.ModuleList(nn.Conv2d(s, t, 1) for s, t in zip(student, teacher, strict=True))

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Compares features.

        Args:
            student: (B, C_i, h_i, w_i) each.
            teacher: (B, C'_i, h'_i, w'_i) each, of the same pictures; resized to the student's height and width.

        Returns:
            Scalar: mean over layers of the mean squared difference, in units of the teacher's mean square.
        """
        losses = []
        for adapt, s, t in zip(self.adapters, student, teacher, strict=True):
            target = t.detach().float()
            if target.shape[2:] != s.shape[2:]:
                target = F.interpolate(target, size=s.shape[2:], mode="bilinear", align_corners=False)
            difference = adapt(s).float() - target
            losses.append(difference.square().mean() / target.square().mean().clamp(min=_EPSILON))
        return torch.stack(losses).mean()


@contextmanager
def tapped(encoder: nn.Module) -> Iterator[list[Tensor]]:
    """The features an encoder gives while its network runs inside the `with`, fine to coarse, in the yielded list."""
    features: list[Tensor] = []
    handle = encoder.register_forward_hook(lambda _module, _given, result: features.extend(result))
    try:
        yield features
    finally:
        handle.remove()
