"""MobileNetV2 as a feature encoder.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", arXiv:1801.04381. Layer numbering and key
names follow torchvision (BSD-3-Clause); nothing is copied from it. Two differences: batch norm is folded into the
convolutions, as in the weights we start from (Apache-2.0, TensorFlow's), and a convolution of stride 2 pads
right and below only, as TensorFlow's SAME does on even sizes. Symmetric padding costs 0.10 of ImageNet top-1.
"""

import torch.nn.functional as F
from torch import Tensor, nn

# expansion, channels, repeats, stride: table 2 of the paper
_SETTINGS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
# the last block before each further halving, and the last of all
_TAPS = (1, 3, 6, 13, 17)


class ConvReLU6(nn.Module):
    """Convolution with bias, then ReLU6 if `active`; stride 2 pads right and below only."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, *, active: bool = True
    ) -> None:
        super().__init__()
        padding = kernel // 2 if stride == 1 else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups)
        self._pad_end = kernel // 2 if stride == 2 else 0
        self._active = active

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H / stride, W / stride)."""
        if self._pad_end:
            x = F.pad(x, (0, self._pad_end, 0, self._pad_end))
        x = self.conv(x)
        return F.relu6(x) if self._active else x


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1; with a skip where shapes allow."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = [] if expansion == 1 else [ConvReLU6(inputs, hidden, 1)]
        layers += [
            ConvReLU6(hidden, hidden, 3, stride, groups=hidden),
            ConvReLU6(hidden, outputs, 1, active=False),
        ]
        self.conv = nn.Sequential(*layers)
        self._skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H / stride, W / stride)."""
        y: Tensor = self.conv(x)
        return x + y if self._skip else y


class MobileNetV2(nn.Module):
    """Features at five scales of a picture in -1..1.

    Args:
        inputs: Channels of the picture.

    Attributes:
        channels: Of the features at 1/2, 1/4, 1/8, 1/16 and 1/32.
    """

    channels = (16, 24, 32, 96, 320)

    def __init__(self, inputs: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvReLU6(inputs, 32, 3, 2)]
        inputs = 32
        for expansion, outputs, repeats, stride in _SETTINGS:
            for index in range(repeats):
                layers.append(InvertedResidual(inputs, outputs, stride if index == 0 else 1, expansion))
                inputs = outputs
        self.features = nn.ModuleList(layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]  # every convolution here has a bias

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, inputs, H, W) float in -1..1, H and W multiples of 32 -> features at 1/2, 1/4, 1/8, 1/16, 1/32."""
        taps = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in _TAPS:
                taps.append(x)
        return taps
