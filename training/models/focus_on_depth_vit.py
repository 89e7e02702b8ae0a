"""FocusOnDepth as its authors run it: a vision transformer, four reassembled features, fusion, two heads.

github.com/antocad/FocusOnDepth (MIT), after Ranftl et al., arXiv:2103.13413. `training.models.focus_on_depth` has the
small networks that are served. What is theirs and unlike DPT: the downsampling to 1/32 is a 2x2 convolution, there are
no 3x3 convolutions before and no 1x1 after the fusion, the depth head ends in a sigmoid, and the first ReLU of each
residual unit works in place, so that its shortcut carries ReLU(x) and not x: their weights need that. Their tokens'
grid is fixed; here it follows the picture, and at 384 x 384 the two are the same.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.errors import TrainingError
from training.models.focus_on_depth import Normalise
from training.models.vit import Read, taken_pictures

_HALF = (127.5, 127.5, 127.5)  # mean and std 0.5
_CHANNELS = 256
_CLASSES = 1000  # of ImageNet: the transformer's classifier, which nothing here uses


class IgnoreClass(nn.Module):
    """Patch tokens alone ("ignore")."""

    def forward(self, tokens: Tensor, readout: Tensor) -> Tensor:
        """Patch tokens (B, C, h, w) and class token (B, C) -> (B, C, h, w)."""
        return tokens


class AddClass(nn.Module):
    """Class token added to every patch token ("add")."""

    def forward(self, tokens: Tensor, readout: Tensor) -> Tensor:
        """Patch tokens (B, C, h, w) and class token (B, C) -> (B, C, h, w)."""
        return tokens + readout[:, :, None, None]


class Reassemble(nn.Module):
    """Tokens of one block as a feature map: read, 1x1, resampled.

    Args:
        read: Patch tokens and class token -> (B, C, h, w).
        width: C.
        channels: Of the result.
        resample: (B, channels, h, w) -> the feature's own size.
    """

    def __init__(self, read: nn.Module, width: int, channels: int, resample: nn.Module) -> None:
        super().__init__()
        self.read = read
        self.project = nn.Conv2d(width, channels, 1)
        self.resample = resample

    def forward(self, tokens: Tensor, readout: Tensor) -> Tensor:
        """Patch tokens (B, C, h, w) and class token (B, C) -> feature."""
        feature: Tensor = self.resample(self.project(self.read(tokens, readout)))
        return feature


class Unit(nn.Module):
    """ReLU, 3x3, ReLU, 3x3, plus ReLU(x): see the top of the file."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        shortcut = F.relu(x)
        y: Tensor = self.conv2(F.relu(self.conv1(shortcut)))
        return y + shortcut


