"""Depth as files: what a query asks for, checked; and each format made from what the network said."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from service.bundle import File
from service.contract import ModelSpec, Size
from service.errors import InvalidParameter, NotAcceptable
from service.imaging import camera, codec, depth, geometry
from service.imaging.camera import Focal
from service.imaging.cloud import View, distance, grid_size
from service.imaging.glb import TEXTURE_PX, encode_glb
from service.imaging.ply import encode_ply
from service.inference import Prediction
from service.negotiation import Offer
from service.pipeline import Analysis
from service.queries import DepthLook
from service.reading import Reading
from service.schemas import DepthPoint, DepthReport, parse_decimal

OFFERS: Final = (
    Offer("png16", "image/png"),
    Offer("npy", "application/x-npy"),
    Offer("npz", "application/x-npz"),
    Offer("tiff", "image/tiff"),
    Offer("exr", "image/x-exr"),
    Offer("preview", "image/png"),
    Offer("preview", "image/jpeg"),
    Offer("preview", "image/webp"),
    Offer("preview", "image/avif"),
    Offer("json", "application/json"),
    Offer("ply", "application/x-ply"),
    Offer("glb", "model/gltf-binary"),
)

HEADERS: Final = {
    "X-Depth-Kind": "`relative-inverse` (larger = nearer, no unit, per image) or `metric` (depth, larger = farther)",
    "X-Depth-Scale": "value = stored * scale + offset",
    "X-Depth-Offset": "value = stored * scale + offset",
    "X-Depth-Unit": "unit of the value: `relative`, or `m` for metric depth",
    "X-Focal-Px": "focal length in pixels of the shown photo, where it went into the answer: `ply`, `glb`, and metres "
    "of a model that states the one it learned with",
    "X-Focal-Source": "where that is from: `query`, `exif`, `model` (the camera it learned with) or `default` (60 "
    "degrees along the longer side)",
    "X-Preview-Near": "of `preview`: the value that has the nearest colour",
    "X-Preview-Far": "of `preview`: the value that has the farthest colour",
    "X-Points": "of `ply` and `glb`: `width x height` of the grid that the points are from",
    "X-Model": "model that answered",
    "X-Model-Version": "its version",
}

_SPACE: Final = ("ply", "glb")
_STORED_AS_THEY_ARE: Final = ("npy", "npz", "tiff", "exr")
_LEAST_M: Final = np.float32(1e-3)
_MOST_M: Final = np.float32(1e6)

FloatMap = NDArray[np.float32]
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class DepthWish:
    """One format of depth as a query asks for it, checked as far as it can be without the photo."""

    query: DepthLook
    offer: Offer
    points: list[Point]

    @property
    def whole(self) -> bool:
        """Whether it needs the photo in full."""
        sharp = self.query.edges == "sharp" and self.query.size == "image"
        return sharp and self.offer.format not in _SPACE


@dataclass(frozen=True, slots=True)
class _Depth:
    """A map, and what is to be said of it."""

    values: FloatMap
    prediction: Prediction
    spec: ModelSpec
    photo_size: Size
    focal: Focal | None

    @property
    def metric(self) -> bool:
        return self.spec.depth_kind == "metric"

    @property
    def unit(self) -> str:
        return "m" if self.metric else "relative"

    def nearness(self) -> FloatMap:
        return depth.inverted(self.values) if self.metric else self.values

    def headers(self) -> dict[str, str]:
        return {
            "X-Depth-Kind": str(self.spec.depth_kind),
            "X-Depth-Unit": self.unit,
            "X-Model": self.prediction.model,
            "X-Model-Version": self.prediction.version,
            **(self.focal.headers if self.focal else {}),
        }


def read_wish(query: DepthLook, offer: Offer, spec: ModelSpec, max_points: int) -> DepthWish:
    """Check what a query asks of depth.

    Raises:
        NotAcceptable: OpenEXR without its extra.
        InvalidParameter: parameters that contradict each other, or metres of a model that has none.
    """
    if offer.format == "exr" and not codec.exr_available():
        raise NotAcceptable(
            "OpenEXR is written only where the service is installed with its `exr` extra. Ask for tiff or npy, which "
            "hold the same float32 values.",
            field="format",
            value="exr",
            extra={"available": [{"format": each.format, "media_type": each.media_type} for each in writable()]},
        )
    if query.near <= query.far:
        raise InvalidParameter(
            "near must be larger than far: both are inverse depth, 1 = nearest.",
            field="near",
            value=query.near,
            limit=query.far,
        )
    _check_metres(query, spec)
    if query.focal_px is not None and not spec.focal_share and offer.format not in _SPACE:
        metric = spec.depth_kind == "metric"
        gives = "metres whatever the focal length" if metric else "relative inverse depth, which no focal length turns"
        raise InvalidParameter(
            f"Model {spec.name} gives {gives}{'' if metric else ' into metres'}. "
            f"Leave focal_px out, or choose {'another' if metric else 'a metric'} model.",
            code="no_focal_length" if metric else "not_metric",
            field="focal_px",
            value=query.focal_px,
        )
    return DepthWish(query, offer, _read_points(query.points, max_points))


def writable() -> tuple[Offer, ...]:
    """The formats that can be had here: all, or all but OpenEXR."""
    return tuple(offer for offer in OFFERS if offer.format != "exr" or codec.exr_available())


def _check_metres(query: DepthLook, spec: ModelSpec) -> None:
    metric = spec.depth_kind == "metric"
    if query.unit is not None and (query.unit == "m") != metric:
        gives = "metres" if metric else "relative inverse depth, without a unit"
        raise InvalidParameter(
            f"Model {spec.name} gives {gives}. Choose another model: `depth_kind` in GET /models says which.",
            code="not_relative" if metric else "not_metric",
            field="unit",
            value=query.unit,
            limit="m" if metric else "relative",
        )
    ends = {"near_m": query.near_m, "far_m": query.far_m}
    name, given = next(((name, end) for name, end in ends.items() if end is not None), ("near_m", None))
    if given is None:
        return
    if not metric:
        raise InvalidParameter(
            f"Model {spec.name} gives no metres. Use near and far, or choose a metric model.",
            code="not_metric",
            field=name,
            value=given,
        )
    if query.near_m is None or query.far_m is None or query.near_m >= query.far_m:
        raise InvalidParameter(
            "Give near_m and far_m together, near_m the smaller.", field=name, value=query.near_m, limit=query.far_m
        )


def _read_points(text: str | None, max_points: int) -> list[Point]:
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


async def depth_file(reading: Reading, wish: DepthWish) -> File:
    """One format of one photo's depth.

    Raises:
        OutsideImage: a point beyond the photo.
    """
    for x, y in wish.points:
        geometry.check_inside(x, y, *reading.upload.size, fields=("points", "points"))
    pipeline, context = reading.pipeline, reading.context
    analysis = await reading.analysis()
    if wish.offer.format in _SPACE:
        grid = _grid(analysis, wish.query, reading.upload.size)
        wanted = min(reading.upload.size) if wish.offer.format == "glb" else min(grid)
        photo = await reading.glimpse(min(wanted, TEXTURE_PX))
        focal = reading.focal(wish.query.focal_px)
        view, about = await pipeline.in_worker(
            context, "render", _view, analysis, reading.spec, wish.query, photo.pixels, grid, focal, reading.upload.size
        )
        return await pipeline.in_worker(context, "encode", _in_space, view, about, wish, photo.pixels)
    values = await _values(reading, analysis, wish.query)
    about = _with_focal(values, analysis, reading, wish.query.focal_px)
    return await pipeline.in_worker(context, "encode", _as_file, about, wish)


async def _values(reading: Reading, analysis: Analysis, query: DepthLook) -> FloatMap:
    """The network's own values at the size asked for."""
    pipeline, context, spec = reading.pipeline, reading.context, reading.spec
    if query.size == "native":
        return analysis.native(spec.depth_output)
    if query.edges != "sharp":
        return await pipeline.in_worker(context, "render", analysis.full, spec.depth_output)
    photo = await reading.photo()
    return await pipeline.in_worker(context, "render", _sharp, analysis, spec, photo.pixels)


