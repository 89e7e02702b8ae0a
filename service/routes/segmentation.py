"""`POST /segmentation`: the people in a photo as a matte, or cut out of it."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from service.context import RequestContext
from service.contract import PERSON
from service.gateway import GatewayDependency
from service.negotiation import accept_header, choose
from service.people_answers import CUTOUT_OFFERS, HEADERS, MASK_OFFERS, people_file, read_wish
from service.queries import SegmentationQuery
from service.reading import Reading
from service.routes.documentation import image_route
from service.routes.examples import MASK_REPORT
from service.routes.lock import KEYS, PhotoRoute

router = APIRouter(tags=["photo"], route_class=PhotoRoute, dependencies=KEYS)

OFFERS = MASK_OFFERS + CUTOUT_OFFERS


@router.post(
    "/segmentation",
    summary="Matte of the people in a photo, or the people cut out",
    response_class=Response,
    **image_route(
        "the matte, 255 = person", sorted({offer.media_type for offer in OFFERS}), HEADERS, report=MASK_REPORT
    ),
)
async def segmentation(
    request: Request, query: Annotated[SegmentationQuery, Query()], gateway: GatewayDependency
) -> Response:
    """An 8-bit gray PNG, 255 where the photo shows a person; soft at borders.

    `person`, or a point on somebody, chooses among several; `format=cutout` gives the photo with their matte as its
    alpha, and without the colours of what was behind them. Both need a model that does `focus`.
    """
    offer = choose(OFFERS, format=query.format, accept=accept_header(request.headers))
    wish = read_wish(query, offer, native=query.size == "native", sharp=query.edges == "sharp")
    if wish.apart:
        spec = await gateway.model(request, query.model, "focus")
    else:
        spec = await gateway.model(request, query.model, "segmentation")

    async def job(context: RequestContext, data: bytes) -> Response:
        outputs = None if wish.apart else spec.only(PERSON.name)
        upload = await gateway.pipeline.open(context, data, None if wish.whole else spec, outputs)
        reading = Reading(gateway.pipeline, context, upload, spec, whole=wish.whole, outputs=outputs)
        return (await people_file(reading, wish)).response()

    return await gateway.answer(request, job)
