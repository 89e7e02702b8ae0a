"""What was to be reached, each line met or not met by the figures of the runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from service.benchmark import machine
from service.benchmark.page import Part, Table

from .infer import OURS

Figures = Mapping[str, Mapping[str, float]]
"""By part, by name."""

_ALL = machine.cores()
_NATIVE, _FULL = "ours, 16-bit, native size", "ours, 16-bit, full size"


@dataclass(frozen=True)
class Target:
    """One line.

    Attributes:
        title: what is measured.
        bound: what it must be at least, or at most.
        figure: taken from the figures; KeyError where its part has not run.
        at_most: whether less is better.
        unit: behind the numbers.
    """

    title: str
    bound: float
    figure: Callable[[Figures], float]
    at_most: bool = False
    unit: str = ""

    def row(self, figures: Figures) -> tuple[str, ...]:
        """Title, bound, figure, met or not met."""
        wanted = f"{'at most' if self.at_most else 'at least'} {self.bound:g}{self.unit}"
        try:
            found = self.figure(figures)
        except KeyError as error:
            return self.title, wanted, "", f"not measured: {error.args[0]}"
        met = found <= self.bound if self.at_most else found >= self.bound
        return self.title, wanted, f"{found:.3g}{self.unit}", "met" if met else "**not met**"


def of(part: str, name: str) -> Callable[[Figures], float]:
    """One figure as it is."""
    return lambda figures: figures[part][name]


def bound_share(figures: Figures) -> float:
    """Time that the network's operations take at the rate of the matrix product, by the time it takes; one thread."""
    found = figures["infer"]
    least_ms = found["da, GFLOP"] / figures["limit"]["bf16_1"] * 1000
    return least_ms / found[f"da, {OURS}, 1 threads, ms"]


def slowest_render(figures: Figures) -> float:
    """Of all that is rendered at the largest size."""
    found = figures["refocus"]
    return min(value for name, value in found.items() if name.startswith("render"))


def least_throughput(figures: Figures) -> float:
    """Of all numbers of callers."""
    return min(value for name, value in figures["gateway"].items() if name.startswith("throughput"))


TARGETS = (
    Target(
        f"torch eager fp32 / ours, Depth Anything V2 Small at 518 x 518, {_ALL} threads",
        6,
        of("infer", f"da, {OURS}, {_ALL} threads, ratio"),
    ),
    Target("its mean error", 0.01, of("infer", f"da, {OURS}, {_ALL} threads, mean error"), at_most=True),
    Target("share of the measured bf16 matrix product, the same network, 1 thread", 0.6, bound_share),
    Target("HF pipeline / ours, 720p JPEG to native-size PNG", 6, of("request", f"{_NATIVE}, 720p")),
    Target("HF pipeline / ours, 12 Mpx JPEG to native-size PNG", 10, of("request", f"{_NATIVE}, 12 Mpx")),
    Target("HF pipeline / ours, 12 Mpx JPEG to full-size 16-bit PNG", 5, of("request", f"{_FULL}, 12 Mpx")),
    Target("FastAPI + torch / ours, throughput of 4 callers", 6, of("request", "FastAPI, 4 at once")),
    Target("Triton ensemble / in-process, the default network", 1.03, of("serve", "focus / in-process"), at_most=True),
    Target(
        "Triton / in-process, Depth Anything V2 Small", 1.03, of("serve", "depth_anything / in-process"), at_most=True
    ),
    Target("gateway over direct gRPC, 720p", 0.5, of("gateway", "hop, ms"), at_most=True, unit=" ms"),
    Target("gateway / direct gRPC, throughput of 8 and 32 callers, the lower", 0.97, least_throughput),
    Target("two instances / one, a thread each, Depth Anything V2 Small", 1.85, of("scale", "da, two instances / one")),
    Target("refocus, slowest `render` at 12 Mpx", 4, slowest_render, unit=" Mpx/s"),
    Target("second click / first, 720p", 0.35, of("refocus", "second click, 720p"), at_most=True),
    Target("second click / first, 12 Mpx", 0.35, of("refocus", "second click, 12 Mpx"), at_most=True),
    Target("start to ready", 6, of("cold", "start to ready, s"), at_most=True, unit=" s"),
    Target("installed, without torch", 600, of("cold", "install MB"), at_most=True, unit=" MB"),
)


def table(parts: Sequence[Part]) -> Table:
    """All lines."""
    figures = {part.name: part.figures for part in parts}
    rows = tuple(target.row(figures) for target in TARGETS)
    return Table("Targets", ("figure", "wanted", "measured", ""), rows)
