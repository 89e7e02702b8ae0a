"""The served network by itself, in each precision, on one core and on all."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.benchmark.clock import interleave, table
from service.benchmark.effort import Effort, Size
from service.benchmark.limit import properties, thread_counts
from service.benchmark.page import Part, Table
from service.benchmark.pictures import photo

DEFAULT: Final = "focus_on_depth"
SIZE: Final = (288, 384)
"""The default network's commonest input."""


def run(effort: Effort) -> Part:
    """Milliseconds of the default network in OpenVINO, in float32 and in bfloat16."""
    path = effort.repository / DEFAULT / "1" / "model.onnx"
    gflop = json.loads(path.with_name("metadata.json").read_text())["gflop"]["value"]
    image = photo(*SIZE)[None]
    tables: list[Table] = []
    figures: dict[str, float] = {}
    for threads in thread_counts():
        contenders = {f"OpenVINO {each}": openvino_call(path, each, threads, image) for each in ("f32", "bf16")}
        timings = interleave(contenders, rounds=effort.many)
        title = f"Default network, {SIZE[0]} x {SIZE[1]}, batch 1, {threads} thread{'s' * (threads > 1)}"
        tables.append(table(title, timings, f"{gflop} GFLOP."))
        figures |= {f"{name}_{threads}_ms": timing.wall_ms for name, timing in timings.items()}
    return Part("infer", tuple(tables), figures)


def openvino_request(path: Path, precision: str, threads: int, size: Size | None = None, counted: bool = False) -> Any:
    """An inference request of a network's file, for one size where it is known; `counted`: with its own counters."""
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    if size is not None:
        model.reshape({"image": [1, *size, 3]})
    wanted = properties(precision, threads) | ({"PERF_COUNT": True} if counted else {})
    return core.compile_model(model, "CPU", wanted).create_infer_request()


def openvino_call(path: Path, precision: str, threads: int, image: NDArray[np.uint8]) -> Callable[[], object]:
    """A call that runs a network's file on one batch."""
    request = openvino_request(path, precision, threads)
    return lambda: request.infer({"image": image}, share_inputs=True, share_outputs=True)
