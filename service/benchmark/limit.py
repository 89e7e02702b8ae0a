"""What this machine can do at most: matrix products in three precisions, and copies."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np

from service.benchmark import machine
from service.benchmark.clock import interleave
from service.benchmark.effort import Effort
from service.benchmark.page import Part, Table

PRECISIONS: Final = ("f32", "bf16", "int8")


def run(effort: Effort) -> Part:
    """GFLOP/s of OpenVINO's matrix product, the engine that serves, and GB/s of copies."""
    figures: dict[str, float] = {}
    for threads in thread_counts():
        for size in effort.gemm:
            contenders = {precision: gemm(size, precision, threads) for precision in PRECISIONS}
            for precision, timing in interleave(contenders, rounds=effort.rounds).items():
                gflops = 2 * size**3 / timing.wall_ms / 1e6
                keep_best(figures, f"openvino_{precision}_{threads}", gflops)
    rows = [rate_row(f"OpenVINO MatMul, {precision}", f"openvino_{precision}", figures) for precision in PRECISIONS]
    copies = copy_rates(effort)
    return Part("limit", (rates_table(rows, effort), copies_table(copies, effort)), figures | copies)


def thread_counts() -> tuple[int, ...]:
    """One, and all."""
    return tuple(sorted({1, machine.cores()}))


def keep_best(figures: dict[str, float], name: str, value: float) -> None:
    """The larger of two sizes is the nearer to the limit."""
    figures[name] = max(value, figures.get(name, 0.0))


def rate_row(title: str, key: str, figures: dict[str, float]) -> tuple[str, ...]:
    """A row of `rates_table`."""
    return (title, *(f"{figures[f'{key}_{threads}']:.0f}" for threads in thread_counts()))


def rates_table(rows: list[tuple[str, ...]], effort: Effort) -> Table:
    """GFLOP/s by number of threads."""
    header = ("matrix product", *(f"{count} thread{'s' * (count > 1)}" for count in thread_counts()))
    sides = " or ".join(map(str, effort.gemm))
    note = f"GFLOP/s, multiply and add counted apart, the best of square matrices of side {sides}; medians."
    return Table("GEMM", header, tuple(rows), note, plotted=header[-1])


def gemm(size: int, precision: str, threads: int) -> Callable[[], object]:
    """A call that multiplies two square matrices in OpenVINO, in int8 through its quantisation operations."""
    import openvino
    from openvino import opset13 as ops

    rng = np.random.default_rng(0)
    left = ops.parameter([size, size], np.float32)
    right: Any = ops.constant(rng.standard_normal((size, size)).astype(np.float32))
    first: Any = left
    if precision == "int8":
        ends = [np.float32(-4.0), np.float32(4.0), np.float32(-4.0), np.float32(4.0)]
        first, right = (ops.fake_quantize(each, *ends, 256) for each in (left, right))
    model = openvino.Model([ops.matmul(first, right, False, False)], [left], "gemm")
    request = openvino.Core().compile_model(model, "CPU", properties(precision, threads)).create_infer_request()
    given = rng.standard_normal((size, size)).astype(np.float32)
    return lambda: request.infer([given], share_inputs=True, share_outputs=True)


def properties(precision: str, threads: int) -> dict[str, Any]:
    """As the embedded backend compiles networks; int8 computes what is not quantised in float32."""
    return {
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,
    }


def copy_rates(effort: Effort) -> dict[str, float]:
    """GB/s of copies, read and written bytes counted."""
    return {f"copy_{threads}": _copy_rate(threads, effort) for threads in thread_counts()}


def _copy_rate(threads: int, effort: Effort) -> float:
    source = [np.ones(effort.copied_bytes // threads, np.uint8) for _ in range(threads)]
    target = [np.empty_like(each) for each in source]
    with ThreadPoolExecutor(threads) as pool:
        timing = interleave({"copy": lambda: list(pool.map(np.copyto, target, source))}, rounds=effort.rounds)
    return 2 * effort.copied_bytes / timing["copy"].wall_ms / 1e6


def copies_table(rates: dict[str, float], effort: Effort) -> Table:
    """GB/s by number of threads."""
    header = ("copy", *(f"{count} thread{'s' * (count > 1)}" for count in thread_counts()))
    row = (f"{effort.copied_bytes >> 20} MiB", *(f"{rates[f'copy_{threads}']:.1f}" for threads in thread_counts()))
    return Table("Copies", header, (row,), "GB/s, read and written bytes counted.")
