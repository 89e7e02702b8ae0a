"""`POST /depth`: relative inverse depth of a photo, or depth in metres, in the form the caller asked for."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from service.context import RequestContext
from service.depth_answers import HEADERS, OFFERS, depth_file, read_wish
from service.gateway import GatewayDependency
from service.negotiation import accept_header, choose
from service.queries import DepthQuery
from service.reading import Reading
from service.routes.documentation import image_route
from service.routes.examples import DEPTH_REPORT
from service.routes.lock import KEYS, PhotoRoute

router = APIRouter(tags=["photo"], route_class=PhotoRoute, dependencies=KEYS)


@router.post(
    "/depth",
    summary="Depth map of a photo",
    response_class=Response,
    **image_route("the depth map", sorted({offer.media_type for offer in OFFERS}), HEADERS, report=DEPTH_REPORT),
)
async def depth_map(request: Request, query: Annotated[DepthQuery, Query()], gateway: GatewayDependency) -> Response:
    """Relative inverse depth: 65535 in the default 16-bit PNG is the nearest pixel of this photo, 0 the farthest.

    A metric model (`depth_kind` in `GET /models`) gives depth in metres instead: the 16-bit PNG then holds millimetres,
    or centimetres where something is farther than 65.5 m. The headers say how stored numbers become the network's own
    values. `ply` is a coloured point cloud (x right, y down, z forward), `glb` a textured mesh (y up); the file says
    whether it is in metres.
    """
    offer = choose(OFFERS, format=query.format, accept=accept_header(request.headers))
    spec = await gateway.model(request, query.model, "depth")
    wish = read_wish(query, offer, spec, gateway.settings.max_points)

    async def job(context: RequestContext, data: bytes) -> Response:
        outputs = spec.only(spec.depth_output)
        upload = await gateway.pipeline.open(context, data, None if wish.whole else spec, outputs)
        reading = Reading(gateway.pipeline, context, upload, spec, whole=wish.whole, outputs=outputs)
        return (await depth_file(reading, wish)).response()

    return await gateway.answer(request, job)
