"""`POST /depth`: relative inverse depth of a photo, or depth in metres, in the form the caller asked for."""

from typing import Annotated

import numpy as np
import orjson
from fastapi import APIRouter, Query
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from service.context import RequestContext
from service.contract import ModelSpec
from service.errors import InvalidParameter
from service.gateway import GatewayDependency
from service.imaging import codec, depth, geometry
from service.inference import Prediction
from service.negotiation import Offer, accept_header, choose
from service.pipeline import Pipeline, Upload
from service.routes.documentation import image_route
from service.routes.lock import KEYS, PhotoRoute
from service.schemas import DepthPoint, DepthQuery, DepthReport, parse_decimal

router = APIRouter(tags=["photo"], route_class=PhotoRoute, dependencies=KEYS)

OFFERS = (
    Offer("png16", "image/png"),
    Offer("npy", "application/x-npy"),
    Offer("npz", "application/x-npz"),
    Offer("tiff", "image/tiff"),
    Offer("preview", "image/png"),
    Offer("preview", "image/jpeg"),
    Offer("preview", "image/webp"),
    Offer("json", "application/json"),
)

_HEADERS = {
    "X-Depth-Kind": "`relative-inverse` (larger = nearer, no unit, per image) or `metric` (depth, larger = farther)",
    "X-Depth-Scale": "value = stored * scale + offset",
    "X-Depth-Offset": "value = stored * scale + offset",
    "X-Depth-Unit": "unit of the value: `relative`, or `m` for metric depth",
    "X-Model": "model that answered",
    "X-Model-Version": "its version",
}

Point = tuple[float, float]


@router.post(
    "/depth",
    summary="Depth map of a photo",
    response_class=Response,
    **image_route("the depth map", sorted({offer.media_type for offer in OFFERS}), _HEADERS),
)
async def depth_map(request: Request, query: Annotated[DepthQuery, Query()], gateway: GatewayDependency) -> Response:
    """Relative inverse depth: 65535 in the default 16-bit PNG is the nearest pixel of this photo, 0 the farthest.

    A metric model (`depth_kind` in `GET /models`) gives depth in metres instead: the 16-bit PNG then holds millimetres,
    or centimetres where something is farther than 65.5 m. The headers say how stored numbers become the network's own
    values.
    """
    offer = choose(OFFERS, format=query.format, accept=accept_header(request.headers))
    spec = await gateway.model(request, query.model, "depth")
    points = _points(query.points, gateway.settings.max_points)
    _check(query, spec)

    async def job(context: RequestContext, data: bytes) -> Response:
        upload = await gateway.pipeline.open(context, data)
        for x, y in points:
            geometry.check_inside(x, y, *upload.size, fields=("points", "points"))
        values, prediction = await _map(gateway.pipeline, context, upload, spec, query)
        if query.focal_px is not None and spec.focal_share:
            values = values * np.float32(query.focal_px / (spec.focal_share * max(upload.size)))
        return await gateway.pipeline.in_worker(
            context, "encode", _encode, values, prediction, spec, query, offer, points, upload.size
        )

    return await gateway.answer(request, job)


async def _map(
    pipeline: Pipeline, context: RequestContext, upload: Upload, spec: ModelSpec, query: DepthQuery
) -> tuple[NDArray[np.float32], Prediction]:
    if query.size == "native":
        analysis = await pipeline.analyse(context, upload, spec)
        return analysis.native(spec.depth_output), analysis.prediction
    if query.edges == "raw":
        analysis = await pipeline.analyse(context, upload, spec)
        values = await pipeline.in_worker(context, "render", analysis.full, spec.depth_output)
        return values, analysis.prediction
    photo = await pipeline.photo(context, upload)
    analysis = await pipeline.analyse(context, upload, spec, photo)
    native = analysis.inverse_depth()  # where steps are sought: far away, metres change fast and show little
    values = await pipeline.in_worker(context, "render", depth.upsample_guided, native, photo.pixels)
    if spec.depth_kind == "metric":
        values = await pipeline.in_worker(context, "render", depth.inverted, values)
    return values, analysis.prediction


