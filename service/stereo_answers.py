"""Disparity as files: of a pair of pictures in pixels, or in metres where the cameras are known."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from service.bundle import File
from service.contract import ADAPTATION, DISPARITY_PX
from service.depth_client import Adapt, Prediction
from service.imaging import codec, depth, geometry
from service.negotiation import Offer
from service.queries import StereoQuery
from service.schemas import AdaptationReport, StereoReport

OFFERS: Final = (
    Offer("png16", "image/png"),
    Offer("npy", "application/x-npy"),
    Offer("npz", "application/x-npz"),
    Offer("tiff", "image/tiff"),
    Offer("preview", "image/png"),
    Offer("preview", "image/jpeg"),
    Offer("preview", "image/webp"),
    Offer("json", "application/json"),
)

HEADERS: Final = {
    "X-Depth-Kind": "`disparity` (pixels of the left picture, larger = nearer) or `metric` (depth, larger = farther)",
    "X-Depth-Unit": "`px`, or `m` where focal_px and baseline_m were given",
    "X-Depth-Scale": "value = stored * scale + offset",
    "X-Depth-Offset": "value = stored * scale + offset",
    "X-Adaptation-Mode": "`none`, `full` or `mad`",
    "X-Adaptation-Loss": "of a sequence: photometric loss of this pair before it was learned from",
    "X-Adaptation-Group": "of mad: the module that was trained, 0 = coarsest",
    "X-Adaptation-Frames": "of a sequence: pairs so far, this one among them",
    "X-Adaptation-Resets": "of a sequence: times that its weights had gone astray and the first ones were taken back",
    "X-Adaptation-Reset": "where that happened with this pair: `loss`, `worse` or `not_finite`",
    "X-Adaptation-Origin": "of a sequence: `kept` from the pair before, `new`, `evicted` (begun anew, because others "
    "needed the room) or `restored`",
    "X-Vertical-Offset-Px": "how much lower points lie in the right picture; left out where too few corners say so",
    "X-Model": "model that answered",
    "X-Model-Version": "its version",
}

LEAST_PX: Final = np.float32(1 / 16)
"""Less is called that where depth is computed: farther cannot be told from infinitely far."""
_STEP_PX: Final = 1 / 256  # of KITTI's 16-bit maps
_RESETS: Final = (None, "loss", "worse", "not_finite")
_ORIGINS: Final = ("kept", "new", "evicted", "restored")

FloatMap = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Adaptation:
    """What became of a sequence; numbers as the model's output `adaptation` has them."""

    mode: Adapt
    loss: float | None
    group: int | None
    frames: int
    resets: int
    reset: str | None
    origin: str

    @classmethod
    def of(cls, prediction: Prediction, mode: Adapt) -> "Adaptation":
        """As the model says."""
        loss, group, frames, resets, reset, origin = prediction.outputs[ADAPTATION.name].tolist()
        return cls(
            mode=mode,
            loss=None if loss < 0 else loss,
            group=None if group < 0 else int(group),
            frames=int(frames),
            resets=int(resets),
            reset=_RESETS[int(reset)],
            origin=_ORIGINS[int(origin)],
        )

    def headers(self) -> dict[str, str]:
        """Those that apply."""
        if self.mode == "none":
            return {"X-Adaptation-Mode": self.mode}
        optional = {
            "X-Adaptation-Loss": None if self.loss is None else f"{self.loss:.6g}",
            "X-Adaptation-Group": self.group,
            "X-Adaptation-Reset": self.reset,
        }
        said = {name: str(value) for name, value in optional.items() if value is not None}
        return said | {
            "X-Adaptation-Mode": self.mode,
            "X-Adaptation-Frames": str(self.frames),
            "X-Adaptation-Resets": str(self.resets),
            "X-Adaptation-Origin": self.origin,
        }

    def report(self) -> AdaptationReport:
        """As JSON has it; `origin` is of a sequence."""
        return AdaptationReport(
            mode=self.mode,
            loss=self.loss,
            group=self.group,
            frames=self.frames,
            resets=self.resets,
            reset=self.reset,
            origin=None if self.mode == "none" else self.origin,
        )


