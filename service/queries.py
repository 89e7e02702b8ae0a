"""Query parameters of the routes that give maps: shapes and ranges, no logic."""

from typing import Annotated, Literal

from pydantic import Field

from service.schemas import SEQUENCE_NAME, Colormap, Decimal, ModelName, Number, People, Query, Share, Whole, named

DepthFormat = Literal["png16", "npy", "npz", "tiff", "exr", "preview", "json", "ply", "glb"]
MaskFormat = Literal["png", "npy", "json", "cutout"]
BundleFormat = Literal["zip", "multipart"]
StereoFormat = Literal["png16", "npy", "npz", "tiff", "preview", "json"]

_Metres = Annotated[float, Field(gt=0.0, le=1e6), Decimal]


class DepthLook(Query):
    """What a depth map is to look like, in whichever format."""

    model: ModelName = None
    size: Annotated[
        Literal["image", "native"], Field(description="the photo's own size, or the network's (much cheaper)")
    ] = "image"
    edges: Annotated[
        Literal["raw", "sharp"] | None,
        Field(
            description="`raw` interpolates; `sharp` makes the map's steps hard, puts them on the photo's edges, "
            "and leaves slopes and flat parts alone. Default: `sharp` for `ply` and `glb`, else `raw`. No effect with "
            "`size=native`"
        ),
    ] = None
    unit: Annotated[
        Literal["m", "relative"] | None,
        Field(description="the unit that is counted on: a model that gives the other one is refused with 422"),
    ] = None
    focal_px: Annotated[
        Annotated[float, Field(gt=0.0, le=1e6), Decimal] | None,
        Field(
            description="focal length in pixels of the shown photo; default: what its EXIF says. It is the camera of "
            "`ply` and `glb`, and it scales the metres of a metric model that states the focal length it learned with "
            "(`focal_share` in `GET /models`)"
        ),
    ] = None
    colormap: Annotated[Colormap, Field(description="colours of `preview`")] = "turbo"
    range: Annotated[
        Literal["image", "percentile"],
        Field(
            description="what the colours of `preview` are spread over: the photo's whole range of inverse depth, or "
            "its 2nd to 98th percentile"
        ),
    ] = "image"
    near: Annotated[Share, Field(description="inverse depth (0..1 of that range) shown as the nearest colour")] = 1.0
    far: Annotated[Share, Field(description="inverse depth (0..1 of that range) shown as the farthest colour")] = 0.0
    near_m: Annotated[
        _Metres | None,
        Field(description="of a metric model: metres shown as the nearest colour, in every photo; with `far_m`"),
    ] = None
    far_m: Annotated[_Metres | None, Field(description="metres shown as the farthest colour; with `near_m`")] = None
    max_points: Annotated[
        Annotated[int, Field(ge=4, le=1_000_000), Whole],
        Field(description="most points of `ply` and vertices of `glb`: a larger photo is reduced to a grid of so many"),
    ] = 250_000
    depth_edge: Annotated[
        Annotated[float, Field(ge=0.001, le=100.0), Decimal],
        Field(
            description="of `ply` and `glb`: neighbours whose depths differ by more than this share of the nearer one "
            "are not joined. Large values join all"
        ),
    ] = 0.04
    far_ratio: Annotated[
        Annotated[float, Field(ge=1.01, le=1000.0), Decimal],
        Field(
            description="of `ply` and `glb` from relative depth, which has no unit: the farthest point is put so many "
            "times as far away as the nearest, which is at 1"
        ),
    ] = 4.0
    points: Annotated[
        str | None,
        Field(
            max_length=40_000,
            description="`x,y;x,y`: pixels whose values `json` reports",
            examples=["320,240;10.5,20"],
        ),
    ] = None


class DepthQuery(DepthLook):
    """Parameters of `POST /depth`."""

    format: Annotated[
        str | None,
        named(DepthFormat, "wins over `Accept`; default `png16`"),
    ] = None


