"""`make chaos`: the fault matrix against real processes, as a table and as `docs/results/chaos.md`."""

import argparse
import asyncio
import re
import signal
import sys
import time
from pathlib import Path

from .arena import Stage
from .fault import Fault, discover, run
from .report import PAGE, Result, heading, line, machine, page, summary


def main() -> int:
    """Entry point; 0 when every row is green and every control red."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="F10a", help="rows to run, F10 for all of F10; default: all")
    parser.add_argument("--list", action="store_true", help="list the rows")
    parser.add_argument("--fast", action="store_true", help="only those that pytest runs too")
    parser.add_argument("--no-control", action="store_true", help="without the negative controls")
    parser.add_argument("--relaxed", type=float, default=1.0, help="factor of every limit on the clock")
    parser.add_argument("--out", type=Path, help=f"page to write; default: {PAGE.name}, when all rows are run")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # as Ctrl-C: everything started is ended
    rows = [row for row in discover() if _wanted(row, options.rows) and (row.fast or not options.fast)]
    if not rows:
        parser.error("no such rows; --list shows them")
    if options.list:
        for row in rows:
            print(
                f"{row.id:5} {'fast' if row.fast else '    '} {row.title}: {row.expected} (control: no {row.without})"
            )
        return 0
    said = machine()
    start = time.monotonic()
    results = _run(rows, control=not options.no_control, relaxed=options.relaxed)
    seconds = time.monotonic() - start
    print(f"\n{summary(results, seconds)}")
    whole = not (options.rows or options.fast or options.no_control)
    if out := options.out or (PAGE if whole else None):
        out.write_text(page(results, seconds, said))
    return 0 if all(result.good for result in results) else 1


def _wanted(row: Fault, given: list[str]) -> bool:
    return not given or row.id in given or re.sub(r"[a-z]$", "", row.id) in given


def _run(rows: list[Fault], *, control: bool, relaxed: float) -> list[Result]:
    stage = Stage()
    results = []
    print(heading(), flush=True)
    try:
        for row in rows:
            protected = asyncio.run(run(row, stage, control=False, relaxed=relaxed))
            skip = protected.verdict == "skipped" or not control
            bare = None if skip else asyncio.run(run(row, stage, control=True, relaxed=relaxed))
            results.append(Result(row, protected, bare))
            print(f"\n{line(results[-1])}", flush=True)
            for outcome in (protected, bare):
                if outcome is not None and not results[-1].good:
                    print(f"\n{outcome.seen}\n{outcome.logs}", flush=True)
    finally:
        stage.close()
    return results


if __name__ == "__main__":
    sys.exit(main())