class Fusion(nn.Module):
    """A feature, joined by what is coarser, at twice the size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.unit1, self.unit2 = Unit(channels), Unit(channels)

    def forward(self, feature: Tensor, coarser: Tensor | None) -> Tensor:
        """(B, C, h, w) twice, or once for the coarsest -> (B, C, 2 h, 2 w)."""
        x = self.unit1(feature)
        x = self.unit2(x if coarser is None else x + coarser)
        doubled: Tensor = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)
        return doubled


class Head(nn.Module):
    """3x3, twice the size, 3x3, ReLU, 1x1."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels // 2, 3, padding=1)
        self.conv2 = nn.Conv2d(channels // 2, 32, 3, padding=1)
        self.last = nn.Conv2d(32, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H / 2, W / 2) -> (B, outputs, H, W), unbounded."""
        x = F.interpolate(self.conv1(x), scale_factor=2.0, mode="bilinear", align_corners=True)
        y: Tensor = self.last(F.relu(self.conv2(x)))
        return y


def _transformer(name: str) -> Any:
    try:
        import timm
    except ImportError as error:
        raise TrainingError(f"encoder {name} needs timm: pip install 'depthlens[training]'") from error
    try:
        return timm.create_model(name, num_classes=_CLASSES, dynamic_img_size=True)
    except (RuntimeError, TypeError) as error:
        raise TrainingError(f"encoder {name}: {str(error).splitlines()[0]}") from error


class FocusOnDepthVit(nn.Module):
    """uint8 photo in, inverse depth and person logit out.

    Args:
        name: Of the transformer in timm, with patches of 16 pixels.
        blocks: After which of its blocks tokens are taken, four.
        read: `projection`, `add` or `ignore`: what becomes of the class token.
        channels: Of the features.

    Raises:
        TrainingError: timm missing, or it knows no such transformer.
    """

    stride = 32

    def __init__(self, name: str, blocks: Sequence[int], read: str = "projection", channels: int = _CHANNELS) -> None:
        super().__init__()
        self.normalise = Normalise(_HALF, _HALF)
        self.encoder: Any = _transformer(name)
        # they count among the published network's parameters, but no result depends on them
        for unused in (self.encoder.norm, self.encoder.head):
            unused.requires_grad_(False)
        self._blocks = list(blocks)
        width = int(self.encoder.embed_dim)
        readers: dict[str, Callable[[], nn.Module]] = {
            "projection": lambda: Read(width),
            "add": AddClass,
            "ignore": IgnoreClass,
        }
        resamplings = (
            nn.ConvTranspose2d(channels, channels, 4, 4),
            nn.ConvTranspose2d(channels, channels, 2, 2),
            nn.Identity(),
            nn.Conv2d(channels, channels, 2, 2),
        )
        self.reassembles = nn.ModuleList(Reassemble(readers[read](), width, channels, r) for r in resamplings)
        self.fusions = nn.ModuleList(Fusion(channels) for _ in resamplings)
        self.depth_head = Head(channels, 1)
        self.person_head = Head(channels, 2)

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """The transformer's, which learn at a rate of their own."""
        yield from self.encoder.parameters()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Runs the network.

        Args:
            image: uint8 (B, H, W, 3) sRGB 0..255, H and W multiples of 32; the authors' are 384 x 384.

        Returns:
            inverse_depth: (B, H, W), relative, 0..1, larger = nearer.
            person: (B, H, W), logit that the pixel shows a person: the difference of the two classes' logits.
        """
        taken = taken_pictures(self.encoder, self.normalise(image), self._blocks)
        fused: Tensor | None = None
        for (patches, readout), reassemble, fusion in reversed(
            list(zip(taken, self.reassembles, self.fusions, strict=True))
        ):
            fused = fusion(reassemble(patches, readout), fused)
        classes = self.person_head(fused)
        # float32: bfloat16 would leave steps of 0.4 % in the depth
        return torch.sigmoid(self.depth_head(fused).float())[:, 0], classes[:, 1] - classes[:, 0]


_BASE, _LARGE = (2, 5, 8, 11), (5, 11, 17, 23)


def focus_on_depth_vit_base() -> FocusOnDepthVit:
    """FocusOnDepth's own size: ViT-B/16 at 384, 104,047,499 parameters."""
    return FocusOnDepthVit("vit_base_patch16_384", _BASE)


def focus_on_depth_vit_base_add() -> FocusOnDepthVit:
    """The same; the class token is added to the others."""
    return FocusOnDepthVit("vit_base_patch16_384", _BASE, "add")


def focus_on_depth_vit_base_ignore() -> FocusOnDepthVit:
    """The same without class token."""
    return FocusOnDepthVit("vit_base_patch16_384", _BASE, "ignore")


def focus_on_depth_vit_large() -> FocusOnDepthVit:
    """ViT-L/16 at 384, 325,836,939 parameters."""
    return FocusOnDepthVit("vit_large_patch16_384", _LARGE)


def focus_on_depth_vit_base_tiny() -> FocusOnDepthVit:
    """For tests: ViT-Ti/16 and 16 channels in the place of ViT-B and 256."""
    return FocusOnDepthVit("vit_tiny_patch16_384", _BASE, channels=16)


NETWORKS = {
    builder.__name__: builder
    for builder in (
        focus_on_depth_vit_base,
        focus_on_depth_vit_base_add,
        focus_on_depth_vit_base_ignore,
        focus_on_depth_vit_large,
        focus_on_depth_vit_base_tiny,
    )
}
"""Builders by name."""
