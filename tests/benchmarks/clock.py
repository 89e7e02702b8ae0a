"""Interleaved timing: A B C, A B C, ... so that whatever else the machine does hits all alike."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """Medians over the rounds of one contender.

    Attributes:
        wall_ms: wall time of one call.
        cpu_ms: processor time of this process, all threads, for one call.
        ratio: median over the rounds of (peer's wall time / this one's); 1 for the peer itself.
    """

    wall_ms: float
    cpu_ms: float
    ratio: float


def interleave(contenders: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, Timing]:
    """Time every contender once a round; the first is the peer that ratios refer to.

    Each is called once before, uncounted.
    """
    for call in contenders.values():
        call()
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
    return {
        name: Timing(
            statistics.median(walls[name]) * 1000,
            statistics.median(processors[name]) * 1000,
            statistics.median(theirs / ours for theirs, ours in zip(peer, walls[name], strict=True)),
        )
        for name in contenders
    }


@dataclass(frozen=True, slots=True)
class Section:
    """One comparison: what was timed, and what to know when reading it."""

    title: str
    timings: Mapping[str, Timing]
    note: str = ""

    def table(self) -> str:
        """The timings as a Markdown section."""
        peer = next(iter(self.timings))
        lines = [f"## {self.title}", "", *([self.note, ""] if self.note else [])]
        lines += [f"| contender | wall ms | CPU ms | times as fast as {peer} |", "|---|---|---|---|"]
        lines += [
            f"| {name} | {timing.wall_ms:.1f} | {timing.cpu_ms:.1f} | {timing.ratio:.2f} |"
            for name, timing in self.timings.items()
        ]
        return "\n".join(lines) + "\n"
