"""What labels with outliers teach: offline adaptation with and without confidence, from one network, over seeds.

Pairs of a domain that the network has not learned on are labelled by a matcher, a share of the labels is made wrong,
and every way to use them starts from the same weights and sees the same batches. Judged by truth in other worlds.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.config_stereo import ProxyConfig
from training.data.bank import Bank
from training.data.domains import Domain
from training.data.proxy_pairs import SOURCE, labelled, measure_of
from training.data.sample import Sample
from training.data.stereo_pairs import StereoFrame, layered_sequence
from training.errors import TrainingError
from training.proxies import Matcher
from training.start import WHOLE, FirstWeights
from training.stereo_evaluation import errors_of_pairs
from training.tasks.stereo import mean_of, predict
from training.trainer import LAST, train

FIRST_WORLD, FIRST_JUDGED = 6000, 7000
"""Seeds of the worlds that are adapted to and of those that are judged on, one after the other."""

SHOWN = 12
"""Judged frames whose maps are kept for the picture."""
MAPS = "maps.npz"
_RESULT = "result.json"


@dataclass(frozen=True)
class Way:
    """One way to use labels: its key on the command line, its name, and what it changes in the recipe."""

    key: str
    name: str
    changes: dict[str, object]


BEFORE = "before adaptation"
WAYS: tuple[Way, ...] = (
    Way("unweighted", "unweighted", {"guidance": "none", "confidence": "none", "ccnn": ""}),
    Way(
        "masked",
        "masked by the left-right check",
        {"guidance": "fixed", "threshold": 0.5, "confidence": "left_right", "ccnn": ""},
    ),
    Way("fixed", "guided, threshold fixed", {"guidance": "fixed"}),
    Way("learned", "guided, threshold learned", {"guidance": "learned", "threshold": 0.5}),
)
TRUTH = Way(
    "truth", "truth (what labels cannot beat)", {"guidance": "none", "confidence": "none", "ccnn": "", "outliers": 0.0}
)


@dataclass(frozen=True)
class Outcome:
    """Of one run.

    Attributes:
        matcher: Of its labels.
        way: How it used them.
        seed: Of its batches and outliers.
        epe: Of the judged pairs, pixels, as in `disparity_metrics`.
        bad3: The same.
        d1: The same.
        threshold: Where it ended.
        worlds: EPE by judged world, pixels, so that ways can be compared world by world.
    """

    matcher: str
    way: str
    seed: int
    epe: float
    bad3: float
    d1: float
    threshold: float
    worlds: dict[str, float]


def frames_of_worlds(domain: Domain, first: int, worlds: int, frames: int) -> list[StereoFrame]:
    """`frames` of each of the worlds of seeds `first` on."""
    return [frame for seed in range(first, first + worlds) for frame in layered_sequence(domain, seed, frames)]


def run_ways(
    config: ProxyConfig,
    weights: Path,
    learned: Sequence[StereoFrame],
    judged: Sequence[StereoFrame],
    matchers: Sequence[Matcher],
    seeds: Sequence[int],
    out: Path,
    ways: Sequence[Way] = (*WAYS, TRUTH),
) -> Iterator[Outcome]:
    """Adapts in every way with every matcher and seed; what is done already is read.

    Args:
        config: Recipe whose guidance, matcher and seed are varied.
        weights: Checkpoint to start from.
        learned: Pairs to adapt to.
        judged: Pairs with truth to judge by.
        matchers: Of the labels.
        seeds: Of batches and outliers.
        out: Folder of the runs.
        ways: Which.
    """
    for matcher in matchers:
        for seed in seeds:
            for way in (way for way in ways if way is not TRUTH):
                changed = dataclasses.replace(config, **(way.changes | {"matcher": matcher, "seed": seed}))  # type: ignore[arg-type]  # keys of the recipe
                yield _run(changed, way.name, weights, learned, judged, out)
    for seed in seeds if TRUTH in ways else ():
        changed = dataclasses.replace(config, **(TRUTH.changes | {"seed": seed}))  # type: ignore[arg-type]  # as above
        yield _run(changed, TRUTH.name, weights, [_true(frame) for frame in learned], judged, out)


def _true(frame: StereoFrame) -> StereoFrame:
    return dataclasses.replace(frame, name=f"{frame.name} truth")


def folder_of(out: Path, matcher: str, way: str, seed: int) -> Path:
    """Where a run is kept."""
    return out / "_".join([matcher, *way.split(" (")[0].replace(",", "").split(), str(seed)])


def _run(
    config: ProxyConfig,
    way: str,
    weights: Path,
    learned: Sequence[StereoFrame],
    judged: Sequence[StereoFrame],
    out: Path,
) -> Outcome:
    matcher = "truth" if way == TRUTH.name else config.matcher
    folder = folder_of(out, matcher, way, config.seed)
    told = {"recipe": config.flat(), "weights": str(weights), "pairs": [len(learned), len(judged)]}
    kept = folder / _RESULT
    if kept.is_file():
        stored = json.loads(kept.read_text())
        if stored["of"] != json.loads(json.dumps(told)):
            raise TrainingError(f"{folder} is of other options: remove it, or give another --out")
        return Outcome(**stored["outcome"])
    samples = [sample_of(frame, config, way == TRUTH.name) for frame in learned]
    bank = Bank({SOURCE: {sample.name: [sample] for sample in samples}})
    run = train(config, bank, None, folder, False, "cpu", FirstWeights(parts={WHOLE: weights}))
    judgement = errors_of_pairs(run.average.eval(), judged)
    scores = mean_of([row for _, row in judgement])
    by_world: dict[str, list[float]] = {}
    for name, row in judgement:
        by_world.setdefault(name.split("/")[0], []).append(row.epe)
    guide = getattr(run.network, "guide", None)
    (folder / LAST).unlink()  # sixty megabytes, of which the scores and some maps are all that is asked for
    first = [predict(run.average, frame.left, frame.right) for frame in judged[:SHOWN]]
    np.savez_compressed(folder / MAPS, np.stack(first))
    threshold = config.threshold if guide is None else float(guide.threshold.detach())
    worlds = {world: float(np.mean(epe)) for world, epe in by_world.items()}
    found = Outcome(matcher, way, config.seed, scores["epe"], scores["bad3"], scores["d1"], threshold, worlds)
    kept.write_text(json.dumps({"of": told, "outcome": dataclasses.asdict(found)}, indent=2) + "\n")
    return found


def sample_of(frame: StereoFrame, config: ProxyConfig, truth: bool = False) -> Sample:
    """A pair as the recipe labels it, or with its truth in the labels' place."""
    if truth:
        assert frame.disparity_px is not None  # drawn worlds have it
        ones = np.ones(frame.disparity_px.shape, np.float32)
        return dataclasses.replace(frame.sample(SOURCE, frame.name), proxy_px=frame.disparity_px, confidence=ones)
    return dataclasses.replace(labelled(frame, frame.name, config, measure_of(config, Path())), disparity_px=None)
