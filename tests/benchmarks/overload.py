"""`make bench-overload`: ten times the load that can be served, and a greedy client, into docs/results/overload.md.

Everything is measured anew in every round, with and without the protection by turns, so that whatever else the machine
does hits all alike; a goodput is a share of the capacity of its own round. Figures are medians over the rounds.
"""

import argparse
import asyncio
import os
import secrets
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from service.benchmark.pictures import jpeg, photo
from service.clients import hash_of
from tests.chaos.arena import Arena, Gateway, Stage, Triton
from tests.chaos.pictures import PHOTO
from tests.chaos.report import machine
from tests.support.load import Load, Stream, load
from tests.support.quota import QuotaError, processor_quota

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "results" / "overload.md"

_OVERLOAD = 10
_DEADLINE_S = 4.0
_VUS = 100
"""Enough for all that may wait in a gateway with bounds; each costs k6 some time."""
_VUS_UNBOUNDED = 600
_CLIENTS = 10
_WHO = ("k6", "gateway", "network")
_MODEL_S = 0.1
_SENDER_CORES = 0.3
"""Of this machine's processors, kept from the service in all runs, full ones too: callers have computers of their own,
and a goodput is a share of what the service does on the same processors. k6 needs about half of it."""
_DEPTH, _FOCUS = "/depth", "/focus?x=640&y=360"


@dataclass(frozen=True, slots=True)
class Round:
    """What one round saw of one gateway.

    Args:
        alone: one request after another.
        full: as many at once as there are places, and two more.
        over: ten times what `full` got, in open loop.
    """

    alone: Load
    full: Load
    over: Load

    @property
    def capacity(self) -> float:
        """Requests a second."""
        return self.full.ok.count / self.full.seconds

    @property
    def goodput(self) -> float:
        """Answered under overload, as a share of the capacity."""
        return self.over.ok.count / self.over.seconds / self.capacity

    @property
    def shed_cpu_ms(self) -> float:
        """Processor time of the gateway for each request of `over` beyond the capacity: what the others cost is what
        they cost in `full`."""
        each_s = self.full.cpu_s["gateway"] / max(1, self.full.ok.count)
        spent_s = self.over.cpu_s["gateway"] - self.over.ok.count * each_s
        return max(0.0, spent_s) / max(1, self.over.shed.count + self.over.failed.count) * 1000

    @property
    def k6_cpu_ms(self) -> float:
        """Processor time of k6 for each request of `over`."""
        return self.over.k6_cpu_s / max(1, self.over.sent) * 1000


@dataclass(slots=True)
class Subject:
    """One gateway and what it was seen to do."""

    name: str
    gateway: Gateway
    triton: Triton
    vus: int
    places: int
    body: bytes
    path: str = _DEPTH
    rounds: list[Round] = field(default_factory=list)
    shares: list[tuple[float, float, float]] = field(default_factory=list)
    """Of nine modest clients, of the greedy one, and the p99 of the nine in ms."""

    async def measure(self, seconds: float) -> None:
        """One round of load."""
        url = f"http://127.0.0.1:{self.gateway.port}{self.path}"
        alone = await self._load(Stream(url, seconds=seconds))
        full = await self._load(Stream(url, seconds=seconds, vus=self.places + 2))
        capacity = full.ok.count / full.seconds
        impatient = [{"X-Request-Timeout": str(_DEADLINE_S)}]
        over = await self._load(
            Stream(url, seconds=2 * seconds, rate=_OVERLOAD * capacity, vus=self.vus, clients=impatient, timeout_s=8)
        )
        self.rounds.append(Round(alone, full, over))

    async def share(self, seconds: float, keys: Sequence[str]) -> None:
        """One round of one greedy client among ten."""
        url = f"http://127.0.0.1:{self.gateway.port}{self.path}"
        greedy, *modest = [{"X-API-Key": key, "X-Request-Timeout": str(_DEADLINE_S)} for key in keys]
        full = await self._load(Stream(url, seconds=seconds, vus=self.places + 2, clients=[greedy]))
        capacity = full.ok.count / full.seconds
        rate = 0.9 * capacity * len(modest) / len(keys)
        seen = await load(
            self.body,
            {
                "modest": Stream(url, seconds=2 * seconds, rate=rate, vus=100, clients=modest, timeout_s=8),
                "greedy": Stream(url, seconds=2 * seconds, rate=_OVERLOAD * capacity, vus=self.vus, clients=[greedy]),
            },
        )
        got = [seen[name].ok.count / max(1, seen[name].sent) for name in ("modest", "greedy")]
        self.shares.append((*got, seen["modest"].ok.p99_ms))

    async def _load(self, stream: Stream) -> Load:
        watched = {"gateway": self.gateway.pid, "network": self.triton.pid}
        return (await load(self.body, {"one": stream}, watched, warm=True))["one"]


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


