"""FocusOnDepth, small: one encoder, DPT-style fusion, a depth head and a person head.

FocusOnDepth (github.com/antocad/FocusOnDepth, MIT) puts two heads on the dense prediction transformer of Ranftl et
al., "Vision Transformers for Dense Prediction", arXiv:2103.13413. The shape is theirs: features of four or five
scales are reassembled to decoder widths, fused from coarse to fine by residual convolution units, and read by two
heads. Ours differs where two CPU cores must serve it: a convolutional encoder, fewer channels at finer scales, one
residual unit per scale, batch norm, and softplus in place of the depth head's ReLU or sigmoid, which can die or
saturate (arXiv:1907.01341 needs any non-negative map).
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDE = 32
"""Height and width of the input are multiples of this."""

_NO_RANGE = 1e-6  # of inverse depth; values that span less are one
_WITHOUT_HALF = 4  # features of an encoder that begins at 1/4, as vision transformers' reassembly does


class Normalise(nn.Module):
    """uint8 (B, H, W, 3) in 0..255 -> float (B, 3, H, W), (value - mean) / std, per channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        return (image.permute(0, 3, 1, 2).to(self.mean.dtype) - self.mean) / self.std


class ResidualUnit(nn.Module):
    """ReLU, 3x3, norm, ReLU, 3x3, norm, plus the input (DPT's RCU with batch norm)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        y: Tensor = self.body(x)
        return x + y


class SingleUnit(nn.Module):
    """ReLU, 3x3, norm: for the finest scales, where a residual unit would cost more than all coarser ones together."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        y: Tensor = self.body(x)
        return y


class Reassemble(nn.Module):
    """One encoder feature at the decoder's width: 1x1 convolution and norm."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W)."""
        y: Tensor = self.project(x)
        return y


class Readout(nn.Module):
    """Adds what the whole picture says to every place, as DPT's readout token does: mean, 1x1, 1x1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.ReLU(), nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        y: Tensor = self.body(x.mean(dim=(2, 3), keepdim=True))
        return x + y


class Decoder(nn.Module):
    """Fuses features from coarse to fine; the result has half the photo's size.

    Args:
        channels: Of the encoder's features, fine to coarse.
        widths: Of the decoder at the same scales.
        single: How many of the finest scales have one convolution instead of a residual unit.
        context: What the coarsest scale goes through first, at its decoder width.
    """

    def __init__(
        self, channels: Sequence[int], widths: Sequence[int], single: int = 0, context: nn.Module | None = None
    ) -> None:
        super().__init__()
        if len(channels) != len(widths):
            raise ValueError(f"{len(channels)} encoder features, {len(widths)} decoder widths: give as many of both")
        self.width = widths[0]
        self.reassemble = nn.ModuleList(Reassemble(c, w) for c, w in zip(channels, widths, strict=True))
        self.context = context or nn.Identity()
        self.readout = Readout(widths[-1])
        self.units = nn.ModuleList(
            SingleUnit(width) if level < single else ResidualUnit(width) for level, width in enumerate(widths)
        )
        # before upsampling, where it is cheapest (DPT's out_conv)
        self.narrow = nn.ModuleList(nn.Conv2d(widths[i + 1], widths[i], 1) for i in range(len(widths) - 1))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features at every scale down to 1/32, five from 1/2 or four from 1/4 -> (B, width, H / 2, W / 2)."""
        x = self.units[-1](self.readout(self.context(self.reassemble[-1](features[-1]))))
        for level in reversed(range(len(features) - 1)):
            x = F.interpolate(self.narrow[level](x), scale_factor=2.0, mode="bilinear", align_corners=False)
            x = self.units[level](x + self.reassemble[level](features[level]))
        if len(features) == _WITHOUT_HALF:
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        result: Tensor = x
        return result


class Head(nn.Module):
    """ReLU, 3x3, norm, ReLU, 1x1 to one channel, then bilinear to twice the size."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(inputs, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, 1, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 2 H, 2 W), unbounded."""
        # float32: bfloat16 would leave steps of 0.4 % in the depth
        y = F.interpolate(self.body(x).float(), scale_factor=2.0, mode="bilinear", align_corners=False)
        return y[:, 0]


class SubpixelHead(nn.Module):
    """ReLU, 3x3, norm, ReLU, 1x1 to the four pixels of twice the size: edges need not be blurred by interpolation.

    Sub-pixel convolution: Shi et al., arXiv:1609.05158. All four start alike (Aitken et al., arXiv:1707.02937), so
    that training begins without a checkerboard.

    Args:
        inputs: Channels.
        hidden: Channels between the convolutions.
        precise: Whether the result stays float32 where a runtime does its convolutions in bfloat16.
    """

    def __init__(self, inputs: int, hidden: int, precise: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(inputs, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
        )
        self.four = nn.Conv2d(hidden, 4, 1)
        self._precise = precise
        with torch.no_grad():
            self.four.weight.copy_(self.four.weight[:1].expand_as(self.four.weight))
            self.four.bias.fill_(0)  # type: ignore[union-attr]  # it has one

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 2 H, 2 W), unbounded."""
        x = self.body(x)
        # float32: bfloat16 would leave steps of 0.4 % in the depth
        with torch.autocast(x.device.type, enabled=False):
            y = F.pixel_shuffle(self._last(x.float()), 2)
        return y[:, 0]

    def _last(self, x: Tensor) -> Tensor:
        if not (self._precise and torch.compiler.is_exporting()):
            four: Tensor = self.four(x)
            return four
        # OpenVINO rounds what a convolution gives to bfloat16, 2,000 different depths in a photo, but leaves all that
        # comes after the last convolution in float32, which gives 109,000. The same sum, written without one:
        weight, bias = self.four.weight[:, :, 0, 0], self.four.bias
        sums = [(x * weight[i].view(1, -1, 1, 1)).sum(1, keepdim=True) for i in range(4)]
        return torch.cat(sums, 1) + bias.view(1, -1, 1, 1)  # type: ignore[union-attr]  # it has one


class DepthwiseUnit(nn.Module):
    """Depthwise 3x3, norm, ReLU, 1x1, norm, plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        y: Tensor = self.body(x)
        return x + y


