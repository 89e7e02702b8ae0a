"""What the processor can do at most: torch's and OpenVINO's matrix products, whichever is faster."""

from collections.abc import Callable

import torch

from service.benchmark import limit
from service.benchmark.clock import interleave
from service.benchmark.effort import Effort
from service.benchmark.page import Part

TYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}


def run(effort: Effort) -> Part:
    """GFLOP/s by precision and threads; `f32_1` and so on are the better of both libraries."""
    part = limit.run(effort)
    figures = dict(part.figures)
    for threads in limit.thread_counts():
        torch.set_num_threads(threads)
        for size in effort.gemm:
            contenders = {name: product(size, name) for name in TYPES}
            for name, timing in interleave(contenders, rounds=effort.rounds).items():
                limit.keep_best(figures, f"torch_{name}_{threads}", 2 * size**3 / timing.wall_ms / 1e6)
        for name in TYPES:
            figures[f"{name}_{threads}"] = max(figures[f"{library}_{name}_{threads}"] for library in LIBRARIES)
    rows = [
        limit.rate_row(f"{title}, {name}", f"{library}_{name}", figures)
        for library, title in LIBRARIES.items()
        for name in TYPES
    ]
    return Part(part.name, (limit.rates_table(rows, effort), *part.tables[1:]), figures)


LIBRARIES = {"torch": "torch.mm", "openvino": "OpenVINO MatMul"}


def product(size: int, name: str) -> Callable[[], object]:
    """A call that multiplies two square matrices of a type."""
    generator = torch.Generator().manual_seed(0)
    if name == "int8":
        whole = torch.randint(-127, 128, (size, size), dtype=torch.int8, generator=generator)
        return lambda: torch._int_mm(whole, whole)
    matrix = torch.randn(size, size, generator=generator).to(TYPES[name])
    result = torch.empty_like(matrix)
    return lambda: torch.mm(matrix, matrix, out=result)
