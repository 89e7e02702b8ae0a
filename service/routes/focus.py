"""`POST /focus`: the photo with what was clicked in focus."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Query
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from service.context import RequestContext
from service.errors import InvalidParameter, NotAPerson
from service.gateway import GatewayDependency
from service.imaging import codec, geometry, refocus
from service.negotiation import Offer, accept_header, choose
from service.pipeline import FocusScene, find_model
from service.routes.documentation import image_route
from service.schemas import FocusQuery

router = APIRouter(tags=["photo"])

OFFERS = tuple(Offer(name, f"image/{name}") for name in ("jpeg", "png", "webp", "avif", "tiff", "bmp", "gif"))

_DEFAULT_F_NUMBER = 2.8
_ON_PERSON = 127
"""Matte level (of 255) above which a click counts as on the person."""

_HEADERS = {
    "X-Focus-Depth": "relative inverse depth in focus, 1 = nearest",
    "X-Focus-Mode": "`subject` or `plane`, as used",
    "X-Focus-Person": "index of the person in focus, nearest first, or `none`",
    "X-CoC-Max": "largest radius of the circle of confusion in pixels",
    "X-Model": "model that answered",
    "X-Model-Version": "its version",
}


@dataclass(frozen=True, slots=True)
class _Choice:
    """What the click chose: the depth in focus and, in subject mode, the person."""

    focus: float
    subject: int | None

    @property
    def mode(self) -> str:
        return "plane" if self.subject is None else "subject"


@router.post(
    "/focus",
    summary="Refocused photo",
    response_class=Response,
    **image_route("the refocused photo", [offer.media_type for offer in OFFERS], _HEADERS),
)
async def focus(request: Request, query: Annotated[FocusQuery, Query()], gateway: GatewayDependency) -> Response:
    """Keeps the clicked person or depth sharp and blurs the rest as a lens would, at the photo's own size."""
    accept = accept_header(request.headers)
    if query.format != "same":
        choose(OFFERS, format=query.format, accept=accept)  # refuse before any work
    spec = find_model(query.model, gateway.settings.focus_model, "focus")
    _check_click(query)
    pipeline = gateway.pipeline

    async def job(context: RequestContext, data: bytes) -> Response:
        upload = await pipeline.open(context, data)
        height, width = upload.size
        x, y = _click(query, height, width)
        geometry.check_inside(x, y, height, width, field="x" if query.x is not None else "rx")
        offer = _offer(upload.header.mime, query.format, accept)
        scene = await pipeline.focus_scene(context, upload, spec)
        pixels, headers = await pipeline.in_worker(context, "render", _render, scene, query, x, y)
        body = await pipeline.in_worker(
            context, "encode", codec.encode_image, pixels, offer.format, quality=query.quality, exif=scene.exif
        )
        return Response(body, media_type=offer.media_type, headers=headers)

    return await gateway.answer(request, job)


def _offer(mime: str, format: str | None, accept: str | None) -> Offer:
    """The photo's own format first; what is not written here (HEIC) becomes JPEG."""
    own = next((offer for offer in OFFERS if offer.media_type == mime), OFFERS[0])
    if format == "same":
        return own
    return choose([own, *(offer for offer in OFFERS if offer != own)], format=format, accept=accept)


def _render(scene: FocusScene, query: FocusQuery, x: float, y: float) -> tuple[NDArray[np.uint8], dict[str, str]]:
    """The refocused pixels, and the headers that say how."""
    height, width = scene.scene.inverse_depth.shape
    choice = _choose_subject(scene, query.mode, x, y)
    strength_px = _strength_px(query, max(height, width))
    pixels = refocus.render(scene.scene, focus=choice.focus, strength_px=strength_px, subject=choice.subject)
    depths = scene.scene.inverse_depth
    largest = strength_px * max(float(depths.max()) - choice.focus, choice.focus - float(depths.min()))
    return pixels, {
        "X-Focus-Depth": f"{choice.focus:.4f}",
        "X-Focus-Mode": choice.mode,
        "X-Focus-Person": "none" if choice.subject is None else str(choice.subject),
        "X-CoC-Max": f"{largest:.2f}",
        "X-Model": scene.model,
        "X-Model-Version": scene.version,
    }


def _check_click(query: FocusQuery) -> None:
    pixels, shares = (query.x, query.y), (query.rx, query.ry)
    given = [pair for pair in (pixels, shares) if pair != (None, None)]
    if len(given) != 1 or None in given[0]:
        raise InvalidParameter(
            "Give the click as x and y in pixels, or as rx and ry between 0 and 1.", field="x", value=None
        )
    if query.f_number is not None and query.blur is not None:
        raise InvalidParameter("Give f_number or blur, not both.", field="blur", value=query.blur)


def _click(query: FocusQuery, height: int, width: int) -> tuple[float, float]:
    if query.x is not None and query.y is not None:
        return query.x, query.y
    return geometry.relative_to_pixel(query.rx or 0.0, query.ry or 0.0, height, width)


def _choose_subject(scene: FocusScene, mode: str, x: float, y: float) -> _Choice:
    row, column = int(y), int(x)
    mattes = scene.scene.mattes
    at_click = mattes[:, row, column]
    person = int(at_click.argmax()) if at_click.size and at_click.max() > _ON_PERSON else None
    if mode == "subject" and person is None:
        raise NotAPerson(
            f"There is no person at ({column}, {row}); {len(mattes)} found in the photo. "
            "Click on a person, or use mode=plane.",
            field="mode",
            value=mode,
            extra={"people": len(mattes)},
        )
    subject = None if mode == "plane" else person
    matte = None if subject is None else (mattes[subject] > _ON_PERSON).astype(np.float32)
    return _Choice(refocus.focus_depth_at(scene.scene.inverse_depth, column, row, matte), subject)


def _strength_px(query: FocusQuery, long_side_px: int) -> float:
    if query.blur is not None:
        return refocus.strength_from_blur(query.blur, long_side_px)
    return refocus.strength_from_f_number(query.f_number or _DEFAULT_F_NUMBER, long_side_px)
