"""MADNet: disparity from coarse to fine, in modules that can be trained one at a time.

Tonioni, Tosi, Poggi, Mattoccia and Di Stefano, "Real-time self-adaptive deep stereo", CVPR 2019, arXiv:1810.05424,
after the facts of CVLAB-Unibo/Real-time-self-adaptive-deep-stereo (Apache-2.0): 3,826,070 parameters. Two differences:
pictures are divided by 255 here (weights of theirs fit after multiplying the first convolution's by 255), and maps are
enlarged with half-pixel centres.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.models.matching import correlation, full_size, padded_pair, warped

LEVELS = (6, 5, 4, 3, 2)
"""Scales of the disparity maps, each at 1 / 2**level of the pictures; also the names of the groups of MAD."""

_CHANNELS = (16, 32, 64, 96, 128, 192)
_ESTIMATOR = (128, 128, 96, 64, 32)
_CONTEXT = ((128, 1), (128, 2), (128, 4), (96, 8), (64, 16), (32, 1))  # channels and dilation
_RADIUS = 2
_SLOPE = 0.2
_PIXELS = 20.0
"""Pixels of disparity per unit of what the modules compute, whose sign is the flow's: negative."""
_TINY = 1e-6
_FIRST_GUESS = -0.5  # 10 pixels: an estimate that starts above 0 would be cut off, and never learn


