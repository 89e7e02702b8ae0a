"""The meta-learner: says for each pixel how much each base network's depth counts.

Worameth, "Supervised Monocular Depth Estimation via Stacked Generalization" (seed 3): a U-Net on GhostNet whose result
W has one coefficient for each of three base networks; the depth is the sum of W_k d_k. Its variants see the three
depths (D), the photo (RGB) or both (RGB+D). What keeps the coefficients in bounds is not stated there: here they sum
to one (`Shares`), or are free (`Linear`). Either begins all but equal, as the plain average, the baseline.

For Triton, the ensemble `depth_stacked`:

- `image` uint8 (B, H, W, 3), multiples of 32, goes to `depth_adabins`, `depth_bts` and `depth_lapdepth` in parallel;
  each gives `depth_m` float32 (B, H, W), metres;
- `depth_meta` (`ServedMeta`) takes `image` and these as `adabins_m`, `bts_m` and `lapdepth_m`, in the order of
  `BASES`, and gives `depth_m` likewise. The variant D has no use for `image`, but takes it.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.errors import TrainingError
from training.models.ghostnet import STRIDE, GhostNetEncoder

BASES = ("adabins", "bts", "lapdepth")
"""The base networks, in the order of the coefficients."""

_FAINT = 0.001  # first weights of the last layer: the coefficients begin all but equal


class DepthView(nn.Module):
    """The variant D: three depths, about -1..1."""

    inputs = 3

    def __init__(self, farthest_m: float = 10.0) -> None:
        super().__init__()
        self.farthest_m = farthest_m

    def forward(self, image: Tensor, depths_m: Tensor) -> Tensor:
        """uint8 (B, H, W, 3), which is not looked at, and (B, 3, H, W) -> (B, 3, H, W)."""
        return depths_m * (2 / self.farthest_m) - 1


class PhotoView(nn.Module):
    """The variant RGB: the normalised photo."""

    inputs = 3

    def __init__(self, normalise: nn.Module) -> None:
        super().__init__()
        self.normalise = normalise

    def forward(self, image: Tensor, depths_m: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) and (B, 3, H, W), which is not looked at -> (B, 3, H, W)."""
        photo: Tensor = self.normalise(image)
        return photo


class WholeView(nn.Module):
    """The variant RGB+D: the photo, then the depths."""

    inputs = 6

    def __init__(self, photo: PhotoView, depth: DepthView) -> None:
        super().__init__()
        self.photo, self.depth = photo, depth

    def forward(self, image: Tensor, depths_m: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) and (B, 3, H, W) -> (B, 6, H, W)."""
        return torch.cat((self.photo(image, depths_m), self.depth(image, depths_m)), 1)


class Shares(nn.Module):
    """Coefficients above 0 that sum to 1 in each pixel: the depth lies between the nearest and the farthest base's."""

    def forward(self, raw: Tensor) -> Tensor:
        """(B, K, H, W) unbounded -> the same shape."""
        return torch.softmax(raw, 1)


class Linear(nn.Module):
    """Coefficients that may be any number and begin at 1 / K: the depth may leave the bases' range."""

    def forward(self, raw: Tensor) -> Tensor:
        """(B, K, H, W) unbounded -> the same shape."""
        return raw + 1 / raw.shape[1]


