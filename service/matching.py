"""A stereo pair on its way to the network: checked, reduced, matched; of a request or of a frame of a stream."""

import hashlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.context import RequestContext
from service.depth_client import Pair, Prediction
from service.errors import ModelUnavailable, UnusablePair
from service.gateway import Gateway
from service.imaging import geometry
from service.imaging.pairs import pair_geometry, reduced_size
from service.stereo_answers import Adaptation
from service.triton_errors import VersionGone

Image = NDArray[np.uint8]

NETWORK_SIDE_PX: Final = 640
"""Longest side that the network sees, where no other is asked for."""
MOST_NETWORK_SIDE_PX: Final = 1280
NOT_SERVED: Final = (
    "The stereo model is not served here: it is optional, and its operator has not exported it, or its process lacks "
    "torch."
)

_LEAST_PX: Final = 32
_MOST_VERTICAL_PX: Final = 2.0
"""Of what the network sees: it looks for matches within a row, at half size and less."""
_SWAPPED_SHARE: Final = 0.8


def sequence_number(client: str, name: str) -> int:
    """Number of a client's sequence: names of different clients never meet; 63 bits and never 0, as Triton asks."""
    return int.from_bytes(hashlib.sha256(f"{client}\0{name}".encode()).digest()[:8]) % (2**63 - 1) + 1


async def picture(gateway: Gateway, context: RequestContext, data: bytes) -> Image:
    """A picture of a pair, in full; the cache does not keep it."""
    upload = await gateway.pipeline.open(context, data)
    photo = await gateway.pipeline.glimpse(context, upload, min(upload.size))
    return photo.pixels


async def matched(gateway: Gateway, context: RequestContext, pair: Pair) -> tuple[Prediction, Adaptation]:
    """What the network says of a pair, and what became of its sequence, which is counted.

    Raises:
        ModelUnavailable: the model is not served here.
    """
    with context.timed("infer"):
        try:
            prediction = await gateway.client.match(
                pair, timeout_s=context.deadline.remaining_s(), request_id=context.request_id
            )
        except VersionGone:
            raise ModelUnavailable(NOT_SERVED) from None
    adaptation = Adaptation.of(prediction, pair.adapt)
    gateway.metrics.count_pair(pair.adapt, adaptation.loss, adaptation.group, adaptation.reset is not None)
    return prediction, adaptation


def prepared(left: Image, right: Image, max_side: int) -> tuple[tuple[Image, Image], float | None]:
    """Both as the network sees them, and how many rows lower the right one's points lie.

    Args:
        left: uint8 (H, W, 3).
        right: the same.
        max_side: longest side that the network sees, in pixels.

    Raises:
        UnusablePair: they are no rectified pair, left and right.
    """
    if left.shape != right.shape:
        raise UnusablePair(
            "The pictures must be of one size.",
            code="size_mismatch",
            field="right",
            value=[right.shape[1], right.shape[0]],
            limit=[left.shape[1], left.shape[0]],
        )
    if np.array_equal(left, right):
        raise UnusablePair("Both pictures are the same one.", code="identical_pair", field="right")
    size = reduced_size(left.shape[0], left.shape[1], max_side)
    if min(size) < _LEAST_PX:
        raise UnusablePair(
            "The pictures are too small, or too long and narrow.",
            code="pair_too_small",
            field="left",
            value=[size[1], size[0]],
            limit=_LEAST_PX,
        )
    found = pair_geometry(left, right)
    limit_px = _MOST_VERTICAL_PX * left.shape[0] / size[0]
    if found.vertical_px is not None and abs(found.vertical_px) > limit_px:
        raise UnusablePair(
            f"Points lie {found.vertical_px:+.1f} rows lower in the right picture than in the left one: rectify the "
            "pair, so that they lie in the same row.",
            field="right",
            value=round(found.vertical_px, 2),
            limit=round(limit_px, 2),
        )
    if found.behind_share is not None and found.behind_share > _SWAPPED_SHARE:
        raise UnusablePair(
            "Points lie farther right in the right picture: the two seem swapped.",
            code="swapped_pair",
            field="left",
            value=round(found.behind_share, 2),
            limit=_SWAPPED_SHARE,
        )
    return (geometry.resize(left, size), geometry.resize(right, size)), found.vertical_px
