"""GhostNet as a feature encoder.

Han et al., "GhostNet: More Features from Cheap Operations", arXiv:1911.11907, in timm's implementation (Apache-2.0).
timm's own feature taps lie after blocks 1, 3, 5 and 7: they leave out the five squeeze-and-excite blocks at 1/16 and
the 960 channels at 1/32, two thirds of the parameters (huggingface/pytorch-image-models issues 795 and 816). Here the
last block of each scale is tapped, and what follows the pooling (`conv_head`, classifier) is not built.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.errors import TrainingError

STRIDE = 32
"""Height and width of the input are multiples of this."""

IMAGENET_MEAN = (123.675, 116.28, 103.53)
"""Of RGB 0..255, as the weights `ghostnet_100.in1k` expect it."""
IMAGENET_STD = (58.395, 57.12, 57.375)

_TAPS = (0, 2, 4, 6, 9)  # the last block at 1/2, 1/4, 1/8, 1/16 and 1/32
_PARTS = ("conv_stem", "bn1", "act1", "blocks")
_STEM = "conv_stem.weight"
_RGB = 3


def sizes_are_known() -> bool:
    """Whether sizes can be checked: not in a graph that is being exported or traced."""
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]  # documented, but not exported
    return not (torch.compiler.is_exporting() or tracing)


class HalvingConv2d(nn.Conv2d):
    """A convolution of stride 2 and odd kernel, padded by half of it, on even sizes.

    The last padded row and column are never read, so an exported graph leaves them out: then the size is exactly half,
    where the exporter would otherwise carry roundings through the whole network and take minutes over them.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), H and W even -> (B, C', H / 2, W / 2)."""
        if not torch.compiler.is_exporting():
            return super().forward(x)
        before = self.kernel_size[0] // 2
        x = F.pad(x, (before, before - 1, before, before - 1))
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def _halve_exactly(module: nn.Module) -> None:
    """Puts `HalvingConv2d` in the place of every convolution of stride 2; weights keep their names."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d) and child.stride == (2, 2):
            kernel, bias = child.kernel_size[0], child.bias is not None
            halving = HalvingConv2d(
                child.in_channels, child.out_channels, kernel, 2, kernel // 2, groups=child.groups, bias=bias
            )
            halving.load_state_dict(child.state_dict())
            setattr(module, name, halving)
        else:
            _halve_exactly(child)


class GhostNetEncoder(nn.Module):
    """Features at 1/2, 1/4, 1/8, 1/16 and 1/32.

    Args:
        name: In timm: `ghostnet_100`, or `ghostnet_050` for tests.
        inputs: Channels of the input, a multiple of three.

    Attributes:
        channels: Of the features, fine to coarse; 16, 24, 40, 112 and 960 for `ghostnet_100`.
        norm_is_frozen: See `freeze_norm`.

    Raises:
        TrainingError: timm missing.
    """

    body: Any  # timm declares no more than a module

    def __init__(self, name: str = "ghostnet_100", inputs: int = _RGB) -> None:
        super().__init__()
        try:
            import timm
        except ImportError as error:
            raise TrainingError(f"encoder {name} needs timm: pip install 'depthlens[training]'") from error
        whole: Any = timm.create_model(name, num_classes=0, in_chans=inputs)
        self.body = nn.ModuleDict({part: getattr(whole, part) for part in _PARTS})
        _halve_exactly(self.body)
        last = [whole.blocks[tap][-1] for tap in _TAPS]
        self.channels = (*(int(block.ghost2.out_chs) for block in last[:-1]), int(last[-1].conv.out_channels))
        self.norm_is_frozen = False

    def freeze_norm(self) -> None:
        """Keeps every batch norm's statistics, gain and bias as they are, also in `train()`.

        Right for weights that were trained elsewhere on large batches. Random ones have no statistics worth keeping.
        """
        self.norm_is_frozen = True
        for norm in self._norms():
            norm.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "GhostNetEncoder":
        """As torch's, but a frozen norm never trains."""
        super().train(mode)
        if self.norm_is_frozen:
            for norm in self._norms():
                norm.eval()
        return self

    def _norms(self) -> list[nn.Module]:
        return [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]

    def wanted_state(self) -> dict[str, Tensor]:
        """The weights `adopt` takes, by timm's keys: this encoder's own, but with a stem for RGB."""
        state = dict(self.body.state_dict())
        state[_STEM] = state[_STEM][:, :_RGB]
        return state

    def adopt(self, state: Mapping[str, Tensor]) -> None:
        """Copies the weights of `wanted_state`; a stem for RGB is repeated over more inputs, and weakened alike."""
        values = dict(state)
        times = self.body["conv_stem"].in_channels // _RGB
        values[_STEM] = values[_STEM].repeat(1, times, 1, 1) / times
        self.body.load_state_dict(values)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features, fine to coarse.

        Args:
            x: (B, inputs, H, W) float, H and W multiples of 32.

        Raises:
            TrainingError: They are not (a graph that is exported or traced has no sizes to check).
        """
        height, width = x.shape[2:]
        if sizes_are_known() and (height % STRIDE or width % STRIDE):
            raise TrainingError(f"a picture of {height}x{width}: both must be multiples of {STRIDE}, GhostNet's stride")
        x = self.body["act1"](self.body["bn1"](self.body["conv_stem"](x)))
        features = []
        for index, block in enumerate(self.body["blocks"]):
            x = block(x)
            if index in _TAPS:
                features.append(x)
        return features
