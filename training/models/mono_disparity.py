"""A monocular network read as the disparity that a stereo pair would have.

Godard et al., "Unsupervised Monocular Depth Estimation with Left-Right Consistency", CVPR 2017, arXiv:1609.03677:
there a network says disparity as a share of the picture's width, and the means with its mirror image are judged.
"""

import torch
from torch import Tensor, nn

_SURE = 0.05  # share of the width at each side that one of the two looks sees better
_SMALLEST = 1e-3  # metres, or inverse depth


class MonoDisparity(nn.Module):
    """Inverse depth times a constant, or a constant by metres: what one camera pair makes of it.

    Args:
        network: uint8 (B, H, W, 3) -> inverse depth or, as its `output` says, metres (B, H, W); of several results the
            first.
        share: Disparity that an inverse depth of 1 stands for, as a share of the picture's width.
    """

    def __init__(self, network: nn.Module, share: float) -> None:
        super().__init__()
        self.network = network
        self._share = share
        self._metric = getattr(network, "output", "inverse_depth") == "depth_m"

    def forward(self, left: Tensor) -> Tensor:
        """uint8 (B, H, W, 3), sides as the network wants them -> pixels of disparity, float32 (B, H, W)."""
        found = self.network(left)
        said: Tensor = (found[0] if isinstance(found, tuple) else found).float()
        inverse = 1 / said.clamp(min=_SMALLEST) if self._metric else said
        return inverse * (self._share * left.shape[2])

    def both_ways(self, left: Tensor) -> Tensor:
        """The same, mean of the picture and its mirror image; near each side the look that has more beside it."""
        one, other = self(left), self(left.flip(2)).flip(2)
        place = torch.linspace(0, 1, left.shape[2], device=one.device)
        first = 1 - ((place - _SURE) / _SURE).clamp(0, 1)
        last = first.flip(0)
        result: Tensor = last * one + first * other + (1 - first - last) * (one + other) / 2
        return result
