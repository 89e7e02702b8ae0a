"""CCNN: how far each disparity can be trusted, from the disparities about it alone.

Poggi and Mattoccia, "Learning from scratch a confidence measure", BMVC 2016: 128,125 parameters, a view of 9 x 9
pixels. It runs on whole maps here, whose borders repeat their edge pixels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_CHANNELS = 64
_JOINED = 100
_LAYERS = 4
_RANGE_PX = 255.0  # a disparity that becomes 1


class CCNN(nn.Module):
    """Four 3 x 3 convolutions without borders, then three of single pixels."""

    def __init__(self) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for layer in range(_LAYERS):
            parts += [nn.Conv2d(_CHANNELS if layer else 1, _CHANNELS, 3), nn.ReLU()]
        for inputs in (_CHANNELS, _JOINED):
            parts += [nn.Conv2d(inputs, _JOINED, 1), nn.ReLU()]
        self.body = nn.Sequential(*parts, nn.Conv2d(_JOINED, 1, 1))

    def encoder_parameters(self) -> list[nn.Parameter]:
        """None: all learn at one rate."""
        return []

    def logits(self, disparity_px: Tensor) -> Tensor:
        """Confidence before its sigmoid; (B, H, W) pixels, 0 = none -> (B, H, W)."""
        padded = F.pad(disparity_px[:, None] / _RANGE_PX, (_LAYERS,) * 4, mode="replicate")
        result: Tensor = self.body(padded)
        return result[:, 0]

    def forward(self, disparity_px: Tensor) -> Tensor:
        """How probably a disparity is right, (B, H, W) pixels -> float32 (B, H, W), 0..1."""
        return torch.sigmoid(self.logits(disparity_px).float())
