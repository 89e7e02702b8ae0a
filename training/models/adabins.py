"""AdaBins on GhostNet: depth as a mixture of bins whose places each picture chooses for itself.

Bhat et al., "AdaBins: Depth Estimation using Adaptive Bins", arXiv:2011.14141, with the three changes of seed 3
(Worameth, "Supervised Monocular Depth Estimation via Stacked Generalization"): GhostNet as encoder, depthwise-separable
convolutions in the decoder (`training.models.separable`), and interpolation after each level's convolutions instead of
before. Written from a description of the method.

For Triton: `image` uint8 (B, H, W, 3) -> `depth_m` float32 (B, H, W), metres. The transformer sees one token per
`patch` pixels of the map at half size and can take only so many: `adabins_ghost`, as the paper has it, needs 129 to
500 tokens of 32x32 pixels, which 352x384 has and the served sizes (288x384 gives 108) have not. `adabins_ghost_served`
differs in its tokens of 16x16 pixels alone (at most 1,024), and is the one for `depth_stacked`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.errors import TrainingError
from training.models.context import Attention
from training.models.ghostnet import STRIDE, GhostNetEncoder, sizes_are_known
from training.models.separable import separable

_NARROWEST = 0.1  # added to each bin's width before they are made to sum to one, so that none vanishes
_HALF = 2  # the transformer reads the map at half size


@dataclass(frozen=True)
class Bins:
    """What the loss sees.

    Attributes:
        edges_m: (B, bins + 1) float32, ascending, from the nearest to the farthest depth.
        depth_m: (B, H, W) float32.
    """

    edges_m: Tensor
    depth_m: Tensor

    @property
    def centres_m(self) -> Tensor:
        """(B, bins) float32, the middles of the bins."""
        return (self.edges_m[:, 1:] + self.edges_m[:, :-1]) / 2


class PostNormBlock(nn.Module):
    """Transformer block with its norms after the sums (Vaswani et al., arXiv:1706.03762)."""

    def __init__(self, channels: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(channels, heads)
        self.perceptron = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, channels)
        )
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.drop = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> the same."""
        tokens = self.norm1(tokens + self.drop(self.attention(tokens)))
        result: Tensor = self.norm2(tokens + self.drop(self.perceptron(tokens)))
        return result


class MiniVit(nn.Module):
    """The paper's mViT: widths of the bins from token 0, range attention maps from the next `queries` tokens.

    Args:
        channels: Of the map it reads, and of its tokens.
        patch: Side of a token in pixels of that map.
        positions: Most tokens it can take.
        queries: Range attention maps.
        bins: How many.
        hidden: Of the perceptron that gives the widths.
        blocks: Of the transformer, four heads each.
    """

    def __init__(
        self,
        channels: int = 128,
        patch: int = 16,
        positions: int = 500,
        queries: int = 128,
        bins: int = 256,
        hidden: int = 256,
        blocks: int = 4,
    ) -> None:
        super().__init__()
        self.patch, self.queries, self.bins = patch, queries, bins
        self.embed = nn.Conv2d(channels, channels, patch, patch)
        self.positions = nn.Parameter(torch.rand(positions, channels))
        self.blocks = nn.Sequential(*(PostNormBlock(channels, 4, 8 * channels, 0.1) for _ in range(blocks)))
        self.keys = separable(channels, channels, bias=True)
        self.widths = nn.Sequential(
            nn.Linear(channels, hidden),
            nn.LeakyReLU(),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(),
            nn.Linear(hidden, bins),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Runs the transformer.

        Args:
            x: (B, C, h, w).

        Returns:
            Widths (B, bins), sum 1, and range attention maps (B, queries, h, w).
        """
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        # indices and not slices: a slice would tie an exported graph to the number of tokens it was made with
        places = self.positions[torch.arange(tokens.shape[1], device=x.device)]
        tokens = self.blocks(tokens + places)
        raw = F.relu(self.widths(tokens[:, 0]).float()) + _NARROWEST
        queries = tokens[:, torch.arange(1, self.queries + 1, device=x.device)]
        keys = self.keys(x)
        attention = queries @ keys.flatten(2)
        return raw / raw.sum(1, keepdim=True), attention.unflatten(2, keys.shape[2:])


class AdaBins(nn.Module):
    """uint8 photo in, depth in metres out.

    Args:
        normalise: What the encoder's first weights expect.
        encoder: Five features, fine to coarse.
        decoder: Those -> (B, C, H / 2, W / 2).
        transformer: That -> widths of the bins and range attention maps.
        nearest_m: First edge.
        farthest_m: Last edge.
    """

    output: Literal["depth_m"] = "depth_m"
    stride = STRIDE

    def __init__(
        self,
        normalise: nn.Module,
        encoder: GhostNetEncoder,
        decoder: nn.Module,
        transformer: MiniVit,
        nearest_m: float = 1e-3,
        farthest_m: float = 10.0,
    ) -> None:
        super().__init__()
        self.normalise = normalise
        self.encoder = encoder
        self.decoder = decoder
        self.transformer = transformer
        self.probability = nn.Conv2d(transformer.queries, transformer.bins, 1)
        self.nearest_m, self.farthest_m = nearest_m, farthest_m

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Those that learn at a rate of their own."""
        return self.encoder.parameters()

    def check_size(self, height: int, width: int) -> None:
        """TrainingError where a picture gives the transformer too few tokens or too many."""
        side = _HALF * self.transformer.patch
        tokens = (height // side) * (width // side)
        least, most = self.transformer.queries + 1, len(self.transformer.positions)
        if not least <= tokens <= most:
            raise TrainingError(
                f"a picture of {height}x{width} gives AdaBins {tokens} tokens of {side}x{side} pixels; it takes "
                f"{least} to {most}"
            )

    def bins(self, image: Tensor) -> Bins:
        """Edges of the bins beside the depth; arguments and errors as for `forward`."""
        if sizes_are_known():
            self.check_size(image.shape[1], image.shape[2])
        widths, attention = self.transformer(self.decoder(self.encoder(self.normalise(image))))
        # float32: bfloat16 would leave steps of 0.4 % in the depth
        with torch.autocast(image.device.type, enabled=False):
            edges = F.pad(widths.cumsum(1), (1, 0)) * (self.farthest_m - self.nearest_m) + self.nearest_m
            centres = (edges[:, 1:] + edges[:, :-1]) / 2
            share = torch.softmax(self.probability(attention.float()), 1)
            depth = (share * centres[:, :, None, None]).sum(1, keepdim=True)
            depth = F.interpolate(depth, scale_factor=2.0, mode="bilinear", align_corners=True)
        return Bins(edges, depth[:, 0])

    def forward(self, image: Tensor) -> Tensor:
        """Runs the network.

        Args:
            image: uint8 (B, H, W, 3) sRGB 0..255, H and W multiples of 32.

        Returns:
            float32 (B, H, W), depth in metres, between `nearest_m` and `farthest_m`.

        Raises:
            TrainingError: Sides no multiples of 32, or too few or too many tokens.
        """
        return self.bins(image).depth_m