class PersonChoice(Query):
    """Which people a mask or a cut-out shows."""

    person: Annotated[
        People,
        Field(
            default_factory=list,
            description="people to keep, by the `id` of `POST /focus?output=people`: one, several (`0,2`), or `all`. "
            "Default: whoever is at the point, else all",
            examples=[["0"], ["0,2"], ["all"]],
        ),
    ]
    x: Annotated[
        Number | None, Field(description="column of a point on the person, in pixels of the upright photo")
    ] = None
    y: Annotated[Number | None, Field(description="row of that point")] = None
    rx: Annotated[Share | None, Field(description="column as a share of the width, instead of `x`")] = None
    ry: Annotated[Share | None, Field(description="row as a share of the height, instead of `y`")] = None


class SegmentationQuery(PersonChoice):
    """Parameters of `POST /segmentation`."""

    model: ModelName = None
    format: Annotated[str | None, named(MaskFormat, "wins over `Accept`; default `png`")] = None
    size: Annotated[
        Literal["image", "native"],
        Field(description="the photo's own size, or the network's. No effect on chosen people and cut-outs"),
    ] = "image"
    edges: Annotated[
        Literal["raw", "sharp"],
        Field(
            description="`raw` interpolates; `sharp` follows the photo's edges. No effect with `size=native`; chosen "
            "people and cut-outs are always sharp"
        ),
    ] = "raw"


class AnalyzeQuery(DepthLook, PersonChoice):
    """Parameters of `POST /analyze` and `POST /batch`."""

    outputs: Annotated[
        str,
        Field(
            max_length=200,
            description="what to give, separated by commas, each with its format behind a colon unless it is the first "
            "of: `depth` (`png16`, `npy`, `npz`, `tiff`, `exr`, `preview`, `json`, `ply`, `glb`), `mask` (`png`, "
            "`npy`, `json`), `cutout` (`png`, `webp`, `avif`), `people` (`json`)",
            examples=["depth,mask,people", "depth:npy,depth:preview,cutout:webp"],
        ),
    ] = "depth,mask,people"
    format: Annotated[
        str | None,
        named(BundleFormat, "how the files come, wins over `Accept`: `zip` (default) or `multipart/mixed`"),
    ] = None


class StereoQuery(Query):
    """Parameters of `POST /stereo`."""

    format: Annotated[str | None, named(StereoFormat, "wins over `Accept`; default `png16`")] = None
    sequence: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=64,
            pattern=SEQUENCE_NAME,
            description="name of the sequence that this pair is the next one of: the network goes on adapting to it. "
            "Each client has names of its own",
        ),
    ] = None
    adapt: Annotated[
        Literal["none", "full", "mad"] | None,
        Field(
            description="what is learned from the pair: nothing, by all weights, or by one of five modules at a time. "
            "Default: `mad` with a sequence, else `none`"
        ),
    ] = None
    checkpoint: Annotated[
        Literal["none", "save", "restore"],
        Field(description="of a sequence: `save` its weights after this pair, or `restore` those saved before it"),
    ] = "none"
    end: Annotated[bool, Field(description="the last pair of its sequence: its weights are forgotten")] = False
    focal_px: Annotated[
        Annotated[float, Field(gt=0.0, le=1e6), Decimal] | None,
        Field(description="focal length in pixels of the left picture; with `baseline_m` the answer is in metres"),
    ] = None
    baseline_m: Annotated[
        Annotated[float, Field(gt=0.0, le=1e3), Decimal] | None,
        Field(description="distance of the two cameras in metres; with `focal_px`"),
    ] = None
    max_side: Annotated[
        Annotated[int, Field(ge=64, le=1280), Whole],
        Field(description="longest side that the network sees, in pixels; larger pairs are reduced for it"),
    ] = 640
    colormap: Annotated[Colormap, Field(description="colours of `preview`; near is red in turbo")] = "turbo"
