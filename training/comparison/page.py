"""The page of a comparison: tables and plots between two marks, the rest of it written by hand."""

import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.checkpoint import source_revision
from training.comparison.headlines import HEADLINES
from training.comparison.judging import IN_METRES, MEDIAN, RELATIVE, Judged
from training.comparison.latency import Latency
from training.comparison.relations import RELATIONS, check
from training.comparison.runs import System
from training.metric_depth import LARGER_IS_BETTER
from training.tables import table

MARKS = "<!-- results: made by `python -m training compare` -->", "<!-- end of results -->"

_TITLES = {
    "delta1": "delta1", "delta2": "delta2", "delta3": "delta3", "abs_rel": "AbsRel", "sq_rel": "SqRel (m)",
    "sq_rel_gt2": "SqRel /gt²", "rmse": "RMSE (m)", "mae": "MAE (m)", "rmse_log": "RMSElog", "log10": "log10",
    "silog": "SILog", "silog_eigen": "SILog, Eigen", "ssim": "SSIM",
}  # fmt: skip
_SHORT = ("delta1", "abs_rel", "rmse")
_CHECKED = ("rmse", "abs_rel", "delta1")


@dataclass(frozen=True)
class Results:
    """What the page tells.

    Attributes:
        systems: All of them, trained or not.
        failed: Why, of those that were not trained.
        judged: Scores by name.
        taken: Milliseconds by name.
        threads: Of the measurement of time.
        size: (height, width) of the networks' input when judged.
        truth: What was judged on, in words.
        pictures: File names beside the page: the sheet, the plots.
    """

    systems: Sequence[System]
    failed: Mapping[str, str]
    judged: Mapping[str, Judged]
    taken: Mapping[str, Latency]
    threads: int
    size: tuple[int, int]
    truth: str
    pictures: tuple[str, str]


def markdown(results: Results) -> str:
    """Everything between the marks."""
    blocks = [
        _about(results),
        "### Systems\n" + _systems(results),
        f"![RMSE against milliseconds, and delta1 of every system]({results.pictures[1]})",
        "### Rendered scenes that no system was trained on, in metres\n" + _full(results, "scenes", IN_METRES),
        "### The same after alignment of inverse depth\n" + _full(results, "scenes", RELATIVE),
        "### Real pictures, of which no system saw the like: delta1 / AbsRel / RMSE (m)\n" + _real(results),
        f"![Photo, truth and every system on rendered scenes]({results.pictures[0]})",
        "### What the papers say about one system beside another\n" + _relations(results),
        "### What the papers measured, and we\n" + _headlines(results),
    ]
    return "\n\n".join(blocks) + "\n"


def _about(results: Results) -> str:
    height, width = results.size
    lines = [
        f"Made by commit {source_revision()[:12]} on {_processor()}, {results.threads} thread"
        f"{'s' if results.threads > 1 else ''} for the milliseconds, Python {platform.python_version()}. "
        f"Judged at {height} x {width}: {results.truth.rsplit('; at', 1)[0]}."
    ]
    lines += [f"- **{name}** was not trained: {reason}." for name, reason in results.failed.items()]
    return "\n".join(lines)


def _processor() -> str:
    try:
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.machine()


def _systems(results: Results) -> str:
    lines = []
    for system in results.systems:
        one, config = results.judged.get(system.name), system.config
        if one is None:
            continue
        latency = results.taken.get(system.name)
        time = f"{latency.median_ms:.0f} ({latency.low_ms:.0f} to {latency.high_ms:.0f})" if latency else ""
        kind = "metres" if one.output == "depth_m" else "relative"
        pictures = config.steps * config.batch
        millions, gigaflop = f"{one.parameters / 1e6:.2f}", f"{one.gigaflop:.2f}"
        lines.append(
            [system.name, f"`{config.model}`", kind, millions, gigaflop, time, f"{config.steps}", f"{pictures}"]
        )
    head = ["system", "network", "gives", "M parameters", "GFLOP", "ms, median (10 to 90 %)", "steps", "pictures seen"]
    return table(head, lines)


def _full(results: Results, kind: str, protocol: str) -> str:
    names = [name for name in _TITLES if any(name in one.mean(kind, protocol) for one in results.judged.values())]
    rows = {name: one.mean(kind, protocol) for name, one in results.judged.items()}
    best = {name: _best([row[name] for row in rows.values() if name in row], name) for name in names}
    lines = [
        [system, f"{row['pictures']:.0f}", *(_cell(row.get(name), best[name]) for name in names)]
        for system, row in rows.items()
        if row
    ]
    return table(["system", "pictures", *(_TITLES[name] for name in names)], lines)


def _best(values: Sequence[float], name: str) -> float:
    return max(values) if name in LARGER_IS_BETTER else min(values)


def _cell(value: float | None, best: float) -> str:
    if value is None:
        return ""
    text = f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"
    return f"**{text}**" if value == best else text


def _real(results: Results) -> str:
    titles = {IN_METRES: "in metres", MEDIAN: "median scaled", RELATIVE: "scale and shift aligned"}
    lines = []
    for name, one in results.judged.items():
        rows = [one.mean("real", protocol) for protocol in titles]
        lines.append([name, *(" / ".join(f"{row[m]:.3f}" for m in _SHORT) if row else "" for row in rows)])
    return table(["system", *titles.values()], lines)


def _relations(results: Results) -> str:
    lines = []
    for relation in RELATIONS:
        for kind, title in (("scenes", "rendered"), ("real", "real")):
            found = check(relation, results.judged, kind, _CHECKED)
            if found is None:
                continue
            better, worse, differences = found
            cells = [
                f"{d.better:.3f} against {d.worse:.3f} ({d.low:+.3f} to {d.high:+.3f}): {d.verdict}"
                for d in differences
            ]
            lines.append([relation.claim, relation.paper, f"{title}: {better}, {worse}", *cells])
    if not lines:
        return "None could be checked: the systems they are about were not trained."
    note = (
        "In metres, the first named against the second; in brackets the 95 % interval of their difference over "
        "pictures. One seed each: what another seed changes is not in the interval, and frames of one room, as half of "
        "the real pictures are, count as if they were independent. Of several, the best or worst is that of these "
        "very pictures, by RMSE.\n\n"
    )
    return note + table(["claim", "the paper's numbers", "here", *(_TITLES[name] for name in _CHECKED)], lines)


def _headlines(results: Results) -> str:
    lines = []
    for one in HEADLINES:
        judged = results.judged.get(one.ours)
        row = judged.mean("scenes", IN_METRES) if judged else {}
        theirs = [_number(value) for value in (one.delta1, one.abs_rel, one.rmse)]
        ours = [_number(row.get(metric)) for metric in _SHORT]
        lines.append([one.paper, one.system, *theirs, one.more, one.differs, *ours])
    head = [
        "paper",
        "system",
        "delta1",
        "AbsRel",
        "RMSE",
        "more",
        "on what",
        "our delta1",
        "our AbsRel",
        "our RMSE (m)",
    ]
    note = (
        "Not comparable, and not meant to be: theirs are of the papers' data and training, ours of rendered scenes and "
        "minutes of a CPU. They stand side by side so that nobody takes one for the other.\n\n"
    )
    return note + table(head, lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