def stereo_file(
    prediction: Prediction,
    adaptation: Adaptation,
    size: tuple[int, int],
    query: StereoQuery,
    offer: Offer,
    vertical_px: float | None,
) -> File:
    """The answer in one format, at the pictures' size.

    Args:
        prediction: of the model.
        adaptation: what it says of the sequence.
        size: (height, width) of the pictures.
        query: of the request; `focal_px` and `baseline_m` are both given or none.
        offer: the format.
        vertical_px: what was measured.
    """
    disparity = at_size(prediction.outputs[DISPARITY_PX.name], size)
    values, kind, unit = disparity, "disparity", "px"
    if query.focal_px is not None and query.baseline_m is not None:
        values, kind, unit = metres(disparity, query.focal_px * query.baseline_m), "metric", "m"
    said = {
        "X-Depth-Kind": kind,
        "X-Depth-Unit": unit,
        "X-Model": prediction.model,
        "X-Model-Version": prediction.version,
        **adaptation.headers(),
    }
    if vertical_px is not None:
        said["X-Vertical-Offset-Px"] = f"{vertical_px:.2f}"
    if offer.format in ("npy", "npz", "tiff"):
        said |= {"X-Depth-Scale": "1", "X-Depth-Offset": "0"}
    name = f"{kind}.{offer.format}"
    match offer.format:
        case "png16":
            stored, scale = disparity16(values) if unit == "px" else depth.metres16(values)[:2]
            said |= {"X-Depth-Scale": repr(scale), "X-Depth-Offset": "0.0"}
            name, body = f"{kind}.png", codec.encode_png16(stored, _text(said))
        case "npy":
            body = codec.encode_npy(values)
        case "npz":
            texts: dict[str, NDArray[Any]] = {name: np.array(text) for name, text in _text(said).items()}
            body = codec.encode_npz(**{"disparity_px" if unit == "px" else "depth_m": values}, **texts)
        case "tiff":
            body = codec.encode_tiff_float(values, orjson.dumps(_text(said)).decode())
        case "preview":
            image = offer.media_type.removeprefix("image/")
            span = depth.middle_span(disparity)
            coloured = depth.colourise(disparity, query.colormap, span=(min(0.0, span[0]), span[1]))
            name, body = f"{kind}_preview.{image}", codec.encode_image(coloured, image)
        case _:
            body = _report(prediction, adaptation, values, kind, unit, vertical_px)
    return File(name, offer.media_type, body, said)


def at_size(disparity: FloatMap, size: tuple[int, int]) -> FloatMap:
    """Disparity of what the network saw as that of pictures of a size (height, width), in their pixels."""
    if disparity.shape == size:
        return disparity
    enlarged: FloatMap = geometry.resize(disparity, size) * np.float32(size[1] / disparity.shape[1])
    return enlarged


def metres(disparity: FloatMap, focal_baseline: float) -> FloatMap:
    """Depth in metres; `focal_baseline` is the focal length in pixels times the distance of the cameras in metres."""
    depth_m: FloatMap = np.float32(focal_baseline) / np.maximum(disparity, LEAST_PX)
    return depth_m


def disparity16(disparity: FloatMap) -> tuple[NDArray[np.uint16], float]:
    """KITTI's 256ths of a pixel; coarser steps, twice as large each time, where there are larger disparities."""
    step = _STEP_PX
    while float(disparity.max()) >= 65_535.5 * step:
        step *= 2
    return np.rint(disparity / np.float32(step)).astype(np.uint16), step


def _text(said: dict[str, str]) -> dict[str, str]:
    return {name.removeprefix("X-"): value for name, value in said.items()}


def _report(
    prediction: Prediction, adaptation: Adaptation, values: FloatMap, kind: str, unit: str, vertical_px: float | None
) -> bytes:
    report = StereoReport(
        model=prediction.model,
        model_version=prediction.version,
        kind=kind,
        unit=unit,
        width=values.shape[1],
        height=values.shape[0],
        statistics=depth.statistics(values),
        vertical_offset_px=vertical_px,
        adaptation=adaptation.report(),
    )
    return orjson.dumps(report.model_dump())
