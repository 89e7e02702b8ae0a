"""What is done with the frames of a stream of pairs: disparity by a network that goes on adapting to the stream."""

import secrets
import threading
from contextlib import suppress
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.context import RequestContext
from service.contract import DISPARITY_PX, ModelSpec, Size
from service.depth_client import Pair, Prediction
from service.errors import BadRequest, DepthlensError, EmptyBody, UnusablePair
from service.gateway import Gateway
from service.imaging import codec, depth
from service.imaging.ranges import Span
from service.matching import MOST_NETWORK_SIDE_PX, NETWORK_SIDE_PX, matched, picture, prepared, sequence_number
from service.stereo_answers import LEAST_PX, Adaptation, at_size, disparity16, metres
from service.stream import Answer
from service.stream_query import StreamQuery
from service.stream_work import limited

Pixels = NDArray[np.uint8]
FloatMap = NDArray[np.float32]

_LENGTH_BYTES: Final = 4
_GOODBYE_S: Final = 2.0
_BLANK: Final = np.zeros((32, 32, 3), np.uint8)


class StereoWork:
    """Disparity of one stream, and the sequence that the network adapts to.

    A stream without a name for it has a sequence of its own, which is forgotten with it.
    """

    def __init__(self, gateway: Gateway, spec: ModelSpec) -> None:
        self._gateway = gateway
        self._own = secrets.randbits(63) + 1
        self._own_used = False
        self._checkpoints = -1
        self._colours = Span()
        self._coloured = False
        self._lock = threading.Lock()

    async def answer(self, context: RequestContext, data: bytes, query: StreamQuery) -> Answer:
        """See `Work.answer`."""
        pipeline = self._gateway.pipeline
        left, right = await self._pictures(context, data, query)
        full: Size = (left.shape[0], left.shape[1])
        side = NETWORK_SIDE_PX if query.max_side is None else min(query.max_side, MOST_NETWORK_SIDE_PX)
        (left, right), vertical_px = await pipeline.in_worker(context, "decode", prepared, left, right, side)
        pair = self._pair(context, left, right, query)
        prediction, adaptation = await matched(self._gateway, context, pair)
        size = (left.shape[0], left.shape[1]) if query.size == "native" else limited(full, query.max_side)
        return await pipeline.in_worker(
            context, "encode", self._encode, prediction, adaptation, (full, size), vertical_px, query
        )

    async def close(self) -> None:
        """Let the stream's own sequence be forgotten; one that has a name goes on with whoever names it."""
        if not self._own_used:
            return
        last = Pair(_BLANK, _BLANK, "mad", self._own, "forget", end=True)
        with suppress(DepthlensError):  # it would be the least recently used soon
            await self._gateway.client.match(last, timeout_s=_GOODBYE_S)

    async def _pictures(self, context: RequestContext, data: bytes, query: StreamQuery) -> tuple[Pixels, Pixels]:
        if query.pair == "files":
            left, right = _files(data)
            return await picture(self._gateway, context, left), await picture(self._gateway, context, right)
        return _halves(await picture(self._gateway, context, data), query.pair == "side_by_side")

    def _pair(self, context: RequestContext, left: Pixels, right: Pixels, query: StreamQuery) -> Pair:
        if query.adapt == "none":
            return Pair(left, right)
        asked = query.checkpoint if query.checkpoints != self._checkpoints else "none"
        self._checkpoints = query.checkpoints
        number = self._own if query.sequence is None else sequence_number(context.client, query.sequence)
        self._own_used |= query.sequence is None
        return Pair(left, right, query.adapt, number, asked)

    def _encode(
        self,
        prediction: Prediction,
        adaptation: Adaptation,
        sizes: tuple[Size, Size],
        vertical_px: float | None,
        query: StreamQuery,
    ) -> Answer:
        full, size = sizes
        # Metres are the same at every size; pixels are those of the answer, focal_px is of the frame as it came.
        disparity = at_size(prediction.outputs[DISPARITY_PX.name], size)
        values, about = disparity, {"kind": "disparity", "unit": "px"}
        focal_baseline = None
        if query.focal_px is not None and query.baseline_m is not None:
            focal_baseline = query.focal_px * query.baseline_m * size[1] / full[1]
            values, about = metres(disparity, focal_baseline), {"kind": "metric", "unit": "m"}
        span = self._span(disparity, adaptation)
        low, high = span
        ends = [low + (high - low) * share for share in (query.near, query.far)]
        if focal_baseline is not None:
            ends = [focal_baseline / max(end, float(LEAST_PX)) for end in ends]
        depth_said: dict[str, Any] = about | {"near": ends[0], "far": ends[1], "scale": None, "offset": None}
        offer = query.offer
        if offer.format == "png16":
            stored, scale = disparity16(values) if focal_baseline is None else depth.metres16(values)[:2]
            body = codec.encode_png16(stored)
            depth_said |= {"scale": scale, "offset": 0.0}
        elif offer.format == "npy":
            body = codec.encode_npy(values)
            depth_said |= {"scale": 1.0, "offset": 0.0}
        else:
            colours = depth.colourise(disparity, query.colormap, near=query.near, far=query.far, span=span)
            body = codec.encode_image(colours, offer.media_type.removeprefix("image/"), quality=query.quality)
        said = {
            "reset": _reset(adaptation),
            "model": prediction.model,
            "model_version": prediction.version,
            "depth": depth_said,
            "adaptation": adaptation.report().model_dump(),
            "vertical_offset_px": vertical_px,
        }
        return Answer(body, offer.media_type, size, said)

    def _span(self, disparity: FloatMap, adaptation: Adaptation) -> tuple[float, float]:
        """The range of colours, which moves slowly, from 0 at most."""
        low, high = depth.middle_span(disparity)
        with self._lock:
            anew = not self._coloured or adaptation.reset is not None
            self._coloured = True
            return self._colours.follow(min(0.0, low), high, anew=anew)


def _reset(adaptation: Adaptation) -> str | None:
    """Why what was learned of earlier pairs is not in this answer."""
    if adaptation.mode == "none" or adaptation.reset is not None:
        return adaptation.reset
    return {"new": "start", "evicted": "evicted"}.get(adaptation.origin)


def _files(message: bytes) -> tuple[bytes, bytes]:
    """The two files of a binary message: four bytes with the left one's length, big-endian, the left, the right one."""
    length = int.from_bytes(message[:_LENGTH_BYTES])
    left, right = message[_LENGTH_BYTES : _LENGTH_BYTES + length], message[_LENGTH_BYTES + length :]
    if len(message) < _LENGTH_BYTES or len(left) < length:
        raise BadRequest(
            "A pair is one message: four bytes with the length of the left file, big-endian, that file, and the right "
            "one. For pictures that hold both, say pair=side_by_side or pair=top_bottom.",
            field="left",
            value=length,
            limit=max(0, len(message) - _LENGTH_BYTES),
        )
    for side, data in (("left", left), ("right", right)):
        if not data:
            raise EmptyBody(f"The {side} picture has zero bytes.", field=side)
    return left, right


def _halves(both: Pixels, beside: bool) -> tuple[Pixels, Pixels]:
    """The left and the right picture of one that holds both, beside or above each other."""
    axis = 1 if beside else 0
    if both.shape[axis] % 2:
        raise UnusablePair(
            f"A picture that holds both has an even {'width' if beside else 'height'}.",
            code="size_mismatch",
            field="pair",
            value=both.shape[axis],
        )
    left, right = np.split(both, 2, axis=axis)
    return np.ascontiguousarray(left), np.ascontiguousarray(right)
