"""Depthwise-separable convolution, the building block of the decoders on GhostNet.

A 3x3 for each channel, then a 1x1 across them: C * (9 + C') weights in place of 9 * C * C'. As decoder of a depth
network: Wofk et al., "FastDepth", arXiv:1903.03273, which also interpolates after the convolution and not before, a
quarter of the work; Worameth's stacked networks (seed 3) take both from there.
"""

from torch import nn


def separable(inputs: int, outputs: int, dilation: int = 1, bias: bool = False) -> nn.Sequential:
    """3x3 of each channel, 1x1 across them; (B, inputs, H, W) -> (B, outputs, H, W).

    Both start so that they keep the variance of what they are given (Glorot and Bengio 2010, each with its own fan;
    torch's defaults take nine tenths of it).
    """
    each = nn.Conv2d(inputs, inputs, 3, padding=dilation, dilation=dilation, groups=inputs, bias=False)
    across = nn.Conv2d(inputs, outputs, 1, bias=bias)
    nn.init.normal_(each.weight, std=1 / 3)
    nn.init.xavier_normal_(across.weight)
    if across.bias is not None:
        nn.init.zeros_(across.bias)
    return nn.Sequential(each, across)
