"""The decoder of AdaBins and of the meta-learner: a U-Net's second half.

Ronneberger et al., "U-Net", arXiv:1505.04597, with separable convolutions that come before each interpolation and not
after it (see `training.models.separable`).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.models.separable import separable


class Level(nn.Sequential):
    """Twice separable 3x3, batch norm, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        layers: list[nn.Module] = []
        for width in (inputs, outputs):
            layers += [separable(width, outputs), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.01)]
        super().__init__(*layers)


class UnetDecoder(nn.Module):
    """From features to a map of `outputs` channels at half size.

    Args:
        channels: Of the encoder's five features, fine to coarse.
        width: Of the coarsest scale; halved at each finer one.
        outputs: Channels of the result.
    """

    def __init__(self, channels: Sequence[int], width: int, outputs: int) -> None:
        super().__init__()
        self.bottleneck = nn.Conv2d(channels[-1], width, 1)
        inputs, levels = width, []
        for index, skip in enumerate(reversed(channels[:-1]), start=1):
            levels.append(Level(inputs, width >> index))
            inputs = (width >> index) + skip
        self.levels = nn.ModuleList(levels)
        self.last = separable(inputs, outputs, bias=True)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features at 1/2 to 1/32 -> (B, outputs, H / 2, W / 2)."""
        x = self.bottleneck(features[-1])
        for level, skip in zip(self.levels, reversed(features[:-1]), strict=True):
            x = F.interpolate(level(x), scale_factor=2.0, mode="bilinear", align_corners=True)
            x = torch.cat((x, skip), 1)
        result: Tensor = self.last(x)
        return result
