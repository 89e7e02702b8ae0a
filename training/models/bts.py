"""BTS on GhostNet: each decoder level guesses a plane for every cell, and the planes guide the finer levels.

Lee et al., "From Big to Small: Multi-Scale Local Planar Guidance for Monocular Depth Estimation", arXiv:1907.10326,
with the three changes of seed 3: GhostNet as encoder, depthwise-separable convolutions in the decoder
(`training.models.separable`), convolution before interpolation. Written from a description of the method. Unlike the
published training, encoder norms and stem learn: the recipe starts them from random weights where there are no others.

For Triton: `image` uint8 (B, H, W, 3), multiples of 32 -> `depth_m` float32 (B, H, W), metres.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.models.ghostnet import STRIDE, GhostNetEncoder
from training.models.separable import separable

_STEEPEST = math.pi / 3  # of a plane's normal against the optical axis
_FLATTEST = 0.02  # smallest denominator of a plane: at the corner of a cell the steepest one would turn negative
_FEWEST = 8  # channels at which a chain of halvings ends
_RATES = (3, 6, 12, 18, 24)


def local_planes(normal: Tensor, distance: Tensor, cell: int) -> Tensor:
    """Depth of the plane of each cell at each of its pixels (equation 3 of the paper).

    depth = distance / (n1 u + n2 v + n3), where u runs over the columns and v over the rows of the cell, from
    -(cell - 1) / (2 cell) to +(cell - 1) / (2 cell).

    Args:
        normal: (B, 3, h, w), of length 1, n3 > 0 towards the scene.
        distance: (B, h, w), of the planes, any unit.
        cell: Side of a cell in pixels.

    Returns:
        (B, h, cell, w, cell), in that unit: cells by row, their rows, cells by column, their columns.
    """
    place = (torch.arange(cell, device=normal.device, dtype=normal.dtype) - (cell - 1) / 2) / cell
    n1, n2, n3 = (normal[:, axis, :, None, :, None] for axis in range(3))
    slope = n1 * place + n2 * place[:, None, None] + n3
    return distance[:, :, None, :, None] / slope.clamp(min=_FLATTEST)


class Halving(nn.Sequential):
    """1x1 convolutions that halve the channels down to about eight, ELU after each, then one to `outputs`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        layers: list[nn.Module] = []
        while inputs > _FEWEST:
            layers += [nn.Conv2d(inputs, inputs // 2, 1), nn.ELU()]
            inputs //= 2
        super().__init__(*layers, nn.Conv2d(inputs, outputs, 1))
        for layer in self:
            if isinstance(layer, nn.Conv2d):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # it has one


class Planes(nn.Module):
    """Local planar guidance: one plane for each place of a feature map.

    Args:
        inputs: Channels.
        cell: Side of a place in pixels of the photo.
    """

    def __init__(self, inputs: int, cell: int) -> None:
        super().__init__()
        self.reduce = Halving(inputs, 3)
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, h, cell, w, cell), depth as a share of the farthest, > 0."""
        with torch.autocast(x.device.type, enabled=False):
            raw = torch.sigmoid(self.reduce(x.float()))
            tilt, turn = raw[:, 0] * _STEEPEST, raw[:, 1] * (2 * math.pi)
            flat = torch.sin(tilt)
            # of length 1 as it stands
            normal = torch.stack((flat * torch.cos(turn), flat * torch.sin(turn), torch.cos(tilt)), 1)
            return local_planes(normal, raw[:, 2], self.cell)


def whole(cells: Tensor, step: int = 1) -> Tensor:
    """Cells (B, h, k, w, k) as a picture (B, 1, h k / step, w k / step), every `step`-th row and column."""
    return cells[:, :, ::step, :, ::step].flatten(3, 4).flatten(1, 2)[:, None]


class Up(nn.Module):
    """Separable 3x3, ELU, norm where there is one, then nearest to twice the size."""

    def __init__(self, inputs: int, outputs: int, norm: bool = True) -> None:
        super().__init__()
        self.body = nn.Sequential(separable(inputs, outputs), nn.ELU(), _norm(outputs) if norm else nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', 2 H, 2 W)."""
        return F.interpolate(self.body(x), scale_factor=2.0, mode="nearest")


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, momentum=0.01, eps=1.1e-5)  # the paper's (TensorFlow's customs of the time)


