"""Judging a network: depth against truth after alignment, person masks by intersection over union."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from service.contract import Size
from service.imaging import matte
from service.imaging.depth import upsample_guided
from service.imaging.geometry import Letterbox
from training.data.person import IGNORE, ONE_PERSON_SETS
from training.data.sample import Sample
from training.metrics import STRICT, boundary_f1, depth_metrics, iou, touching
from training.models.focus_on_depth import Served
from training.parity import Runtime, eager

Prediction = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
"""Inverse depth and person probability, float32 (H, W) each."""

Predictor = Callable[[npt.NDArray[np.uint8]], Prediction]
"""RGB uint8 (H, W, 3) -> its prediction."""

Edges = Literal["raw", "sharp"]

Table = dict[str, dict[str, float]]
"""Source, or mean over sources -> metric -> value."""

MEANS = ("real", "rendered", "all")
"""Rows that are means over sources."""

STEP_8BIT = 1 / 255
"""Of inverse depth that was stored in 8 bits."""

_FEWEST_VALID = 64  # pixels of truth below which a picture is not judged
_COARSEST = 16  # stored steps below which a value is too coarse to be judged: one step is more than 6 % of it
_SUMMED = ("pictures", "right_polarity")
_LEAST = ("worst_delta1", "worst_polarity")


def predictor(served: Served, size: Size | None = None, edges: Edges = "raw") -> Predictor:
    """Runs the network on one picture as the service does; see `letterboxed`."""
    return letterboxed(eager(served.eval()), size, edges)


def letterboxed(runtime: Runtime, size: Size | None = None, edges: Edges = "raw") -> Predictor:
    """A network behind the service's letterbox.

    Args:
        runtime: The network.
        size: (height, width) of its input, multiples of 32; None takes the served size nearest in aspect.
        edges: `sharp` brings both maps to the photo's size along the photo's edges, as the service does on request.
    """

    def predict(image: npt.NDArray[np.uint8]) -> Prediction:
        letterbox = Letterbox.of(image.shape[0], image.shape[1], size)
        inverse, person = (result[0] for result in runtime(letterbox.fit(image)[None]))
        if edges == "raw":
            return letterbox.unfit(inverse), letterbox.unfit(person)
        cropped = letterbox.crop(inverse), letterbox.crop(person)
        return upsample_guided(cropped[0], image), matte.upsample_guided(cropped[1], image)

    return predict


def _rows(image: npt.NDArray[np.uint8], values: npt.NDArray[np.float32]) -> Prediction:
    depth = np.repeat(values[:, None], image.shape[1], axis=1)
    return depth, np.zeros(image.shape[:2], np.float32)


def vertical_gradient(image: npt.NDArray[np.uint8]) -> Prediction:
    """Baseline: the lower, the nearer; nobody anywhere."""
    return _rows(image, np.linspace(0, 1, image.shape[0], dtype=np.float32))


def lower_half(image: npt.NDArray[np.uint8]) -> Prediction:
    """Baseline: the upper half far, below it the lower, the nearer; nobody anywhere."""
    return _rows(image, np.maximum(np.linspace(-0.5, 0.5, image.shape[0], dtype=np.float32), 0))


def constant(image: npt.NDArray[np.uint8]) -> Prediction:
    """Baseline: everything equally far; nobody anywhere."""
    return _rows(image, np.ones(image.shape[0], np.float32))


BASELINES: Mapping[str, Predictor] = {"constant": constant, "y": vertical_gradient, "max(0, y - 1/2)": lower_half}
"""Predictors that look at nothing, by the name that tables show."""


@dataclass(frozen=True)
class Score:
    """Of one predictor on one picture; `values` by metric, without those that are not defined for the picture."""

    name: str
    source: str
    values: dict[str, float]


def score(sample: Sample, prediction: Prediction, boundaries: bool = False, step: float = 0.0) -> Score:
    """One picture judged.

    Person IoU counts only pictures that show a labelled person; `false_person` is the share of pixels called a person
    in those that show none. `labelled_iou`, of `ONE_PERSON_SETS`, leaves out found pieces apart from the one person
    that the mask shows: mostly somebody else, rightly found and not labelled.

    Args:
        sample: With truth for depth, people or both.
        prediction: Of the sample's picture.
        boundaries: Whether to judge depth edges too, which takes longer than a small network.
        step: Quantisation step of the true inverse depth; 0 for exact. Stored in 8 bits, it reaches 1/255 at the far
            end, and pixels one step apart there differ by a factor of two in depth: delta1 of even a perfect network
            would be near 0. Pixels nearer to 0 than 16 steps are therefore left out, and for edges everything beyond
            32 steps counts as equally far, so that a contour against the sky stays and its steps do not count.
    """
    values: dict[str, float] = {}
    inverse, person = prediction
    if sample.inverse_depth is not None:
        known = sample.inverse_depth > 0
        valid = known & (sample.inverse_depth >= _COARSEST * step * (1 - 1e-6))
        if valid.sum() >= _FEWEST_VALID:
            depth = depth_metrics(inverse, sample.inverse_depth, valid)
            values |= {"delta1": depth.delta1, "abs_rel": depth.abs_rel, "polarity": depth.polarity}
            if boundaries:
                values |= _boundary_values(inverse, np.maximum(sample.inverse_depth, 2 * _COARSEST * step), known)
    if sample.person is not None:
        truth = sample.person > IGNORE
        counted = sample.person != IGNORE
        if truth.mean() > 0.001:
            values["iou"] = iou(person > 0.5, truth, counted)
            if sample.source in ONE_PERSON_SETS:
                values["labelled_iou"] = iou(touching(person > 0.5, truth), truth, counted)
        else:
            values["false_person"] = float((person > 0.5)[counted].mean())
    return Score(sample.name, sample.source, values)


def _boundary_values(
    inverse: npt.NDArray[np.float32], target: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_]
) -> dict[str, float]:
    values = {}
    found = boundary_f1(inverse, target, valid)
    if found is not None:
        values = {
            "boundary_f1": found.f1,
            "boundary_precision": found.precision,
            "boundary_recall": found.recall,
        }
    strict = boundary_f1(inverse, target, valid, STRICT)
    if strict is not None:
        values["boundary_f1_strict"] = strict.f1
    return values


def judge(
    predictors: Mapping[str, Predictor],
    samples: Iterable[Sample],
    boundaries: bool = False,
    step: float = 0.0,
    title: str = "",
    total: int | None = None,
) -> dict[str, list[Score]]:
    """Every picture by every predictor, pictures one after the other so that they need not all be in memory.

    Args:
        predictors: By name.
        samples: Pictures with truth.
        boundaries: See `score`.
        step: See `score`.
        title: Of the progress bar; none without.
        total: Number of samples, for the bar.
    """
    scores: dict[str, list[Score]] = {name: [] for name in predictors}
    for sample in tqdm(samples, desc=title, total=total, unit="picture", disable=not title):
        for name, predict in predictors.items():
            scores[name].append(score(sample, predict(sample.image), boundaries, step))
    return scores


def evaluate(predict: Predictor, samples: Iterable[Sample], boundaries: bool = False) -> Table:
    """One predictor's table; see `summarise`."""
    return summarise(judge({"it": predict}, samples, boundaries)["it"])


