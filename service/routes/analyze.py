"""`POST /analyze`: several outputs of one photo from one inference. `POST /batch`: the same of many photos."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from service import analysis, bundle, photo_batch
from service.analysis import FORMATS, Plan
from service.context import RequestContext
from service.gateway import Gateway, GatewayDependency
from service.negotiation import accept_header, choose
from service.queries import AnalyzeQuery
from service.routes.documentation import image_route
from service.routes.lock import KEYS, PhotoRoute
from service.schemas import BatchReport
from service.upload import FIELD, NamedPhoto

router = APIRouter(tags=["photo"], route_class=PhotoRoute, dependencies=KEYS)

_MEDIA_TYPES: Final = sorted(offer.media_type for offer in bundle.OFFERS)
_MANY: Final[dict[str, Any]] = {
    "required": True,
    "description": f"The photos: multipart field `{FIELD}`, as often as there are photos.",
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {FIELD: {"type": "array", "items": {"type": "string", "format": "binary"}}},
                "required": [FIELD],
            }
        }
    },
}
_EXAMPLE: Final = {
    "items": [
        {
            "index": 0,
            "name": "first.jpg",
            "status": 200,
            "problem": None,
            "retry_after_s": None,
            "files": [
                {"name": "0/depth.png", "media_type": "image/png", "headers": {"X-Depth-Kind": "relative-inverse"}}
            ],
        },
        {
            "index": 1,
            "name": "notes.txt",
            "status": 415,
            "problem": {"code": "not_an_image", "status": 415, "title": "Not an image we read"},
            "retry_after_s": None,
            "files": [],
        },
    ]
}


def _documented(description: str, **more: Any) -> dict[str, Any]:
    said = image_route(description, _MEDIA_TYPES, {}, **more)
    said["openapi_extra"]["x-formats"] = FORMATS  # of each output, the default first
    return said


_BATCH = _documented(
    "`report.json`, then the files of each photo in a folder of its number; every part of multipart/mixed has its own "
    "headers",
    body=_MANY,
)
_BATCH["responses"][200]["content"]["application/zip"]["x-report"] = {
    "schema": BatchReport.model_json_schema(),
    "example": _EXAMPLE,
}


@router.post(
    "/analyze",
    summary="Several outputs of one photo",
    response_class=Response,
    **_documented("`report.json`, then one file for each output; every part of multipart/mixed has its own headers"),
)
async def analyze(request: Request, query: Annotated[AnalyzeQuery, Query()], gateway: GatewayDependency) -> Response:
    """Depth, mattes, cut-outs and people of one photo, which is sent, decoded and shown to the network once.

    `outputs=depth,depth:preview,cutout:webp,people`: the files come in that order behind `report.json`, which holds
    what would be their headers; in `multipart/mixed` each part has these itself. `people.json` holds the token of the
    scene, with which `POST /focus?scene=` goes on without another upload.
    """
    offer = choose(bundle.OFFERS, format=query.format, accept=accept_header(request.headers))
    plan = await _plan(request, query, gateway)

    async def job(context: RequestContext, data: bytes) -> Response:
        files = analysis.with_report(await analysis.files_of(gateway, context, data, plan))
        return await gateway.pipeline.in_worker(context, "encode", bundle.bundled, files, offer)

    return await gateway.answer(request, job)


@router.post("/batch", summary="Several outputs of many photos", response_class=Response, **_BATCH)
async def many(request: Request, query: Annotated[AnalyzeQuery, Query()], gateway: GatewayDependency) -> Response:
    """What `POST /analyze` gives, of each of several photos: the field `image`, repeated.

    The answer is 200 whatever becomes of single photos. `report.json` has an item for each, in the order sent: its
    `status`, its `files`, or else its `problem`, as the photo alone would have got it. Photos share the deadline of the
    request: what is not ready by then has the status 504 in the report, and the rest is there. Each photo waits for
    its turn and counts towards the client's limits as a request of its own would.
    """
    offer = choose(bundle.OFFERS, format=query.format, accept=accept_header(request.headers))
    plan = await _plan(request, query, gateway)

    async def job(context: RequestContext, photos: list[NamedPhoto]) -> Response:
        files = await photo_batch.answer(gateway, request, context, photos, plan)
        return await gateway.pipeline.in_worker(context, "encode", bundle.bundled, files, offer)

    return await gateway.answer_batch(request, job)


async def _plan(request: Request, query: AnalyzeQuery, gateway: Gateway) -> Plan:
    wanted = analysis.read_outputs(query.outputs)
    spec = await gateway.model(request, query.model, analysis.task_of(wanted, query))
    return analysis.plan(query, wanted, spec, gateway.settings.max_points)
