"""What a terminal shows of a job: a bar, and a line above it for each failure. Standard output is left to results."""

import os
import sys
from types import TracebackType
from typing import Final, Self

from tqdm import tqdm

from service.batch.report import Outcome

_PLAIN_COLUMNS: Final = 80


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
        bare = sys.stderr.isatty() and os.get_terminal_size(sys.stderr.fileno()).columns == 0
        self._bar = tqdm(
            total=total,
            desc=label,
            unit=unit,
            file=sys.stderr,
            disable=quiet or not sys.stderr.isatty(),
            dynamic_ncols=not bare,
            ncols=_PLAIN_COLUMNS
            if bare
            else None,  # a terminal that does not know how wide it is, as of `docker run -t`
            smoothing=0.1,
        )

    def begin(self, label: str) -> None:
        """From now on things are done: rates count from here."""
        self._bar.reset()
        self._bar.set_description(label)

    def step(self, outcome: Outcome) -> None:
        """One photo is done."""
        self._bar.update()
        if outcome.status == "failed":
            self._failed += 1
            self._bar.set_postfix_str(f"{self._failed} failed", refresh=False)
            self.line(f"{outcome.input}: {outcome.code}: {outcome.detail}")
        else:
            self._bar.refresh()  # tqdm's own sense of time leaves out what comes quickly, and the next one may be slow

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
