"""Query parameters and JSON bodies: shapes and ranges, no logic. Those of depth and people are in `queries`."""

import math
import re
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, WithJsonSchema

_DECIMAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d{1,9}", re.ASCII)


def parse_decimal(text: str) -> float | None:
    """A finite number in plain ASCII decimals; None otherwise.

    Python's own parser would also take `1_0`, `nan` and Arabic digits.
    """
    number = float(text) if _DECIMAL.fullmatch(text.strip(" ")) else math.inf
    return number if math.isfinite(number) else None


def _decimal(value: Any) -> Any:
    if isinstance(value, str) and (value := parse_decimal(value)) is None:
        raise ValueError("must be a plain, finite decimal number")
    return value


def _whole(value: Any) -> Any:
    if isinstance(value, str) and not _WHOLE.fullmatch(value.strip(" ")):
        raise ValueError("must be a plain whole number")
    return value


# Behind the bounds, so that pydantic writes those as `minimum` and `maximum` into the OpenAPI document: those that
# come after a validator of ours it knows by no name that JSON Schema has.
Decimal = BeforeValidator(_decimal)
"""Read as `parse_decimal` does."""
Whole = BeforeValidator(_whole)
"""Read as ASCII digits with or without a sign; pydantic's own parser would also take `1_0`."""

Number = Annotated[float, Field(allow_inf_nan=False), Decimal]
"""A finite number written in ASCII digits."""

Share = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False), Decimal]

ModelName = Annotated[
    str | None, Field(max_length=100, description="served model; see `GET /models`. Default: the gateway's setting")
]
SEQUENCE_NAME: Final = r"^[A-Za-z0-9._-]+$"
Colormap = Literal["turbo", "inferno", "magma", "viridis", "plasma", "gray"]
FocusFormat = Literal["same", "jpeg", "png", "webp", "avif", "tiff", "bmp", "gif", "png16", "npy", "json", "zip"]

_PEOPLE = re.compile(r"all|\d{1,3}(,\d{1,3}){0,63}", re.ASCII)


def _people(values: list[str]) -> list[str]:
    if not all(_PEOPLE.fullmatch(value) for value in values) or ("all" in values and len(values) > 1):
        raise ValueError("must be a number, several as 0,2, or all")
    return values


def _highlights(value: Any) -> float | str:
    number = parse_decimal(value) if isinstance(value, str) else value
    if value in ("auto", "off"):
        return str(value)
    if not isinstance(number, float | int) or not 0 <= number <= 1:
        raise ValueError("must be auto, off, or a number from 0 to 1")
    return float(number)


def _blades(value: int) -> int:
    if value not in _BLADES:
        raise ValueError("must be 0 for a disc, or 5 to 9")
    return value


_BLADES = (0, 5, 6, 7, 8, 9)
People = Annotated[list[str], Field(max_length=64), AfterValidator(_people)]
Highlights = Annotated[
    float | Literal["auto", "off"],
    PlainValidator(_highlights),
    WithJsonSchema({"anyOf": [{"enum": ["auto", "off"]}, {"type": "number", "minimum": 0, "maximum": 1}]}),
]


