"""What a terminal shows of a job: a bar, and a line above it for each failure. Standard output is left to results."""

import sys
from types import TracebackType
from typing import Self

from tqdm import tqdm

from service.batch.report import Outcome


class Display:
    """A bar on a terminal; without one, or quiet, only the lines.

    Args:
        total: of photos or frames.
        label: before the bar.
        unit: of what is counted.
        quiet: no bar and no closing line.
    """

    def __init__(self, total: int | None, label: str, unit: str, quiet: bool) -> None:
        self._quiet = quiet
        self._failed = 0
        self._bar = tqdm(
            total=total,
            desc=label,
            unit=unit,
            file=sys.stderr,
            disable=quiet or not sys.stderr.isatty(),
            dynamic_ncols=True,
            smoothing=0.1,
        )

    def step(self, outcome: Outcome) -> None:
        """One photo is done."""
        if outcome.status == "failed":
            self._failed += 1
            self.line(f"{outcome.input}: {outcome.code}: {outcome.detail}")
            self._bar.set_postfix_str(f"{self._failed} failed", refresh=False)
        self._bar.update()

    def advance(self) -> None:
        """One frame is done."""
        self._bar.update()

    def line(self, text: str) -> None:
        """A line above the bar."""
        with self._bar.external_write_mode(file=sys.stderr):
            print(f"depthlens: {text}", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """A line that quiet leaves out."""
        if not self._quiet:
            self.line(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._bar.close()
