"""Refocused frames of a stream."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.context import RequestContext
from service.contract import ModelSpec
from service.exposure import Exposure, Lens
from service.focusing import Aim, Focus
from service.following import Follower, Wish
from service.gateway import Gateway
from service.imaging import codec, depth, matte, people, refocus
from service.imaging.geometry import resize
from service.imaging.person import describe
from service.imaging.ranges import Span
from service.imaging.temporal import Step
from service.pipeline import FocusScene
from service.stream import Answer
from service.stream_query import StreamQuery
from service.stream_work import DEPTH, PERSON, Look, Memory, look, said_of


class FocusWork:
    """Refocused frames of one stream; the person picked is followed."""

    def __init__(self, gateway: Gateway, spec: ModelSpec) -> None:
        self._gateway = gateway
        self._spec = spec
        self._memory = Memory(None if spec.depth_kind == "metric" else DEPTH)
        self._range = Span()
        self._follower = Follower()

    async def answer(self, context: RequestContext, data: bytes, query: StreamQuery) -> Answer:
        """See `Work.answer`."""
        seen = await look(self._gateway, context, data, self._spec, query, whole=True)
        pipeline = self._gateway.pipeline
        exposure, said = await pipeline.in_worker(context, "render", self._expose, seen, query)
        pixels = await pipeline.in_worker(context, "render", exposure.image)
        offer = query.offer
        body = await pipeline.in_worker(
            context, "encode", codec.encode_image, pixels, offer.media_type.removeprefix("image/"), query.quality
        )
        return Answer(body, offer.media_type, seen.size, said)

    async def close(self) -> None:
        """See `Work.close`: all that it remembers is its own."""

    def _expose(self, seen: Look, query: StreamQuery) -> tuple[Exposure, dict[str, Any]]:
        maps = {DEPTH: seen.analysis.inverse_depth(), PERSON: matte.probability(seen.analysis.native(PERSON))}
        step = self._memory.step(seen, maps, query)
        photo = resize(seen.photo, seen.size)
        scene = self._scene(seen, step, photo, query)
        wish = Wish(_scaled(query.aim, seen), query.mode, query.aims)
        with self._memory.lock:
            focus = self._follower.focus(scene, photo, wish, query.transition, cut=step.reset is not None)
            tracking = self._follower.tracking
        lens = Lens(query.strength_px(max(seen.size)), blades=query.blades, highlights=query.highlights)
        said = said_of(seen.analysis.prediction, step) | {"focus": _report(scene, focus, tracking)}
        return Exposure(scene, focus, lens), said

    def _scene(self, seen: Look, step: Step, photo: NDArray[np.uint8], query: StreamQuery) -> FocusScene:
        anew = step.reset is not None or query.steady == "off"
        nearness = step.maps[DEPTH]
        with self._memory.lock:
            low, high = self._range.follow(float(nearness.min()), float(nearness.max()), anew=anew)
        relative = np.clip((nearness - np.float32(low)) * np.float32(1 / max(high - low, 1e-9)), 0, 1)
        if query.sharp:
            inverse_depth = depth.upsample_guided(relative, photo)
            person = matte.upsample_guided(step.maps[PERSON], photo)
        else:
            inverse_depth, person = resize(relative, seen.size), resize(step.maps[PERSON], seen.size)
        scene = refocus.prepare(photo, inverse_depth, people.split(person, inverse_depth, photo))
        return FocusScene(
            scene=scene,
            people=tuple(describe(scene.mattes, scene.inverse_depth)),
            exif=None,
            mime="image/jpeg",
            model=seen.source[0],
            version=seen.source[1],
        )


def _scaled(aim: Aim | None, seen: Look) -> Aim | None:
    """An aim in pixels of the frame as it came, in pixels of the answer; what is outside stays so."""
    if aim is None or aim.pixel is None or seen.size == seen.sent:
        return aim
    x, y = (
        (number + 0.5) * to / of - 0.5 if 0 <= number < of else number
        for number, to, of in zip(aim.pixel, reversed(seen.size), reversed(seen.sent), strict=True)
    )
    return replace(aim, pixel=(max(0.0, x) if x > -1 else x, max(0.0, y) if y > -1 else y))


def _report(scene: FocusScene, focus: Focus, tracking: str) -> dict[str, Any]:
    return {
        "mode": focus.mode,
        "depth": round(focus.depth, 6),
        "person": focus.people[0] if len(focus.people) == 1 else None,
        "tracking": tracking,
        "people": [{"id": person.index, "box": person.box, "depth": round(person.depth, 6)} for person in scene.people],
    }
