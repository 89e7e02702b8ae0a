"""Whole requests to the service: by stage, and how many a second it answers at most."""

import asyncio
import statistics
import time
from collections.abc import Sequence
from typing import Final

from service.benchmark.effort import Effort
from service.benchmark.page import Part, Table
from service.benchmark.pictures import jpeg, photo
from service.benchmark.serving import Caller, load, serving, stages_ms

STAGES: Final = ("decode", "infer", "render", "encode")
_CALLERS: Final = (1, 2, 4, 8)
_WANTED: Final = {
    "full-size PNG": "/depth",
    "native PNG": "/depth?size=native",
    "native npy": "/depth?size=native&format=npy",
    "focus": "/focus?rx=0.5&ry=0.5",
}


def run(effort: Effort) -> Part:
    """The default network behind the gateway, nothing cached."""
    with serving(effort.repository) as served:
        tables: list[Table] = []
        figures: dict[str, float] = {}
        for name, size in effort.photos.items():
            rows = stage_rows(served.port, jpeg(photo(*size)), effort.rounds * (1 if size == effort.large else 3))
            header = ("answer", "ms", *(f"{stage} ms" for stage in STAGES), "the rest ms")
            tables.append(Table(f"One request, {name} JPEG", header, tuple(rows), _STAGE_NOTE, plotted="ms"))
            figures |= {f"{row[0]}, {name}, ms": float(row[1]) for row in rows}
        body = jpeg(photo(*effort.small))
        wanted = list(_WANTED.items())[:3]
        rows = saturation_rows(served.port, body, wanted, effort)
        header = ("callers", *(f"{name}, photos/s" for name, _ in wanted))
        tables.append(Table(f"At saturation, {next(iter(effort.photos))} JPEG", header, tuple(rows), _LOAD_NOTE))
        for index, (name, _) in enumerate(wanted, 1):
            figures[f"{name}, photos/s"] = max(float(row[index]) for row in rows)
    return Part("stages", tuple(tables), figures)


_STAGE_NOTE = (
    "Medians, nothing cached. Stages as `Server-Timing` has them; the rest is HTTP, admission, hand-over between "
    "threads and the caller."
)
_LOAD_NOTE = "Closed loop: each caller sends its next photo when it has its answer; callers share the cores."


def stage_rows(port: int, body: bytes, rounds: int) -> list[tuple[str, ...]]:
    """A row for each kind of answer, the kinds interleaved."""
    caller = Caller(port)
    seen: dict[str, list[tuple[float, dict[str, float]]]] = {name: [] for name in _WANTED}
    for turn in range(rounds + 1):
        for name, path in _WANTED.items():
            start = time.perf_counter()
            _, headers = caller.post(path, body)
            took_ms = (time.perf_counter() - start) * 1000
            if turn:
                seen[name].append((took_ms, stages_ms(headers)))
    caller.close()
    rows = []
    for name, requests in seen.items():
        took_ms = statistics.median(each for each, _ in requests)
        stages = {stage: statistics.median(parts.get(stage, 0.0) for _, parts in requests) for stage in STAGES}
        rest_ms = statistics.median(each - sum(parts.values()) for each, parts in requests)
        rows.append((name, f"{took_ms:.1f}", *(f"{stages[stage]:.1f}" for stage in STAGES), f"{rest_ms:.1f}"))
    return rows


def saturation_rows(port: int, body: bytes, wanted: Sequence[tuple[str, str]], effort: Effort) -> list[tuple[str, ...]]:
    """A row for each number of callers."""
    rows = []
    for callers in _CALLERS if effort.rounds > 1 else _CALLERS[:2]:
        rates = [
            asyncio.run(load(port, path, body, callers=callers, seconds=effort.seconds)).rate for _, path in wanted
        ]
        rows.append((str(callers), *(f"{rate:.1f}" for rate in rates)))
    return rows
