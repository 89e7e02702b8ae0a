"""Whole requests: JPEG bytes to a depth PNG by the gateway, by transformers' pipeline, by a script, by a handler."""

import asyncio
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from service.benchmark.clock import interleave, quartiles, table
from service.benchmark.effort import Effort
from service.benchmark.page import Part, Table
from service.benchmark.pictures import jpeg, photo
from service.benchmark.progress import say
from service.benchmark.serving import BenchmarkError, Caller, load, serving, wait_for_model

from . import peers
from .networks import MODEL, ROOT, Networks

CALLERS = (1, 4)
OURS = f"/depth?model={MODEL}"
_PEER_SECONDS = 4.0
"""Of load for a peer that takes most of a second: enough for several answers of each caller."""


def run(effort: Effort, networks: Networks) -> Part:
    """Single requests of both networks at both sizes, then the handler and the gateway under load."""
    tables, figures = [], {}
    repository, side = networks.repository, networks.side
    say("both networks are exported")
    hugging_face = peers.pipeline(networks.transformers_network, side)
    script = peers.script(networks.default.network, networks.default.size)
    with serving(repository) as served:
        wait_for_model(served.port, MODEL)
        caller = Caller(served.port)
        for name, size in effort.photos.items():
            body = jpeg(photo(*size))
            timings = interleave(
                {
                    "HF pipeline, 8-bit, full size": lambda body=body: hugging_face(body),
                    "ours, 16-bit, native size": lambda body=body: caller.post(f"{OURS}&size=native", body),
                    "ours, 16-bit, full size": lambda body=body: caller.post(OURS, body),
                },
                rounds=effort.rounds,
                title=f"Depth Anything, {name}",
            )
            tables.append(table(f"Depth Anything V2 Small, {name} JPEG to depth PNG", timings, _NOTE))
            figures |= {f"{key}, {name}": each.ratio for key, each in timings.items()}
            figures |= {f"{key}, {name}, ms": each.wall_ms for key, each in timings.items()}
            timings = interleave(
                {
                    "script with torch eager, 16-bit, full size": lambda body=body: script(body),
                    "ours, 16-bit, native size": lambda body=body: caller.post("/depth?size=native", body),
                    "ours, 16-bit, full size": lambda body=body: caller.post("/depth", body),
                },
                rounds=effort.rounds,
                title=f"the default network, {name}",
            )
            tables.append(table(f"The default network, {name} JPEG to depth PNG", timings, _NOTE))
            figures |= {f"default, {key}, {name}": each.ratio for key, each in timings.items()}
        caller.close()
        with handler(networks) as port:
            under_load, rates = loads(port, served.port, effort)
    return Part("request", (*tables, under_load), figures | rates)


_NOTE = (
    "The same bytes and weights; nothing cached. CPU ms counts the calling process, which for ours does the HTTP alone."
)


@contextmanager
def handler(networks: Networks) -> Iterator[int]:
    """A FastAPI handler around the pipeline in a process of its own; gives its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = networks.folder / "transformers"
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.peers", str(folder), str(networks.side)]
    with subprocess.Popen([*command, str(port)], cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        try:
            ends_at = time.monotonic() + 300
            while process.poll() is None and time.monotonic() < ends_at:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            else:
                raise BenchmarkError("the handler around torch did not start")
            yield port
        finally:
            process.terminate()


def loads(theirs: int, ours: int, effort: Effort) -> tuple[Table, dict[str, float]]:
    """Answers a second of both by turns, one working while the other rests."""
    body = jpeg(photo(*effort.small))
    peer_s = _PEER_SECONDS if effort.seconds >= 1 else effort.seconds
    path = f"{OURS}&size=native"
    rows, figures = [], {}
    for callers in CALLERS:
        pairs = []
        ahead_s = effort.rounds * (peer_s + effort.seconds)
        say(f"{callers} at once: {effort.rounds} rounds, at least {ahead_s:.0f} s")
        for _ in range(effort.rounds):
            peer = asyncio.run(load(theirs, "/depth", body, callers=callers, seconds=peer_s))
            pairs.append((peer, asyncio.run(load(ours, path, body, callers=callers, seconds=effort.seconds))))
        low, middle, high = quartiles([mine.rate / peer.rate for peer, mine in pairs])
        for title, side in (("FastAPI + torch, full size", 0), ("gateway, native size", 1)):
            rate = statistics.median(pair[side].rate for pair in pairs)
            median_ms = statistics.median(pair[side].median_ms for pair in pairs)
            ratio = ("1.00", "") if side == 0 else (f"{middle:.2f}", f"{low:.2f} to {high:.2f}")
            rows.append((f"{title}, {callers} at once", f"{rate:.2f}", f"{median_ms:.0f}", *ratio))
        figures[f"FastAPI, {callers} at once"] = middle
        figures[f"FastAPI, {callers} at once, answers/s"] = statistics.median(peer.rate for peer, _ in pairs)
    header = ("server", "answers/s", "median ms", "times as many", "quartiles")
    note = f"Depth Anything V2 Small, {next(iter(effort.photos))} JPEG, closed loop; the two take turns."
    return Table("A handler around torch, and the gateway, under load", header, tuple(rows), note), figures
