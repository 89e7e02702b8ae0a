"""`POST /stereo`: disparity of a pair of pictures, by a network that can go on adapting to a sequence of them."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from service.context import RequestContext
from service.depth_client import Adapt, Pair
from service.errors import BadRequest, EmptyBody, InvalidParameter
from service.gateway import Gateway, GatewayDependency
from service.matching import Image, matched, picture, prepared, sequence_number
from service.negotiation import accept_header, choose
from service.queries import StereoQuery
from service.routes.documentation import image_route
from service.routes.examples import STEREO_REPORT
from service.routes.lock import KEYS, PhotoRoute
from service.stereo_answers import HEADERS, OFFERS, stereo_file
from service.upload import FIELD, Parts

router = APIRouter(tags=["photo"], route_class=PhotoRoute, dependencies=KEYS)

_SIDES: Final = ("left", "right")

_BINARY = {"type": "string", "format": "binary"}
_BODY: Final[dict[str, Any]] = {
    "required": True,
    "description": "The two pictures of a rectified pair, of one size.",
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {
                    "left": _BINARY | {"description": "what the left camera saw; the answer is of this picture"},
                    "right": _BINARY | {"description": "what the right camera saw"},
                },
                "required": list(_SIDES),
            }
        }
    },
}


@router.post(
    "/stereo",
    summary="Disparity, or depth in metres, of a stereo pair",
    response_class=Response,
    **image_route(
        "the disparity map", sorted({offer.media_type for offer in OFFERS}), HEADERS, _BODY, report=STEREO_REPORT
    ),
)
async def stereo(request: Request, query: Annotated[StereoQuery, Query()], gateway: GatewayDependency) -> Response:
    """Disparity of the left picture in pixels: 256 in the default 16-bit PNG is one pixel.

    With `focal_px` and `baseline_m` it is depth in metres, as `POST /depth` stores it.

    With `sequence`, the network learns from each pair after it was answered, for that sequence alone. The model is an
    optional one: where it is not served, this is a 503.
    """
    offer = choose(OFFERS, format=query.format, accept=accept_header(request.headers))
    adapt = _adapt(query)

    async def job(context: RequestContext, parts: Parts) -> Response:
        pictures = [await _picture(gateway, context, parts, side) for side in _SIDES]
        size = (pictures[0].shape[0], pictures[0].shape[1])
        (left, right), vertical_px = await gateway.pipeline.in_worker(
            context, "decode", prepared, pictures[0], pictures[1], query.max_side
        )
        number = None if adapt == "none" else sequence_number(context.client, query.sequence or "")
        pair = Pair(left, right, adapt, number, query.checkpoint, query.end)
        prediction, adaptation = await matched(gateway, context, pair)
        file = await gateway.pipeline.in_worker(
            context, "encode", stereo_file, prediction, adaptation, size, query, offer, vertical_px
        )
        return file.response()

    return await gateway.answer_parts(request, _SIDES, job)


def _adapt(query: StereoQuery) -> Adapt:
    """How the pair is learned from.

    Raises:
        InvalidParameter: parameters that need another one.
    """
    if (query.focal_px is None) != (query.baseline_m is None):
        missing = "focal_px" if query.focal_px is None else "baseline_m"
        raise InvalidParameter(
            "Metres need focal_px and baseline_m together; without both the answer is in pixels.", field=missing
        )
    adapt: Adapt = query.adapt or ("none" if query.sequence is None else "mad")
    if adapt != "none" and query.sequence is None:
        raise InvalidParameter(
            "A pair is answered before it is learned from, so adapting needs a sequence to go on with.",
            field="sequence",
        )
    given = {"checkpoint": query.checkpoint != "none", "end": query.end}
    for name, value in given.items():
        if value and adapt == "none":
            raise InvalidParameter(f"{name} is of a sequence that is adapted to.", field=name)
    return adapt


async def _picture(gateway: Gateway, context: RequestContext, parts: Parts, side: str) -> Image:
    if FIELD in parts or side not in parts:
        raise BadRequest(
            "The form needs two parts, `left` and `right`, and no other.", code="missing_image", field=side, value=0
        )
    if not parts[side]:
        raise EmptyBody(f"The part `{side}` has zero bytes.", field=side)
    return await picture(gateway, context, parts[side])
