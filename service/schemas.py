"""Query parameters and JSON bodies: shapes and ranges, no logic."""

import math
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_DECIMAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


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


Number = Annotated[float, BeforeValidator(_decimal), Field(allow_inf_nan=False)]
"""A finite number written in ASCII digits."""

Share = Annotated[Number, Field(ge=0.0, le=1.0)]

ModelName = Annotated[
    str | None, Field(max_length=100, description="served model; see `GET /models`. Default: the gateway's setting")
]
Colormap = Literal["turbo", "inferno", "magma", "viridis", "plasma", "gray"]
DepthFormat = Literal["png16", "npy", "npz", "tiff", "preview", "json"]
MaskFormat = Literal["png", "npy", "json"]
PhotoFormat = Literal["same", "jpeg", "png", "webp", "avif", "tiff", "bmp", "gif"]


class _Query(BaseModel):
    """A misspelt parameter is refused, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _named(choices: Any, description: str) -> Any:
    """A free string in code (an unknown name is a 406 that lists what can be had), an enum in the document."""
    return Field(max_length=40, description=description, json_schema_extra={"enum": list(choices.__args__)})


class DepthQuery(_Query):
    """Parameters of `POST /depth`."""

    model: ModelName = None
    format: Annotated[
        str | None,
        _named(DepthFormat, "wins over `Accept`; default `png16`"),
    ] = None
    size: Annotated[
        Literal["image", "native"], Field(description="the photo's own size, or the network's (much cheaper)")
    ] = "image"
    edges: Annotated[
        Literal["raw", "sharp"],
        Field(
            description="`raw` interpolates; `sharp` makes the map's steps hard, puts them on the photo's edges, "
            "and leaves slopes and flat parts alone. No effect with `size=native`"
        ),
    ] = "raw"
    colormap: Annotated[Colormap, Field(description="colours of `format=preview`")] = "turbo"
    near: Annotated[
        Share, Field(description="inverse depth (0..1 of the image's range) shown as the nearest colour")
    ] = 1.0
    far: Annotated[
        Share, Field(description="inverse depth (0..1 of the image's range) shown as the farthest colour")
    ] = 0.0
    points: Annotated[
        str | None,
        Field(
            max_length=40_000,
            description="`x,y;x,y`: pixels whose values `format=json` reports",
            examples=["320,240;10.5,20"],
        ),
    ] = None
    focal_px: Annotated[
        Number | None, Field(gt=0.0, le=1e6, description="focal length in pixels; for metric models only")
    ] = None


class SegmentationQuery(_Query):
    """Parameters of `POST /segmentation`."""

    model: ModelName = None
    format: Annotated[str | None, _named(MaskFormat, "wins over `Accept`; default `png`")] = None
    size: Annotated[Literal["image", "native"], Field(description="the photo's own size, or the network's")] = "image"
    edges: Annotated[
        Literal["raw", "sharp"],
        Field(description="`raw` interpolates; `sharp` follows the photo's edges. No effect with `size=native`"),
    ] = "raw"


class FocusQuery(_Query):
    """Parameters of `POST /focus`."""

    x: Annotated[Number | None, Field(description="clicked column in pixels of the upright photo")] = None
    y: Annotated[Number | None, Field(description="clicked row in pixels of the upright photo")] = None
    rx: Annotated[Share | None, Field(description="clicked column as a share of the width, instead of `x`")] = None
    ry: Annotated[Share | None, Field(description="clicked row as a share of the height, instead of `y`")] = None
    mode: Annotated[
        Literal["auto", "subject", "plane"],
        Field(description="the clicked person whole, the clicked depth, or whichever the click is on"),
    ] = "auto"
    f_number: Annotated[
        Number | None, Field(ge=1.0, le=22.0, description="aperture: larger = less blur; default 2.8")
    ] = None
    blur: Annotated[Share | None, Field(description="strength instead of `f_number`: 0 = none, 1 = f/1.4")] = None
    model: ModelName = None
    format: Annotated[str | None, _named(PhotoFormat, "wins over `Accept`; default: the input's own format")] = None
    quality: Annotated[int, Field(ge=1, le=100, description="of JPEG, WebP and AVIF")] = 92


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
    """Inverse depth at one asked point."""

    x: float
    y: float
    value: float = Field(description="the network's own value")
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


class MaskReport(BaseModel):
    """Answer of `POST /segmentation?format=json`."""

    model: str
    model_version: str
    width: int
    height: int
    coverage: float = Field(description="share of the photo's area that shows people")
    box: tuple[int, int, int, int] | None = Field(description="left, top, right, bottom round all people, exclusive")


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
    depth_kind: str | None
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
    """Answer of the health routes."""

    status: Literal["live", "ready"]
