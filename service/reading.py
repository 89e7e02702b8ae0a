"""One upload as all its outputs need it: decoded once in full, one inference, whether there is a cache or not."""

from service.context import RequestContext
from service.contract import ModelSpec
from service.imaging.camera import Focal, known_focal
from service.imaging.codec import Photo
from service.maps import OwnMaps
from service.pipeline import Analysis, FocusScene, Outputs, Pipeline, Upload


class Reading:
    """What is known of an upload within one request; each thing is made when it is first asked for.

    Args:
        pipeline: makes it.
        context: of the request.
        upload: the photo.
        spec: the model that is asked.
        whole: whether an output needs the photo in full; else no more of it is decoded than the network needs.
        outputs: what the model is asked for.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        context: RequestContext,
        upload: Upload,
        spec: ModelSpec,
        *,
        whole: bool,
        outputs: Outputs = None,
    ) -> None:
        self.pipeline = pipeline
        self.context = context
        self.upload = upload
        self.spec = spec
        self._whole = whole
        self._outputs = outputs
        self._photo: Photo | None = None
        self._analysis: Analysis | None = None
        self._scene: FocusScene | None = None

    async def photo(self) -> Photo:
        """The photo in full."""
        if self._photo is None:
            self._photo = await self.pipeline.photo(self.context, self.upload)
        return self._photo

    async def glimpse(self, min_side: int) -> Photo:
        """The photo with no fewer pixels on its shorter side than these, unless it has fewer."""
        if self._whole:
            return await self.photo()
        return await self.pipeline.glimpse(self.context, self.upload, min_side)

    async def analysis(self) -> Analysis:
        """What the model says."""
        if self._analysis is None:
            photo = await self.photo() if self._whole else None
            self._analysis = await self.pipeline.analyse(self.context, self.upload, self.spec, photo, self._outputs)
        return self._analysis

    async def scene(self) -> FocusScene:
        """The photo with its people told apart; only of a model that does `focus`, and of a reading in full."""
        if self._scene is None:
            known = await self.photo(), await self.analysis()
            self._scene = await self.pipeline.focus_scene(self.context, self.upload, self.spec, OwnMaps(), known=known)
        return self._scene

    def focal(self, focal_px: float | None) -> Focal | None:
        """The camera's focal length as far as it is known; `focal_px` is the caller's word."""
        return known_focal(self.upload.size, focal_px, self.upload.header.focal_share)
