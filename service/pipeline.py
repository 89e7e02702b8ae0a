"""From the bytes of a photo to what the network says about it, and to the prepared scene for refocusing.

bytes -> header check -> decode, in a process that can be killed unless the file is ordinary -> letterbox to the nearest
fixed size -> Triton -> maps that know their way back to the photo. Every step is cached by the content hash of the
upload.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.cache import ByteCache
from service.context import RequestContext, Stage
from service.contract import DEPTH_M, ModelSpec
from service.decoding.workers import DecodeWorkers
from service.imaging import codec, depth, matte, people, reduction, refocus
from service.imaging.codec import ImageHeader, Limits, Photo
from service.imaging.geometry import Letterbox, choose_size
from service.imaging.person import Person, describe
from service.inference import DepthClient, Prediction
from service.maps import Maps, OwnMaps

P = ParamSpec("P")
R = TypeVar("R")

FloatMap = NDArray[np.float32]

Outputs = tuple[str, ...] | None
"""Those of a model's outputs that are asked for; None: all."""

_AnalysisKey = tuple[str, str, bool, Outputs]
"""The cache's key of an analysis: photo, model, whether the photo was decoded no larger than needed, outputs."""

Edge = Literal["matte", "guided", "hard"]
"""Borders of people: refined by the photo, as the upsampled matte has them, or cut with no soft pixel."""

TOKENS = "token"
"""Kind of the cache's entries that are scenes given out by token."""


@dataclass(frozen=True, slots=True)
class Upload:
    """An uploaded photo.

    Attributes:
        data: its bytes.
        digest: the cache's key of them.
        header: checked.
        ordinary: whether a thread may decode it.
        fitted: a network's input, uint8 (h, w, 3), and how it lies there, where it was made at once.
    """

    data: bytes
    digest: str
    header: ImageHeader
    ordinary: bool
    fitted: tuple[Letterbox, NDArray[np.uint8]] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) as displayed."""
        return self.header.size


@dataclass(frozen=True, slots=True)
class Analysis:
    """What a model says about a photo, and the letterbox that maps it back."""

    prediction: Prediction
    letterbox: Letterbox

    def native(self, output: str) -> FloatMap:
        """The output at the network's size without padding: (h, w) float32."""
        return self.letterbox.crop(self.prediction.outputs[output])

    def full(self, output: str) -> FloatMap:
        """The output interpolated to the photo's displayed size: (H, W) float32."""
        return self.letterbox.unfit(self.prediction.outputs[output])

    def inverse_depth(self) -> FloatMap:
        """The depth as inverse depth, larger = nearer, as `native`: in 1/m where the model gives metres."""
        if DEPTH_M.name in self.prediction.outputs:
            return depth.inverted(self.native(DEPTH_M.name))
        return self.native("inverse_depth")