def _sharp(analysis: Analysis, spec: ModelSpec, photo: NDArray[np.uint8]) -> FloatMap:
    # Steps are sought in inverse depth: far away, metres change fast and show little.
    values = depth.upsample_guided(analysis.inverse_depth(), photo)
    return depth.inverted(values) if spec.depth_kind == "metric" else values


def _with_focal(values: FloatMap, analysis: Analysis, reading: Reading, focal_px: float | None) -> _Depth:
    """The values for the camera that took the photo, where the model says which one it learned with."""
    spec, size = reading.spec, reading.upload.size
    focal = None
    if spec.focal_share:
        focal = reading.focal(focal_px) or camera.assumed_focal(size, spec.focal_share)
        values = _scaled(values, focal, spec, size)
    return _Depth(values, analysis.prediction, spec, size, focal)


def _scaled(values: FloatMap, focal: Focal, spec: ModelSpec, size: Size) -> FloatMap:
    if not spec.focal_share or focal.source in ("model", "default"):
        return values
    scaled: FloatMap = values * np.float32(focal.px / (spec.focal_share * max(size)))
    return scaled


def _grid(analysis: Analysis, query: DepthLook, photo_size: Size) -> Size:
    size = analysis.letterbox.content_size if query.size == "native" else photo_size
    return grid_size(size, query.max_points)