def summarise(scores: Sequence[Score]) -> Table:
    """Means over pictures by source, and over sources.

    Rows of means: `real` leaves out rendered sources, `rendered` is of those, `all` is of both; in each, every source
    counts the same, whatever its number of pictures. `pictures` and `right_polarity` (pictures whose polarity is above
    0) are counts; `worst_delta1` and `worst_polarity` are those of the worst picture.
    """
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for one in scores:
        row = found[one.source]
        row["pictures"].append(1.0)
        for name, value in one.values.items():
            row[name].append(value)
        if "polarity" in one.values:
            row["right_polarity"].append(float(one.values["polarity"] > 0))
            row["worst_polarity"].append(one.values["polarity"])
            row["worst_delta1"].append(one.values["delta1"])
    table = {source: {name: _pooled(name, v) for name, v in row.items()} for source, row in sorted(found.items())}
    real = [row for source, row in table.items() if not is_rendered(source)]
    rendered = [row for source, row in table.items() if is_rendered(source)]
    means = {"real": real, "rendered": rendered, "all": real + rendered}
    return table | {name: _mean_of_sources(rows) for name, rows in means.items() if rows or name == "all"}


def is_rendered(source: str) -> bool:
    """Whether a source's pictures are computer graphics and not photos."""
    return source == "sceneflow" or source.startswith("synth")


def _pooled(name: str, values: list[float]) -> float:
    if name in _SUMMED:
        return float(np.sum(values))
    return float(np.min(values) if name in _LEAST else np.mean(values))


def _mean_of_sources(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {"pictures": 0.0} | {name: _pooled(name, [row[name] for row in rows if name in row]) for name in names}
