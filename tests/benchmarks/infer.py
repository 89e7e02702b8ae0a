"""Networks by themselves: PyTorch, ONNX Runtime and OpenVINO on the same weights and the same input."""

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn

from service.benchmark import clock
from service.benchmark.clock import Timing, interleave
from service.benchmark.effort import Effort
from service.benchmark.infer import openvino_request
from service.benchmark.limit import thread_counts
from service.benchmark.page import Part, Table
from service.benchmark.pictures import photo
from service.benchmark.progress import say
from training.quantisation import quantise

from . import operators, precision
from .networks import Networks, Subject

Call = Callable[[], np.ndarray]
"""Runs once and gives the first output."""

_CALIBRATED_ON = 4


def run(effort: Effort, networks: Networks) -> Part:
    """Both networks, on one core and on all."""
    tables, figures = [], {}
    subjects = [(networks.depth_anything, effort.rounds)]
    if not networks.tiny:  # quantising the default one takes as long as all the rest of a glance
        subjects.append((networks.default, effort.many))
    for subject, rounds in subjects:
        int8 = networks.folder / f"{subject.key}_int8.onnx"
        quantise(subject.file, int8, [photo(*subject.size, seed)[None] for seed in range(1, _CALIBRATED_ON + 1)])
        for threads in thread_counts():
            say(f"{subject.title}, {threads} thread{'s' * (threads > 1)}")
            with torch_threads(threads):
                calls = contenders(subject, int8, threads)
                wanted = calls["torch eager fp32"]()
                errors = {name: error(call(), wanted) for name, call in calls.items()}
                timings = interleave(calls, rounds=rounds, title=subject.title)
            tables.append(table(subject, threads, timings, errors))
            for name, timing in timings.items():
                key = f"{subject.key}, {name}, {threads} threads"
                figures |= {f"{key}, ms": timing.wall_ms, f"{key}, ratio": timing.ratio}
                figures[f"{key}, mean error"] = errors[name][1]
        figures[f"{subject.key}, GFLOP"] = subject.gflop
        counters, spent = operators.table(subject, 1, rounds)
        tables.append(counters)
        figures |= spent
    if not networks.tiny and (found := precision.table(effort, networks)):
        tables.append(found[0])
        figures |= found[1]
    return Part("infer", tuple(tables), figures)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """So many for torch, within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def contenders(subject: Subject, int8: Path, threads: int) -> dict[str, Call]:
    """The peer first."""
    image = photo(*subject.size)[None]
    half = copy.deepcopy(subject.network).to(torch.bfloat16).to(memory_format=torch.channels_last)
    makers: dict[str, Callable[[], Call]] = {
        "torch eager fp32": lambda: in_torch(subject.network, image),
        "torch eager bf16, channels last": lambda: in_torch(half, image),
        "TorchScript fp32, frozen": lambda: in_torch(scripted(subject.network, image), image),
        "TorchScript bf16, frozen": lambda: in_torch(scripted(half, image), image),
        "ONNX Runtime fp32": lambda: in_onnx_runtime(subject.file, image, threads),
    }
    for kind, file in (("f32", subject.file), ("bf16", subject.file), ("int8", int8)):
        makers[f"OpenVINO {kind}"] = partial(in_openvino, file, image, kind, threads)
    calls = {}
    for name, make in makers.items():
        try:
            call = make()
            call()
        except RuntimeError as error:  # some pairs of network and precision have no implementation
            print(f"{subject.title}: {name} does not run: {str(error).splitlines()[-1][:200]}", flush=True)
        else:
            calls[name] = call
    return calls


def in_torch(network: nn.Module, image: np.ndarray) -> Call:
    tensor = torch.from_numpy(image)

    def call() -> np.ndarray:
        with torch.inference_mode():
            return network(tensor)[0].float().numpy()

    return call


def scripted(network: nn.Module, image: np.ndarray) -> nn.Module:
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # tracing says that sizes become constants, which is wanted here
        return torch.jit.freeze(torch.jit.trace(network, torch.from_numpy(image), check_trace=False).eval())


def in_onnx_runtime(file: Path, image: np.ndarray, threads: int) -> Call:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"image": image})[0]


def in_openvino(file: Path, image: np.ndarray, precision: str, threads: int) -> Call:
    request = openvino_request(file, precision, threads)
    return lambda: request.infer({"image": image}, share_inputs=True, share_outputs=True)[0]


def error(found: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    """The largest difference as a share of the range, the mean one as a share of the mean."""
    off = np.abs(found - wanted)
    return float(off.max() / np.ptp(wanted)), float(off.mean() / np.abs(wanted).mean())


def table(subject: Subject, threads: int, timings: dict[str, Timing], errors: dict[str, tuple[float, float]]) -> Table:
    height, width = subject.size
    title = f"{subject.title}, {height} x {width}, batch 1, {threads} thread{'s' * (threads > 1)}"
    note = (
        f"{subject.gflop:.1f} GFLOP. Errors of depth against eager fp32 on one picture: the largest as a share of the "
        f"range, the mean as a share of the mean. int8 is ONNX Runtime's quantisation of convolutions and matrix "
        f"products, calibrated on {_CALIBRATED_ON} pictures."
    )
    largest, mean = zip(*([f"{each:.1e}" for each in errors[name]] for name in timings), strict=True)
    return clock.table(title, timings, note, {"largest error": largest, "mean error": mean})
