"""Judging a network: depth against truth after alignment, person masks by intersection over union."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

import cv2
import numpy as np
import numpy.typing as npt
import torch

from service.contract import NETWORK_SIZES, Size
from training.data.person import IGNORE, PERSON
from training.data.sample import Sample
from training.metrics import depth_metrics, iou
from training.models.focus_on_depth import FocusOnDepth, Served

Predictor = Callable[[npt.NDArray[np.uint8]], tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]
"""RGB uint8 (H, W, 3) -> inverse depth and person probability, float32 (H, W) each."""


def nearest_size(height: int, width: int) -> Size:
    """The served size whose aspect is nearest to that of a picture, in ratio."""
    aspect = np.log(width / height)
    return min(NETWORK_SIZES, key=lambda size: abs(np.log(size[1] / size[0]) - aspect))


def predictor(network: FocusOnDepth) -> Predictor:
    """Runs `network` on one picture, stretched to the served size nearest in aspect and back."""
    served = Served(network).eval()

    def predict(image: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        height, width = image.shape[:2]
        size = nearest_size(height, width)
        shrinks = size[0] * size[1] < height * width
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        fitted = cv2.resize(image, (size[1], size[0]), interpolation=interpolation)
        with torch.inference_mode():
            results = served(torch.from_numpy(fitted)[None])
        inverse, person = (cv2.resize(result[0].numpy(), (width, height)) for result in results)
        return inverse.astype(np.float32, copy=False), person.astype(np.float32, copy=False)

    return predict


def evaluate(predict: Predictor, samples: Iterable[Sample]) -> dict[str, dict[str, float]]:
    """Means over pictures, by source and (`all`) over sources.

    Person IoU counts only pictures that show a labelled person; `false_person` is the share of pixels called a person
    in those that show none.

    Returns:
        source -> metric -> value; `pictures` counts them.
    """
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        inverse, person = predict(sample.image)
        found = values[sample.source]
        found["pictures"].append(1.0)
        if sample.inverse_depth is not None:
            valid = sample.inverse_depth > 0
            if valid.sum() >= 64:
                depth = depth_metrics(inverse, sample.inverse_depth, valid)
                found["delta1"].append(depth.delta1)
                found["abs_rel"].append(depth.abs_rel)
                found["polarity"].append(depth.polarity)
        if sample.person is not None:
            counted = sample.person != IGNORE
            truth = sample.person == PERSON
            if truth.mean() > 0.001:
                found["iou"].append(iou(person > 0.5, truth, counted))
            else:
                found["false_person"].append(float((person > 0.5)[counted].mean()))
    table = {source: _means(found) for source, found in sorted(values.items())}
    table["all"] = _mean_of_sources(table)
    return table


def _means(found: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: float(np.sum(v) if name == "pictures" else np.mean(v)) for name, v in found.items()}


def _mean_of_sources(table: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Every source counts the same, whatever its number of pictures."""
    names = sorted({name for row in table.values() for name in row} - {"pictures"})
    means = {name: float(np.mean([row[name] for row in table.values() if name in row])) for name in names}
    return {"pictures": sum(row["pictures"] for row in table.values())} | means
