"""Position embeddings of vision transformers at another grid than the one they were trained on.

The rules are what `torch.nn.functional.interpolate` does with `align_corners=False`, written as two products with dense
weights: an interpolation with a scale of its own, or with antialiasing, is no operation that runtimes agree on, and
matrix products are. (OpenVINO 2026.4 computes ONNX's antialiased cubic Resize as if it were something else: two thirds
of the largest value off in the mean at 4x6 of 24x24.)

- DPT (Ranftl et al., arXiv:2103.13413; github.com/isl-org/DPT, dpt/vit.py): bilinear, to the new grid's size.
- DINOv2 (Oquab et al., arXiv:2304.07193; github.com/facebookresearch/dinov2, dinov2/models/vision_transformer.py), and
  so Depth Anything V2: bicubic, by the scale (new + 0.1) / old, whose 0.1 was meant against rounding and moves every
  sample a little; the trained grid itself is left as it is.
- timm (github.com/huggingface/pytorch-image-models, timm/layers/pos_embed.py): bicubic and antialiased, to the new
  grid's size.
"""

import math

import torch
from torch import Tensor

_CUBIC = -0.75  # torch's parameter of the cubic kernel
_CUBIC_ANTIALIASED = -0.5  # the same where it antialiases, as Pillow does


def bilinear(positions: Tensor, rows: int, columns: int) -> Tensor:
    """DPT's rule.

    Args:
        positions: (1, 1 + n * n, C): class token's, then the trained grid's, row by row.
        rows: Of the new grid.
        columns: The same.

    Returns:
        (1, 1 + rows * columns, C).
    """
    trained = _side(positions)
    return _resampled(positions, _linear(rows, trained, positions), _linear(columns, trained, positions))


def dinov2(positions: Tensor, rows: int, columns: int) -> Tensor:
    """DINOv2's rule; arguments and result as for `bilinear`."""
    trained = _side(positions)
    # without the offset nothing moves; no branch, so that a graph may leave the size free
    same = [torch.full((), size, device=positions.device) == trained for size in (rows, columns)]
    tenth = torch.where(same[0] & same[1], 0, 1)
    steps = [10 * trained / (10 * size + tenth) for size in (rows, columns)]
    vertical, horizontal = (
        _cubic(size, trained, step, positions) for size, step in zip((rows, columns), steps, strict=True)
    )
    return _resampled(positions, vertical, horizontal)


def antialiased(positions: Tensor, rows: int, columns: int) -> Tensor:
    """The rule of timm; arguments and result as for `bilinear`."""
    trained = _side(positions)
    vertical, horizontal = (_smooth(size, trained, positions) for size in (rows, columns))
    return _resampled(positions, vertical, horizontal)


def _side(positions: Tensor) -> int:
    return math.isqrt(int(positions.shape[1]) - 1)


def _resampled(positions: Tensor, vertical: Tensor, horizontal: Tensor) -> Tensor:
    first, grid = positions[:, :1], positions[0, 1:]
    vertical, horizontal = vertical.to(grid.dtype), horizontal.to(grid.dtype)  # weights may be bfloat16
    side, channels = vertical.shape[1], grid.shape[1]
    # products of matrices, not of batches: OpenVINO refuses factors of unequal rank where a size is free
    tall = (vertical @ grid.reshape(side, side * channels)).view(-1, side, channels)
    new = (horizontal @ tall.transpose(0, 1).flatten(1)).view(horizontal.shape[0], -1, channels).transpose(0, 1)
    return torch.cat((first, new.flatten(0, 1)[None]), dim=1)


def _linear(new: int, trained: int, like: Tensor) -> Tensor:
    """(new, trained): weights of the trained places in each new one."""
    distance = _distances(new, trained, trained / new, like, margin=1)
    return _without_margin((1 - distance).clamp(min=0), 1)


def _cubic(new: int, trained: int, step: Tensor, like: Tensor) -> Tensor:
    """The same with the cubic kernel, which reaches two places, and a step of its own."""
    return _without_margin(_kernel(_distances(new, trained, step, like, margin=2), _CUBIC), 2)


def _smooth(new: int, trained: int, like: Tensor) -> Tensor:
    """The same with a cubic kernel as wide as a step that is longer than 1, and nothing from beyond the edges."""
    step = torch.full((), float(trained), device=like.device) / new
    weights = _kernel(_distances(new, trained, step, like, margin=0) / step.clamp(min=1), _CUBIC_ANTIALIASED)
    return weights / weights.sum(1, keepdim=True)


def _kernel(x: Tensor, a: float) -> Tensor:
    """Keys' cubic convolution at distances x >= 0."""
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _distances(new: int, trained: int, step: float | Tensor, like: Tensor, margin: int) -> Tensor:
    """(new, margin + trained + margin): from where each new place falls to each trained one."""
    places = (torch.arange(new, dtype=torch.float32, device=like.device) + 0.5) * step - 0.5
    known = torch.arange(-margin, trained + margin, dtype=torch.float32, device=like.device)
    return (places[:, None] - known).abs()


def _without_margin(weights: Tensor, margin: int) -> Tensor:
    """What falls beyond the edge counts for the edge itself."""
    before = weights[:, : margin + 1].sum(1, keepdim=True)
    after = weights[:, -margin - 1 :].sum(1, keepdim=True)
    return torch.cat((before, weights[:, margin + 1 : -margin - 1], after), dim=1)