@dataclass(frozen=True, slots=True)
class FocusScene:
    """All that refocusing one photo needs and that does not depend on the click or the aperture.

    Attributes:
        scene: the prepared photo, with its depth and one matte per person, nearest first.
        people: those persons.
        exif: the upload's metadata with the orientation reset, or None.
        mime: media type of the upload.
        model: name of the model that answered, `none` when nobody had to be asked.
        version: its version.
    """

    scene: refocus.Scene
    people: tuple[Person, ...]
    exif: bytes | None
    mime: str
    model: str
    version: str

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) as displayed."""
        return self.scene.image.shape[0], self.scene.image.shape[1]


class Pipeline:
    """Decode, predict and prepare, with the CPU work in a bounded number of threads."""

    def __init__(
        self, client: DepthClient, cache: ByteCache, *, limits: Limits, worker_threads: int, decoders: DecodeWorkers
    ) -> None:
        self._client = client
        self._cache = cache
        self._limits = limits
        self._worker_threads = worker_threads
        self._decoders = decoders
        self._answers = 0  # counts up when answers change
        self._workers: ThreadPoolExecutor | None = None

    async def in_worker(
        self, context: RequestContext, stage: Stage, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run CPU work in a worker thread and count its time under `stage`.

        A caller that gives up (deadline, client gone) does not wait: work that has not begun is dropped, work that
        has begun keeps its thread to the end, so there is never more of it than there are threads.
        """
        if self._workers is None:  # made anew when an application is started again
            self._workers = ThreadPoolExecutor(self._worker_threads, thread_name_prefix="depthlens-worker")
        call = partial(function, *args, **kwargs)
        with context.timed(stage):
            return await asyncio.get_running_loop().run_in_executor(self._workers, call)

    def start(self) -> None:
        """Start the processes that decode, before the first photo needs one."""
        self._decoders.start()

    async def close(self) -> None:
        """Begin no more work."""
        await self._decoders.close()
        if self._workers is not None:
            self._workers.shutdown(wait=False, cancel_futures=True)
            self._workers = None

    def forget(self) -> None:
        """Drop every cached result: the models behind them may have changed.

        Scenes given out by token stay what they were when their holders first saw them.
        """
        self._answers += 1
        self._cache.clear(keep=TOKENS)

    async def open(
        self, context: RequestContext, data: bytes, spec: ModelSpec | None = None, outputs: Outputs = None
    ) -> Upload:
        """Check the header against the limits, before any decode.

        What the file states is read here. Only an ordinary one is then opened by a library in this process.

        Args:
            context: of the request.
            data: the file.
            spec: the model that `analyse` will ask without a photo in full. Its input is then made in the same go,
                since every hand-over to a thread and back takes time; not where the cache has its answer.
            outputs: that it will be asked for.
        """
        digest, found = await self.in_worker(context, "decode", self._looked_at, data, spec, outputs)
        if found is not None:
            return found
        with context.timed("decode"):
            return Upload(data, digest, await self._decoders.inspect(data, self._limits), ordinary=False)

    def _looked_at(self, data: bytes, spec: ModelSpec | None, outputs: Outputs) -> tuple[str, Upload | None]:
        """The file's key, and the upload if it is an ordinary one."""
        structure = codec.survey(data, self._limits)
        digest = self._cache.key_of(data)
        if not structure.ordinary:
            return digest, None
        upload = Upload(data, digest, codec.inspect(data, self._limits, structure), ordinary=True)
        if spec is None or self._cache.holds("analysis", self._whole_or(_key(upload, spec, outputs, reduced=True))):
            return digest, upload
        letterbox = _letterbox(upload, spec)
        return digest, replace(upload, fitted=(letterbox, _decoded_and_fitted(upload, letterbox)))

    async def _decode(self, context: RequestContext, upload: Upload, min_side: int | None = None) -> Photo:
        if upload.ordinary:
            return await self.in_worker(context, "decode", codec.decode, upload.data, upload.header, min_side=min_side)
        with context.timed("decode"):
            return await self._decoders.decode(upload.data, upload.header, min_side=min_side)

    async def photo(self, context: RequestContext, upload: Upload) -> Photo:
        """The photo in full, upright, sRGB."""
        cached: Photo | None = self._cache.get("photo", upload.digest)
        if cached is not None:
            return cached
        photo = await self._decode(context, upload)
        self._cache.put("photo", upload.digest, photo, photo.nbytes)
        return photo

    async def glimpse(self, context: RequestContext, upload: Upload, min_side: int) -> Photo:
        """The photo, of which `min_side` pixels on the shorter side are enough: in full where that is at hand."""
        cached: Photo | None = self._cache.get("photo", upload.digest)
        return cached or await self._decode(context, upload, min_side)

    async def analyse(
        self,
        context: RequestContext,
        upload: Upload,
        spec: ModelSpec,
        photo: Photo | None = None,
        outputs: Outputs = None,
    ) -> Analysis:
        """The model's outputs for the photo; decodes no more of it than the network needs unless given `photo`.

        Args:
            context: of the request.
            upload: the photo.
            spec: the model.
            photo: in full.
            outputs: as `ModelSpec.only` has them. A map of a quarter of a megabyte that nobody looks at costs more than
                a millisecond: it is copied half a dozen times on its way here.
        """
        key = _key(upload, spec, outputs, reduced=photo is None)
        cached: Analysis | None = self._cache.get("analysis", self._whole_or(key))
        if cached is not None:
            return cached
        letterbox = _letterbox(upload, spec)
        answers = self._answers
        image = await self._fitted(context, upload, letterbox, photo)
        with context.timed("infer"):
            prediction = await self._client.infer(
                spec.name,
                image,
                outputs=outputs,
                timeout_s=context.deadline.remaining_s(),
                request_id=context.request_id,
            )
        analysis = Analysis(prediction, letterbox)
        nbytes = sum(output.nbytes for output in prediction.outputs.values())
        if answers == self._answers:  # else a model that has been replaced since
            self._cache.put("analysis", key, analysis, nbytes)
        return analysis

    def _whole_or(self, key: _AnalysisKey) -> _AnalysisKey:
        """Where to look an analysis up: under the key of one with all outputs, if there is one.

        Not where to put it: the one that is there may be too old to be found.
        """
        everything: _AnalysisKey = (*key[:3], None)
        return everything if self._cache.holds("analysis", everything) else key

    async def _fitted(
        self, context: RequestContext, upload: Upload, letterbox: Letterbox, photo: Photo | None
    ) -> NDArray[np.uint8]:
        """The network's input, of `photo` or of no more of the upload than is needed."""
        if photo is None and upload.fitted is not None and upload.fitted[0] == letterbox:
            return upload.fitted[1]
        if photo is None and upload.ordinary:
            return await self.in_worker(context, "decode", _decoded_and_fitted, upload, letterbox)
        source = photo or await self._decode(context, upload, min(letterbox.content_size))
        return await self.in_worker(context, "decode", letterbox.fit, source.pixels)

    async def focus_scene(
        self,
        context: RequestContext,
        upload: Upload,
        spec: ModelSpec,
        maps: OwnMaps,
        edge: Edge = "matte",
        known: tuple[Photo, Analysis] | None = None,
    ) -> FocusScene:
        """The photo prepared for refocusing; the model is asked for what `maps` do not say, and for nothing else.

        Args:
            context: of the request.
            upload: the photo.
            spec: the model.
            maps: the caller's own.
            edge: how borders of people are made.
            known: the photo in full and what the model says of it, where the caller has both.
        """
        own_digest = await self.in_worker(context, "decode", maps.digest)
        key = (upload.digest, None if maps.complete else spec.name, own_digest, edge)
        cached: FocusScene | None = self._cache.get("scene", key)
        if cached is not None:
            return cached
        own = await self.in_worker(context, "decode", maps.read, upload.size)
        photo: Photo | None = known[0] if known else self._cache.get("photo", upload.digest)
        if photo is None:  # not kept under its own key as well: the scene holds its pixels
            photo = await self._decode(context, upload)
        answers = self._answers
        analysis = known[1] if known else None
        if analysis is None and not maps.complete:
            analysis = await self.analyse(context, upload, spec, photo)
        scene = await self.in_worker(context, "render", _prepare, photo, upload.header.mime, analysis, own, edge)
        if answers == self._answers:
            self._cache.put("scene", key, scene, scene.scene.nbytes)
        return scene

    async def reduced(
        self, context: RequestContext, scene: FocusScene, max_side: int | None, token: str | None
    ) -> FocusScene:
        """The scene with a longest side of `max_side` pixels at most, kept for the next look by the same token."""
        longest = max(scene.size)
        if max_side is None or longest <= max_side:
            return scene
        key = (token, max_side)
        cached: FocusScene | None = None if token is None else self._cache.get("reduced", key)
        if cached is not None:
            return cached
        size = (max(1, scene.size[0] * max_side // longest), max(1, scene.size[1] * max_side // longest))
        small = replace(scene, scene=await self.in_worker(context, "render", reduction.reduced, scene.scene, size))
        if token is not None:
            self._cache.put("reduced", key, small, small.scene.nbytes)
        return small


def _key(upload: Upload, spec: ModelSpec, outputs: Outputs, *, reduced: bool) -> _AnalysisKey:
    return (upload.digest, spec.name, reduced, outputs)


def _letterbox(upload: Upload, spec: ModelSpec) -> Letterbox:
    return Letterbox.of(*upload.size, choose_size(*upload.size, spec.sizes))


def _decoded_and_fitted(upload: Upload, letterbox: Letterbox) -> NDArray[np.uint8]:
    photo = codec.decode(upload.data, upload.header, min_side=min(letterbox.content_size))
    return letterbox.fit(photo.pixels)


def _prepare(photo: Photo, mime: str, analysis: Analysis | None, own: Maps, edge: Edge) -> FocusScene:
    inverse_depth, person = own
    refine = edge == "matte" and person is None  # a matte of the caller's own is taken as it is
    if inverse_depth is None and analysis is not None:
        relative, _, _ = depth.normalise(analysis.inverse_depth())
        inverse_depth = depth.upsample_guided(relative, photo.pixels)
    if person is None and analysis is not None:
        person = matte.upsample_guided(analysis.native("person"), photo.pixels)
    assert inverse_depth is not None  # what is not the caller's own comes from the model
    assert person is not None
    mattes = people.split(person, inverse_depth, photo.pixels if refine else None)
    if edge == "hard":
        mattes = (mattes > matte.THRESHOLD).astype(np.float32)
    scene = refocus.prepare(photo.pixels, inverse_depth, mattes)
    return FocusScene(
        scene=scene,
        people=tuple(describe(scene.mattes, scene.inverse_depth)),
        exif=photo.exif,
        mime=mime,
        model=analysis.prediction.model if analysis else "none",
        version=analysis.prediction.version if analysis else "none",
    )
