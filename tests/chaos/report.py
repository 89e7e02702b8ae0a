"""The matrix as a table: for the terminal, and as `docs/results/chaos.md`."""

import datetime
import os
import platform
import re
import subprocess
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .fault import Fault, Outcome
from .process import ROOT

PAGE = ROOT / "docs" / "results" / "chaos.md"
_WIDTHS = (6, 34, 34, 40, 34)


@dataclass(frozen=True, slots=True)
class Result:
    """A row and its two runs; `control` is None where only the row itself was run."""

    row: Fault
    protected: Outcome
    control: Outcome | None

    @property
    def good(self) -> bool:
        """Green with the protection and red without, or not possible on this machine."""
        if self.protected.verdict == "skipped":
            return True
        return self.protected.verdict == "met" and (self.control is None or self.control.verdict == "unmet")

    def seen(self) -> str:
        """What was seen with the protection."""
        return _said({"met": "ok", "unmet": "FAILED", "broken": "BROKEN", "skipped": "skipped"}, self.protected)

    def seen_without(self) -> str:
        """What was seen without it."""
        if self.control is None:
            return "not run"
        words = {"met": "NOT RED", "unmet": "red", "broken": "BROKEN", "skipped": "skipped"}
        return _said(words, self.control) + f" (without {self.row.without})"


def _said(words: dict[str, str], outcome: Outcome) -> str:
    lines = outcome.seen.strip().splitlines() or [""]
    return f"{words[outcome.verdict]}: {lines[-1]}"


def machine() -> str:
    """Date, commit, processor, cores, load."""
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--", "service", "tests"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    return (
        f"{datetime.date.today()}, commit {commit.strip()}{' with changes' if changed.strip() else ''}, "
        f"{found[1] if found else 'CPU'}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"load {os.getloadavg()[0]:.1f} at the start"
    )


def line(result: Result) -> str:
    """One row for the terminal, wrapped in columns."""
    control_s = result.control.seconds if result.control else 0.0
    columns = (
        result.row.id,
        result.row.title,
        result.row.expected,
        f"{result.seen()} [{result.protected.seconds:.1f} s]",
        f"{result.seen_without()} [{control_s:.1f} s]",
    )
    wrapped = [textwrap.wrap(text, width) or [""] for text, width in zip(columns, _WIDTHS, strict=True)]
    height = max(map(len, wrapped))
    return "\n".join(
        "  ".join(
            (cell[index] if index < len(cell) else "").ljust(width)
            for cell, width in zip(wrapped, _WIDTHS, strict=True)
        )
        for index in range(height)
    ).rstrip()


def heading() -> str:
    """The columns' names for the terminal."""
    names = ("", "fault", "expected", "seen", "negative control")
    return "  ".join(name.ljust(width) for name, width in zip(names, _WIDTHS, strict=True)).rstrip()


def summary(results: Sequence[Result], seconds: float) -> str:
    """How many rows are good, and how long all took."""
    bad = [result.row.id for result in results if not result.good]
    skipped = [result.row.id for result in results if result.protected.verdict == "skipped"]
    parts = [f"{len(results) - len(bad) - len(skipped)} of {len(results)} rows green with a red control"]
    parts += [f"not as they should be: {', '.join(bad)}"] if bad else []
    parts += [f"skipped: {', '.join(skipped)}"] if skipped else []
    return f"{'; '.join(parts)}; {seconds / 60:.1f} minutes"


def page(results: Sequence[Result], seconds: float, said: str) -> str:
    """The Markdown page; `said` is of the `machine`, before the run."""
    rows = [
        "| # | fault | expected | seen | negative control | s |",
        "|---|---|---|---|---|---|",
        *(
            "| "
            + " | ".join(
                text.replace("|", "\\|")
                for text in (
                    result.row.id,
                    result.row.title,
                    result.row.expected,
                    result.seen(),
                    result.seen_without(),
                    f"{result.protected.seconds + (result.control.seconds if result.control else 0):.0f}",
                )
            )
            + " |"
            for result in results
        ),
    ]
    return (
        "# Fault matrix\n\n"
        f"`make chaos`: {said}. {summary(results, seconds)}.\n\n"
        "Every row runs against real processes, twice: as the service is, and, as negative control, without the one "
        "protection that the row is about; there it has to fail. What the rows mean: [reliability](../reliability.md)."
        "\n\n" + "\n".join(rows) + "\n"
    )
