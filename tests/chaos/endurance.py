"""F27: what a gateway holds after many requests is what it held before."""

import asyncio
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .arena import Arena, Gateway, until
from .fault import Unmet, fault
from .traffic import Client

CLIENTS = 3
SETTINGS = {"cache_bytes": 32 * 2**20, "max_waiting": 64, "log_level": "warning"}
"""A cache that is full before the first half is over; otherwise it would look like a leak."""
_EDGE = 0.2
"""Share of a half that is averaged at its begin and end."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What the gateway and all processes below it, Triton's among them, hold while nobody asks for anything.

    Args:
        requests: answered until then.
        rss_mb: resident memory of all of them together, in MB (10^6 bytes).
        gateway_mb: of the gateway alone.
        fds: the gateway's open file descriptors.
        threads: the gateway's threads.
        tasks: of its event loop.
        shm_mb: what is in `/dev/shm`.
    """

    requests: int
    rss_mb: float
    gateway_mb: float
    fds: int
    threads: int
    tasks: int
    shm_mb: float


async def observe(
    gateway: Gateway, requests: int, *, samples: int = 20, seed: int = 0, tell: Callable[[Sample], None] | None = None
) -> tuple[list[Sample], Counter[str]]:
    """Send a mix of requests, and look at the gateway while it is idle in between.

    Args:
        gateway: which is ready, and which nobody else uses.
        requests: how many in all.
        samples: how often to look.
        seed: of the mix.
        tell: called with each sample.

    Returns:
        The samples, and the number of answers by status.
    """
    seen: Counter[str] = Counter()
    taken = []
    for number in range(1, samples + 1):
        done = requests * (number - 1) // samples
        share = requests * number // samples - done
        callers = [Client(gateway, seed + number * CLIENTS + index, seen) for index in range(CLIENTS)]
        await asyncio.gather(*(caller.run(share // CLIENTS + 1) for caller in callers))
        taken.append(await _sample(gateway, sum(seen.values())))
        if tell is not None:
            tell(taken[-1])
    return taken, seen


async def _sample(gateway: Gateway, requests: int) -> Sample:
    async def idle() -> bool:
        return await gateway.metric("depthlens_inflight") == 0 and await gateway.metric("depthlens_connections") <= 1

    await until(idle, 10.0, "an idle gateway")
    tasks = await gateway.metric("depthlens_tasks")
    shm = Path(f"/proc/{gateway.pid}/root/dev/shm")
    return Sample(
        requests,
        gateway.family_mb(),
        gateway.rss_mb(),
        gateway.fds(),
        gateway.threads(),
        int(tasks),
        sum(path.stat().st_blocks * 512 for path in shm.iterdir() if path.is_file()) / 1e6,
    )


def judge(samples: Sequence[Sample], max_growth_mb: float) -> str:
    """What the second half of the samples shows, in a few words.

    Growth is the larger of two: a straight line through the half, and the difference of the medians of its begin and
    its end. Counts and `/dev/shm` have to be at the end what they were in the middle.

    Raises:
        Unmet: memory grew by more than `max_growth_mb`, or something else is not flat.
    """
    half = samples[len(samples) // 2 :]
    edge = max(2, round(len(half) * _EDGE))
    growth_mb, of_gateway_mb = (growth(half, edge, name) for name in ("rss_mb", "gateway_mb"))
    wrong = [] if growth_mb < max_growth_mb else [f"memory +{growth_mb:.1f} MB"]
    for name, slack in (("fds", 3), ("threads", 1), ("tasks", 3), ("shm_mb", 1.0)):
        before, after = (statistics.median(getattr(s, name) for s in part) for part in (half[:edge], half[-edge:]))
        if after > before + slack:
            wrong.append(f"{name} {before:g} -> {after:g}")
    if wrong:
        raise Unmet(f"second half of {samples[-1].requests} requests: {', '.join(wrong)}")
    last = half[-1]
    return (
        f"second half of {last.requests} requests: memory {growth_mb:+.1f} MB (the gateway's "
        f"{of_gateway_mb:+.1f}), {last.fds} fds, {last.threads} threads, "
        f"{last.tasks} tasks, /dev/shm {last.shm_mb:.1f} MB"
    )


def growth(half: Sequence[Sample], edge: int, name: str) -> float:
    """Growth of `rss_mb` or `gateway_mb` over these samples."""
    requests = np.array([sample.requests for sample in half], float)
    memory = np.array([getattr(sample, name) for sample in half])
    slope = float(np.polyfit(requests - requests[0], memory, 1)[0])
    return max(slope * (requests[-1] - requests[0]), float(np.median(memory[-edge:]) - np.median(memory[:edge])))


@fault(
    "F27",
    "a mix of 2,400 requests (cached, new, bad, leavers); 50,000 are `make soak`",
    expected="in the second half memory grows by < 10 MB, all else flat",
    without="leak",
    timeout_s=240,
)
async def many_requests(arena: Arena) -> str:
    gateway = await arena.gateway(embedded=True, under=arena.own_shm(), **SETTINGS)
    samples, _ = await observe(gateway, 2400 if arena.control is None else 1200, samples=16)
    return judge(samples, 10.0)
