"""`POST /stereo`: disparity of a pair of pictures, by a network that can go on adapting to a sequence of them."""

import hashlib
from typing import Annotated, Any, Final

import numpy as np
from fastapi import APIRouter, Query
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from service.context import RequestContext
from service.depth_client import Adapt, Pair
from service.errors import BadRequest, EmptyBody, InvalidParameter, ModelUnavailable, UnusablePair
from service.gateway import Gateway, GatewayDependency
from service.imaging import geometry
from service.imaging.pairs import pair_geometry, reduced_size
from service.negotiation import accept_header, choose
from service.queries import StereoQuery
from service.routes.documentation import image_route
from service.routes.examples import STEREO_REPORT
from service.routes.lock import KEYS, PhotoRoute
from service.stereo_answers import HEADERS, OFFERS, Adaptation, stereo_file
from service.triton_errors import VersionGone
from service.upload import FIELD, Parts

router = APIRouter(tags=["photo"], route_class=PhotoRoute, dependencies=KEYS)

_SIDES: Final = ("left", "right")
_LEAST_PX: Final = 32
_MOST_VERTICAL_PX: Final = 2.0
"""Of what the network sees: it looks for matches within a row, at half size and less."""
_SWAPPED_SHARE: Final = 0.8

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

Image = NDArray[np.uint8]


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
            context, "decode", _prepared, pictures[0], pictures[1], query.max_side
        )
        pair = Pair(left, right, adapt, _number(context, query, adapt), query.checkpoint, query.end)
        with context.timed("infer"):
            try:
                prediction = await gateway.client.match(
                    pair, timeout_s=context.deadline.remaining_s(), request_id=context.request_id
                )
            except VersionGone:
                raise ModelUnavailable(
                    "The stereo model is not served here: it is optional, and its operator has not exported it, or "
                    "its process lacks torch."
                ) from None
        adaptation = Adaptation.of(prediction, adapt)
        gateway.metrics.count_pair(adapt, adaptation.loss, adaptation.group, adaptation.reset is not None)
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


def _number(context: RequestContext, query: StereoQuery, adapt: Adapt) -> int | None:
    """Number of the client's sequence: names of different clients never meet; 63 bits and never 0, as Triton asks."""
    if adapt == "none":
        return None
    name = f"{context.client}\0{query.sequence}".encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:8]) % (2**63 - 1) + 1


async def _picture(gateway: Gateway, context: RequestContext, parts: Parts, side: str) -> Image:
    if FIELD in parts or side not in parts:
        raise BadRequest(
            "The form needs two parts, `left` and `right`, and no other.", code="missing_image", field=side, value=0
        )
    if not parts[side]:
        raise EmptyBody(f"The part `{side}` has zero bytes.", field=side)
    upload = await gateway.pipeline.open(context, parts[side])
    photo = await gateway.pipeline.glimpse(context, upload, min(upload.size))  # in full, and not kept
    return photo.pixels


def _prepared(left: Image, right: Image, max_side: int) -> tuple[tuple[Image, Image], float | None]:
    """Both as the network sees them, and how many rows lower the right one's points lie.

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
