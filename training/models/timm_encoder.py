"""Convolutional encoders of timm (Apache-2.0), by their names there.

timm is imported when one is built, because it brings torchvision along; the other networks do without.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.errors import TrainingError


class SamePadded(nn.Module):
    """A convolution after TensorFlow's SAME padding, fixed for even sizes where timm computes it at run time."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        kernel, stride = convolution.kernel_size[0], convolution.stride[0]
        total = kernel - stride
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
    for (name, child), (after, following) in pairwise(children):
        if isinstance(child, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
            mean, variance = following.running_mean, following.running_var
            if mean is None or variance is None:
                continue
            gain = following.weight.detach() / torch.sqrt(variance + following.eps)
            child.weight = nn.Parameter(child.weight.detach() * gain[:, None, None, None])
            child.bias = nn.Parameter(following.bias.detach() - mean * gain)
            setattr(module, after, getattr(following, "act", nn.Identity()))
            setattr(module, name, child)
    for child in module.children():
        fold_batch_norm(child)


def _fix_padding(module: nn.Module) -> None:
    for name, child in module.named_children():
        if type(child).__name__ == "Conv2dSame" and isinstance(child, nn.Conv2d):
            setattr(module, name, SamePadded(child))
        else:
            _fix_padding(child)


class TimmEncoder(nn.Module):
    """Features at 1/2, 1/4, 1/8, 1/16 and 1/32 of any timm network that has all five.

    Args:
        name: In timm, e.g. `tf_efficientnet_lite0`.

    Attributes:
        channels: Of the features, fine to coarse.

    Raises:
        TrainingError: timm missing, or no network of that name with those scales.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        try:
            import timm
        except ImportError as error:
            raise TrainingError(f"encoder {name} needs timm: pip install 'depthlens[training]'") from error
        try:
            self.body = timm.create_model(name, features_only=True)
        except RuntimeError as error:
            raise TrainingError(f"encoder {name}: {str(error).splitlines()[0]}") from error
        if tuple(self.body.feature_info.reduction()) != (2, 4, 8, 16, 32):
            raise TrainingError(f"encoder {name}: its features are at 1/{self.body.feature_info.reduction()}")
        self.channels = tuple(self.body.feature_info.channels())

    def settle(self) -> None:
        """Folds batch norm and fixes padding; call after ImageNet weights are in, once."""
        fold_batch_norm(self.body)
        _fix_padding(self.body)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) float, H and W multiples of 32 -> features, fine to coarse."""
        features: list[Tensor] = self.body(x)
        return features