class Pyramid(nn.Module):
    """Features at 1/2 to 1/64, two convolutions each; stride 2 pads right and below only, as TensorFlow does."""

    def __init__(self) -> None:
        super().__init__()
        inputs = (3, *_CHANNELS)
        self.down = nn.ModuleList(nn.Conv2d(i, o, 3, stride=2) for i, o in zip(inputs, _CHANNELS, strict=False))
        self.same = nn.ModuleList(nn.Conv2d(o, o, 3, padding=1) for o in _CHANNELS)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W), sides multiples of 64 -> (B, C, H / 2**k, W / 2**k) for k = 1..6."""
        features = []
        for down, same in zip(self.down, self.same, strict=True):
            image = F.leaky_relu(down(F.pad(image, (0, 1, 0, 1))), _SLOPE)
            image = F.leaky_relu(same(image), _SLOPE)
            features.append(image)
        return features

    def level(self, level: int) -> list[nn.Parameter]:
        """Parameters of the two convolutions of a level, 1..6."""
        return [*self.down[level - 1].parameters(), *self.same[level - 1].parameters()]


class Estimator(nn.Sequential):
    """Six convolutions, the last linear: a volume -> one map of flow."""

    def __init__(self, channels: int) -> None:
        parts: list[nn.Module] = []
        for width in _ESTIMATOR:
            parts += [nn.Conv2d(channels, width, 3, padding=1), nn.LeakyReLU(_SLOPE)]
            channels = width
        super().__init__(*parts, nn.Conv2d(channels, 1, 3, padding=1))


class ContextNetwork(nn.Sequential):
    """Seven dilated convolutions, the last linear: what to add to the finest flow."""

    def __init__(self, channels: int) -> None:
        parts: list[nn.Module] = []
        for width, dilation in _CONTEXT:
            parts += [nn.Conv2d(channels, width, 3, padding=dilation, dilation=dilation), nn.LeakyReLU(_SLOPE)]
            channels = width
        super().__init__(*parts, nn.Conv2d(channels, 1, 3, padding=1))


def _last(part: nn.Module) -> nn.Conv2d:
    *_, convolution = part.modules()
    assert isinstance(convolution, nn.Conv2d)
    return convolution


class MADNet(nn.Module):
    """One feature pyramid for both pictures, a module per level, a context network at the finest."""

    def __init__(self) -> None:
        super().__init__()
        self.pyramid = Pyramid()
        volumes = {k: _CHANNELS[k - 1] + 2 * _RADIUS + 1 + (k < LEVELS[0]) for k in LEVELS}
        self.estimators = nn.ModuleDict({str(k): Estimator(volumes[k]) for k in LEVELS})
        self.context = ContextNetwork(_CHANNELS[LEVELS[-1] - 1] + 1)
        self._first_weights()

    def _first_weights(self) -> None:
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, _SLOPE)
                nn.init.zeros_(part.bias)  # type: ignore[arg-type]  # every convolution here has one
        with torch.no_grad():
            for estimator in (*self.estimators.values(), self.context):
                _last(estimator).weight.mul_(0.1)
            for estimator in self.estimators.values():
                nn.init.constant_(_last(estimator).bias, _FIRST_GUESS)  # type: ignore[arg-type]  # it has one, too

    def groups(self) -> list[list[nn.Parameter]]:
        """Parameters in five groups, one for each of `LEVELS`; together they are all.

        A module with its level's two convolutions of the pyramid; the last has those of level 1 and the context
        network besides. 29, 19, 15, 12 and 24 % of the weights.
        """
        groups = [[*self.pyramid.level(k), *self.estimators[str(k)].parameters()] for k in LEVELS]
        groups[-1] = [*self.pyramid.level(1), *groups[-1], *self.context.parameters()]
        return groups

    def encoder_parameters(self) -> list[nn.Parameter]:
        """Those that learn at a recipe's `encoder_lr`: the pyramid's."""
        return list(self.pyramid.parameters())

    def scales(self, left: Tensor, right: Tensor, modular: bool = False) -> list[Tensor]:
        """Disparity at every level, each at the pictures' size.

        Args:
            left: uint8 (or float, 0..255) (B, H, W, 3) RGB.
            right: The same.
            modular: Whether a level's error stays in its own group: no gradient passes from a level to the coarser one.

        Returns:
            Six float32 (B, H, W), pixels, at least 0: levels 6 to 2, and the result, which is level 2's with context.
        """
        maps = [self._full_size(flow, left) for flow in self._flows(left, right, modular)]
        return [*maps, maps[-1]]

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Disparity in pixels of the left picture, float32 (B, H, W), at least 0; pictures are uint8 (B, H, W, 3)."""
        return self._full_size(self._flows(left, right, modular=False)[-1], left)

    def _flows(self, left: Tensor, right: Tensor, modular: bool) -> list[Tensor]:
        """Flow (B, 1, h, w) of every level, in `_PIXELS` of the full picture; the last after the context network."""
        features = [torch.chunk(level, 2) for level in self.pyramid(padded_pair(left, right) / 255)]
        flows: list[Tensor] = []
        for k in LEVELS:
            ours, theirs = features[k - 1]
            before = []
            if flows:
                coarse = flows[-1].detach() if modular else flows[-1]
                up = F.interpolate(coarse, ours.shape[2:], mode="bilinear", align_corners=False)
                theirs = warped(theirs, up[:, 0] * (-_PIXELS / 2**k))
                before = [up]
            volume = torch.cat([ours, self._costs(ours, theirs), *before], 1)
            flows.append(self.estimators[str(k)](volume))
        finest = features[LEVELS[-1] - 1][0]
        flows[-1] = flows[-1] + self.context(torch.cat([finest, flows[-1]], 1))
        return flows

    def _costs(self, ours: Tensor, theirs: Tensor) -> Tensor:
        return correlation(ours, theirs, _RADIUS)

    def _full_size(self, flow: Tensor, left: Tensor) -> Tensor:
        return full_size(F.relu(flow * -_PIXELS), (left.shape[1], left.shape[2]))


class NormalisedMADNet(MADNet):
    """MADNet that compares features of mean 0 and deviation 1, for a training of minutes instead of days.

    Features after a leaky ReLU are mostly positive, and what the two views have in common drowns where they differ:
    1,500 steps from random weights left plain MADNet where a constant map is, and brought this one to half its error.
    Jonschkowski et al., "What Matters in Unsupervised Optical Flow", arXiv:2006.04902, normalise so. Same parameters.
    """

    def _costs(self, ours: Tensor, theirs: Tensor) -> Tensor:
        return correlation(_normalised(ours), _normalised(theirs), _RADIUS)


def _normalised(features: Tensor) -> Tensor:
    """(B, C, H, W), every picture's features with mean 0 and standard deviation 1 over all of them."""
    spread, mean = torch.std_mean(features, (1, 2, 3), keepdim=True)
    return (features - mean) / (spread + _TINY)
