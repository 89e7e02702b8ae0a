"""LapDepth (LDRN) on GhostNet: the decoder restores depth as a Laplacian pyramid, guided by that of the photo.

Song et al., "Monocular Depth Estimation Using Laplacian Pyramid-Based Depth Residuals", IEEE TCSVT 2021, with the
three changes of seed 3: GhostNet as encoder, depthwise-separable convolutions in the decoder, convolution before
interpolation. Written from a description of the method. Weights are standardised as in Qiao et al., arXiv:1903.10520,
but only those that mix channels: a depthwise filter whose nine weights have mean zero passes edges and nothing else.

For Triton: `image` uint8 (B, H, W, 3), multiples of 32 -> `depth_m` float32 (B, H, W), metres.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.models.ghostnet import STRIDE, GhostNetEncoder

_GUIDES = 4  # channels that join each level: the coarser residual and the photo's Laplacian
_HINT = 0.1  # of the photo's Laplacian in a level's residual
_RATES = (3, 6, 12, 18)
_EPSILON = 1e-5


class StandardisedConv2d(nn.Conv2d):
    """A convolution whose filters are brought to mean 0 and standard deviation 1, and then to the gain below.

    The gain, one over the root of a filter's weights, keeps the variance of what comes in. Behind a norm that has
    learnt it changes nothing; before that, a dozen of them in a row would multiply values by billions.
    """

    def standardised(self) -> Tensor:
        """The weights before the gain: (C', C, k, k), each of the C' filters with mean 0 and standard deviation 1."""
        flat = self.weight.flatten(1)
        centred = flat - flat.mean(1, keepdim=True)
        deviation = centred.square().mean(1, keepdim=True).sqrt()
        return (centred / (deviation + _EPSILON)).view_as(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        weight = self.standardised() / self.weight[0].numel() ** 0.5
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


def _activate(channels: int) -> list[nn.Module]:
    """Norm and activation that come before a convolution."""
    return [nn.BatchNorm2d(channels, eps=0.001), nn.ReLU()]


class Pointwise(nn.Sequential):
    """Norm, ReLU, 1x1 of standardised weights."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(*_activate(inputs), StandardisedConv2d(inputs, outputs, 1, bias=False))


class Unit(nn.Sequential):
    """Norm, ReLU, separable 3x3 whose 1x1 has standardised weights."""

    def __init__(self, inputs: int, outputs: int, dilation: int = 1) -> None:
        each = nn.Conv2d(inputs, inputs, 3, padding=dilation, dilation=dilation, groups=inputs, bias=False)
        nn.init.normal_(each.weight, std=1 / 3)
        super().__init__(*_activate(inputs), each, StandardisedConv2d(inputs, outputs, 1, bias=False))


class LastUnit(nn.Sequential):
    """Norm, ReLU, 3x3 to one channel; plain weights, because sigmoid and tanh would saturate behind standardised."""

    def __init__(self, inputs: int) -> None:
        super().__init__(*_activate(inputs), nn.Conv2d(inputs, 1, 3, padding=1))


class Atrous(nn.Module):
    """Atrous spatial pyramid pooling: 1x1 to `width`, four dilated branches of half of it, 3x3 to `width`."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.reduce = StandardisedConv2d(inputs, width, 1, bias=False)
        self.branches = nn.ModuleList(Unit(width, width // 2, rate) for rate in _RATES)
        self.join = Unit(width + len(_RATES) * (width // 2), width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, width, h, w)."""
        x = self.reduce(x)
        joined: Tensor = self.join(torch.cat((x, *(branch(x) for branch in self.branches)), 1))
        return joined


class Level(nn.Module):
    """One finer scale of the decoder.

    Args:
        inputs: Channels of the coarser scale.
        skip: Channels of the encoder's feature at this scale; 0 = none.
        width: Of this scale.
    """

    def __init__(self, inputs: int, skip: int, width: int) -> None:
        super().__init__()
        self.narrow = Unit(inputs, width)
        self.mix = Pointwise(width + skip, width - _GUIDES)
        self.body = nn.Sequential(Unit(width, width), Unit(width, width))
        self.last = LastUnit(width)

    def forward(self, x: Tensor, skip: Sequence[Tensor], residual: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        """Runs the scale.

        Args:
            x: (B, inputs, h / 2, w / 2), of the coarser scale.
            skip: Nothing, or the encoder's feature (B, skip, h, w).
            residual: (B, 1, h / 2, w / 2), of the coarser scale.
            edges: (B, 3, h, w), the photo's Laplacian.

        Returns:
            (B, width, h, w) and this scale's residual (B, 1, h, w) in -1..1.
        """
        x = self.mix(torch.cat((double(self.narrow(x)), *skip), 1))
        x = self.body(torch.cat((x, double(residual), edges), 1))
        return x, torch.tanh(self.last(x) + _HINT * edges.mean(1, keepdim=True))


def double(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, 2 H, 2 W), bilinear."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def laplacian_levels(picture: Tensor, halvings: int) -> list[Tensor]:
    """What each halving of a picture loses.

    Args:
        picture: (B, C, H, W), H and W multiples of 2^halvings.
        halvings: How many, n.

    Returns:
        n differences, of H x W to H / 2^(n-1) x W / 2^(n-1).
    """
    levels = []
    for _ in range(halvings):
        smaller = F.avg_pool2d(picture, 2)  # what bilinear interpolation to half the size is
        levels.append(picture - double(smaller))
        picture = smaller
    return levels


def restored(residuals: Sequence[Tensor]) -> Tensor:
    """The sum of a Laplacian pyramid, coarse to fine; each of twice the size of the one before."""
    total = residuals[0]
    for residual in residuals[1:]:
        total = double(total) + residual
    return total


class LaplacianDecoder(nn.Module):
    """From features and photo to the residuals of depth's logit at every scale.

    Args:
        channels: Of the encoder's five features, fine to coarse.
        width: At 1/32; halved at each finer scale, but equal at 1/2 and 1/1.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.atrous = Atrous(channels[-1], width)
        first = [width >> i for i in range(5)]
        chain = [Unit(a, b) for a, b in pairwise(first)]
        self.coarsest = nn.Sequential(*chain, LastUnit(first[-1]))
        levels, inputs = [], width
        for index, skip in enumerate((*reversed(channels[:-1]), 0), start=1):
            outputs = width >> min(index, len(channels) - 1)
            levels.append(Level(inputs, skip, outputs))
            inputs = outputs
        self.levels = nn.ModuleList(levels)

    def forward(self, photo: Tensor, features: Sequence[Tensor]) -> list[Tensor]:
        """Normalised photo (B, 3, H, W) and features at 1/2 to 1/32 -> residuals (B, 1, h, w), 1/32 to 1/1."""
        edges = laplacian_levels(photo, len(features))
        skips = [(), *((feature,) for feature in features[:-1])]
        x = self.atrous(features[-1])
        residuals = [torch.sigmoid(self.coarsest(x))]
        for level, skip, edge in zip(self.levels, reversed(skips), reversed(edges), strict=True):
            x, residual = level(x, skip, residuals[-1], edge)
            residuals.append(residual)
        return residuals


class LapDepth(nn.Module):
    """uint8 photo in, depth in metres out.

    Args:
        normalise: What the encoder's first weights expect.
        encoder: Five features, fine to coarse.
        decoder: The photo and those -> residuals.
        farthest_m: Largest depth.
    """

    output: Literal["depth_m"] = "depth_m"
    stride = STRIDE

    def __init__(
        self, normalise: nn.Module, encoder: GhostNetEncoder, decoder: nn.Module, farthest_m: float = 10.0
    ) -> None:
        super().__init__()
        self.normalise = normalise
        self.encoder = encoder
        self.decoder = decoder
        self.farthest_m = farthest_m

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Those that learn at a rate of their own."""
        return self.encoder.parameters()

    def residuals(self, image: Tensor) -> list[Tensor]:
        """Laplacian pyramid of the depth's logit, (B, 1, h, w) float32 each, from 1/32 of the size to the whole."""
        photo = self.normalise(image)
        residuals: list[Tensor] = self.decoder(photo, self.encoder(photo))
        return [residual.float() for residual in residuals]

    def forward(self, image: Tensor) -> Tensor:
        """Runs the network.

        Args:
            image: uint8 (B, H, W, 3) sRGB 0..255, H and W multiples of 32.

        Returns:
            float32 (B, H, W), depth in metres, between 0 and `farthest_m`.

        Raises:
            TrainingError: Sides no multiples of 32.
        """
        return torch.sigmoid(restored(self.residuals(image)))[:, 0] * self.farthest_m
