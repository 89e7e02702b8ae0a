"""DispNetC: one encoder and decoder over a correlation along rows; the slow peer of MADNet.

Mayer et al., "A Large Dataset to Train Convolutional Networks for Disparity, Optical Flow, and Scene Flow Estimation",
CVPR 2016, arXiv:1512.02134, in the size that CVLAB-Unibo/Learning2AdaptForStereo (Apache-2.0) uses: 42,430,107
parameters. Its maps are in units of 20 pixels here, like MADNet's.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.models.matching import correlation, full_size, padded_pair

_RADIUS = 40  # columns at 1/4
_SLOPE = 0.1
_PIXELS = 20.0
_FIRST_GUESS = 0.5  # 10 pixels
_MEAN = 100.0  # grey level that becomes 0
_REDIRECTED = 64
_ENCODER = (256, 512, 512, 1024)  # channels at 1/8 to 1/64
_DECODER = (1024, 512, 256, 128, 64, 32)  # at 1/64 to 1/2
_SKIPS = (512, 512, 256, 128, 64)  # what the encoder has at 1/32 to 1/2


def _convolution(inputs: int, outputs: int, side: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, side, stride, side // 2), nn.LeakyReLU(_SLOPE))


class Step(nn.Module):
    """One step of the decoder: the features and the map of the coarser scale, and the encoder's own, to one map."""

    def __init__(self, inputs: int, outputs: int, skip: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(inputs, outputs, 4, 2, 1)
        self.up_map = nn.ConvTranspose2d(1, 1, 4, 2, 1)
        self.join = nn.Conv2d(outputs + 1 + skip, outputs, 3, padding=1)
        self.predict = nn.Conv2d(outputs, 1, 3, padding=1)

    def forward(self, features: Tensor, coarse: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, h, w), (B, 1, h, w), (B, S, 2 h, 2 w) -> features (B, C', 2 h, 2 w) and their map."""
        up = F.leaky_relu(self.up(features), _SLOPE)
        joined: Tensor = self.join(torch.cat([up, self.up_map(coarse), skip], 1))
        return joined, self.predict(joined)


class DispNetC(nn.Module):
    """Features to 1/4, correlation of both pictures, then an hourglass on the left one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = _convolution(3, 64, 7, 2), _convolution(64, 128, 5, 2)
        self.redirect = _convolution(128, _REDIRECTED, 1)
        parts, inputs = [], 2 * _RADIUS + 1 + _REDIRECTED
        for outputs in _ENCODER:
            side = 5 if outputs == _ENCODER[0] else 3
            parts.append(nn.Sequential(_convolution(inputs, outputs, side, 2), _convolution(outputs, outputs, 3)))
            inputs = outputs
        self.down = nn.ModuleList(parts)
        self.predict = nn.Conv2d(inputs, 1, 3, padding=1)
        steps = [Step(i, o, s) for (i, o), s in zip(pairwise(_DECODER), _SKIPS, strict=True)]
        self.up = nn.ModuleList(steps)
        for predict in (self.predict, *(step.predict for step in steps)):
            nn.init.constant_(predict.bias, _FIRST_GUESS)  # type: ignore[arg-type]  # every one of them has a bias

    def groups(self) -> list[list[nn.Parameter]]:
        """None: it cannot be trained in parts."""
        return []

    def encoder_parameters(self) -> list[nn.Parameter]:
        """Those that learn at a recipe's `encoder_lr`: what both pictures go through."""
        return [*self.conv1.parameters(), *self.conv2.parameters()]

    def scales(self, left: Tensor, right: Tensor, modular: bool = False) -> list[Tensor]:
        """Disparity at 1/64 to 1/2, each at the pictures' size.

        Args:
            left: uint8 (or float, 0..255) (B, H, W, 3) RGB.
            right: The same.
            modular: Must be False.

        Returns:
            Six float32 (B, H, W), pixels, at least 0, the last the result.

        Raises:
            ValueError: `modular` is True.
        """
        if modular:
            raise ValueError("DispNetC has no modules to train one at a time")
        size = left.shape[1], left.shape[2]
        return [full_size(F.relu(found * _PIXELS), size) for found in self._maps(left, right)]

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Disparity in pixels of the left picture, float32 (B, H, W), at least 0; pictures are uint8 (B, H, W, 3)."""
        return full_size(F.relu(self._maps(left, right)[-1] * _PIXELS), (left.shape[1], left.shape[2]))

    def _maps(self, left: Tensor, right: Tensor) -> list[Tensor]:
        half = self.conv1((padded_pair(left, right) - _MEAN) / 255)
        half_left = half[: len(left)]
        quarter, theirs = torch.chunk(self.conv2(half), 2)
        matched = F.leaky_relu(correlation(quarter, theirs, _RADIUS), _SLOPE)
        features = torch.cat([self.redirect(quarter), matched], 1)
        skips = [half_left, quarter]
        for part in self.down:
            features = part(features)
            skips.append(features)
        skips.pop()
        found = [self.predict(features)]
        for step in self.up:
            features, finer = step(features, found[-1], skips.pop())
            found.append(finer)
        return found
