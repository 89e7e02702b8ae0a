"""`make bench`: every part beside its peers, into `docs/results/performance.md`, `.json` and `.png`.

`python -m tests.benchmarks --only infer limit` measures these parts alone and leaves the others on the page as they
were; each part says when and at which commit it was measured.
"""

import argparse
import importlib
import json
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot

from service.benchmark import machine as this_machine
from service.benchmark.effort import FULL, QUICK, Effort
from service.benchmark.page import Part, Table

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
PARTS = {
    "limit": "tests.benchmarks.limit",
    "infer": "tests.benchmarks.infer",
    "request": "tests.benchmarks.request",
    "serve": "tests.benchmarks.serve",
    "gateway": "tests.benchmarks.gateway",
    "scale": "tests.benchmarks.instances",
    "refocus": "tests.benchmarks.refocusing",
    "cold": "service.benchmark.cold",
    "stages": "service.benchmark.stages",
}
"""Modules, in the order they run."""
_WITH_NETWORKS = ("infer", "request", "serve", "scale")
NOTES = Path(__file__).with_name("notes.md")
"""What bounds the figures, in words: people's, so not written by a run."""
_PACKAGES = ("torch", "transformers", "onnxruntime")


def machine() -> str:
    """Date, commit, processor, load and Python's version in one line."""
    said = this_machine.describe()
    return f"{said['time']}, {said['commit']}, {said['cpu']}, {said['versions'].split(',')[0]}, {said['load']}, seed 0"


def measure(name: str, effort: Effort, folder: Path, quick: bool) -> Part:
    """One part, with its module imported for it: torch takes seconds, and memory."""
    module = importlib.import_module(PARTS[name])
    if name not in _WITH_NETWORKS:
        found: Part = module.run(effort)
        return found
    from .networks import shared

    found = module.run(effort, shared(folder, quick))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=list(PARTS), metavar="PART", default=list(PARTS), help=", ".join(PARTS)
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works: figures mean nothing")
    parser.add_argument("--rounds", type=int, help="of every comparison, instead of 7 or, of short ones, 31")
    parser.add_argument("--out", type=Path, help="folder for the page; none with --quick or --rounds unless given")
    options = parser.parse_args(arguments)
    out = options.out or (None if options.quick or options.rounds else RESULTS)
    known, failed = read(out), []
    effort = replace(QUICK if options.quick else FULL, repository=ROOT / "model_repository")
    if options.rounds:
        effort = replace(effort, rounds=options.rounds, many=options.rounds)
    with tempfile.TemporaryDirectory(prefix="depthlens-bench-") as folder:
        for name in options.only:
            about = this_machine.describe(_PACKAGES)
            start = time.monotonic()
            print(f"{name} ...", flush=True)
            try:
                part = replace(measure(name, effort, Path(folder), options.quick), about=about)
            except Exception:  # the other parts are measured all the same
                traceback.print_exc()
                failed.append(name)
                continue
            print(f"{part.markdown()}\n{name} took {time.monotonic() - start:.0f} s\n", flush=True)
            known[name] = part
            if out is not None:  # after each part, so that what was measured outlives a failure
                write(list(known.values()), out)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def read(out: Path | None) -> dict[str, Part]:
    """Parts of an earlier run, if any."""
    path = None if out is None else out / "performance.json"
    if path is None or not path.is_file():
        return {}
    return {name: Part.of(each) for name, each in json.loads(path.read_text()).items()}


def write(parts: Sequence[Part], out: Path) -> None:
    """The page, its figures and its plot."""
    from . import targets

    parts = sorted(parts, key=lambda part: list(PARTS).index(part.name))
    out.mkdir(parents=True, exist_ok=True)
    (out / "performance.json").write_text(json.dumps({part.name: part.plain() for part in parts}, indent=1) + "\n")
    about = parts[-1].about
    head = (
        f"# Performance\n\n`make bench`. {about['versions']}. Contenders are interleaved (A B C, A B C, ...); medians; "
        "a ratio is the median of the rounds' own, with its quartiles. Each part says when and where it was measured; "
        "`python -m tests.benchmarks --only PART` measures one anew. Users measure their own machine with "
        "`depthlens bench`.\n\n"
    )
    head_tables = [targets.table(parts), *targets.bounds(parts), targets.served(parts)]
    body = [*(table.markdown().replace("### ", "## ", 1) for table in head_tables if table.rows), NOTES.read_text()]
    body += ["![wall times](performance.png)\n", *(part.markdown() for part in parts)]
    (out / "performance.md").write_text(head + "\n".join(body))
    plot([table for part in parts for table in part.tables if table.plotted], out / "performance.png")


def plot(tables: Sequence[Table], path: Path) -> None:
    """The plotted column of every table, one panel each, in two columns; the first contender in gray."""
    if not tables:
        return
    half = (len(tables) + 1) // 2
    heights = [max(len(table.rows) for table in tables[row::half]) + 1.5 for row in range(half)]
    figure, axes = pyplot.subplots(
        half, 2, figsize=(13, 0.24 * sum(heights) + 0.3), height_ratios=heights, layout="constrained", squeeze=False
    )
    for place, axis in enumerate(axes.T.flat):
        if place >= len(tables):
            axis.axis("off")
            continue
        table = tables[place]
        found = table.bars()
        colours = ["tab:gray", *["tab:blue"] * (len(found) - 1)]
        bars = axis.barh(list(found)[::-1], list(found.values())[::-1], color=colours[::-1])
        axis.bar_label(
            bars, fmt=lambda value: f"{value:.0f}" if value >= 1e4 else f"{value:.4g}", padding=3, fontsize=7
        )
        axis.set_title(f"{table.title} ({table.plotted})", fontsize=8, loc="left")
        axis.tick_params(labelsize=7)
        axis.margins(x=0.15)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