def _overload_table(subjects: Sequence[Subject], budget_s: float) -> list[str]:
    lines = [
        "| | " + " | ".join(subject.name for subject in subjects) + " |",
        "|---|" + "---|" * len(subjects),
    ]

    def row(title: str, cells: Sequence[str]) -> None:
        lines.append(f"| {title} | " + " | ".join(cells) + " |")

    def medians(title: str, form: str, figure: str) -> None:
        row(title, [form.format(_median([_figure(each, figure) for each in subject.rounds])) for subject in subjects])

    medians("unloaded, median", "{:.0f} ms", "alone.ok.median_ms")
    medians("unloaded, p99", "{:.0f} ms", "alone.ok.p99_ms")
    medians("capacity", "{:.1f}/s", "capacity")
    row(
        "asked for, in open loop",
        [f"{_median([each.over.sent / each.over.seconds for each in subject.rounds]):.0f}/s" for subject in subjects],
    )
    medians("goodput, of capacity", "**{:.0%}**", "goodput")
    row("goodput, worst round", [f"{min(each.goodput for each in subject.rounds):.0%}" for subject in subjects])
    medians("p99 of accepted", "**{:.0f} ms**", "over.ok.p99_ms")
    allowed = [2 * _median([r.alone.ok.p99_ms for r in subject.rounds]) + budget_s * 1000 for subject in subjects]
    row("allowed: 2 x unloaded p99 + budget", [f"{each:.0f} ms" for each in allowed])
    medians("shed (503, 429) in, median", "**{:.1f} ms**", "over.shed.median_ms")
    medians("shed in, p99", "{:.0f} ms", "over.shed.p99_ms")
    medians("processor time of the gateway for each one shed", "{:.2f} ms", "shed_cpu_ms")
    medians("of k6 for each one sent", "{:.2f} ms", "k6_cpu_ms")
    for title, figure in (("at capacity", "full"), ("under overload", "over")):
        row(
            f"processors busy {title}: k6 + gateway + network",
            [
                " + ".join(f"{_median([_cores(getattr(r, figure), who) for r in subject.rounds]):.2f}" for who in _WHO)
                for subject in subjects
            ],
        )
    for title, figure in (("shed", "over.shed.count"), ("neither answered nor shed", "over.failed.count")):
        row(title, [f"{sum(_figure(each, figure) for each in subject.rounds):.0f}" for subject in subjects])
    row(
        "shed without Retry-After; not sent",
        [
            f"{sum(each.over.unhelpful for each in subject.rounds)}; {sum(each.over.unsent for each in subject.rounds)}"
            for subject in subjects
        ],
    )
    return lines


def _cores(load: Load, who: str) -> float:
    return (load.k6_cpu_s if who == "k6" else load.cpu_s[who]) / load.seconds


def _figure(of: object, path: str) -> float:
    for name in path.split("."):
        of = getattr(of, name)
    return float(of)  # type: ignore[arg-type]


def _share_table(subjects: Sequence[Subject]) -> list[str]:
    lines = [
        "| | nine get of what they ask for | worst round | their p99 | the greedy one gets |",
        "|---|---|---|---|---|",
    ]
    for subject in subjects:
        modest, greedy, p99_ms = zip(*subject.shares, strict=True)
        lines.append(
            f"| {subject.name} | **{_median(modest):.0%}** | {min(modest):.0%} | {_median(p99_ms):.0f} ms | "
            f"{_median(greedy):.0%} |"
        )
    return lines


