"""WAd: which reprojection errors a stereo network should learn from, said by the errors' own looks.

Tonioni et al., "Learning to adapt for stereo", CVPR 2019, arXiv:1904.02957, after the facts of
CVLAB-Unibo/Learning2AdaptForStereo (Apache-2.0). One difference: group norm instead of batch norm, because it sees one
picture at a time and must say the same while it is trained and after.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SLOPE = 0.1
_REDUCED = 4
_GROUPS = 8


class ErrorWeights(nn.Module):
    """Three convolutions on the errors at a quarter of their size, 20,161 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList((nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)))
        self.norms = nn.ModuleList((nn.GroupNorm(_GROUPS, 32), nn.GroupNorm(_GROUPS, 64)))
        self.last = nn.Conv2d(64, 1, 3, padding=1)

    def forward(self, error: Tensor) -> Tensor:
        """Weight of every pixel's error.

        Args:
            error: (B, 3, H, W), 0..1, of `training.losses_stereo.photometric_error`.

        Returns:
            (B, 1, H, W), 0..1 / (B H W): their sum is at most 1, and 1 where every error is trusted whole.
        """
        size = error.shape[2], error.shape[3]
        small = max(1, size[0] // _REDUCED), max(1, size[1] // _REDUCED)
        features = F.interpolate(error, small, mode="bilinear", align_corners=False)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            features = F.leaky_relu(norm(convolution(features)), _SLOPE)
        trusted = F.interpolate(torch.sigmoid(self.last(features)), size, mode="bilinear", align_corners=False)
        return trusted / trusted.numel()