class Query(BaseModel):
    """A misspelt parameter is refused, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def named(choices: Any, description: str) -> Any:
    """A free string in code (an unknown name is a 406 that lists what can be had), an enum in the document."""
    return Field(max_length=40, description=description, json_schema_extra={"enum": list(choices.__args__)})


class FocusQuery(Query):
    """Parameters of `POST /focus`."""

    x: Annotated[Number | None, Field(description="clicked column in pixels of the upright photo")] = None
    y: Annotated[Number | None, Field(description="clicked row in pixels of the upright photo")] = None
    rx: Annotated[Share | None, Field(description="clicked column as a share of the width, instead of `x`")] = None
    ry: Annotated[Share | None, Field(description="clicked row as a share of the height, instead of `y`")] = None
    mode: Annotated[
        Literal["auto", "subject", "plane"],
        Field(description="the clicked person whole, the clicked depth, or whichever the click is on"),
    ] = "auto"
    person: Annotated[
        People,
        Field(
            description="people to keep sharp, by the `id` of `output=people`: one, several (`0,2`), or `all`, "
            "whatever their depths. Default: the one clicked. Without a click, the focus is on the first of them",
            examples=[["0"], ["0,2"], ["all"]],
        ),
    ] = []
    f_number: Annotated[
        Annotated[float, Field(ge=1.0, le=22.0), Decimal] | None,
        Field(description="aperture: larger = less blur; default 2.8"),
    ] = None
    blur: Annotated[Share | None, Field(description="strength instead of `f_number`: 0 = none, 1 = f/1.4")] = None
    max_coc: Annotated[
        Annotated[float, Field(ge=0.0, le=0.06), Decimal] | None,
        Field(
            description="largest radius of the circle of confusion as a share of the long side; the lens is stopped "
            "down until this photo has none larger. Default 0.06",
        ),
    ] = None
    depth_range: Annotated[
        Annotated[float, Field(ge=0.0, le=0.2), Decimal] | None,
        Field(
            description="half width of the inverse depths (0..1) that stay sharp. Default: 0 with a person, "
            "max(0.01, 1.5 MAD round the click) in plane mode",
        ),
    ] = None
    front: Annotated[Share, Field(description="share of the blur that is left to what is nearer than the focus")] = 1.0
    back: Annotated[Share, Field(description="share of the blur that is left to what is farther")] = 1.0
    blades: Annotated[
        int,
        Whole,
        AfterValidator(_blades),
        Field(description="corners of the aperture; 0 = a disc", json_schema_extra={"enum": list(_BLADES)}),
    ] = 0
    rotation: Annotated[
        Annotated[float, Field(ge=-360.0, le=360.0), Decimal],
        Field(description="turn of the aperture in degrees against the clock"),
    ] = 0.0
    curvature: Annotated[Share, Field(description="of the blades: 0 = straight, 1 = a disc")] = 0.0
    highlights: Annotated[
        Highlights,
        Field(description="light given back to small clipped lamps once they are blurred: `off`, `auto`, or a share"),
    ] = "auto"
    edge: Annotated[
        Literal["matte", "guided", "hard"] | None,
        Field(description="borders of people: refined (default), as upsampled, or without soft pixels, to compare"),
    ] = None
    output: Annotated[
        Literal["image", "alpha", "coc", "depth", "people", "labels", "all"],
        Field(
            description="the photo; matte of those kept sharp; signed circle of confusion; inverse depth; who there is "
            "(JSON); whom a click would pick (PNG: 0 = nobody, otherwise `id` + 1); or a zip of all but that. "
            "`people`, `labels` and `depth` need no click"
        ),
    ] = "image"
    max_side: Annotated[
        Annotated[int, Field(ge=16, le=65_535), Whole] | None,
        Field(
            description="longest side of the answer in pixels: a quick look at a large photo. Clicks stay in pixels of "
            "the photo; circles of confusion are in those of the answer"
        ),
    ] = None
    scene: Annotated[
        str | None,
        Field(max_length=100, description="`X-Scene` of an earlier answer, instead of a body: no upload, no network"),
    ] = None
    rack_x: Annotated[
        Number | None, Field(description="column to pull the focus to: the answer is an animated WebP")
    ] = None
    rack_y: Annotated[Number | None, Field(description="row to pull the focus to")] = None
    rack_rx: Annotated[Share | None, Field(description="share of the width, instead of `rack_x`")] = None
    rack_ry: Annotated[Share | None, Field(description="share of the height, instead of `rack_y`")] = None
    rack_person: Annotated[
        Annotated[int, Field(ge=0, le=999), Whole] | None,
        Field(description="person to pull the focus to, instead of a point"),
    ] = None
    rack_frames: Annotated[
        Annotated[int, Field(ge=2, le=48), Whole] | None,
        Field(
            description="frames of the focus pull; default 24. Each is reduced to its share "
            "of the server's pixels for one pull; see `X-Rack-Size`",
        ),
    ] = None
    rack_fps: Annotated[
        Annotated[float, Field(ge=1.0, le=60.0), Decimal] | None, Field(description="frames per second; default 24")
    ] = None
    model: ModelName = None
    format: Annotated[
        str | None,
        named(FocusFormat, "wins over `Accept`; default: the input's own format, else the first that `output` has"),
    ] = None
    quality: Annotated[int, Field(ge=1, le=100, description="of JPEG, WebP and AVIF"), Whole] = 92


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str = Field(examples=["urn:depthlens:problem:invalid_parameter"])
    title: str
    status: int
    code: str = Field(description="stable, for programs")
    detail: str = Field(description="what was wrong and what to do, for people")
    request_id: str
    field: str | None = Field(None, description="the offending parameter, header or part")
    value: Any = None
    limit: Any = None


class DepthPoint(BaseModel):
    """Depth at one asked point."""

    x: float
    y: float
    value: float = Field(description="the network's own value: relative inverse depth, or metres")
    relative: float = Field(description="0 = farthest, 1 = nearest of this image")


class DepthReport(BaseModel):
    """Answer of `POST /depth?format=json`."""

    model: str
    model_version: str
    kind: str
    unit: str
    width: int
    height: int
    statistics: dict[str, float | dict[str, float]]
    points: list[DepthPoint]


class AdaptationReport(BaseModel):
    """What became of the sequence that a pair belongs to."""

    mode: str
    loss: float | None = Field(description="photometric loss of this pair before it was learned from")
    group: int | None = Field(description="of mad: the module that was trained, 0 = coarsest")
    frames: int
    resets: int
    reset: str | None = Field(description="`loss`, `worse` or `not_finite`: why the first weights were taken back")
    origin: str | None = Field(description="of the weights: `kept`, `new`, `evicted` or `restored`")


class StereoReport(BaseModel):
    """Answer of `POST /stereo?format=json`."""

    model: str
    model_version: str
    kind: str
    unit: str
    width: int
    height: int
    statistics: dict[str, float | dict[str, float]]
    vertical_offset_px: float | None = Field(description="null where too few corners say so")
    adaptation: AdaptationReport


class MaskReport(BaseModel):
    """Answer of `POST /segmentation?format=json`."""

    model: str
    model_version: str
    width: int
    height: int
    coverage: float = Field(description="share of the photo's area that shows people")
    box: tuple[int, int, int, int] | None = Field(description="left, top, right, bottom round all people, exclusive")


class PersonReport(BaseModel):
    """One person of a photo."""

    id: int = Field(description="for `person=`; 0 = nearest")
    box: tuple[int, int, int, int] = Field(description="left, top, right, bottom, exclusive")
    depth: float = Field(description="median inverse depth of the matte's core, 0 = farthest, 1 = nearest")
    spread: float = Field(description="how far the core's inverse depths scatter, as a standard deviation")
    area: float = Field(description="share of the photo")
    sharp: bool | None = Field(description="whether in focus as asked; null when no focus was asked for")


class PeopleReport(BaseModel):
    """Answer of `POST /focus?output=people`."""

    model: str
    model_version: str
    width: int
    height: int
    scene: str | None = Field(description="token for `scene=`")
    mode: str | None
    focus_depth: float | None
    people: list[PersonReport]


class FileReport(BaseModel):
    """One file of an answer of `POST /analyze` or `POST /batch`."""

    name: str = Field(examples=["depth.png"])
    media_type: str
    headers: dict[str, str] = Field(description="what the answer with this file alone would say in its headers")


class BatchItem(BaseModel):
    """What became of one photo of `POST /batch`."""

    index: int = Field(description="its place among those sent, from 0; the folder of its files")
    name: str = Field(description="its file name, as sent")
    status: int = Field(description="200, or that of its problem")
    problem: dict[str, Any] | None = Field(None, description="as the photo alone would have got it")
    retry_after_s: float | None = Field(None, description="when another try makes sense")
    files: list[FileReport] = []


class BatchReport(BaseModel):
    """`report.json` of `POST /batch`."""

    items: list[BatchItem]


class Tensor(BaseModel):
    """One tensor of a served model."""

    name: str
    dtype: str
    dims: tuple[int, ...] = Field(description="without the batch axis; -1 = any")
    unit: str


class Model(BaseModel):
    """One served model."""

    name: str
    kind: str
    tasks: list[str]
    versions: list[str]
    ready: bool
    not_ready_because: str | None = Field(None, description="of an optional model that is not served: what is missing")
    depth_kind: str | None
    sizes: list[tuple[int, int]] = Field(
        description="(height, width) of its inputs; a photo goes into the one nearest in aspect"
    )
    focal_share: float | None = Field(
        description="focal length that a metric model learned with, as a share of the longer side; null: not stated"
    )
    precision: str
    license: str
    description: str
    inputs: list[Tensor]
    outputs: list[Tensor]


class ModelList(BaseModel):
    """Answer of `GET /models`."""

    models: list[Model]
    defaults: dict[str, str]


class Health(BaseModel):
    """Answer of the liveness route."""

    status: Literal["live"]


class Readiness(BaseModel):
    """Answer of the readiness route."""

    status: Literal["ready", "degraded"]
    models: dict[str, str] = Field(description="`ok`, or why it does not answer, of each model behind the routes")


class ModelVersions(BaseModel):
    """What the servers have of one model."""

    name: str
    version: str | None = Field(description="the one that serves; null where the model is not loaded")
    loaded: list[list[str]] = Field(description="versions that each server has loaded")
    previous: list[str] = Field(description="what `rollback` goes back to, the next one first")


class ModelVersionsList(BaseModel):
    """What the servers have of each model."""

    models: list[ModelVersions]


class ServerState(BaseModel):
    """One Triton, as this gateway sees it."""

    address: str
    state: Literal["serving", "unavailable", "draining", "drained"]
    inflight: int = Field(description="requests of this gateway that it works on")
