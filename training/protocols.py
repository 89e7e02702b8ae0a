"""Named ways to judge depth against truth in metres: which pixels count, up to which depth, and after which alignment.

Crops and limits are those by which published numbers of NYU Depth V2 and KITTI were made (Eigen et al.,
arXiv:1406.2283; Garg et al., arXiv:1603.04992), as the code of BTS and AdaBins has them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from service.contract import Size
from training.data.sample import Sample
from training.errors import TrainingError
from training.metric_depth import Depth, Mask, held_to, in_range, metric_depth_errors
from training.metrics import scale_and_shift

Output = Literal["depth_m", "inverse_depth"]
"""What a network gives: depth in metres, or inverse depth up to scale and shift."""

Alignment = Literal["none", "median", "scale_shift"]

DepthPredictor = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
"""RGB uint8 (H, W, 3) -> depth or inverse depth, float32 (H, W)."""

_FEWEST_VALID = 64  # pixels; with fewer a picture is not judged


def _all(size: Size) -> tuple[slice, slice]:
    return slice(0, size[0]), slice(0, size[1])


def _nyu_eigen(size: Size) -> tuple[slice, slice]:
    if size != (480, 640):
        raise TrainingError(f"protocol nyu_eigen is for pictures of 480 x 640, this one has {size[0]} x {size[1]}")
    return slice(45, 471), slice(41, 601)


def _share(top: float, bottom: float) -> Callable[[Size], tuple[slice, slice]]:
    """Rows by their share of the height; columns as both customary crops of KITTI have them."""

    def crop(size: Size) -> tuple[slice, slice]:
        height, width = size
        return slice(int(top * height), int(bottom * height)), slice(int(0.03594771 * width), int(0.96405229 * width))

    return crop


@dataclass(frozen=True)
class Protocol:
    """A way to judge.

    Attributes:
        name: For tables.
        least_m: Truth must be beyond; predictions are held to it.
        most_m: Truth must be nearer; predictions are held to it.
        crop: Rows and columns that count, of a picture's (height, width).
        alignment: Per picture, by truth at the valid pixels: `none`; `median` scales depth to truth's median;
            `scale_shift` brings inverse depth to truth's by least squares with scale >= 0, as MiDaS and Depth Anything
            are judged on data they never saw.
    """

    name: str
    least_m: float
    most_m: float
    crop: Callable[[Size], tuple[slice, slice]]
    alignment: Alignment = "none"

    def valid(self, target_m: npt.ArrayLike) -> Mask:
        """(H, W): where truth counts."""
        target = np.asarray(target_m, np.float64)
        mask = np.zeros(target.shape, bool)
        crop = self.crop((target.shape[0], target.shape[1]))
        mask[crop] = in_range(target[crop], self.least_m, self.most_m)
        return mask

    def depth_m(self, prediction: npt.ArrayLike, target_m: npt.ArrayLike, valid: Mask, output: Output) -> Depth:
        """The prediction as aligned depth in metres, held to the limits.

        Args:
            prediction: (H, W) of what `output` says.
            target_m: (H, W) true depth.
            valid: (H, W), at least one pixel.
            output: What the prediction is.

        Raises:
            TrainingError: Relative inverse depth without alignment.
        """
        prediction, target = np.asarray(prediction, np.float64), np.asarray(target_m, np.float64)
        if self.alignment == "scale_shift":
            return self._by_scale_and_shift(prediction, target, valid, output)
        if output == "inverse_depth":
            raise TrainingError(
                f"protocol {self.name} judges depth in metres, the network gives relative inverse depth: "
                "choose the alignment scale_shift"
            )
        depth = held_to(prediction, self.least_m, self.most_m)
        if self.alignment == "median":
            depth = held_to(depth * (np.median(target[valid]) / np.median(depth[valid])), self.least_m, self.most_m)
        return depth

    def _by_scale_and_shift(self, prediction: Depth, target: Depth, valid: Mask, output: Output) -> Depth:
        if output == "depth_m":
            prediction = 1 / held_to(prediction, self.least_m, self.most_m)
        # a value that is none counts as farthest, whatever the network's range
        finite = prediction[valid & np.isfinite(prediction)]
        farthest = float(finite.min()) if finite.size else 0.0
        inverse = np.where(np.isfinite(prediction), prediction, farthest)
        scale, shift = scale_and_shift(inverse[valid], 1 / target[valid])
        return held_to(1 / np.maximum(scale * inverse + shift, 1 / self.most_m), self.least_m, self.most_m)

    def errors(self, prediction: npt.ArrayLike, target_m: npt.ArrayLike, output: Output) -> dict[str, float] | None:
        """All metrics of one picture (`training.metric_depth`); None with fewer than 64 valid pixels."""
        valid = self.valid(target_m)
        if valid.sum() < _FEWEST_VALID:
            return None
        depth = self.depth_m(prediction, target_m, valid, output)
        return metric_depth_errors(depth, target_m, valid, self.most_m)


PROTOCOLS: MappingProxyType[str, Protocol] = MappingProxyType(
    {
        protocol.name: protocol
        for protocol in (
            Protocol("nyu_eigen", 1e-3, 10.0, _nyu_eigen),
            Protocol("kitti_garg", 1e-3, 80.0, _share(0.40810811, 0.99189189)),
            Protocol("kitti_eigen", 1e-3, 80.0, _share(0.3324324, 0.91351351)),
            Protocol("indoor", 1e-3, 10.0, _all),
            Protocol("indoor_median", 1e-3, 10.0, _all, "median"),
            Protocol("zero_shot", 1e-3, 10.0, _all, "scale_shift"),
            Protocol("nyu_zero_shot", 1e-3, 10.0, _nyu_eigen, "scale_shift"),
            Protocol("kitti_zero_shot", 1e-3, 80.0, _share(0.40810811, 0.99189189), "scale_shift"),
        )
    }
)
"""By name. `indoor` is the whole picture up to 10 m, `zero_shot` the same after alignment in inverse depth."""


def flip_averaged(predict: DepthPredictor) -> DepthPredictor:
    """The mean of a prediction and of the mirrored picture's, mirrored back, as AdaBins and LapDepth are judged."""

    def averaged(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        mirrored = predict(np.ascontiguousarray(image[:, ::-1]))[:, ::-1]
        return ((predict(image) + mirrored) / 2).astype(np.float32)

    return averaged


def depth_m_of(sample: Sample) -> npt.NDArray[np.float64]:
    """True depth in metres, (H, W), 0 = none.

    Raises:
        TrainingError: Its depth is not in metres.
    """
    if sample.inverse_depth is None or not sample.metric:
        raise TrainingError(f"{sample.name}: no depth in metres, so it cannot be judged in metres")
    inverse = sample.inverse_depth.astype(np.float64)
    return np.divide(1, inverse, out=np.zeros_like(inverse), where=inverse > 0)


def judge(
    protocol: Protocol,
    predict: DepthPredictor,
    output: Output,
    samples: Iterable[Sample],
    title: str = "",
    total: int | None = None,
) -> dict[str, dict[str, float]]:
    """Errors of each picture by its name; those with too little truth are left out.

    Args:
        protocol: How.
        predict: The network, at the picture's size.
        output: What it gives.
        samples: With depth in metres.
        title: Of the progress bar; none without.
        total: Number of samples, for the bar.
    """
    found = {}
    for sample in tqdm(samples, desc=title, total=total, unit="picture", disable=not title):
        errors = protocol.errors(predict(sample.image), depth_m_of(sample), output)
        if errors is not None:
            found[sample.name] = errors
    return found
