"""What far parts of a picture say about each other: transformer blocks on the encoder's coarsest feature.

A convolutional encoder sees little beyond a few hundred pixels; that a network of this size judges depth better on a
smaller copy of the same photo (`docs/results/default_network.md`) is that lack. Blocks as in Dosovitskiy et al.,
arXiv:2010.11929, norm first; places are told by a depthwise convolution (Chu et al., arXiv:2102.10882), which fits
every size. CNN and transformer in this order: Carion et al., arXiv:2005.12872.
"""

import torch.nn.functional as F
from torch import Tensor, nn

_FAINT = 0.001


class Attention(nn.Module):
    """Self-attention of several heads over tokens."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> the same."""
        batch, count, channels = tokens.shape
        qkv = self.qkv(tokens).reshape(batch, count, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        result: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, count, channels))
        return result


class Block(nn.Module):
    """Attention and a perceptron of four times the width, each added to what came in."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = Attention(channels, heads)
        self.perceptron = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))
        for last in (self.attention.out, self.perceptron[-1]):
            nn.init.normal_(last.weight, std=_FAINT)  # type: ignore[arg-type]  # a linear layer's
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> the same."""
        tokens = tokens + self.attention(self.norm1(tokens))
        result: Tensor = tokens + self.perceptron(self.norm2(tokens))
        return result


class Context(nn.Module):
    """Blocks over all places of a feature map; at their first weights they change it by about a hundredth.

    Args:
        channels: Of the map.
        blocks: How many.
        heads: Of each; they share the channels.
    """

    def __init__(self, channels: int, blocks: int, heads: int) -> None:
        super().__init__()
        self.place = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        nn.init.zeros_(self.place.weight)
        nn.init.zeros_(self.place.bias)  # type: ignore[arg-type]  # it has one
        self.blocks = nn.ModuleList(Block(channels, heads) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        x = x + self.place(x)
        tokens = x.flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens.transpose(1, 2).reshape(x.shape)