def _view(
    analysis: Analysis,
    spec: ModelSpec,
    query: DepthLook,
    photo: NDArray[np.uint8],
    grid: Size,
    known: Focal | None,
    photo_size: Size,
) -> tuple[View, _Depth]:
    """The points of a photo, never more of them than asked for: what is larger is made at the size of the grid."""
    colours = geometry.resize(photo, grid)
    if query.edges == "raw" or query.size == "native":
        values = geometry.resize(np.ascontiguousarray(analysis.native(spec.depth_output)), grid)
    else:
        values = _sharp(analysis, spec, colours)
    focal = known or camera.assumed_focal(photo_size, spec.focal_share)
    values = _scaled(values, focal, spec, photo_size)
    metric = spec.depth_kind == "metric"
    if metric:
        values = z = np.clip(values, _LEAST_M, _MOST_M)
    else:
        z = distance(values, query.far_ratio)
    about = _Depth(values, analysis.prediction, spec, photo_size, focal)
    notes = _text(about.headers())
    notes["Unit"] = "metres" if metric else f"none: nearest point at 1, farthest at {query.far_ratio:g}"
    return View(z, values, colours, focal.px / max(photo_size), photo_size, notes), about


def _in_space(view: View, about: _Depth, wish: DepthWish, photo: NDArray[np.uint8]) -> File:
    edge = wish.query.depth_edge
    body = encode_ply(view, edge) if wish.offer.format == "ply" else encode_glb(view, photo, edge)
    said = about.headers() | {"X-Points": f"{view.z.shape[1]} x {view.z.shape[0]}"}
    return File(f"depth.{wish.offer.format}", wish.offer.media_type, body, said)


def _as_file(about: _Depth, wish: DepthWish) -> File:
    said = about.headers()
    if wish.offer.format in _STORED_AS_THEY_ARE:  # pictures for people and statistics hold no stored values
        said |= {"X-Depth-Scale": "1", "X-Depth-Offset": "0"}
    name = f"depth.{wish.offer.format}"
    match wish.offer.format:
        case "png16":
            stored, scale, offset = depth.metres16(about.values) if about.metric else depth.quantise16(about.values)
            said |= {"X-Depth-Scale": repr(scale), "X-Depth-Offset": repr(offset)}
            name, body = "depth.png", codec.encode_png16(stored, _text(said))
        case "npy":
            body = codec.encode_npy(about.values)
        case "npz":
            texts: dict[str, NDArray[Any]] = {name: np.array(text) for name, text in _text(said).items()}
            body = codec.encode_npz(**{about.spec.depth_output: about.values}, **texts)
        case "tiff":
            body = codec.encode_tiff_float(about.values, orjson.dumps(_text(said)).decode())
        case "exr":
            body = codec.encode_exr(about.values, _text(said))
        case "preview":
            kind = wish.offer.media_type.removeprefix("image/")
            colours, ends = _coloured(about, wish.query)
            name, body, said = f"depth_preview.{kind}", codec.encode_image(colours, kind), said | ends
        case _:
            body = _report(about, wish.points)
    return File(name, wish.offer.media_type, body, said)


def _coloured(about: _Depth, query: DepthLook) -> tuple[NDArray[np.uint8], dict[str, str]]:
    """A picture for people, and which values have its first and last colour."""
    nearness = about.nearness()
    near, far = query.near, query.far
    if query.near_m is not None and query.far_m is not None:
        span, near, far = (1 / query.far_m, 1 / query.near_m), 1.0, 0.0
    elif query.range == "percentile":
        span = depth.middle_span(nearness)
    else:
        span = (float(nearness.min()), float(nearness.max()))
    colours = depth.colourise(nearness, query.colormap, near=near, far=far, span=span)
    ends = [span[0] + share * (span[1] - span[0]) for share in (near, far)]
    values = [1 / max(end, float(1 / _MOST_M)) if about.metric else end for end in ends]
    return colours, {"X-Preview-Near": f"{values[0]:.6g}", "X-Preview-Far": f"{values[1]:.6g}"}


def _text(said: dict[str, str]) -> dict[str, str]:
    return {name.removeprefix("X-"): value for name, value in said.items()}


def _report(about: _Depth, points: list[Point]) -> bytes:
    """JSON statistics; points are in the photo's pixels whatever the size of the map."""
    relative, _, _ = depth.normalise(about.nearness())
    raw = depth.values_at(about.values, points, about.photo_size)
    shares = depth.values_at(relative, points, about.photo_size)
    report = DepthReport(
        model=about.prediction.model,
        model_version=about.prediction.version,
        kind=str(about.spec.depth_kind),
        unit=about.unit,
        width=about.values.shape[1],
        height=about.values.shape[0],
        statistics=depth.statistics(about.values),
        points=[
            DepthPoint(x=x, y=y, value=value, relative=share)
            for (x, y), value, share in zip(points, raw, shares, strict=True)
        ],
    )
    return orjson.dumps(report.model_dump())
