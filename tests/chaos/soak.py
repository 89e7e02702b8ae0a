"""`make soak`: 50,000 requests of mixed kinds, after which a gateway holds what it held before.

The same judge then looks at a gateway that leaks on purpose (`unprotected leak`), and has to notice. Into
`docs/results/soak.md` and `soak.png`.
"""

import argparse
import asyncio
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from .arena import Stage
from .endurance import SETTINGS, Sample, judge, observe
from .fault import Unmet
from .process import ROOT
from .report import machine

RESULTS = ROOT / "docs" / "results"
MAX_GROWTH_MB = 20.0
_LEAK_BYTES = 32_768
"""What the control leaves behind at each request; see `unprotected.py`."""


@dataclass(frozen=True, slots=True)
class Soak:
    """One run: what was seen of one gateway."""

    samples: Sequence[Sample]
    answers: Counter[str]
    met: bool
    said: str
    seconds: float

    @property
    def rate(self) -> float:
        """Requests a second, pauses for looking included."""
        return self.samples[-1].requests / self.seconds


async def soak(stage: Stage, requests: int, *, control: str | None = None) -> Soak:
    """Start a gateway with its own Triton, send so many requests, judge what it held."""

    def tell(sample: Sample) -> None:
        print("  ".join(f"{value:>9.1f}" for value in astuple(sample)), flush=True)

    async with stage.arena(control, 1.0) as arena:
        gateway = await arena.gateway(embedded=True, under=arena.own_shm(), **SETTINGS)
        print("\n" + "  ".join(f"{name:>9}" for name in Sample.__dataclass_fields__), flush=True)
        start = time.monotonic()
        samples, answers = await observe(gateway, requests, samples=40, tell=tell)
        seconds = time.monotonic() - start
    try:
        met, said = True, judge(samples, MAX_GROWTH_MB)
    except Unmet as error:
        met, said = False, str(error)
    return Soak(samples, answers, met, said, seconds)


def plot(real: Soak, leaking: Soak, path: Path) -> None:
    """Memory of both over the requests, and the counts that must be flat."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (memory, counts) = pyplot.subplots(2, 1, figsize=(8, 6), sharex=True, layout="constrained")
    for run, colour, name in ((real, "tab:blue", "service"), (leaking, "tab:red", "leaking control")):
        requests = [sample.requests for sample in run.samples]
        memory.plot(requests, [s.rss_mb for s in run.samples], color=colour, label=f"{name}, with its Triton")
        memory.plot(requests, [s.gateway_mb for s in run.samples], color=colour, ls=":", label=f"{name}, gateway alone")
    middle = real.samples[len(real.samples) // 2].requests
    memory.axvline(middle, color="gray", lw=0.8)
    memory.set(ylabel="resident memory, MB", ylim=(0, None))
    memory.legend(loc="lower right", fontsize=8)
    for name in ("fds", "threads", "tasks", "shm_mb"):
        label = "/dev/shm, MB" if name == "shm_mb" else name
        counts.plot([s.requests for s in real.samples], [getattr(s, name) for s in real.samples], label=label)
    counts.axvline(middle, color="gray", lw=0.8)
    counts.set(xlabel="requests", ylim=(0, None))
    counts.legend(loc="center right", fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def page(real: Soak, leaking: Soak, said: str) -> str:
    """The Markdown page; `said` is of the `machine`, before the run."""
    left = real.answers["left"]
    answers = ", ".join(f"{real.answers[status]} x {status}" for status in sorted(real.answers) if status != "left")
    lines = [
        "# Soak",
        "",
        f"`make soak`: {said}. {real.samples[-1].requests} requests in {real.seconds / 60:.1f} minutes, "
        f"{real.rate:.0f} a second: {answers}, {left} left before their answer.",
        "",
        f"Passes when memory grows by less than {MAX_GROWTH_MB:g} MB in the second half, by a straight line and by the "
        "medians of its ends, and everything else is flat. Memory is that of the gateway and all processes below it.",
        "",
        "| | seen | verdict |",
        "|---|---|---|",
        f"| service | {real.said} | {'passed' if real.met else 'FAILED'} |",
        f"| control that keeps {_LEAK_BYTES // 1024} KiB of each request | {leaking.said} | "
        f"{'NOT NOTICED' if leaking.met else 'noticed, as it should be'} |",
        "",
        "![memory and counts over the requests](soak.png)",
        "",
        "| requests | all, MB | gateway, MB | fds | threads | tasks | /dev/shm, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for sample in real.samples[::4] + real.samples[-1:]:
        count, whole, gateway, *rest, shm = astuple(sample)
        cells = [str(count), f"{whole:.1f}", f"{gateway:.1f}", *map(str, rest), f"{shm:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Entry point; 0 when nothing grows and the leaking control is noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of soak.md and soak.png")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # as Ctrl-C: everything started is ended
    said = machine()
    stage = Stage()
    try:
        real = asyncio.run(soak(stage, options.requests))
        leaking = asyncio.run(soak(stage, max(2_000, options.requests // 10), control="leak"))
    finally:
        stage.close()
    print(f"\nservice: {real.said}\ncontrol: {leaking.said}\n{real.rate:.0f} requests a second")
    options.out.mkdir(parents=True, exist_ok=True)
    plot(real, leaking, options.out / "soak.png")
    (options.out / "soak.md").write_text(page(real, leaking, said))
    return 0 if real.met and not leaking.met else 1


if __name__ == "__main__":
    sys.exit(main())
