"""`python -m training meta-results`: first weights compared by how they fare in a sequence's first frames.

Every variant - a network, and what it learns from - goes along the same sequences with the same online rule, FULL, at
the rate that was best for it on other sequences. Rows are kept as they come, so that a stopped run goes on.
"""

import argparse
import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from training.errors import TrainingError

if TYPE_CHECKING:
    from torch import nn

    from training.data.stereo_pairs import StereoFrame

BEGIN, END = "<!-- made by `python -m training meta-results` -->", "<!-- end of what it made -->"
ROWS, PLOT = "rows.csv", "meta.png"
_COLUMNS = ("network", "rule", "lr", "sequence", "frame", "epe", "d1")


@dataclass(frozen=True)
class Variant:
    """What goes along a sequence.

    Attributes:
        network: Its name.
        rule: `none`, `full`, or `full, WAd`.
    """

    network: str
    rule: str


@dataclass(frozen=True)
class Run:
    """A variant along a sequence.

    Attributes:
        variant: Of the run.
        lr: Of the online rule; 0 for `none`.
        sequence: By name.
    """

    variant: Variant
    lr: float
    sequence: str


Scores = dict[Run, list[tuple[float, float]]]
"""EPE in pixels and D1, 0..1, of every frame."""


def add_results(command: argparse.ArgumentParser) -> None:
    """Declares the options of `meta-results`."""
    pair: dict[str, Any] = {"action": "append", "metavar": "NAME=FILE"}
    command.add_argument("--network", required=True, help="first weights; repeatable", **pair)
    command.add_argument("--error-weights", default=[], help="WAd of the network NAME; repeatable", **pair)
    command.add_argument(
        "--choose", action="append", default=[], metavar="DOMAIN:SEED", help="sequence to choose rates on; repeatable"
    )
    command.add_argument(
        "--sequence", action="append", required=True, metavar="DOMAIN:SEED", help="to judge on; repeatable"
    )
    command.add_argument(
        "--against", action="append", metavar="NAME", help="count sequences won against it (default the first network)"
    )
    command.add_argument("--lr", type=float, action="append", help="rate to choose from (default 1e-4, 3e-4, 1e-3)")
    command.add_argument("--frames", type=int, default=20, help="of every sequence (default 20)")
    command.add_argument("--out", type=Path, required=True, help="folder for rows.csv and the plot")
    command.add_argument("--page", type=Path, help="Markdown page for the tables, between its marks")
    command.add_argument("--threads", type=int, default=2, help="threads of the network (default 2)")
    command.set_defaults(run=run_results)


def run_results(arguments: argparse.Namespace) -> None:
    """Runs what is not in `rows.csv` yet, then writes plot and tables.

    Raises:
        TrainingError: A file or sequence cannot be used, or nothing is left to choose rates on.
    """
    import torch
    from tqdm import tqdm

    from training.stereo_evaluation import load_error_weights, load_stereo_network
    from training.tables import write_tables

    torch.set_num_threads(arguments.threads)
    networks = {name: load_stereo_network(path) for name, path in _named(arguments.network)}
    weights = {name: load_error_weights(path) for name, path in _named(arguments.error_weights)}
    if unknown := sorted(set(weights) - set(networks)):
        raise TrainingError(f"--error-weights of {', '.join(unknown)}: there is no such --network")
    against = arguments.against or list(networks)[:1]
    if unknown := sorted(set(against) - set(networks)):
        raise TrainingError(f"--against {', '.join(unknown)}: there is no such --network")
    rates = arguments.lr or [1e-4, 3e-4, 1e-3]
    if len(rates) > 1 and not arguments.choose:
        raise TrainingError("several rates and nothing to choose on: give --choose, or one --lr")
    if overlap := sorted(set(arguments.choose) & set(arguments.sequence)):
        raise TrainingError(f"{', '.join(overlap)} cannot choose the rate and judge it")
    variants = [Variant(name, rule) for name in networks for rule in ("none", "full")]
    variants += [Variant(name, "full, WAd") for name in weights]
    rows = Rows(arguments.out / ROWS, arguments.frames)
    found: Scores = {}

    def score(run: Run) -> None:
        found[run] = rows.get(run) or rows.add(run, _along(run, networks, weights, arguments.frames))

    learning = [variant for variant in variants if variant.rule != "none"]
    trials = [Run(variant, lr, name) for variant in learning for lr in rates for name in arguments.choose]
    for run in tqdm(trials, "choose", unit="run", mininterval=5):
        score(run)
    chosen = {variant: best_rate(found, variant, rates) for variant in learning}
    judged = [Run(v, chosen.get(v, 0.0), name) for name in arguments.sequence for v in variants]
    for run in tqdm(judged, "judge", unit="run", mininterval=5):
        score(run)
    final = {run: found[run] for run in judged}
    plot(final, arguments.out / PLOT)
    text = "\n\n".join((overall(final, chosen, against), per_sequence(final), chosen_by(found, trials))) + "\n"
    if arguments.page:
        write_tables(text, arguments.page, (BEGIN, END))
    print(text)


