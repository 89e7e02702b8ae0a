"""Convolutional encoders of timm (Apache-2.0), by their names there.

timm is imported when one is built, because it brings torchvision along; the other networks do without.
"""

import logging
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.errors import TrainingError

_SCALES = (2, 4, 8, 16, 32)
_FOLDED_ERROR = 1e-3  # largest accepted, share of the largest feature; float32 leaves 1e-5


class SamePadded(nn.Module):
    """A convolution after TensorFlow's SAME padding, fixed for even sizes where timm computes it at run time."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        kernel, stride = convolution.kernel_size[0], convolution.stride[0]
        total = max(0, kernel - stride)
        self._padding = (total // 2, total - total // 2) * 2
        self.convolution = nn.Conv2d(
            convolution.in_channels,
            convolution.out_channels,
            kernel,
            stride,
            groups=convolution.groups,
            bias=convolution.bias is not None,
        )
        self.convolution.weight = convolution.weight
        self.convolution.bias = convolution.bias

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), H and W even -> (B, C', H / stride, W / stride)."""
        y: Tensor = self.convolution(F.pad(x, self._padding))
        return y


def fold_batch_norm(module: nn.Module) -> None:
    """Folds every batch norm into the convolution right before it, in place; activations stay.

    Saves a quarter of a training step on CPU; the norm of ImageNet's statistics is as good as a bias here.
    """
    children = list(module.named_children())
    for (_, child), (after, following) in pairwise(children):
        if isinstance(child, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
            mean, variance = following.running_mean, following.running_var
            if mean is None or variance is None:
                continue
            gain = following.weight.detach() / torch.sqrt(variance + following.eps)
            bias = torch.zeros_like(mean) if child.bias is None else child.bias.detach()
            child.weight = nn.Parameter(child.weight.detach() * gain[:, None, None, None])
            child.bias = nn.Parameter(following.bias.detach() + (bias - mean) * gain)
            setattr(module, after, getattr(following, "act", nn.Identity()))
    for child in module.children():
        fold_batch_norm(child)


def _fix_padding(module: nn.Module) -> None:
    for name, child in module.named_children():
        if type(child).__name__ == "Conv2dSame" and isinstance(child, nn.Conv2d):
            setattr(module, name, SamePadded(child))
        else:
            _fix_padding(child)


class TimmEncoder(nn.Module):
    """Features at 1/2, 1/4, 1/8, 1/16 and 1/32 of any timm network that has all five, its batch norm folded.

    Args:
        name: In timm, e.g. `tf_efficientnet_lite0`.

    Attributes:
        channels: Of the features, fine to coarse.

    Raises:
        TrainingError: timm missing, or no network of that name with those scales.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self.body = self._create(features_only=True)
        features: Any = self.body.feature_info
        if tuple(features.reduction()) != _SCALES:
            raise TrainingError(f"encoder {name}: its features are at 1/{features.reduction()}")
        self.channels = tuple(features.channels())
        self._fold(self.body)

    def _create(self, **arguments: Any) -> nn.Module:
        try:
            import timm
        except ImportError as error:
            raise TrainingError(f"encoder {self._name} needs timm: pip install 'depthlens[training]'") from error
        try:
            body: nn.Module = timm.create_model(self._name, **arguments)
        except RuntimeError as error:
            raise TrainingError(f"encoder {self._name}: {str(error).splitlines()[0]}") from error
        return body

    @staticmethod
    def _fold(body: nn.Module) -> None:
        fold_batch_norm(body)
        _fix_padding(body)

    def unfolded_state(self) -> dict[str, Tensor]:
        """Random weights under timm's own keys, classifier left out: what `adopt` takes."""
        return dict(self._create(num_classes=0).state_dict())

    def adopt(self, state: Mapping[str, Tensor]) -> None:
        """Folds the batch norm of whole weights and copies the result into this encoder.

        Args:
            state: Keys and shapes of `unfolded_state`.

        Raises:
            TrainingError: The folded network is another function, because timm applies its layers in another order
                than it lists them.
        """
        logging.getLogger("timm.models._builder").setLevel(logging.ERROR)  # it warns of layers behind the features
        overlay = {"state_dict": dict(state)}
        body = self._create(features_only=True, pretrained=True, pretrained_cfg_overlay=overlay).eval()
        noise = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            wanted = body(noise)
            self._fold(body)
            found = body(noise)
        for scale, (f, w) in zip(_SCALES, zip(found, wanted, strict=True), strict=True):
            if not (f - w).abs().max() <= _FOLDED_ERROR * w.abs().max():
                raise TrainingError(f"encoder {self._name}: folding its batch norm changes the features at 1/{scale}")
        self.body.load_state_dict(body.state_dict())

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) float, H and W multiples of 32 -> features, fine to coarse."""
        features: list[Tensor] = self.body(x)
        return features
