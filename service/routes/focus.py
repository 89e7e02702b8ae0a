"""`POST /focus`: the photo with what was clicked in focus."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Final

import numpy as np
from fastapi import APIRouter, Query
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from service import rack, views
from service.aiming import read_aim, read_people
from service.context import RequestContext
from service.contract import ModelSpec
from service.errors import InvalidParameter
from service.exposure import Exposure, FloatMap, Lens, stopped_down
from service.focusing import Aim, Choice, Focus, find_focus
from service.gateway import Gateway, GatewayDependency
from service.imaging import animation, codec, refocus
from service.maps import OwnMaps
from service.negotiation import Offer, accept_header, choose
from service.pipeline import FocusScene
from service.routes.documentation import image_route
from service.routes.examples import PEOPLE_REPORT
from service.routes.lock import KEYS, PhotoRoute
from service.schemas import FocusQuery
from service.upload import Parts, photo_of, request_body

router = APIRouter(tags=["photo"], route_class=PhotoRoute, dependencies=KEYS)

_RACK_OFFERS: Final = (Offer("webp", "image/webp"),)
_DEFAULT_F_NUMBER: Final = 2.8
_DEFAULT_FRAMES: Final = 24
_DEFAULT_FPS: Final = 24.0

_WITHOUT_FOCUS: Final = ("people", "labels", "depth")
"""Outputs that say something without a click."""

_OF_FULL_SIZE: Final = ("people", "all")
"""Outputs with numbers in the photo's pixels."""

_OF_THE_UPLOAD: Final = ("model", "edge")
"""Parameters that a scene was prepared with, and that its token stands for."""

_MAPS: Final = {
    "depth": "own relative inverse depth instead of a network's, larger = nearer, of the displayed size: gray PNG of "
    "8 or 16 bits, or float32 .npy",
    "mask": "own matte of people instead of a network's, of the displayed size: gray PNG of 8 or 16 bits (largest = "
    "person), or float32 .npy (0..1)",
}

_HEADERS = {
    "X-Focus-Depth": "relative inverse depth in focus, 1 = nearest",
    "X-Focus-Mode": "`subject` or `plane`, as used",
    "X-Focus-Person": "the people kept sharp, nearest = 0, or `none`",
    "X-People": "how many people were found; `person=` counts them from 0, nearest first",
    "X-Depth-Range": "half width of the inverse depths that stay sharp",
    "X-CoC-Max": "largest radius of the circle of confusion in pixels",
    "X-Scene": "token: `scene=` asks for more of this photo without sending it again",
    "X-CoC-Scale": "with `output=coc`: radius in pixels = stored * scale + offset, positive in front of the focus",
    "X-CoC-Offset": "see X-CoC-Scale",
    "X-Depth-Scale": "with `output=depth`: inverse depth = stored * scale + offset",
    "X-Depth-Offset": "see X-Depth-Scale",
    "X-Rack-Frames": "of a focus pull: how many frames it has",
    "X-Rack-Size": "of a focus pull: width x height of its frames",
    "X-Model": "model that answered, `none` when depth and mask were the caller's own",
    "X-Model-Version": "its version",
}

_FORMATS: Final = {output: list({offer.format: None for offer in offers}) for output, offers in views.OFFERS.items()}
_MEDIA_TYPES = sorted({offer.media_type for offers in views.OFFERS.values() for offer in offers})


@dataclass(frozen=True, slots=True)
class _Wish:
    """What a query asks for, checked as far as it can be without the photo."""

    query: FocusQuery
    start: Aim | None
    end: Aim | None

    @property
    def output(self) -> str:
        return self.query.output

    @property
    def offers(self) -> tuple[Offer, ...]:
        return _RACK_OFFERS if self.end else views.OFFERS[self.output]


_DOCUMENTED = image_route(
    "the refocused photo, or what `output` names",
    _MEDIA_TYPES,
    _HEADERS,
    request_body(_MAPS, required=False),
    report=PEOPLE_REPORT,
)
_DOCUMENTED["openapi_extra"]["x-formats"] = _FORMATS  # which `format` goes with which `output`: JSON Schema cannot say


