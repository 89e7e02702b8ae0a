"""Vision transformers of timm as feature encoders: the first half of a dense prediction transformer.

Ranftl et al., "Vision Transformers for Dense Prediction", arXiv:2103.13413, section 3: tokens of four blocks are read
together with the class token, laid out as pictures and resampled to 1/4, 1/8, 1/16 and 1/32 of the photo. FocusOnDepth
(github.com/antocad/FocusOnDepth, MIT) uses the same reassembly and takes the tokens before the last norm, as here.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from training.errors import TrainingError
from training.models import positions

_PATCH = 16  # pixels; the resampling below is made for it


class Read(nn.Module):
    """Class token joined to every patch token: linear to the same width, then GELU (DPT's "projection")."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Linear(2 * width, width), nn.GELU())

    def forward(self, tokens: Tensor, readout: Tensor) -> Tensor:
        """Patch tokens (B, C, h, w) and class token (B, C) -> (B, C, h, w)."""
        patches = tokens.permute(0, 2, 3, 1)
        joined = torch.cat((patches, readout[:, None, None].expand_as(patches)), dim=-1)
        read: Tensor = self.project(joined).permute(0, 3, 1, 2)
        return read


def tokens_after(body: Any, patches: Tensor, placed: Tensor, blocks: Sequence[int]) -> list[Tensor]:
    """Tokens after some blocks of a transformer of timm, class token first.

    Args:
        body: Of timm.
        patches: (B, h, w, C).
        placed: (1, 1 + h * w, C), position embeddings.
        blocks: Which, counted from 0, rising.

    Returns:
        One (B, 1 + h * w, C) for each of `blocks`.
    """
    first = body.cls_token.expand(patches.shape[0], -1, -1)
    tokens = torch.cat((first, patches.flatten(1, 2)), dim=1) + placed
    taken = []
    for number, block in enumerate(body.blocks):
        tokens = block(tokens)
        if number in blocks:
            taken.append(tokens)
    return taken


def as_picture(tokens: Tensor, rows: int, columns: int) -> Tensor:
    """(B, rows * columns, C) -> (B, C, rows, columns)."""
    return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], rows, columns)


def taken_pictures(body: Any, x: Tensor, blocks: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    """Patch tokens (B, C, h, w) and class token (B, C) after each of `blocks`, of x (B, 3, H, W).

    They are taken before the last norm. Positions are brought to the picture's grid by timm's rule.
    """
    patches = body.patch_embed(x)
    rows, columns = patches.shape[1:3]
    taken = tokens_after(body, patches, positions.antialiased(body.pos_embed, rows, columns), blocks)
    return [(as_picture(tokens[:, 1:], rows, columns), tokens[:, 0]) for tokens in taken]


class VitEncoder(nn.Module):
    """Four feature maps of one pass through a plain vision transformer with patches of 16 pixels.

    Args:
        name: In timm, e.g. `vit_tiny_patch16_384`.
        blocks: After which blocks tokens are taken, counted from 0; four of them.
        channels: Of the features at 1/4, 1/8, 1/16 and 1/32.

    Attributes:
        channels: The same.

    Raises:
        TrainingError: timm missing, or no transformer of that name with patches of 16.
    """

    body: Any  # timm declares no more than a module

    def __init__(self, name: str, blocks: tuple[int, int, int, int], channels: tuple[int, int, int, int]) -> None:
        super().__init__()
        try:
            import timm
        except ImportError as error:
            raise TrainingError(f"encoder {name} needs timm: pip install 'depthlens[training]'") from error
        try:
            self.body = timm.create_model(name, num_classes=0, dynamic_img_size=True)
        except (RuntimeError, TypeError) as error:
            raise TrainingError(f"encoder {name}: {str(error).splitlines()[0]}") from error
        if getattr(getattr(self.body, "patch_embed", None), "patch_size", None) != (_PATCH, _PATCH):
            raise TrainingError(f"encoder {name}: not a vision transformer with patches of {_PATCH} pixels")
        # the taps come before the last norm, which would have no gradient
        self.body.norm = nn.Identity()
        self._blocks = list(blocks)
        self.channels = channels
        width = int(self.body.embed_dim)
        quarter, eighth, sixteenth, half = channels
        self.read = nn.ModuleList(Read(width) for _ in channels)
        self.resample = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(width, quarter, 1), nn.ConvTranspose2d(quarter, quarter, 4, 4)),
                nn.Sequential(nn.Conv2d(width, eighth, 1), nn.ConvTranspose2d(eighth, eighth, 2, 2)),
                nn.Conv2d(width, sixteenth, 1),
                nn.Sequential(nn.Conv2d(width, half, 1), nn.Conv2d(half, half, 3, 2, 1)),
            ]
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) float, H and W multiples of 32 -> features at 1/4, 1/8, 1/16, 1/32, fine to coarse."""
        return [
            resample(read(patches, readout))
            for (patches, readout), read, resample in zip(
                taken_pictures(self.body, x, self._blocks), self.read, self.resample, strict=True
            )
        ]