def _mix(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(separable(inputs, outputs), nn.ELU())


class DenseAtrous(nn.Module):
    """Dense atrous spatial pyramid pooling: each rate sees the input and what the smaller rates found.

    Args:
        skip: Channels joined from the encoder.
        width: Of the input, twice the branches'.
    """

    def __init__(self, skip: int, width: int) -> None:
        super().__init__()
        self.enter = _mix(width + skip, width)
        branches, inputs = [], width
        for index, rate in enumerate(_RATES):
            before = [nn.Identity()] if index == 0 else [_norm(inputs)]
            branches.append(
                nn.Sequential(
                    *before,
                    nn.ReLU(),
                    nn.Conv2d(inputs, width, 1, bias=False),
                    _norm(width),
                    nn.ReLU(),
                    separable(width, width // 2, dilation=rate),
                )
            )
            inputs = width + skip + (index + 1) * (width // 2)
        self.branches = nn.ModuleList(branches)
        self.leave = _mix(width + len(_RATES) * (width // 2), width // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width + skip, h, w) -> (B, width / 2, h, w)."""
        first = self.enter(x)
        found: list[Tensor] = []
        for index, branch in enumerate(self.branches):
            found.append(branch(torch.cat((x, *found), 1) if index else first))
        result: Tensor = self.leave(torch.cat((first, *found), 1))
        return result


class PlanarDecoder(nn.Module):
    """From features to five maps, each a share of the farthest depth.

    Args:
        channels: Of the encoder's five features, fine to coarse.
        width: At 1/16 (the paper's N); halved at each finer scale.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        half, quarter, eighth, sixteenth, coarsest = channels
        n8, n4, n2, n1 = width // 2, width // 4, width // 8, width // 16
        self.norm = _norm(coarsest)
        self.up16 = Up(coarsest, width)
        self.mix16 = _mix(width + sixteenth, width)
        self.up8 = Up(width, n8)
        self.norm8 = _norm(n8 + eighth)
        self.atrous = DenseAtrous(eighth, n8)
        self.planes8 = Planes(n4, 8)
        self.up4 = Up(n4, n4)
        self.mix4 = _mix(n4 + quarter + 1, n4)
        self.planes4 = Planes(n4, 4)
        self.up2 = Up(n4, n2)
        self.mix2 = _mix(n2 + half + 1, n2)
        self.planes2 = Planes(n2, 2)
        self.up1 = Up(n2, n1, norm=False)
        self.reduce1 = Halving(n1, 1)
        self.mix1 = _mix(n1 + 4, n1)
        self.last = nn.Conv2d(n1, 1, 3, padding=1)
        nn.init.xavier_uniform_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]  # it has one

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Features at 1/2 to 1/32 -> (B, 1, H, W) of cells of 8, 4, 2 and 1 pixels, and the one that joins them."""
        half, quarter, eighth, sixteenth, coarsest = features
        x = self.mix16(torch.cat((self.up16(self.norm(F.relu(coarsest))), sixteenth), 1))
        x = self.atrous(self.norm8(torch.cat((self.up8(x), eighth), 1)))
        cells8 = self.planes8(x)
        x = self.mix4(torch.cat((self.up4(x), quarter, whole(cells8, 4)), 1))
        cells4 = self.planes4(x)
        x = self.mix2(torch.cat((self.up2(x), half, whole(cells4, 2)), 1))
        cells2 = self.planes2(x)
        x = self.up1(x)
        maps = (whole(cells8), whole(cells4), whole(cells2), torch.sigmoid(self.reduce1(x)))
        x = self.mix1(torch.cat((x, *maps), 1))
        # float32: bfloat16 would leave steps of 0.4 % in the depth
        with torch.autocast(x.device.type, enabled=False):
            return *maps, torch.sigmoid(self.last(x.float()))


class Bts(nn.Module):
    """uint8 photo in, depth in metres out.

    Args:
        normalise: What the encoder's first weights expect.
        encoder: Five features, fine to coarse.
        decoder: Those -> five maps of shares.
        farthest_m: What a share of 1 is.
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

    def maps(self, image: Tensor) -> list[Tensor]:
        """All five results (B, H, W) in metres, coarse to fine, `forward`'s last; the loss sees that one alone."""
        found = self.decoder(self.encoder(self.normalise(image)))
        return [share[:, 0].float() * self.farthest_m for share in found]

    def forward(self, image: Tensor) -> Tensor:
        """Runs the network.

        Args:
            image: uint8 (B, H, W, 3) sRGB 0..255, H and W multiples of 32.

        Returns:
            float32 (B, H, W), depth in metres, between 0 and `farthest_m`.

        Raises:
            TrainingError: Sides no multiples of 32.
        """
        return self.maps(image)[-1]
