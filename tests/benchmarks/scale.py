"""`make bench-scale`: one gateway and one Triton against two of each behind HAProxy, into docs/results/scale.md.

On one machine a second replica gets no second machine, so it is asked in two ways: with one core for each replica,
which is what a second machine brings, and with all replicas on all cores, which is what replicas cost. Layouts take
turns within every round; figures are medians over the rounds.
"""

import argparse
import asyncio
import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from service.benchmark.pictures import jpeg, photo
from tests.chaos.arena import Arena, Gateway, Stage, Triton
from tests.chaos.healing import free_port
from tests.chaos.report import machine
from tests.chaos.rolls import haproxy
from tests.support.load import Load, Stream, load

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "results" / "scale.md"
_PATHS = {"depth": "/depth", "focus": "/focus?x=640&y=360"}
_CLIENTS_PER_REPLICA = 4


@dataclass(slots=True)
class Layout:
    """Replicas, and what they were seen to do.

    Args:
        name: for the page.
        cores: those of each replica, as `taskset` has them.
    """

    name: str
    cores: Sequence[str]
    port: int = 0
    gateways: list[Gateway] = field(default_factory=list)
    tritons: list[Triton] = field(default_factory=list)
    seen: dict[str, list[Load]] = field(default_factory=lambda: {task: [] for task in _PATHS})

    async def start(self, arena: Arena) -> None:
        """Tritons, gateways that ask all of them, and a HAProxy before those."""
        under = [["taskset", "--cpu-list", cores] for cores in self.cores]
        repository = ROOT / "model_repository"
        self.tritons = [await arena.triton(own=True, repository=repository, under=each) for each in under]
        ports = [free_port() for _ in under]
        self.gateways = [
            await arena.gateway(self.tritons, port=port, under=each, cache_bytes=0, max_inflight=2, log_level="warning")
            for port, each in zip(ports, under, strict=True)
        ]
        self.port = await haproxy(arena, ports)

    async def measure(self, task: str, body: bytes, seconds: float) -> None:
        """One round of one task, with as many clients as keep every replica busy."""
        watched = {f"gateway{number}": each.pid for number, each in enumerate(self.gateways)}
        watched |= {f"network{number}": each.pid for number, each in enumerate(self.tritons)}
        url = f"http://127.0.0.1:{self.port}{_PATHS[task]}"
        stream = Stream(url, seconds=seconds, vus=_CLIENTS_PER_REPLICA * len(self.cores))
        self.seen[task].append((await load(body, {"one": stream}, watched))["one"])

    def rate(self, task: str, turn: int) -> float:
        """Photos a second in one round."""
        seen = self.seen[task][turn]
        return seen.ok.count / seen.seconds

    def figures(self, task: str) -> dict[str, float]:
        """Medians over the rounds, for `tests.benchmarks.capacity`."""
        rounds = self.seen[task]
        cores = len(os.sched_getaffinity(0)) if "-" in self.cores[0] else 1
        return {
            "replicas": len(self.cores),
            "cores": cores / len(self.cores) if "-" in self.cores[0] else cores,
            "rate": statistics.median(self.rate(task, turn) for turn in range(len(rounds))),
            "median_ms": statistics.median(seen.ok.median_ms for seen in rounds),
            "p99_ms": statistics.median(seen.ok.p99_ms for seen in rounds),
            "gateway_ms": statistics.median(_cpu_ms(seen, "gateway") for seen in rounds),
            "network_ms": statistics.median(_cpu_ms(seen, "network") for seen in rounds),
        }

    def row(self, task: str, peer: "Layout | None") -> str:
        """Its line of the table; `peer` is what it is a multiple of."""
        rounds = self.seen[task]
        rates = [self.rate(task, turn) for turn in range(len(rounds))]
        cells = [
            self.name,
            f"**{statistics.median(rates):.1f}**",
            "" if peer is None else f"{statistics.median(map(_ratio, rates, peer.seen[task])):.2f}",
            f"{statistics.median(seen.ok.median_ms for seen in rounds):.0f}",
            f"{statistics.median(seen.ok.p99_ms for seen in rounds):.0f}",
            *(f"{statistics.median(_cpu_ms(seen, who) for seen in rounds):.1f}" for who in ("gateway", "network")),
            str(sum(seen.sent - seen.ok.count for seen in rounds)),
        ]
        return f"| {' | '.join(cells)} |"


def _ratio(rate: float, other: Load) -> float:
    return rate * other.seconds / other.ok.count


def _cpu_ms(seen: Load, who: str) -> float:
    """Processor time of all processes of a kind for each photo."""
    spent_s = sum(value for name, value in seen.cpu_s.items() if name.startswith(who))
    return spent_s / max(1, seen.ok.count) * 1000


async def _run(rounds: int, seconds: float) -> tuple[str, dict[str, dict[str, dict[str, float]]]]:
    every = f"0-{(os.cpu_count() or 2) - 1}"
    layouts = [
        Layout("one, on one core", ["0"]),
        Layout("two, a core each", ["0", "1"]),
        Layout("one, on all cores", [every]),
        Layout("two, on all cores", [every, every]),
    ]
    peers = {1: layouts[0], 3: layouts[2]}
    stage = Stage()
    body = jpeg(photo(720, 1280))
    try:
        async with stage.arena(None, 1) as arena:
            for layout in layouts:
                await layout.start(arena)
            for number in range(rounds):
                for task in _PATHS:
                    for layout in layouts:
                        await layout.measure(task, body, seconds)
                print(f"round {number + 1} of {rounds}", flush=True)
    finally:
        stage.close()
    lines = []
    for task, path in _PATHS.items():
        lines += [
            f"## `POST {path}`, 720p JPEG",
            "",
            "| replicas | photos/s | of one | median, ms | p99, ms | gateway, CPU ms a photo | network, CPU ms a photo "
            "| not answered |",
            "|---|---|---|---|---|---|---|---|",
            *(layout.row(task, peers.get(number)) for number, layout in enumerate(layouts)),
            "",
        ]
    figures = {task: {layout.name: layout.figures(task) for layout in layouts} for task in _PATHS}
    return "\n".join(lines), figures


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scale", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each layout in each round")
    parser.add_argument("--out", type=Path, default=PAGE)
    options = parser.parse_args()
    said = machine()
    text, figures = asyncio.run(_run(options.rounds, options.seconds))
    head = (
        f"# One replica and two\n\n`make bench-scale`: {said}. {options.rounds} rounds of {options.seconds:g} s, all "
        f"interleaved; k6, {_CLIENTS_PER_REPLICA} clients for each gateway without a pause, and HAProxy before the "
        "gateways are on the same cores; medians. Each gateway asks every Triton. What follows from it: "
        "[scaling](../scaling.md).\n\n"
    )
    options.out.write_text(head + text)
    options.out.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n")
    print(head + text)


if __name__ == "__main__":
    main()