@router.post("/focus", summary="Refocused photo", response_class=Response, **_DOCUMENTED)
async def focus(request: Request, query: Annotated[FocusQuery, Query()], gateway: GatewayDependency) -> Response:
    """Keeps the clicked person or depth sharp and blurs the rest as a lens would, at the photo's own size.

    Every answer names its scene in `X-Scene`: for a short while, `scene=` with an empty body refocuses it again. With
    a `rack_` point or person the answer is an animation of the focus being pulled there.
    """
    accept = accept_header(request.headers)
    wish = _read(query)
    format = None if query.format == "same" and wish.offers != views.PHOTO_OFFERS else query.format
    if format != "same":
        choose(wish.offers, format=format, accept=accept)  # refuse before any work
    spec = await gateway.model(request, query.model, "focus")
    kept = None if query.scene is None else gateway.scenes.find(query.scene)

    async def job(context: RequestContext, parts: Parts) -> Response:
        scene = await _uploaded(gateway, context, parts, wish, spec) if kept is None else kept
        if kept is not None and parts:
            raise InvalidParameter("Give a scene or send a photo, not both.", field="scene", value=None)
        offer = _offer(scene.mime, wish, format, accept)
        token = gateway.scenes.keep(scene, query.scene)
        answer = await _answer(gateway, context, scene, wish, offer, token)
        answer.headers.update(
            {"X-People": str(len(scene.people)), "X-Model": scene.model, "X-Model-Version": scene.version}
        )
        if token is not None:
            answer.headers["X-Scene"] = token
        return answer

    return await gateway.answer_parts(request, _MAPS, job)


def _read(query: FocusQuery) -> _Wish:
    start = read_aim((query.x, query.y), (query.rx, query.ry), read_people(query.person))
    target: Choice | None = None if query.rack_person is None else (query.rack_person,)
    end = read_aim((query.rack_x, query.rack_y), (query.rack_rx, query.rack_ry), target, "rack_")
    if start is None and (end is not None or query.output not in _WITHOUT_FOCUS):
        raise InvalidParameter(
            "Give the click as x and y in pixels, or as rx and ry between 0 and 1; or name a person.",
            field="x",
            value=None,
        )
    if query.f_number is not None and query.blur is not None:
        raise InvalidParameter("Give f_number or blur, not both.", field="blur", value=query.blur)
    for aim in (start, end):
        if query.mode == "plane" and aim is not None and aim.has_click and aim.people is not None:
            raise InvalidParameter(
                "mode=plane keeps nobody whole: with a click, leave the person out.",
                field=f"{aim.prefix}person",
                value=None,
            )
    if end is None and (query.rack_frames is not None or query.rack_fps is not None):
        raise InvalidParameter(
            "A focus pull needs where to: rack_x and rack_y, rack_rx and rack_ry, or rack_person.",
            field="rack_x",
            value=None,
        )
    if end is not None and query.output != "image":
        raise InvalidParameter("A focus pull is a picture; leave output out.", field="output", value=query.output)
    if query.max_side is not None and (end is not None or query.output in _OF_FULL_SIZE):
        raise InvalidParameter(
            "max_side is for single pictures: leave it out with output=people or all, and with a focus pull.",
            field="max_side",
            value=query.max_side,
        )
    for name in _OF_THE_UPLOAD if query.scene is not None else ():
        if getattr(query, name) is not None:
            raise InvalidParameter(
                f"A scene keeps the {name} it was prepared with; leave it out, or send the photo.",
                field=name,
                value=getattr(query, name)[:40],
            )
    return _Wish(query, start, end)


async def _uploaded(
    gateway: Gateway, context: RequestContext, parts: Parts, wish: _Wish, spec: ModelSpec
) -> FocusScene:
    pipeline = gateway.pipeline
    upload = await pipeline.open(context, photo_of(parts))
    for aim in (wish.start, wish.end):
        if aim is not None:
            aim.click(upload.size)  # a click outside is refused before any decode
    maps = OwnMaps(depth=parts.get("depth"), mask=parts.get("mask"))
    return await pipeline.focus_scene(context, upload, spec, maps, wish.query.edge or "matte")


def _offer(mime: str, wish: _Wish, format: str | None, accept: str | None) -> Offer:
    """Of photos the upload's own format first; what is not written here (HEIC) becomes JPEG."""
    if wish.offers != views.PHOTO_OFFERS:
        return choose(wish.offers, format=format, accept=accept)
    own = _own(mime)
    if format == "same":
        return own
    return choose([own, *(offer for offer in wish.offers if offer != own)], format=format, accept=accept)


def _own(mime: str) -> Offer:
    return next((offer for offer in views.PHOTO_OFFERS if offer.media_type == mime), views.PHOTO_OFFERS[0])


