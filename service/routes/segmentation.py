"""`POST /segmentation`: the people in a photo as a matte."""

from typing import Annotated

import numpy as np
import orjson
from fastapi import APIRouter, Query
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from service.context import RequestContext
from service.gateway import GatewayDependency
from service.imaging import codec, matte
from service.inference import Prediction
from service.negotiation import Offer, accept_header, choose
from service.routes.documentation import image_route
from service.routes.lock import KEYS, PhotoRoute
from service.schemas import MaskReport, SegmentationQuery

router = APIRouter(tags=["photo"], route_class=PhotoRoute, dependencies=KEYS)

OFFERS = (
    Offer("png", "image/png"),
    Offer("npy", "application/x-npy"),
    Offer("json", "application/json"),
)


@router.post(
    "/segmentation",
    summary="Matte of the people in a photo",
    response_class=Response,
    **image_route(
        "the matte, 255 = person",
        sorted({offer.media_type for offer in OFFERS}),
        {"X-Model": "model that answered", "X-Model-Version": "its version"},
    ),
)
async def segmentation(
    request: Request, query: Annotated[SegmentationQuery, Query()], gateway: GatewayDependency
) -> Response:
    """An 8-bit gray PNG, 255 where the photo shows a person; soft at borders."""
    offer = choose(OFFERS, format=query.format, accept=accept_header(request.headers))
    spec = await gateway.model(request, query.model, "segmentation")
    pipeline = gateway.pipeline

    async def job(context: RequestContext, data: bytes) -> Response:
        upload = await pipeline.open(context, data)
        if query.size == "native":
            analysis = await pipeline.analyse(context, upload, spec)
            person = analysis.native("person")
        elif query.edges == "raw":
            analysis = await pipeline.analyse(context, upload, spec)
            person = await pipeline.in_worker(context, "render", analysis.full, "person")
        else:
            photo = await pipeline.photo(context, upload)
            analysis = await pipeline.analyse(context, upload, spec, photo)
            native = analysis.native("person")
            person = await pipeline.in_worker(context, "render", matte.upsample_guided, native, photo.pixels)
        return await pipeline.in_worker(context, "encode", _encode, person, analysis.prediction, offer)

    return await gateway.answer(request, job)


def _encode(person: NDArray[np.float32], prediction: Prediction, offer: Offer) -> Response:
    match offer.format:
        case "png":
            body = codec.encode_png8(matte.to_uint8(person))
        case "npy":
            body = codec.encode_npy(person)
        case _:
            report = MaskReport(
                model=prediction.model,
                model_version=prediction.version,
                width=person.shape[1],
                height=person.shape[0],
                coverage=matte.coverage(person),
                box=matte.bounding_box(person),
            )
            body = orjson.dumps(report.model_dump())
    headers = {"X-Model": prediction.model, "X-Model-Version": prediction.version}
    return Response(body, media_type=offer.media_type, headers=headers)
