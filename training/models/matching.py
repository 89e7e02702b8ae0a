"""What stereo networks share: correlation along a row, warping by disparity, borders that a pyramid needs.

Both maps differentiate twice, which learning to adapt needs.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PYRAMID_STRIDE = 64
"""Both sides of what the networks see are multiples of it."""


class StereoNetwork(Protocol):
    """What training, adaptation and serving ask of a stereo network (an `nn.Module`, too)."""

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Disparity in pixels of the left picture, float32 (B, H, W), at least 0; pictures are uint8 (B, H, W, 3)."""
        ...

    def scales(self, left: Tensor, right: Tensor, modular: bool = False) -> list[Tensor]:
        """Disparity at every scale, coarsest first, each at the pictures' size; the last is `forward`'s.

        `modular` stops gradients between the scales.
        """
        ...

    def groups(self) -> list[list[nn.Parameter]]:
        """Parameters by the scale whose disparity trains them, coarsest first; empty where nothing is modular."""
        ...


def correlation(left: Tensor, right: Tensor, radius: int) -> Tensor:
    """How alike left features are to right ones up to `radius` columns beside them.

    Args:
        left: (B, C, H, W).
        right: The same.
        radius: Columns to each side.

    Returns:
        (B, 2 * radius + 1, H, W): mean over channels of left(x) * right(x + shift), shifts -radius to radius; 0 beyond
        the border.
    """
    width = left.shape[3]
    padded = F.pad(right, (radius, radius))
    return torch.stack([(left * padded[..., s : s + width]).mean(1) for s in range(2 * radius + 1)], 1)


def warped(right: Tensor, disparity: Tensor) -> Tensor:
    """The right view as the left camera sees it: result(x) = right(x - disparity), linear between columns.

    Args:
        right: (B, C, H, W).
        disparity: (B, H, W), in columns of `right`.

    Returns:
        (B, C, H, W); 0 where x - disparity lies beyond the border.
    """
    _, _, height, width = right.shape
    x = torch.arange(width, dtype=disparity.dtype, device=disparity.device) - disparity
    y = torch.linspace(-1, 1, height, dtype=disparity.dtype, device=disparity.device)[None, :, None].expand_as(x)
    grid = torch.stack([x * (2 / (width - 1)) - 1, y], 3)
    return F.grid_sample(right, grid, mode="bilinear", padding_mode="zeros", align_corners=True)


def in_view(disparity: Tensor) -> Tensor:
    """Pixels whose match lies within the right picture, bool (B, H, W)."""
    x = torch.arange(disparity.shape[2], dtype=disparity.dtype, device=disparity.device)
    return (disparity <= x) & (x - disparity <= disparity.shape[2] - 1)


def borders(size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Columns left and right, rows above and below, that make (height, width) multiples of `PYRAMID_STRIDE`."""
    rows, columns = (-side % PYRAMID_STRIDE for side in size)
    return columns // 2, columns - columns // 2, rows // 2, rows - rows // 2


def padded_pair(left: Tensor, right: Tensor) -> Tensor:
    """Both pictures as one batch, reflected at their borders.

    Args:
        left: uint8 or float (B, H, W, 3), 0..255.
        right: The same.

    Returns:
        Float (2 B, 3, H', W'), 0..255, left ones first.
    """
    pair = torch.cat([left, right]).permute(0, 3, 1, 2)
    pair = pair if pair.is_floating_point() else pair.float()
    height, width = pair.shape[2:]
    around = borders((height, width))
    # a picture smaller than its border cannot be reflected
    mode = "reflect" if max(around[:2]) < width and max(around[2:]) < height else "replicate"
    return F.pad(pair, around, mode=mode)


def full_size(disparity: Tensor, size: tuple[int, int]) -> Tensor:
    """A disparity map of the padded pair, in pixels of the full picture, enlarged and freed of its borders.

    Args:
        disparity: (B, 1, h, w).
        size: Height and width of the pictures.

    Returns:
        (B, H, W).
    """
    before, after, above, below = borders(size)
    padded = (size[0] + above + below, size[1] + before + after)
    large = F.interpolate(disparity, padded, mode="bilinear", align_corners=False)
    return large[:, 0, above : above + size[0], before : before + size[1]]
