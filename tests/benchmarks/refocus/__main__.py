"""`make bench-refocus`: refocused pictures against ray-traced truth, beside the plain ways of doing it.

`python -m tests.benchmarks.refocus --only ours --scenes 1,2` measures our renderer alone on two of the twelve scenes.
Truths are made on the first run, 9 seconds of processor time each and half a minute by night, and kept in `--cache`.
"""

import argparse
import sys
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

from tqdm import tqdm

from . import report, truth
from .measuring import RENDERERS, TRACKS, measure
from .report import Costs, Scores

ROOT = Path(__file__).parents[3]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        "--only", default=",".join(RENDERERS), help="renderers, separated by commas: " + ", ".join(RENDERERS)
    )
    made.add_argument("--scenes", default=",".join(map(str, range(1, 13))), help="numbers, separated by commas")
    made.add_argument("--tracks", default=",".join(TRACKS), help="exact, pred or both")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--points", type=int, default=truth.POINTS, help="of the lens")
    made.add_argument("--jobs", type=int, default=1, help="scenes at a time, each in a process of its own")
    made.add_argument("--cache", type=Path, default=ROOT / ".cache" / "refocus", help="where truths are kept")
    made.add_argument("--pictures", type=Path, help="folder for PNGs: input, truth, result, four times the error")
    made.add_argument("--views", action="store_true", help="print every view's figures")
    made.add_argument("--out", type=Path, help="Markdown file for the tables, with picking")
    made.add_argument("--photos", type=Path, help="folder of photos to put behind the scenes instead of textures")
    return made


def main() -> None:
    options = parser().parse_args()
    options.tracks, options.only = options.tracks.split(","), options.only.split(",")
    numbers = [int(number) for number in options.scenes.split(",")]
    scores: Scores = defaultdict(list)
    costs: Costs = defaultdict(list)
    with ProcessPoolExecutor(options.jobs, get_context("spawn")) as pool:
        found = pool.map(measure, numbers, repeat(options))
        for scored, cost in tqdm(found, total=len(numbers), desc="scenes", disable=options.views):
            for key in scored:
                scores[key] += scored[key]
                costs[key] += cost[key]
    print(report.table(scores, costs))
    if options.out:
        report.write(
            options.out, scores, costs, options, "python -m tests.benchmarks.refocus " + " ".join(sys.argv[1:])
        )


if __name__ == "__main__":
    main()
