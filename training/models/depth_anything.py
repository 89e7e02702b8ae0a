"""Depth Anything V2: DPT's decoder on DINOv2.

Yang et al., "Depth Anything V2", arXiv:2406.09414; github.com/DepthAnything/Depth-Anything-V2 (Apache-2.0). Its
weights, which `training.importers` reads, are Apache-2.0 for Small and CC-BY-NC-4.0 for Base and Large.

Tokens are taken after the last norm and without the class token; patches have 14 pixels, so that the coarsest grid is
half of an odd one and fusion goes by sizes, not by factors. Position embeddings follow DINOv2's rule at other sizes
than 518.
"""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from training.models import positions
from training.models.dpt import DepthHead, Dpt, Fusion, resampling, timm_body
from training.models.focus_on_depth import Normalise
from training.models.vit import as_picture, tokens_after

_IMAGENET = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # mean and std of RGB 0..255
_EVERY_THIRD = (2, 5, 8, 11)


class DinoEncoder(nn.Module):
    """Features at 4, 2, 1 and 1/2 times the grid of 14-pixel patches, from tokens of four blocks.

    Args:
        body: Transformer of `timm_body` with patches of 14 pixels.
        blocks: After which blocks tokens are taken.
        channels: Of the features, fine to coarse.
    """

    stride = 14

    def __init__(self, body: Any, blocks: Sequence[int], channels: Sequence[int]) -> None:
        super().__init__()
        self.body = body
        self.channels = tuple(channels)
        self._blocks = tuple(blocks)
        self.resample = resampling(body.embed_dim, channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W), H and W multiples of 14 -> features, fine to coarse."""
        patches = self.body.patch_embed(x)
        rows, columns = patches.shape[1:3]
        placed = positions.dinov2(self.body.pos_embed, rows, columns)
        taken = tokens_after(self.body, patches, placed, self._blocks)
        return [
            resample(as_picture(self.body.norm(tokens)[:, 1:], rows, columns))
            for tokens, resample in zip(taken, self.resample, strict=True)
        ]


def _depth_anything(body: Any, blocks: Sequence[int], channels: Sequence[int], width: int) -> Dpt:
    encoder = DinoEncoder(body, blocks, channels)
    return Dpt(Normalise(*_IMAGENET), encoder, Fusion(encoder.channels, width), DepthHead(width))


def depth_anything_v2_small() -> Dpt:
    """ViT-S/14."""
    return _depth_anything(timm_body("vit_small_patch14_dinov2"), _EVERY_THIRD, (48, 96, 192, 384), 64)


def depth_anything_v2_base() -> Dpt:
    """ViT-B/14."""
    return _depth_anything(timm_body("vit_base_patch14_dinov2"), _EVERY_THIRD, (96, 192, 384, 768), 128)


def depth_anything_v2_large() -> Dpt:
    """ViT-L/14."""
    body = timm_body("vit_large_patch14_dinov2")
    return _depth_anything(body, (4, 11, 17, 23), (256, 512, 1024, 1024), 256)


def depth_anything_v2_tiny() -> Dpt:
    """For tests."""
    body = timm_body("vit_small_patch14_dinov2", embed_dim=32, depth=4, num_heads=2, img_size=70)
    return _depth_anything(body, (0, 1, 2, 3), (8, 16, 24, 32), 16)


NETWORKS = MappingProxyType(
    {
        builder.__name__: builder
        for builder in (
            depth_anything_v2_small,
            depth_anything_v2_base,
            depth_anything_v2_large,
            depth_anything_v2_tiny,
        )
    }
)
"""By the names recipes and `import` use."""