class MetaLearner(nn.Module):
    """Photo and base depths in, coefficients and their sum out.

    Args:
        view: Photo and depths -> what the encoder sees.
        encoder: That -> five features, fine to coarse.
        decoder: Those -> (B, C, H / 2, W / 2).
        width: C.
        bound: Raw coefficients -> coefficients.
        nearest_m: Base depths, and the result, are held to what lies between this...
        farthest_m: ... and this.
    """

    def __init__(
        self,
        view: nn.Module,
        encoder: GhostNetEncoder,
        decoder: nn.Module,
        width: int,
        bound: nn.Module,
        nearest_m: float = 1e-3,
        farthest_m: float = 10.0,
    ) -> None:
        super().__init__()
        self.view = view
        self.encoder = encoder
        self.decoder = decoder
        self.norm = nn.Sequential(nn.BatchNorm2d(width), nn.LeakyReLU(0.01))
        self.last = nn.Conv2d(width, len(BASES), 1)
        nn.init.normal_(self.last.weight, std=_FAINT)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]  # it has one
        self.bound = bound
        self.nearest_m, self.farthest_m = nearest_m, farthest_m

    def coefficients(self, image: Tensor, depths_m: Tensor) -> Tensor:
        """(B, 3, H, W) float32; arguments as for `forward`, depths already held to their range."""
        raw = self.last(self.norm(self.decoder(self.encoder(self.view(image, depths_m)))))
        # float32: bfloat16 would leave coefficients that sum to 0.997
        raw = F.interpolate(raw.float(), scale_factor=2.0, mode="bilinear", align_corners=False)
        bounded: Tensor = self.bound(raw)
        return bounded

    def forward(self, image: Tensor, depths_m: Tensor) -> Tensor:
        """Weighs the base depths.

        Args:
            image: uint8 (B, H, W, 3) sRGB 0..255, H and W multiples of 32.
            depths_m: float32 (B, 3, H, W), metres, in the order of `BASES`.

        Returns:
            float32 (B, H, W), depth in metres, between `nearest_m` and `farthest_m`.

        Raises:
            TrainingError: Sides no multiples of 32.
        """
        held = depths_m.float().clamp(self.nearest_m, self.farthest_m)
        mixed = (self.coefficients(image, held) * held).sum(1)
        return mixed.clamp(self.nearest_m, self.farthest_m)


class Average(nn.Module):
    """The baseline in the place of a meta-learner: the plain mean of the base depths."""

    def forward(self, image: Tensor, depths_m: Tensor) -> Tensor:
        """uint8 (B, H, W, 3), which is not looked at, and (B, K, H, W) metres -> (B, H, W)."""
        return depths_m.float().mean(1)


class ServedMeta(nn.Module):
    """A meta-learner as its own graph: the depths arrive one by one, as an ensemble's steps give them."""

    def __init__(self, meta: nn.Module) -> None:
        super().__init__()
        self.learner = meta  # not `meta`, which an exported graph keeps notes of its own in

    def forward(self, image: Tensor, adabins_m: Tensor, bts_m: Tensor, lapdepth_m: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) and three times float32 (B, H, W), metres -> float32 (B, H, W), metres."""
        mixed: Tensor = self.learner(image, torch.stack((adabins_m, bts_m, lapdepth_m), 1))
        return mixed


class Stacked(nn.Module):
    """uint8 photo in, depth in metres out: the base networks and what weighs them.

    Whether the bases learn along is the recipe's business: frozen (`frozen: [bases]`), tuned (bases that were trained
    before), or simultaneous (all from the start).

    Args:
        bases: By their names in `BASES`: photo -> depth in metres (B, H, W).
        meta: `MetaLearner` or `Average`.

    Raises:
        TrainingError: Other bases.
    """

    output: Literal["depth_m"] = "depth_m"
    stride = STRIDE

    def __init__(self, bases: Mapping[str, nn.Module], meta: nn.Module) -> None:
        super().__init__()
        if set(bases) != set(BASES):
            raise TrainingError(f"stacked on {', '.join(bases)}: expected {', '.join(BASES)}")
        self.bases = nn.ModuleDict({name: bases[name] for name in BASES})
        self.meta = meta

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Those of the bases, trained before where they are not frozen: they learn at a rate of their own."""
        return self.bases.parameters()

    def base_depths(self, image: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) -> float32 (B, 3, H, W), metres, in the order of `BASES`."""
        return torch.stack([base(image) for base in self.bases.values()], 1)

    def forward(self, image: Tensor) -> Tensor:
        """Runs the bases, then weighs them.

        Args:
            image: uint8 (B, H, W, 3) sRGB 0..255, H and W multiples of 32.

        Returns:
            float32 (B, H, W), depth in metres.

        Raises:
            TrainingError: A size that one of the networks cannot take.
        """
        mixed: Tensor = self.meta(image, self.base_depths(image))
        return mixed
