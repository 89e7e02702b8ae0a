"""Animated WebP, one frame at a time.

Pillow's writer wants all frames at once and joins those that hardly differ, so that a slow start has fewer frames than
were asked for. Here every frame is a picture of its own, encoded as soon as it is rendered; only the container is made
here. Container: RFC 9649, sections 2.3 to 2.7.
"""

import struct
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.contract import Size
from service.imaging.encoding import encode_image
from service.imaging.errors import ImageTooLarge

MAX_SIDE_PX: Final = 16_383
"""Longest side of a WebP picture."""

_FLAG_ANIMATION: Final = 0x02
_FLAG_EXIF: Final = 0x08
_DO_NOT_BLEND: Final = 0x02
_WHITE: Final = b"\xff\xff\xff\xff"
_FOREVER: Final = 0
_PICTURES: Final = (b"VP8 ", b"VP8L")


def encode_frame(pixels: NDArray[np.uint8], quality: int | None = None) -> bytes:
    """One frame, to be handed to `assemble`: the picture's chunk of a still WebP.

    Args:
        pixels: uint8 (H, W, 3), sRGB, no side longer than `MAX_SIDE_PX`.
        quality: 1..100, None for a good default.
    """
    still = encode_image(pixels, "webp", quality)
    at = 12
    while at + 8 <= len(still):
        name, length = still[at : at + 4], struct.unpack_from("<I", still, at + 4)[0]
        end = at + 8 + length + length % 2
        if name in _PICTURES:
            return still[at:end]
        at = end
    raise ValueError("the encoder gave no picture")


def durations_ms(frames: int, fps: float) -> list[int]:
    """Whole milliseconds per frame whose sum is right, although 1000 / fps seldom is whole."""
    ends = [round(index * 1000 / fps) for index in range(frames + 1)]
    return [end - start for start, end in pairwise(ends)]


def assemble(frames: Sequence[bytes], size: Size, durations: Sequence[int], exif: bytes | None = None) -> bytes:
    """The animation, repeated for ever.

    Args:
        frames: from `encode_frame`, all of `size`.
        size: (height, width).
        durations: milliseconds, one per frame.
        exif: an EXIF block to carry along.

    Raises:
        ImageTooLarge: a side longer than the format can hold.
    """
    height, width = size
    if max(size) > MAX_SIDE_PX:
        raise ImageTooLarge(
            f"WebP holds sides of up to {MAX_SIDE_PX} pixels, not {max(size)}.",
            code="side_too_long_for_format",
            value=max(size),
            limit=MAX_SIDE_PX,
        )
    flags = _FLAG_ANIMATION | (_FLAG_EXIF if exif else 0)
    chunks = [
        _chunk(b"VP8X", struct.pack("<I", flags) + _uint24(width - 1) + _uint24(height - 1)),
        _chunk(b"ANIM", _WHITE + struct.pack("<H", _FOREVER)),
    ]
    for frame, duration in zip(frames, durations, strict=True):
        place = _uint24(0) + _uint24(0) + _uint24(width - 1) + _uint24(height - 1)
        chunks.append(_chunk(b"ANMF", place + _uint24(duration) + bytes([_DO_NOT_BLEND]) + frame))
    if exif:
        chunks.append(_chunk(b"EXIF", exif.removeprefix(b"Exif\0\0")))
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def _uint24(value: int) -> bytes:
    return struct.pack("<I", value)[:3]
