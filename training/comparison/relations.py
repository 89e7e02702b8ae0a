"""What the papers say about one system beside another, checked on our numbers and reported either way.

A difference is of means over the same pictures, with a 95 % interval by resampling pictures. It does not hold what
another seed of the training would change.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from training.comparison.judging import IN_METRES, Judged
from training.metric_depth import LARGER_IS_BETTER

_RESAMPLES = 2000


@dataclass(frozen=True)
class Relation:
    """A claim: `better` does better than `worse`.

    Attributes:
        claim: In words.
        better: Names of systems; with several, the `choice` among them counts.
        worse: The same.
        paper: What the paper reports.
        choice_better: Which of several, by RMSE.
        choice_worse: The same.
    """

    claim: str
    better: tuple[str, ...]
    worse: tuple[str, ...]
    paper: str
    choice_better: Literal["best", "worst"] = "best"
    choice_worse: Literal["best", "worst"] = "best"


@dataclass(frozen=True)
class Difference:
    """Of a metric: `better` less `worse`, its 95 % interval, and whether the claim holds by it."""

    metric: str
    better: float
    worse: float
    low: float
    high: float

    @property
    def verdict(self) -> Literal["holds", "does not hold", "undecided"]:
        """By the interval; a metric of which larger is better is turned round."""
        low, high = (-self.high, -self.low) if self.metric in LARGER_IS_BETTER else (self.low, self.high)
        return "holds" if high < 0 else "does not hold" if low > 0 else "undecided"


def difference(
    better: Mapping[str, Mapping[str, float]], worse: Mapping[str, Mapping[str, float]], metric: str, seed: int = 0
) -> Difference | None:
    """Of two systems on the pictures both were judged on; None with fewer than two of them."""
    shared = [name for name in better if name in worse and metric in better[name] and metric in worse[name]]
    if len(shared) < 2:
        return None
    a, b = (np.array([rows[name][metric] for name in shared]) for rows in (better, worse))
    drawn = np.random.default_rng(seed).integers(len(shared), size=(_RESAMPLES, len(shared)))
    means = (a - b)[drawn].mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return Difference(metric, float(a.mean()), float(b.mean()), float(low), float(high))


def choose(
    names: Sequence[str], judged: Mapping[str, Judged], kind: str, which: Literal["best", "worst"]
) -> str | None:
    """The system of these with the smallest or largest RMSE in metres; None when none was judged in metres."""
    rmse = {
        name: judged[name].mean(kind, IN_METRES)["rmse"]
        for name in names
        if name in judged and judged[name].mean(kind, IN_METRES)
    }
    if not rmse:
        return None
    return min(rmse, key=lambda name: rmse[name] if which == "best" else -rmse[name])


def check(
    relation: Relation, judged: Mapping[str, Judged], kind: str, metrics: Sequence[str]
) -> tuple[str, str, list[Difference]] | None:
    """The two systems that stand for the claim, and its differences by metric; None when one is missing."""
    better = choose(relation.better, judged, kind, relation.choice_better)
    worse = choose(relation.worse, judged, kind, relation.choice_worse)
    if better is None or worse is None:
        return None
    rows = judged[better].of(kind, IN_METRES), judged[worse].of(kind, IN_METRES)
    found = [difference(*rows, metric) for metric in metrics]
    return better, worse, [one for one in found if one is not None]


_BASES = ("adabins", "bts", "lapdepth")
_STACKED = ("stacked_d", "stacked_rgb", "stacked_rgbd")

RELATIONS = (
    Relation(
        "seed 2: the CNN and transformer trained in one go do better than in two stages",
        ("cnn_transformer",),
        ("cnn_transformer_multi_stage",),
        "better in every metric; figures only",
    ),
    Relation(
        "seed 2: the student without a teacher does better than with one",
        ("student",),
        ("student_unaligned",),
        "RMSE 0.619 against 1.151; how the teacher's inverse depth became metres is not said",
    ),
    Relation(
        "our reading: a teacher aligned to truth does better than the same teacher unaligned",
        ("student_aligned",),
        ("student_unaligned",),
        "not tried there",
    ),
    Relation(
        "the student with an aligned teacher does better than without",
        ("student_aligned",),
        ("student",),
        "the opposite was found, with a teacher whose alignment is unknown",
    ),
    Relation(
        "the student with truth filled by the aligned teacher does better than without",
        ("student_filled",),
        ("student",),
        "RMSE 1.181 against 0.619: the opposite",
    ),
    Relation(
        "seed 3: the best meta-learner does better than the plain average",
        _STACKED,
        ("stacked_average",),
        "delta1 0.8595 against 0.8564, RMSE 0.4267 against 0.4261",
    ),
    Relation(
        "seed 3: the plain average does better than the best base network",
        ("stacked_average",),
        _BASES,
        "delta1 0.8564 against 0.8567 (BTS), RMSE 0.4261 against 0.4326",
    ),
    Relation(
        "seed 3: the plain average does better than the worst base network",
        ("stacked_average",),
        _BASES,
        "delta1 0.8564 against 0.8106 (AdaBins)",
        choice_worse="worst",
    ),
    Relation(
        "seed 3: the best meta-learner does better than the best base network",
        _STACKED,
        _BASES,
        "delta1 0.8595 against 0.8567 (BTS), RMSE 0.4267 against 0.4326",
    ),
)
"""By the names of the recipes in `training/configs/compare/`."""
