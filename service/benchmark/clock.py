"""Interleaved timing: A B C, A B C, ... so that whatever else the machine does hits all alike."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from service.benchmark.page import Table
from service.benchmark.progress import say

_A_WHILE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Timing:
    """Medians over the rounds of one contender.

    Attributes:
        wall_ms: wall time of one call.
        cpu_ms: processor time of this process, all threads, for one call.
        ratio: median over the rounds of (peer's wall time / this one's); 1 for the peer itself.
        ratio_low: lower quartile of the same.
        ratio_high: upper quartile of the same.
        more_ms: median over the rounds of (this one's wall time - peer's).
    """

    wall_ms: float
    cpu_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    more_ms: float


def interleave(contenders: Mapping[str, Callable[[], object]], *, rounds: int, title: str = "") -> dict[str, Timing]:
    """Time every contender once a round; the first is the peer that ratios refer to.

    Each is called once before, uncounted. Where that says that it will take a while, `title` is told with how long.
    """
    start = time.perf_counter()
    for call in contenders.values():
        call()
    ahead_s = (time.perf_counter() - start) * rounds
    if title and ahead_s >= _A_WHILE_S:
        say(f"{title}: {rounds} rounds, about {ahead_s:.0f} s")
    walls: dict[str, list[float]] = {name: [] for name in contenders}
    processors: dict[str, list[float]] = {name: [] for name in contenders}
    gc.disable()
    try:
        for _ in range(rounds):
            for name, call in contenders.items():
                processor, wall = time.process_time(), time.perf_counter()
                call()
                walls[name].append(time.perf_counter() - wall)
                processors[name].append(time.process_time() - processor)
    finally:
        gc.enable()
    peer = walls[next(iter(contenders))]
    return {name: _timing(peer, walls[name], processors[name]) for name in contenders}


def _timing(peer: list[float], walls: list[float], processors: list[float]) -> Timing:
    ratios = [theirs / ours for theirs, ours in zip(peer, walls, strict=True)]
    low, middle, high = quartiles(ratios)
    return Timing(
        statistics.median(walls) * 1000,
        statistics.median(processors) * 1000,
        middle,
        low,
        high,
        statistics.median(ours - theirs for theirs, ours in zip(peer, walls, strict=True)) * 1000,
    )


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile; of one value thrice that."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def table(
    title: str, timings: Mapping[str, Timing], note: str = "", more: Mapping[str, Sequence[str]] | None = None
) -> Table:
    """A row for each contender; `more` has further columns by their headings, a cell for each contender."""
    peer, more = next(iter(timings)), more or {}
    header = ("contender", "wall ms", "CPU ms", f"times as fast as {peer}", "quartiles", *more)
    rows = [
        (
            name,
            f"{timing.wall_ms:.1f}",
            f"{timing.cpu_ms:.1f}",
            f"{timing.ratio:.2f}",
            f"{timing.ratio_low:.2f} to {timing.ratio_high:.2f}",
            *(cells[row] for cells in more.values()),
        )
        for row, (name, timing) in enumerate(timings.items())
    ]
    return Table(title, header, tuple(rows), note, plotted="wall ms")
