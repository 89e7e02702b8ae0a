"""What was to be reached, each line met or not met by the figures of the runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from service.benchmark import machine
from service.benchmark.page import Part, Table

OURS = "OpenVINO bf16"
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


def bounds(parts: Sequence[Part]) -> list[Table]:
    """What the ratios could be at most if the network ran at the matrix product's own rate and all else took no time.

    Nothing where the parts have not run.
    """
    figures = {part.name: part.figures for part in parts}
    try:
        network, limit, request = (figures[name] for name in ("infer", "limit", "request"))
        least_ms = network["da, GFLOP"] / limit[f"bf16_{_ALL}"] * 1000
        eager = f"da, torch eager fp32, {_ALL} threads, ms"
        rows = (
            ("torch eager fp32 / ours", network[eager] / least_ms),
            ("HF pipeline / ours, 720p, native size", request["HF pipeline, 8-bit, full size, 720p, ms"] / least_ms),
            ("FastAPI + torch / ours, 4 callers", 1000 / least_ms / request["FastAPI, 4 at once, answers/s"]),
        )
    except KeyError:
        return []
    note = (
        f"Depth Anything V2 Small has {network['da, GFLOP']:.1f} GFLOP, which take {least_ms:.0f} ms at the "
        f"{limit[f'bf16_{_ALL}']:.0f} GFLOP/s of bf16 on {_ALL} threads; fp32 does {limit[f'f32_{_ALL}']:.0f} GFLOP/s, "
        f"so bf16 is worth a factor of {limit[f'bf16_{_ALL}'] / limit[f'f32_{_ALL}']:.1f} there. If ours "
        "ran at that rate without a gap, and decoding, HTTP and PNG took no time:"
    )
    shown = tuple((title, f"{value:.1f}") for title, value in rows)
    return [Table("What the processor of `limit` and `infer` allows", ("ratio", "at most"), shown, note)]


def served(parts: Sequence[Part]) -> Table:
    """The default network end to end at 720p: each stage, and photos a second; empty where it has not run."""
    found = [part for part in parts if part.name == "stages"]
    rows = found[0].tables[0].rows if found else ()
    rates = [f"{name} {value:.1f}" for part in found for name, value in part.figures.items() if "photos/s" in name]
    header = found[0].tables[0].header if found else ("answer",)
    return Table("The default network end to end, 720p", header, rows, "At saturation: " + ", ".join(rates) + ".")