def _check(query: DepthQuery, spec: ModelSpec) -> None:
    if query.near <= query.far:
        raise InvalidParameter(
            "near must be larger than far: both are inverse depth, 1 = nearest.",
            field="near",
            value=query.near,
            limit=query.far,
        )
    if query.focal_px is not None and not spec.focal_share:
        metric = spec.depth_kind == "metric"
        gives = "metres whatever the focal length" if metric else "relative inverse depth, which no focal length turns"
        raise InvalidParameter(
            f"Model {spec.name} gives {gives}{'' if metric else ' into metres'}. "
            f"Leave focal_px out, or choose {'another' if metric else 'a metric'} model.",
            code="no_focal_length" if metric else "not_metric",
            field="focal_px",
            value=query.focal_px,
        )


def _points(text: str | None, max_points: int) -> list[Point]:
    """`x,y;x,y` as numbers; whether they are on the photo is checked once its size is known."""
    if not text:
        return []
    items = text.split(";")
    if len(items) > max_points:
        raise InvalidParameter(
            f"At most {max_points} points can be asked for at once.",
            field="points",
            value=len(items),
            limit=max_points,
        )
    points = []
    for item in items:
        numbers = [parse_decimal(part) for part in item.split(",")]
        if len(numbers) != 2 or numbers[0] is None or numbers[1] is None:
            raise InvalidParameter("Points are written x,y;x,y with plain numbers.", field="points", value=item[:40])
        points.append((numbers[0], numbers[1]))
    return points


def _encode(
    values: NDArray[np.float32],
    prediction: Prediction,
    spec: ModelSpec,
    query: DepthQuery,
    offer: Offer,
    points: list[Point],
    photo_size: tuple[int, int],
) -> Response:
    metric = spec.depth_kind == "metric"
    said = {
        "X-Depth-Kind": str(spec.depth_kind),
        "X-Depth-Unit": _unit(spec),
        "X-Model": prediction.model,
        "X-Model-Version": prediction.version,
    }
    if offer.format in ("npy", "npz", "tiff"):  # pictures for people and statistics hold no stored values
        said |= {"X-Depth-Scale": "1", "X-Depth-Offset": "0"}
    match offer.format:
        case "png16":
            stored, scale, offset = depth.metres16(values) if metric else depth.quantise16(values)
            said |= {"X-Depth-Scale": repr(scale), "X-Depth-Offset": repr(offset)}
            body = codec.encode_png16(stored, _text(said))
        case "npy":
            body = codec.encode_npy(values)
        case "npz":
            about = {name: np.array(text) for name, text in _text(said).items()}
            body = codec.encode_npz(**{spec.depth_output: values}, **about)
        case "tiff":
            body = codec.encode_tiff_float(values, orjson.dumps(_text(said)).decode())
        case "preview":
            nearness = depth.inverted(values) if metric else values
            colours = depth.colourise(nearness, query.colormap, near=query.near, far=query.far)
            body = codec.encode_image(colours, offer.media_type.removeprefix("image/"))
        case _:
            body = _report(values, prediction, spec, points, photo_size)
    return Response(body, media_type=offer.media_type, headers=said)


def _unit(spec: ModelSpec) -> str:
    return "m" if spec.depth_kind == "metric" else "relative"


def _text(said: dict[str, str]) -> dict[str, str]:
    return {name.removeprefix("X-"): value for name, value in said.items()}


def _report(
    values: NDArray[np.float32],
    prediction: Prediction,
    spec: ModelSpec,
    points: list[Point],
    photo_size: tuple[int, int],
) -> bytes:
    """JSON statistics; points are in the photo's pixels whatever the size of the map."""
    relative, _, _ = depth.normalise(depth.inverted(values) if spec.depth_kind == "metric" else values)
    raw = depth.values_at(values, points, photo_size)
    shares = depth.values_at(relative, points, photo_size)
    report = DepthReport(
        model=prediction.model,
        model_version=prediction.version,
        kind=str(spec.depth_kind),
        unit=_unit(spec),
        width=values.shape[1],
        height=values.shape[0],
        statistics=depth.statistics(values),
        points=[
            DepthPoint(x=x, y=y, value=value, relative=share)
            for (x, y), value, share in zip(points, raw, shares, strict=True)
        ],
    )
    return orjson.dumps(report.model_dump())