class DepthwiseDecoder(nn.Module):
    """The decoder the first experiments used: equal width at all scales, depthwise units, a pooled context."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.width = width
        self.reassemble = nn.ModuleList(Reassemble(c, width) for c in channels)
        self.readout = Readout(width)
        self.units = nn.ModuleList(DepthwiseUnit(width) for _ in channels)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features (B, C_i, H / 2^i, W / 2^i), fine to coarse -> (B, width, H, W)."""
        x = self.units[-1](self.readout(self.reassemble[-1](features[-1])))
        for level in reversed(range(len(features) - 1)):
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = self.units[level](x + self.reassemble[level](features[level]))
        result: Tensor = x
        return result


class Crisp(nn.Module):
    """Ramps between near and far become steps, in the network's own map and without a weight; at rest in training.

    A regressed map turns every step into a ramp as wide as the network's doubt. Where values around a pixel differ, it
    is drawn to the nearest or the farthest of them, whichever it is closer to: Kramer and Bruckner's transformation
    ("Iterations of a non-linear transformation for enhancement of digital images", Pattern Recognition 7, 1975), with a
    sigmoid where theirs chooses, so that a slope, each of whose pixels lies halfway, stays the slope it is.

    Losses see the map as it was: trained through this, a network learned less (docs/results/default_network.md).

    Args:
        window: Side of the square around a pixel, odd.
        steepness: Of the sigmoid; halfway between, differences grow by a quarter of this in a round.
        rounds: How often.
        flat: Share of the map's whole range; where values around a pixel span less, nothing changes: it would be noise.
        step: Share likewise, from which on the pixel is drawn with full force; in between with a part of it.
    """

    def __init__(self, window: int, steepness: float, rounds: int, flat: float, step: float) -> None:
        super().__init__()
        self._window, self._steepness, self._rounds = window, steepness, rounds
        self._flat, self._step = flat, step

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W) -> the same, within the smallest and largest value around each pixel."""
        if self.training:
            return x
        whole = (x.amax((1, 2), keepdim=True) - x.amin((1, 2), keepdim=True)).clamp(min=_NO_RANGE)
        for _ in range(self._rounds):
            far, near = -self._largest(-x), self._largest(x)
            span = near - far
            force = ((span / whole - self._flat) / (self._step - self._flat)).clamp(0, 1)
            place = (x - far) / span.clamp(min=_NO_RANGE)
            x = torch.lerp(x, far + span * torch.sigmoid(self._steepness * (place - 0.5)), force)
        return x

    def _largest(self, x: Tensor) -> Tensor:
        # along rows, then along columns, with the other as channels: a fifth of the time of a square over one channel
        for _ in range(2):
            x = F.max_pool1d(x, self._window, stride=1, padding=self._window // 2).transpose(1, 2)
        return x


class FocusOnDepth(nn.Module):
    """uint8 photo in, inverse depth and person logit out; one encoder pass serves both heads.

    Args:
        normalise: What the encoder's first weights expect.
        encoder: (B, 3, H, W) -> features at (1/2,) 1/4, 1/8, 1/16, 1/32 of the size, fine to coarse.
        decoder: Those features -> (B, C, H / 2, W / 2).
        depth_head: The decoder's result -> (B, H, W), unbounded.
        person_head: The same.
        finish: What inverse depth goes through last, (B, H, W) -> the same.
    """

    def __init__(
        self,
        normalise: Normalise,
        encoder: nn.Module,
        decoder: nn.Module,
        depth_head: nn.Module,
        person_head: nn.Module,
        finish: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.normalise = normalise
        self.encoder = encoder
        self.decoder = decoder
        self.depth_head = depth_head
        self.person_head = person_head
        self.finish = finish or nn.Identity()

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """What learns at the encoder's own rate."""
        yield from self.encoder.parameters()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Runs the network.

        Args:
            image: uint8 (B, H, W, 3) sRGB 0..255, H and W multiples of 32.

        Returns:
            inverse_depth: (B, H, W), relative, > 0, larger = nearer.
            person: (B, H, W), logit that the pixel shows a person.
        """
        fused = self.decoder(self.encoder(self.normalise(image)))
        return self.finish(F.softplus(self.depth_head(fused))), self.person_head(fused)


class Served(nn.Module):
    """The network as `service.contract` states it: float32 results, person as a probability."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (B, H, W, 3) -> inverse_depth (B, H, W) >= 0, person (B, H, W) in 0..1."""
        inverse_depth, logit = self.network(image)
        return inverse_depth.float(), torch.sigmoid(logit.float())
