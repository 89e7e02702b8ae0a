"""ResNet and ResNeXt of timm (Apache-2.0) as feature encoders, their batch norm as it is.

He et al., arXiv:1512.03385; Xie et al., arXiv:1611.05431. Unlike `TimmEncoder` nothing is folded: recipes that freeze
stages freeze their batch norm with them, and that can only be seen (and compared) while it is there.
"""

from typing import Any

from torch import Tensor, nn

from training.errors import TrainingError

IMAGENET = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""(mean, std) of RGB 0..255, what timm's and torchvision's ImageNet weights expect."""

_SCALES = (2, 4, 8, 16, 32)


class ResNetEncoder(nn.Module):
    """Features of a residual network; its stages are `body.conv1`, `body.bn1` and `body.layer1` to `body.layer4`.

    Args:
        name: In timm, e.g. `resnet50`.
        coarsest: Scale of the last feature: 32, or 16, and then the last stage is not built.

    Attributes:
        channels: Of the features at 1/4, 1/8, 1/16 and 1/32 of the picture, fine to coarse.
        body: timm's network without classifier; ImageNet weights fit by their names.

    Raises:
        TrainingError: timm missing, or no residual network of that name.
    """

    body: Any  # timm declares no more than a module

    def __init__(self, name: str, coarsest: int = 32) -> None:
        super().__init__()
        try:
            import timm
        except ImportError as error:
            raise TrainingError(f"encoder {name} needs timm: pip install 'depthlens[training]'") from error
        # 1/2, the stem's, is left out, as dense prediction transformers do
        indices = [i for i, scale in enumerate(_SCALES) if 4 <= scale <= coarsest]
        try:
            self.body = timm.create_model(name, features_only=True, out_indices=indices)
        except (RuntimeError, TypeError) as error:
            raise TrainingError(f"encoder {name}: {str(error).splitlines()[0]}") from error
        if not hasattr(self.body, "layer1") or self.body.feature_info.reduction()[0] != 4:
            raise TrainingError(f"encoder {name}: not a residual network")
        self.channels: tuple[int, ...] = tuple(self.body.feature_info.channels())

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) float, H and W multiples of `coarsest` -> features at 1/4 and coarser, fine to coarse."""
        features: list[Tensor] = self.body(x)
        return features
