"""What is done with the frames of a stream: depth that keeps its scale, and mattes that do not flicker.

Nothing of a frame goes into the gateway's cache: it does not come again, and photos that do would have to go for it.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.context import RequestContext
from service.contract import ModelSpec, Size
from service.gateway import Gateway
from service.imaging import codec, depth, matte
from service.imaging.geometry import Letterbox, choose_size, resize
from service.imaging.ranges import Levels, Span
from service.imaging.temporal import Sequence, Step
from service.inference import Prediction
from service.pipeline import Analysis, Outputs
from service.stream import Answer
from service.stream_query import StreamQuery

FloatMap = NDArray[np.float32]
Pixels = NDArray[np.uint8]

DEPTH: Final = "inverse_depth"
PERSON: Final = "person"
_PERCENTILES: Final = (2, 98)
_LEAST: Final = 1e-3  # 1/m


@dataclass(frozen=True, slots=True)
class Look:
    """One frame and what the model says of it.

    Attributes:
        photo: uint8 (H, W, 3) of the answer's size or larger; for maps, perhaps smaller.
        picture: uint8 (h, w, 3), what the network saw without padding.
        analysis: the network's outputs.
        size: (height, width) of the answer.
        sent: (height, width) of the frame as it came, upright.
    """

    photo: Pixels
    picture: Pixels
    analysis: Analysis
    size: Size
    sent: Size

    @property
    def source(self) -> tuple[str, str]:
        """Model and version."""
        return self.analysis.prediction.model, self.analysis.prediction.version


async def look(
    gateway: Gateway,
    context: RequestContext,
    data: bytes,
    spec: ModelSpec,
    query: StreamQuery,
    *,
    whole: bool,
    outputs: Outputs = None,
) -> Look:
    """Decode a frame and ask the model.

    Args:
        gateway: has the models.
        context: of the frame.
        data: the encoded frame.
        spec: the model.
        query: says how large the answer is to be.
        whole: whether the frame's own pixels go into the answer; else no more are decoded than the network needs.
        outputs: what the model is asked for.
    """
    pipeline = gateway.pipeline
    upload = await pipeline.open(context, data)
    letterbox = Letterbox.of(*upload.size, choose_size(*upload.size, spec.sizes))
    size = letterbox.content_size if query.size == "native" else limited(upload.size, query.max_side)
    needed = min(letterbox.content_size) if not whole else max(min(size), min(letterbox.content_size))
    photo = await pipeline.glimpse(context, upload, needed)
    image = await pipeline.in_worker(context, "decode", letterbox.fit, photo.pixels)
    with context.timed("infer"):
        prediction = await gateway.client.infer(
            spec.name,
            image,
            outputs=outputs,
            timeout_s=context.deadline.remaining_s(),
            request_id=context.request_id,
        )
    return Look(photo.pixels, letterbox.crop(image), Analysis(prediction, letterbox), size, upload.size)


def limited(size: Size, max_side: int | None) -> Size:
    """A size reduced until its longer side is `max_side` pixels, aspect kept; never enlarged."""
    factor = 1.0 if max_side is None else min(1.0, max_side / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def said_of(prediction: Prediction, step: Step) -> dict[str, Any]:
    """Members of every result."""
    return {"reset": step.reset, "model": prediction.model, "model_version": prediction.version}


class Memory:
    """A `Sequence` that several threads may come to: work that was given up may still be at it when the next begins."""

    def __init__(self, relative: str | None) -> None:
        self._sequence = Sequence(relative)
        self.lock = threading.RLock()

    def step(self, seen: Look, maps: Mapping[str, FloatMap], query: StreamQuery) -> Step:
        """The steady maps of a frame, or its own where they are not wanted."""
        if query.steady == "off":
            return Step({name: depth.finite(values) for name, values in maps.items()}, None, 1.0, 0.0)
        with self.lock:
            return self._sequence.step(seen.picture, maps, seen.source)


class DepthWork:
    """Depth maps of one stream."""

    def __init__(self, gateway: Gateway, spec: ModelSpec) -> None:
        self._gateway = gateway
        self._spec = spec
        self._metric = spec.depth_kind == "metric"
        self._memory = Memory(None if self._metric else DEPTH)
        self._colours = Span()
        self._levels = Levels()

    async def answer(self, context: RequestContext, data: bytes, query: StreamQuery) -> Answer:
        """See `Work.answer`."""
        outputs = self._spec.only(self._spec.depth_output)
        seen = await look(self._gateway, context, data, self._spec, query, whole=query.sharp, outputs=outputs)
        pipeline = self._gateway.pipeline
        values, said = await pipeline.in_worker(context, "render", self._steady, seen, query)
        return await pipeline.in_worker(context, "encode", self._encode, values, said, query)

    async def close(self) -> None:
        """See `Work.close`: all that it remembers is its own."""

    def _steady(self, seen: Look, query: StreamQuery) -> tuple[FloatMap, dict[str, Any]]:
        step = self._memory.step(seen, {DEPTH: seen.analysis.inverse_depth()}, query)
        nearness = step.maps[DEPTH]
        low, high = (float(value) for value in np.percentile(nearness[::2, ::2], _PERCENTILES))
        with self._memory.lock:
            low, high = self._colours.follow(low, high, anew=step.reset is not None or query.steady == "off")
        near, far = low + (high - low) * query.near, low + (high - low) * query.far
        if self._metric:
            near, far = 1 / max(near, _LEAST), 1 / max(far, _LEAST)
        about = {
            "kind": self._spec.depth_kind,
            "unit": "m" if self._metric else "relative",
            "near": near,
            "far": far,
            "aligned": [step.scale, step.shift],
        }
        said = said_of(seen.analysis.prediction, step) | {"depth": about, "span": (low, high)}
        if query.sharp:
            return depth.upsample_guided(nearness, resize(seen.photo, seen.size)), said
        return resize(nearness, seen.size), said

    def _encode(self, nearness: FloatMap, said: dict[str, Any], query: StreamQuery) -> Answer:
        span, about, offer = said.pop("span"), said["depth"], query.offer
        about |= {"scale": None, "offset": None}
        if offer.format == "png16":
            stored, about["scale"], about["offset"] = self._stored(nearness, query)
            body = codec.encode_png16(stored)
        elif offer.format == "npy":
            about |= {"scale": 1.0, "offset": 0.0}
            body = codec.encode_npy(depth.inverted(nearness) if self._metric else nearness)
        else:
            colours = depth.colourise(nearness, query.colormap, near=query.near, far=query.far, span=span)
            body = codec.encode_image(colours, offer.media_type.removeprefix("image/"), quality=query.quality)
        return Answer(body, offer.media_type, (nearness.shape[0], nearness.shape[1]), said)

    def _stored(self, nearness: FloatMap, query: StreamQuery) -> tuple[NDArray[np.uint16], float, float]:
        if self._metric:
            return depth.metres16(depth.inverted(nearness))
        if query.steady == "off":
            return depth.quantise16(nearness)
        with self._memory.lock:
            return self._levels.store(nearness)


class MatteWork:
    """Mattes of the people of one stream."""

    def __init__(self, gateway: Gateway, spec: ModelSpec) -> None:
        self._gateway = gateway
        self._spec = spec
        self._memory = Memory(None)

    async def answer(self, context: RequestContext, data: bytes, query: StreamQuery) -> Answer:
        """See `Work.answer`."""
        outputs = self._spec.only(PERSON)
        seen = await look(self._gateway, context, data, self._spec, query, whole=query.sharp, outputs=outputs)
        return await self._gateway.pipeline.in_worker(context, "encode", self._encode, seen, query)

    async def close(self) -> None:
        """See `Work.close`: all that it remembers is its own."""

    def _encode(self, seen: Look, query: StreamQuery) -> Answer:
        own = matte.probability(seen.analysis.native(PERSON))
        step = self._memory.step(seen, {PERSON: own}, query)
        person, offer = step.maps[PERSON], query.offer
        if query.sharp:
            person = matte.upsample_guided(person, resize(seen.photo, seen.size))
        else:
            person = resize(person, seen.size)
        levels = matte.to_uint8(person)
        if offer.format == "npy":
            body = codec.encode_npy(person)
        elif offer.format == "png":
            body = codec.encode_png8(levels)
        else:
            body = codec.encode_image(np.repeat(levels[..., None], 3, axis=2), offer.format, quality=query.quality)
        said = said_of(seen.analysis.prediction, step) | {"coverage": round(matte.coverage(person), 6)}
        return Answer(body, offer.media_type, seen.size, said)
