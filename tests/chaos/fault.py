"""A row of the fault matrix: what is done to the service, what is expected, and without what it must fail.

A row is a coroutine function of an `Arena` that returns what was seen, in a few words with figures, and raises `Unmet`
when that is not what is expected. It is run twice: as it is, and as negative control, where the arena starts every
gateway without the one protection the row names; there it must raise `Unmet`.
"""

import asyncio
import importlib
import pkgutil
import re
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from .arena import Arena, Stage

Row = Callable[["Arena"], Awaitable[str]]


class Unmet(Exception):
    """What was seen is not what is expected; the message says what was seen."""


class Skip(Exception):
    """This machine cannot run the row; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One row.

    Args:
        id: the fault's number in the list, with a letter where it has several rows: F10a.
        title: what is done.
        expected: what should be seen.
        without: the protection that the negative control lacks, a name of `unprotected.py`.
        fast: also run by pytest; less than 8 seconds with its control.
        timeout_s: longest time of one run; beyond it the row is unmet.
        run: the row.
    """

    id: str
    title: str
    expected: str
    without: str
    fast: bool
    timeout_s: float
    run: Row

    @property
    def order(self) -> tuple[int, str]:
        """F9 comes before F10a."""
        number = re.fullmatch(r"F(\d+)([a-z]?)", self.id)
        assert number, f"{self.id} is no fault's number"
        return int(number[1]), number[2]


FAULTS: dict[str, Fault] = {}


def fault(
    id: str, title: str, *, expected: str, without: str, fast: bool = False, timeout_s: float = 60.0
) -> Callable[[Row], Row]:
    """Register a row; the arguments are those of `Fault`."""

    def register(run: Row) -> Row:
        assert id not in FAULTS or FAULTS[id].run.__qualname__ == run.__qualname__, f"{id} is there twice"
        FAULTS[id] = Fault(id, title, expected, without, fast, timeout_s, run)
        return run

    return register


def discover() -> list[Fault]:
    """Every row of every module beside this one, in the order of the list."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if not module.name.startswith("__"):
            importlib.import_module(f"{__package__}.{module.name}")
    return sorted(FAULTS.values(), key=lambda row: row.order)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one run of a row ended.

    Args:
        verdict: `met`, `unmet`, `skipped`, or `broken` when the row itself raised something else.
        seen: what was seen.
        seconds: wall time of the run, start and end of its processes included.
        logs: the last lines of its processes, when it was not met.
    """

    verdict: Literal["met", "unmet", "skipped", "broken"]
    seen: str
    seconds: float
    logs: str = ""


async def run(row: Fault, stage: "Stage", *, control: bool, relaxed: float = 1.0) -> Outcome:
    """Run a row, or its negative control; never raises, and leaves no process of the run behind.

    Args:
        row: what to run.
        stage: what the rows share.
        control: without the protection.
        relaxed: factor of every `arena.limit`, for machines that are busy with other things.
    """
    start = time.monotonic()
    verdict: Literal["met", "unmet", "skipped", "broken"]
    async with stage.arena(row.without if control else None, relaxed) as arena:
        try:
            async with asyncio.timeout(row.timeout_s * max(1.0, relaxed / 2)):
                verdict, seen = "met", await row.run(arena)
        except Unmet as error:
            verdict, seen = "unmet", str(error)
        except TimeoutError:
            verdict, seen = "unmet", f"not over after {row.timeout_s:g} s"
        except Skip as reason:
            verdict, seen = "skipped", str(reason)
        except Exception:
            verdict, seen = "broken", traceback.format_exc(limit=-4)
        logs = "" if verdict == "met" else arena.logs()
    return Outcome(verdict, seen, time.monotonic() - start, logs)
