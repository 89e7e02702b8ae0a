"""Where a network's time goes: OpenVINO's own counters by kind of operator, beside the operations of each kind."""

from collections import defaultdict
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode

from service.benchmark.infer import openvino_request
from service.benchmark.page import Table
from service.benchmark.pictures import photo

from .networks import Subject

KINDS = {"FullyConnected": "linear layers", "Subgraph": "attention and fused steps", "MatMul": "matrix products"}
KINDS |= dict.fromkeys(("Convolution", "GroupConvolution", "ConvolutionBackpropData"), "convolutions")
KINDS |= {"Interpolate": "interpolation", "MVN": "layer norms"}
KINDS |= dict.fromkeys(("Transpose", "Reorder", "Convert", "Concat", "Slice"), "moving and converting")
_REST = "the rest"


def table(subject: Subject, threads: int, rounds: int) -> tuple[Table, dict[str, float]]:
    """Milliseconds, operations and their rate by kind, in bfloat16; counting itself costs next to nothing."""
    request = openvino_request(subject.file, "bf16", threads, counted=True)
    image = photo(*subject.size)[None]
    seen: dict[str, list[float]] = defaultdict(list)
    kinds: dict[str, str] = {}
    for turn in range(rounds + 1):
        request.infer({"image": image}, share_inputs=True)
        for node in request.get_profiling_info() if turn else ():
            seen[node.node_name].append(node.real_time.total_seconds() * 1000)
            kinds[node.node_name] = KINDS.get(node.node_type, _REST)
    spent: dict[str, float] = defaultdict(float)
    for name, times in seen.items():
        spent[kinds[name]] += median(times)
    gflop, total = gflop_by_kind(subject), sum(spent.values())
    rows = []
    for kind, ms in sorted(spent.items(), key=lambda item: -item[1]):
        rate = f"{gflop[kind] / ms * 1000:.0f}" if kind in gflop else ""
        done = f"{gflop[kind]:.1f}" if kind in gflop else ""
        rows.append((kind, f"{ms:.1f}", f"{ms / total:.0%}", done, rate))
    height, width = subject.size
    title = f"Where the time goes: {subject.title}, {height} x {width}, bf16, {threads} thread{'s' * (threads > 1)}"
    note = f"OpenVINO's counters, medians of {rounds} runs; GFLOP as torch counts them."
    figures = {f"{subject.key}, {kind}, {threads} threads, ms": ms for kind, ms in spent.items()}
    return Table(title, ("operators", "ms", "share", "GFLOP", "GFLOP/s"), tuple(rows), note, plotted="ms"), figures


def gflop_by_kind(subject: Subject) -> dict[str, float]:
    """10^9 operations of one input."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        subject.network(torch.zeros(1, *subject.size, 3, dtype=torch.uint8))
    found: dict[str, float] = defaultdict(float)
    for operator, count in counter.get_flop_counts()["Global"].items():
        name = str(operator)
        attention = "attention" in name or "bmm" in name
        kind = "Subgraph" if attention else "Convolution" if "conv" in name else "FullyConnected"
        found[KINDS[kind]] += count / 1e9
    return dict(found)
