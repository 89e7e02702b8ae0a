"""Judging a network: depth against truth after alignment, person masks by intersection over union."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import numpy.typing as npt
import torch

from service.imaging.geometry import Letterbox
from training.data.person import IGNORE, PERSON
from training.data.sample import Sample
from training.metrics import depth_metrics, iou
from training.models.focus_on_depth import Served

Predictor = Callable[[npt.NDArray[np.uint8]], tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]
"""RGB uint8 (H, W, 3) -> inverse depth and person probability, float32 (H, W) each."""


def predictor(served: Served) -> Predictor:
    """Runs the network on one picture as the service does: letterboxed into the served size nearest in aspect."""
    served = served.eval()

    def predict(image: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        letterbox = Letterbox.of(image.shape[0], image.shape[1])
        with torch.inference_mode():
            inverse, person = served(torch.from_numpy(letterbox.fit(image))[None])
        return letterbox.unfit(inverse[0].numpy()), letterbox.unfit(person[0].numpy())

    return predict


def vertical_gradient(
    image: npt.NDArray[np.uint8],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Baseline: the lower, the nearer; nobody anywhere."""
    height, width = image.shape[:2]
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    return np.repeat(rows, width, axis=1), np.zeros((height, width), np.float32)


def constant(image: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Baseline: everything equally far; nobody anywhere."""
    return np.ones(image.shape[:2], np.float32), np.zeros(image.shape[:2], np.float32)


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