def _named(given: Sequence[str]) -> Iterator[tuple[str, Path]]:
    for text in given:
        name, found, path = text.partition("=")
        if not (found and name and path):
            raise TrainingError(f"{text}: expected NAME=FILE")
        yield name, Path(path)


class Rows:
    """Scores kept in a CSV file.

    Args:
        path: Of the file; what it holds is kept.
        frames: That a run must have.
    """

    def __init__(self, path: Path, frames: int) -> None:
        self._path, self._kept = path, Scores()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_file():
                path.write_text(",".join(_COLUMNS) + "\n")
            with path.open(newline="") as file:
                for row in csv.DictReader(file):
                    run = Run(Variant(row["network"], row["rule"]), float(row["lr"]), row["sequence"])
                    self._kept.setdefault(run, []).append((float(row["epe"]), float(row["d1"])))
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise TrainingError(f"rows {path}: {error}") from error
        self._kept = {run: scores for run, scores in self._kept.items() if len(scores) == frames}

    def get(self, run: Run) -> list[tuple[float, float]] | None:
        """Scores of a run that was made before."""
        return self._kept.get(run)

    def add(self, run: Run, scores: list[tuple[float, float]]) -> list[tuple[float, float]]:
        """Keeps a run's scores, and hands them back."""
        with self._path.open("a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            about = run.variant.network, run.variant.rule, run.lr, run.sequence
            writer.writerows((*about, frame, f"{epe:.5g}", f"{d1:.5g}") for frame, (epe, d1) in enumerate(scores))
        return scores


_frames: dict[str, "list[StereoFrame]"] = {}  # drawn once for all variants


def _along(
    run: Run, networks: Mapping[str, "nn.Module"], weights: Mapping[str, "nn.Module"], count: int
) -> list[tuple[float, float]]:
    from training.adaptation import AdaptationConfig
    from training.stereo_evaluation import frames_of, run_sequence

    if run.sequence not in _frames:
        _frames[run.sequence] = list(frames_of(run.sequence, count))
    frames = _frames[run.sequence]
    name, rule = run.variant.network, run.variant.rule
    config = AdaptationConfig(mode="none" if rule == "none" else "full", lr=run.lr)
    error_weights = weights[name] if rule.endswith("WAd") else None
    rows = list(run_sequence(networks[name], frames, config, error_weights=error_weights))
    if len(rows) < count or any(row.metrics is None for row in rows):
        raise TrainingError(f"sequence {run.sequence}: {count} frames with truth are needed")
    return [(row.metrics.epe, row.metrics.d1) for row in rows if row.metrics is not None]


def best_rate(found: Scores, variant: Variant, rates: Sequence[float]) -> float:
    """The rate with which a variant's mean EPE was least on the sequences to choose by."""
    if len(rates) == 1:
        return rates[0]
    tried = {
        lr: [epe for run, s in found.items() if (run.variant, run.lr) == (variant, lr) for epe, _ in s] for lr in rates
    }
    return min(rates, key=lambda lr: float(np.mean(tried[lr])))


def _variants(scores: Scores) -> list[Variant]:
    return list(dict.fromkeys(run.variant for run in scores))


def _of(scores: Scores, variant: Variant, sequence: str = "") -> npt.NDArray[np.float64]:
    """float64 (sequences, frames, 2): EPE and D1."""
    return np.array([s for run, s in scores.items() if run.variant == variant and sequence in ("", run.sequence)])


def overall(scores: Scores, chosen: dict[Variant, float], against: Sequence[str]) -> str:
    """Means over sequences: of all frames, the first five and the last five; in how many sequences others are beaten.

    Args:
        scores: Of all variants on the same sequences.
        chosen: Rates.
        against: Networks; a variant is counted against each when it adapts plainly (`full`).
    """
    from training.tables import table

    references = [Variant(name, "full") for name in against]
    bases = [_of(scores, reference)[..., 0].mean(1) for reference in references]
    lines = []
    for variant in _variants(scores):
        values = _of(scores, variant)
        means = values.mean((0, 1))
        parts = [values[:, :5].mean((0, 1)), values[:, -5:].mean((0, 1))]
        rate = f"{chosen[variant]:g}" if variant in chosen else ""
        cells = [f"{part[0]:.3f} / {100 * part[1]:.1f}" for part in (means, *parts)]
        for reference, base in zip(references, bases, strict=True):
            wins = int((values[..., 0].mean(1) < base).sum())
            cells.append("" if variant == reference else f"{wins} of {len(base)}")
        lines.append([variant.network, variant.rule, rate, *cells])
    head = ["first weights", "online", "rate", "EPE px / D1 %", "first 5 frames", "last 5 frames"]
    return table([*head, *(f"better than {name}, full" for name in against)], lines)


def per_sequence(scores: Scores) -> str:
    """EPE / D1 of every sequence, a column each variant."""
    from training.tables import table

    variants = _variants(scores)
    lines = []
    for name in dict.fromkeys(run.sequence for run in scores):
        means = [_of(scores, variant, name).mean((0, 1)) for variant in variants]
        lines.append([name, *(f"{epe:.2f} / {100 * d1:.1f}" for epe, d1 in means)])
    return table(["EPE px / D1 %", *(f"{v.network}, {v.rule}" for v in variants)], lines)


def chosen_by(found: Scores, trials: Sequence[Run]) -> str:
    """Mean EPE of every rate on the sequences that chose."""
    from training.tables import table

    if not trials:
        return ""
    rates = sorted({run.lr for run in trials})
    lines = []
    for variant in dict.fromkeys(run.variant for run in trials):
        tried = [
            [epe for run in trials if (run.variant, run.lr) == (variant, lr) for epe, _ in found[run]] for lr in rates
        ]
        lines.append([variant.network, variant.rule, *(f"{np.mean(values):.3f}" for values in tried)])
    return table(["first weights", "online", *(f"EPE at {lr:g}" for lr in rates)], lines)


def plot(scores: Scores, path: Path) -> None:
    """EPE and D1 over the frames, means over the sequences.

    Raises:
        TrainingError: matplotlib missing, or the file cannot be written.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise TrainingError("matplotlib is not installed: pip install --group dev") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(11, 4))
    networks = list(dict.fromkeys(v.network for v in _variants(scores)))
    styles = {"none": ":", "full": "-", "full, WAd": "--"}
    for axes, place, label in zip(panels, (0, 1), ("EPE, pixels", "D1, share of pixels"), strict=True):
        for variant in _variants(scores):
            values = _of(scores, variant)[..., place].mean(0)
            colour = f"C{networks.index(variant.network)}"
            axes.plot(values, styles[variant.rule], color=colour, label=f"{variant.network}, {variant.rule}")
        axes.set(xlabel="frame", ylabel=label)
    panels[1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    try:
        figure.savefig(path, dpi=80, bbox_inches="tight")
    except (OSError, ValueError) as error:
        raise TrainingError(f"cannot write {path}: {error}") from error
    finally:
        pyplot.close(figure)
