"""`python -m tests.benchmarks.capacity`: what `make bench-scale` measured, as a queue, and 10,000 photos a second.

A replica is a gateway and a Triton on their own cores. A photo is so much processor time, drawn around its mean; at
most `places` photos are worked on at once and share the cores, others wait in line, and who would wait longer than the
budget is refused (`service/admission.py`). First the closed loop of the benchmark is played and compared with what was
seen; then an open one: callers that know nothing of each other, spread at random over many replicas, so that each
replica sees a Poisson stream of its own and one replica stands for all.
"""

import argparse
import heapq
import json
import math
import random
import statistics
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
MEASURED = ROOT / "docs" / "results" / "scale.json"
PAGE = ROOT / "docs" / "results" / "capacity.md"

_SPREAD = 0.15
"""Of a photo's processor time, as a share of the mean, lognormal."""
_GOAL_PER_S = 10_000.0


@dataclass(frozen=True, slots=True)
class Replica:
    """A gateway and a Triton.

    Args:
        cores: that they share.
        work_s: processor time of a photo, gateway and network.
        places: photos worked on at once.
        budget_s: longest wait in line.
    """

    cores: float
    work_s: float
    places: int = 2
    budget_s: float = 1.0


@dataclass(slots=True)
class Seen:
    """What a simulation saw: seconds that answered photos took, and how many were refused."""

    took_s: list[float] = field(default_factory=list)
    refused: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.took_s) / self.seconds

    def share_ms(self, share: float) -> float:
        """Milliseconds within which a share of the answers came."""
        return sorted(self.took_s)[min(len(self.took_s) - 1, int(share * len(self.took_s)))] * 1000


class _Line:
    """The replica at work: processor sharing among its places, first come first served before them."""

    def __init__(self, replica: Replica, rng: random.Random) -> None:
        self.replica, self.rng = replica, rng
        self.now = 0.0
        self.left: dict[int, float] = {}
        self.since: dict[int, float] = {}
        self.waiting: deque[int] = deque()
        self.count = 0
        self._sigma = math.sqrt(math.log(1 + _SPREAD**2))

    def arrive(self) -> int | None:
        """A photo comes; None when it is refused."""
        per_photo_s = self.replica.work_s / self.replica.cores
        if len(self.left) >= self.replica.places and (len(self.waiting) + 1) * per_photo_s > self.replica.budget_s:
            return None
        self.count += 1
        self.since[self.count] = self.now
        self.waiting.append(self.count)
        self._admit()
        return self.count

    def _admit(self) -> None:
        while self.waiting and len(self.left) < self.replica.places:
            work_s = self.replica.work_s * self.rng.lognormvariate(-(self._sigma**2) / 2, self._sigma)
            self.left[self.waiting.popleft()] = work_s

    @property
    def speed(self) -> float:
        """Seconds of work that each photo gets in a second; one photo alone uses one core at a time."""
        return min(1.0, self.replica.cores / len(self.left))

    def next_end(self) -> float:
        """When the first of those in work ends."""
        return self.now + min(self.left.values()) / self.speed if self.left else math.inf

    def run(self, until: float) -> list[tuple[int, float]]:
        """Photos that end by then, each with the seconds it took."""
        ended = []
        while (end := self.next_end()) <= until:
            self._pass(end)
            number = min(self.left, key=lambda each: self.left[each])
            del self.left[number]
            ended.append((number, end - self.since.pop(number)))
            self._admit()
        self._pass(until)
        return ended

    def _pass(self, until: float) -> None:
        if self.left:
            done_s = (until - self.now) * self.speed
            for number in self.left:
                self.left[number] -= done_s
        self.now = until


def closed(replica: Replica, clients: int, seconds: float, seed: int = 0) -> Seen:
    """Clients that send the next photo when they have their answer, as the benchmark's do."""
    line, seen = _Line(replica, random.Random(seed)), Seen(seconds=seconds)
    for _ in range(clients):
        line.arrive()
    while (end := line.next_end()) < seconds:
        for _, took_s in line.run(end):
            seen.took_s.append(took_s)
            if line.arrive() is None:
                raise ValueError(f"{clients} clients wait longer than the budget of {replica.budget_s} s")
    return seen


def opened(replica: Replica, rate: float, seconds: float, seed: int = 0) -> Seen:
    """Photos that come at random, `rate` a second on average, whatever was answered."""
    rng = random.Random(seed)
    line, seen = _Line(replica, random.Random(seed + 1)), Seen(seconds=seconds)
    arrivals = [rng.expovariate(rate)]
    while arrivals and arrivals[0] < seconds:
        at = heapq.heappop(arrivals)
        seen.took_s += [took_s for _, took_s in line.run(at)]
        seen.refused += line.arrive() is None
        heapq.heappush(arrivals, at + rng.expovariate(rate))
    return seen


def _checked(measured: dict[str, dict[str, dict[str, float]]], clients: int) -> list[str]:
    lines = [
        "| task | replicas | photos/s | simulated | off by | median, ms | simulated | p99, ms | simulated |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for task, layouts in measured.items():
        for name, seen in layouts.items():
            replicas = int(seen["replicas"])
            work_s = (seen["gateway_ms"] + seen["network_ms"]) / 1000
            found = closed(Replica(seen["cores"], work_s), clients, 200.0)
            rate = found.rate * replicas
            lines.append(
                f"| {task} | {name} | {seen['rate']:.1f} | {rate:.1f} | {rate / seen['rate'] - 1:+.0%} | "
                f"{seen['median_ms']:.0f} | {found.share_ms(0.5):.0f} | "
                f"{seen['p99_ms']:.0f} | {found.share_ms(0.99):.0f} |"
            )
    return lines


def _carried(measured: dict[str, dict[str, dict[str, float]]], cores: int) -> list[str]:
    lines = [
        "| task | load | photos/s of a replica | refused | median, ms | p99, ms | replicas for 10,000/s | cores |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for task, layouts in measured.items():
        work_s = statistics.median(each["gateway_ms"] + each["network_ms"] for each in layouts.values()) / 1000
        replica = Replica(cores, work_s, places=cores)
        for load in (0.5, 0.7, 0.8, 0.9):
            seen = opened(replica, load * cores / work_s, 400.0)
            total = len(seen.took_s) + seen.refused
            replicas = math.ceil(_GOAL_PER_S / seen.rate)
            lines.append(
                f"| {task} | {load:.0%} | {seen.rate:.0f} | {seen.refused / total:.2%} | {seen.share_ms(0.5):.0f} | "
                f"{seen.share_ms(0.99):.0f} | {replicas} | {replicas * cores} |"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.capacity", description=__doc__)
    parser.add_argument("--measured", type=Path, default=MEASURED, help="what `make bench-scale` wrote")
    parser.add_argument("--clients", type=int, default=4, help="of each gateway in that benchmark")
    parser.add_argument("--cores", type=int, default=16, help="of the machines that are counted")
    parser.add_argument("--out", type=Path, default=PAGE)
    options = parser.parse_args()
    measured = json.loads(options.measured.read_text())
    text = "\n".join(
        [
            "# Capacity, measured and simulated",
            "",
            "`python -m tests.benchmarks.capacity`, from [scale](scale.md), seed 0. The only numbers that go in are "
            "the processor times of a photo that were measured there; how they are used is said in the module. What it "
            "means for a deployment: [scaling](../scaling.md).",
            "",
            "## The simulation beside what was seen",
            "",
            *_checked(measured, options.clients),
            "",
            f"## Carried to 10,000 photos a second, {options.cores} cores a replica",
            "",
            *_carried(measured, options.cores),
            "",
        ]
    )
    options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
