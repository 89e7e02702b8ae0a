"""Person votes: every pixel of a person says where that person's chest is, how tall the person is, and who is alike.

The service groups pixels into people by them, in the manner of the centre offsets of Panoptic-DeepLab (Cheng et al.,
arXiv:1911.10194) and of Neven et al. (arXiv:1906.11109), and of the embeddings of De Brabandere et al.
(arXiv:1708.02551). Photo, person matte and inverse depth are the input, so the network need not find people, only tell
them apart. It is the default network grown by two inputs, so that it begins with knowing what people look like.
"""

from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.models.focus_on_depth import Decoder
from training.models.mobilenet_v2 import MobileNetV2

UNIT_PX = 64.0
"""Pixels of the network's input that an output of 1 means, in dx and dy."""

REFERENCE_HEIGHT_PX = 128.0
"""Height of a person, in pixels of the network's input, whose logarithm is an output of 0."""

STRIDE = 32
"""Sides of the input must be multiples of it."""

LIKENESS = 4
"""Outputs that are alike for pixels of one person and different for others'."""

_INPUTS, _OUTPUTS = 5, 3 + LIKENESS
_WIDTHS = (24, 64, 96, 128, 128)
_HEAD = 32
_FIRST = "encoder.features.0.conv.weight"


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
    return torch.cat([photo, maps], 1).contiguous(memory_format=torch.channels_last)


def completed(network: nn.Module, stored: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Weights for a `PersonVotes` from those of a `FocusOnDepth` of this encoder and decoder.

    Photos it sees as that did, matte and inverse depth not at all before it is trained; heads and whatever else that
    network has alone are left out. Weights that are a `PersonVotes`' own, or some other network's, come back untouched.
    """
    own = network.state_dict()
    first = stored.get(_FIRST)
    if first is None or first.shape[1] == own[_FIRST].shape[1]:
        return stored
    widened = torch.zeros_like(own[_FIRST])
    widened[:, : first.shape[1]] = first
    return own | {name: value for name, value in stored.items() if name in own} | {_FIRST: widened}


class PersonVotes(nn.Module):
    """The default network's encoder and decoder with two more input channels and a sub-pixel head for votes.

    Its graph holds nothing that depends on the size of the input, so that one fixed ONNX graph serves all sizes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = MobileNetV2(_INPUTS)
        self.decoder = Decoder(self.encoder.channels, _WIDTHS, single=1)
        self.head = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(_WIDTHS[0], _HEAD, 3, padding=1, bias=False),
            nn.BatchNorm2d(_HEAD),
            nn.ReLU(),
            nn.Conv2d(_HEAD, 4 * _OUTPUTS, 1),
        )
        self.to(memory_format=torch.channels_last)  # trains in two thirds of the time on a CPU

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """What learns at the encoder's own rate."""
        yield from self.encoder.parameters()

    def forward(self, maps: Tensor) -> Tensor:
        """Votes of every pixel, whether it shows a person or not.

        Args:
            maps: float32 (B, 5, H, W), as `network_input` makes them; sides multiples of 32.

        Returns:
            (B, 7, H, W): (chest_x - x) / 64, (chest_y - y) / 64, log(height_px / 128), then four numbers that are alike
            for pixels of one person.
        """
        votes: Tensor = self.head(self.decoder(self.encoder(maps)))
        return F.pixel_shuffle(votes, 2)
