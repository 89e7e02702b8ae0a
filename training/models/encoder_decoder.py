"""A residual network and five transposed convolutions: the plainest network that gives metric depth.

D. Saia, "Monocular Depth Estimation" (course report): ImageNet's ResNet50 without its last two layers, then transposed
convolutions 2048 -> 512 -> 256 -> 128 -> 64 -> 1 with kernel 4, stride 2, padding 1, batch norm and ReLU after all but
the last. 43,041,665 parameters. The first stages stay frozen (the recipe's `frozen`), the last learns.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from training.models.focus_on_depth import Normalise
from training.models.resnet import IMAGENET, ResNetEncoder

TYPICAL_M = 2.5
"""Depth that networks say everywhere before they have learned anything, about a room's (2.7 m is NYU's mean): steps are
few, and a loss that forgives most of a wrong scale is slow to move it."""

_NEAREST_M = 1e-3  # the lower cap of the NYU and KITTI protocols


class TransposedDecoder(nn.Module):
    """Doubles height and width with every transposed convolution; the last one gives the depth.

    Args:
        channels: Of what goes into each of the convolutions; the last gives one channel.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(channels):
            # kernel 4 with stride 2: every pixel of the result is reached equally often
            layers += [nn.ConvTranspose2d(inputs, outputs, 4, 2, 1), nn.BatchNorm2d(outputs), nn.ReLU()]
        last = nn.ConvTranspose2d(channels[-1], 1, 4, 2, 1)
        nn.init.constant_(last.bias, TYPICAL_M)  # type: ignore[arg-type]  # it has one
        self.body = nn.Sequential(*layers, last)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 2^n h, 2^n w), n convolutions, unbounded."""
        depth: Tensor = self.body(x)
        return depth[:, 0]


class EncoderDecoder(nn.Module):
    """uint8 photo in, depth in metres out.

    Args:
        normalise: What the encoder's first weights expect.
        encoder: (B, 3, H, W) -> features, the last at 1/32 of the size.
        decoder: That one -> (B, H, W).
    """

    output: Literal["depth_m"] = "depth_m"
    stride = 32

    def __init__(self, normalise: nn.Module, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.normalise = normalise
        self.encoder = encoder
        self.decoder = decoder

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Those that may learn at a rate of their own."""
        return self.encoder.parameters()

    def features(self, image: Tensor) -> list[Tensor]:
        """uint8 (B, H, W, 3) -> the encoder's features, fine to coarse."""
        features: list[Tensor] = self.encoder(self.normalise(image))
        return features

    def decode(self, features: Sequence[Tensor]) -> Tensor:
        """Those features -> what `forward` returns."""
        # float32: bfloat16 would leave steps of 0.4 % in the depth
        depth: Tensor = self.decoder(features[-1]).float()
        return depth if self.training else depth.clamp(min=_NEAREST_M)

    def forward(self, image: Tensor) -> Tensor:
        """Runs the network.

        Args:
            image: uint8 (B, H, W, 3) sRGB 0..255, H and W multiples of 32.

        Returns:
            float32 (B, H, W), depth in metres. Nothing in the network keeps it above zero: while training it may be
            negative (its loss pulls it back), in evaluation mode it is at least 0.001.
        """
        return self.decode(self.features(image))


def resnet50_encoder_decoder() -> EncoderDecoder:
    """The report's network."""
    return EncoderDecoder(Normalise(*IMAGENET), ResNetEncoder("resnet50"), TransposedDecoder((2048, 512, 256, 128, 64)))


def resnet50_encoder_decoder_tiny() -> EncoderDecoder:
    """For tests: a residual network of ten layers, a narrow decoder."""
    return EncoderDecoder(Normalise(*IMAGENET), ResNetEncoder("resnet10t"), TransposedDecoder((512, 64, 32, 16, 8)))