async def _answer(
    gateway: Gateway, context: RequestContext, scene: FocusScene, wish: _Wish, offer: Offer, token: str | None
) -> Response:
    pipeline, query = gateway.pipeline, wish.query
    said: views.Headers = {}
    look = await pipeline.reduced(context, scene, query.max_side, token)
    if wish.start is None:
        show = partial(_show_unfocused, look, query.output, offer, token)
    else:
        exposure, end = await pipeline.in_worker(context, "render", _expose, scene, look, wish)
        if end is not None:
            return await _pull(gateway, context, exposure, end, query)
        coc_px = await pipeline.in_worker(context, "render", exposure.coc_px)
        said = exposure.headers(coc_px)
        pixels = None
        if query.output in ("image", "all"):
            pixels = await pipeline.in_worker(context, "render", exposure.image)
        show = partial(_show, exposure, query, offer, token, coc_px, pixels)
    body, more = await pipeline.in_worker(context, "encode", show)
    return Response(body, media_type=offer.media_type, headers=said | more)


def _expose(scene: FocusScene, look: FocusScene, wish: _Wish) -> tuple[Exposure, Focus | None]:
    """The exposure asked for, and where its focus is to be pulled to.

    Args:
        scene: where people and depths are looked up.
        look: the same at the size that is shown.
        wish: what is asked for.
    """
    query = wish.query
    assert wish.start is not None  # the caller's condition
    start = find_focus(scene, wish.start, query.mode, query.depth_range)
    end = None if wish.end is None else find_focus(scene, wish.end, query.mode, query.depth_range)
    strength_px = _strength_px(query, max(scene.size))
    if query.max_coc is not None:
        focuses = [focus for focus in (start, end) if focus is not None]
        strength_px = stopped_down(strength_px, query.max_coc, scene, focuses)
    lens = Lens(
        strength_px=strength_px * max(look.size) / max(scene.size),
        front=query.front,
        back=query.back,
        blades=query.blades,
        rotation_deg=query.rotation,
        curvature=query.curvature,
        highlights=query.highlights,
    )
    return Exposure(look, start, lens), end


def _strength_px(query: FocusQuery, long_side_px: int) -> float:
    if query.blur is not None:
        return refocus.strength_from_blur(query.blur, long_side_px)
    return refocus.strength_from_f_number(query.f_number or _DEFAULT_F_NUMBER, long_side_px)


def _show_unfocused(scene: FocusScene, output: str, offer: Offer, token: str | None) -> tuple[bytes, views.Headers]:
    match output:
        case "depth":
            return views.depth(scene, offer.format)
        case "labels":
            return views.labels(scene)
    return views.people(scene, token)


def _show(
    exposure: Exposure,
    query: FocusQuery,
    offer: Offer,
    token: str | None,
    coc_px: FloatMap,
    pixels: NDArray[np.uint8] | None,
) -> tuple[bytes, views.Headers]:
    scene = exposure.scene
    match query.output:
        case "alpha":
            return views.alpha(exposure)
        case "coc":
            return views.coc(coc_px, offer.format)
        case "depth":
            return views.depth(scene, offer.format)
        case "labels":
            return views.labels(scene)
        case "people":
            return views.people(scene, token, exposure.focus, coc_px)
    assert pixels is not None  # rendered for the two that are left
    if query.output == "all":
        return views.everything(exposure, coc_px, pixels, _own(scene.mime), query.quality, token)
    return codec.encode_image(pixels, offer.format, quality=query.quality, exif=scene.exif), {}


async def _pull(
    gateway: Gateway, context: RequestContext, exposure: Exposure, end: Focus, query: FocusQuery
) -> Response:
    """A focus pull, a frame at a time: whoever leaves, or runs out of time, stops it before the next one."""
    pipeline = gateway.pipeline
    frames = query.rack_frames or _DEFAULT_FRAMES
    max_pixels = gateway.settings.max_rack_pixels
    pull = await pipeline.in_worker(context, "render", rack.prepare, exposure, end, frames, max_pixels)
    encoded = []
    for index in range(frames):
        pixels = await pipeline.in_worker(context, "render", pull.frame, index)
        encoded.append(await pipeline.in_worker(context, "encode", animation.encode_frame, pixels, query.quality))
    durations = animation.durations_ms(frames, query.rack_fps or _DEFAULT_FPS)
    size = pull.scene.size
    body = await pipeline.in_worker(
        context, "encode", animation.assemble, encoded, size, durations, exposure.scene.exif
    )
    first = pull.exposure(0)
    coc_px = await pipeline.in_worker(context, "render", first.coc_px)
    said = first.headers(coc_px) | {"X-Rack-Frames": str(frames), "X-Rack-Size": f"{size[1]}x{size[0]}"}
    return Response(body, media_type=_RACK_OFFERS[0].media_type, headers=said)
