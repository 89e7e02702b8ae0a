"""Losses with which a student learns metric depth from truth and from a teacher whose scale and shift are unknown.

"Monocular Depth Estimation Methods using CNN and Transformer" (anonymous CVPR submission 100), sections 3.2 and 4.2:
one SILog term against truth and one against the teacher, or a single one against truth whose holes the teacher fills.
Its students did worse than without a teacher. The paper does not say how the teacher's output, relative inverse depth,
became metres; here it is brought onto the truth picture by picture first, and `unaligned` is there to compare with.
What the paper names as related and future work: pair-wise distillation (Liu et al., arXiv:1903.04197, equation 2) and
learning from several layers of the teacher (as attention: Zagoruyko and Komodakis, arXiv:1612.03928).
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
        float32 (B, H, W), depth in metres, within the range; 0 everywhere, "no data", in a picture where the teacher
        sees no differences.
    """
    sees = inverse_depth.amax((1, 2), keepdim=True) > inverse_depth.amin((1, 2), keepdim=True)
    return torch.where(sees, 1 / inverse_depth.float().clamp(1 / farthest_m, 1 / nearest_m), 0)


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


def attention_transfer(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """How differently two networks look at a picture, at several layers.

    A layer's attention is the mean over channels of the squared feature, brought to length 1 over the picture. Like
    `pair_wise` it compares no channel with a channel, so nothing has to learn beside the student.

    Args:
        student: (B, C_i, h_i, w_i) features.
        teacher: (B, C'_i, h'_i, w'_i) features of the same pictures, as many; their attention is averaged down, or
            interpolated up, to the student's height and width.

    Returns:
        Scalar, 0..2: mean over layers and pictures of the squared distance of the two attentions.

    Raises:
        ValueError: Not as many features of the teacher as of the student.
    """
    if len(student) != len(teacher):
        raise ValueError(f"{len(student)} features of the student, {len(teacher)} of the teacher: give as many")
    losses = []
    for s, t in zip(student, teacher, strict=True):
        sees = s.float().square().mean(dim=1)
        shown = t.detach().float().square().mean(dim=1, keepdim=True)
        height, width = sees.shape[1:]
        if shown.shape[2] > height:
            shown = F.adaptive_avg_pool2d(shown, (height, width))
        elif shown.shape[2] < height:
            shown = F.interpolate(shown, size=(height, width), mode="bilinear", align_corners=False)
        difference = F.normalize(sees.flatten(1), dim=1) - F.normalize(shown.flatten(1), dim=1)
        losses.append(difference.square().sum(dim=1).mean())
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