async def _run(rounds: int, seconds: float) -> str:
    stage = Stage()
    keys = [secrets.token_urlsafe(32) for _ in range(_CLIENTS)]
    small, ordinary = PHOTO, jpeg(photo(720, 1280))
    try:
        async with (
            stage.arena(None, 1) as arena,
            stage.arena("admission", 1) as unbounded,
            stage.arena("fair-share", 1) as unfair,
        ):
            slow, puppet = await arena.puppet()
            network = await arena.triton(own=True, repository=ROOT / "model_repository")
            budgets = {"slow": 0.5, "network": 1.0}
            puppet.tell(delay_s=_MODEL_S)

            async def subject(
                name: str, arena: Arena, triton: Triton, places: int, body: bytes, budget: str, **settings: object
            ) -> Subject:
                gateway = await arena.gateway(
                    triton,
                    max_inflight=places,
                    max_wait_s=budgets[budget],
                    cache_bytes=0,
                    log_level="warning",
                    **settings,
                )
                vus = _VUS if arena.control is None else _VUS_UNBOUNDED
                return Subject(name, gateway, triton, vus, places, body)

            slowly = [
                await subject("gateway", arena, slow, 1, small, "slow"),
                await subject("without admission", unbounded, slow, 1, small, "slow"),
            ]
            really = [
                await subject("gateway", arena, network, 2, ordinary, "network"),
                await subject("without admission", unbounded, network, 2, ordinary, "network"),
            ]
            refocusing = [replace(each, path=_FOCUS, rounds=[], shares=[]) for each in really]
            hashes = ",".join(map(hash_of, keys))
            fairly = [
                await subject("gateway", arena, slow, 1, small, "network", api_key_hashes=hashes),
                await subject("one queue for all", unfair, slow, 1, small, "network", api_key_hashes=hashes),
            ]
            pids = [slow.pid, network.pid, *(each.gateway.pid for each in (*slowly, *really, *fairly))]
            with ExitStack() as limits:
                apart = _keep_apart(limits, pids)
                for number in range(rounds):
                    for each in (*slowly, *really, *refocusing):
                        await each.measure(seconds)
                    for each in fairly:
                        await each.share(seconds, keys)
                    print(f"round {number + 1} of {rounds}", flush=True)
            puppet.tell()
    finally:
        stage.close()
    return "\n".join(
        [
            apart,
            "",
            f"## A model that takes {_MODEL_S * 1000:.0f} ms, one photo at a time; queue budget {budgets['slow']:g} s",
            "",
            "A stand-in in a real Triton: what the queue does, without what two cores do.",
            "",
            *_overload_table(slowly, budgets["slow"]),
            "",
            f"## The shipped network, 720p JPEG to depth PNG, 2 in work; queue budget {budgets['network']:g} s",
            "",
            "k6 sends every photo whole; what refusing it costs is the gateway's.",
            "",
            *_overload_table(really, budgets["network"]),
            "",
            f"## The shipped network, 720p JPEG to refocused JPEG, 2 in work; queue budget {budgets['network']:g} s",
            "",
            "As above; a request takes longer, so ten times the capacity are fewer requests.",
            "",
            *_overload_table(refocusing, budgets["network"]),
            "",
            f"## One client of ten asks for {_OVERLOAD} times the capacity, the nine for 90 % of their share",
            "",
            *_share_table(fairly),
            "",
        ]
    )


def _keep_apart(limits: ExitStack, pids: Sequence[int]) -> str:
    """Leave k6 processors of its own where this user may; says on the page what came of it."""
    cores = (os.cpu_count() or 1) - _SENDER_CORES
    try:
        limits.enter_context(processor_quota(cores, pids))
    except QuotaError as error:
        return f"k6 shares all processors with the service, whose goodput it lowers: {error}."
    return (
        f"The service (gateways, Tritons, what they start) has {cores:.1f} processors in every run, by a control "
        f"group's quota, as a container would; k6 has the other {_SENDER_CORES:.1f}, as if it sent from elsewhere."
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.overload", description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4.5, help="of each unloaded and each full run; overload twice")
    parser.add_argument("--out", type=Path, default=PAGE)
    options = parser.parse_args()
    said = machine()
    text = asyncio.run(_run(options.rounds, options.seconds))
    head = (
        f"# Overload\n\n`make bench-overload`: {said}. {options.rounds} rounds, all interleaved; load by k6, in open "
        f"loop at {_OVERLOAD} times the capacity of the round. Medians over the rounds.\n\n"
    )
    options.out.write_text(head + text)
    print(head + text)


if __name__ == "__main__":
    main()
