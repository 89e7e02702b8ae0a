"""Person votes: every pixel of a person says where that person's chest is, and how tall the person is.

The service groups pixels into people by them, in the manner of the centre offsets of Panoptic-DeepLab (Cheng et al.,
arXiv:1911.10194) and of Neven et al. (arXiv:1906.11109). Photo, person matte and inverse depth are the input, so the
network need not find people, only tell them apart.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

UNIT_PX = 64.0
"""Pixels of the network's input that an output of 1 means, in dx and dy."""

REFERENCE_HEIGHT_PX = 128.0
"""Height of a person, in pixels of the network's input, whose logarithm is an output of 0."""

STRIDE = 32
"""Sides of the input must be multiples of it."""

_INPUTS, _OUTPUTS = 5, 3
_WIDTHS = (16, 24, 40, 64, 96)
_DILATIONS = (2, 4, 1)
_HEAD = 16


def network_input(image: Tensor, person: Tensor, inverse_depth: Tensor) -> Tensor:
    """The maps that the service has of a photo as the channels of the network.

    Args:
        image: uint8 (B, H, W, 3) RGB.
        person: Matte, float (B, H, W), 0..1; below 0 (no label) counts as 0.
        inverse_depth: Relative, float (B, H, W), 0..1, 1 = nearest.

    Returns:
        float32 (B, 5, H, W): RGB / 127.5 - 1, person * 2 - 1, inverse depth * 2 - 1.
    """
    photo = image.permute(0, 3, 1, 2).float() / 127.5 - 1
    maps = torch.stack([person.float().clamp(0, 1), inverse_depth.float()], 1) * 2 - 1
    return torch.cat([photo, maps], 1)


def _convolved(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation=dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class PersonVotes(nn.Module):
    """A U-net of 0.64 M parameters with a view of the whole picture at its coarsest scale and a sub-pixel head.

    Its graph holds nothing that depends on the size of the input, so that one fixed ONNX graph serves all sizes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleList()
        width = _INPUTS
        for index, outputs in enumerate(_WIDTHS):
            halved = _convolved(width, outputs, stride=2)
            self.encoder.append(nn.Sequential(halved, _convolved(outputs, outputs)) if index else halved)
            width = outputs
        self.middle = nn.Sequential(*(_convolved(width, width, dilation=dilation) for dilation in _DILATIONS))
        self.whole = nn.Conv2d(width, width, 1)
        self.decoder = nn.ModuleList()
        for outputs in _WIDTHS[-2::-1]:
            self.decoder.append(_convolved(width + outputs, outputs))
            width = outputs
        self.head = nn.Sequential(_convolved(width, _HEAD), nn.Conv2d(_HEAD, 4 * _OUTPUTS, 1))

    def encoder_parameters(self) -> list[nn.Parameter]:
        """None: all learn at one rate."""
        return []

    def forward(self, maps: Tensor) -> Tensor:
        """Votes of every pixel, whether it shows a person or not.

        Args:
            maps: float32 (B, 5, H, W), as `network_input` makes them; sides multiples of 32.

        Returns:
            (B, 3, H, W): (chest_x - x) / 64, (chest_y - y) / 64, log(height_px / 128).
        """
        skipped = []
        for stage in self.encoder:
            maps = stage(maps)
            skipped.append(maps)
        maps = self.middle(maps)
        maps = maps + self.whole(F.adaptive_avg_pool2d(maps, 1))
        for stage, skip in zip(self.decoder, skipped[-2::-1], strict=True):
            # by a factor and not to a size: the exported graph then fits every input
            larger = F.interpolate(maps, scale_factor=2.0, mode="bilinear", align_corners=False)
            maps = stage(torch.cat([larger, skip], 1))
        return F.pixel_shuffle(self.head(maps), 2)
