"""The default network at its commonest size: PyTorch eager against what serves it."""

from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import torch

from training.models import create_model

from .clock import Section, interleave
from .pictures import photo

THREADS = 2
SIZE = (288, 384)


def run(model: Path, *, rounds: int) -> list[Section]:
    """One section; PyTorch runs the same architecture (time does not depend on the weights)."""
    image = photo(*SIZE)[None]
    torch.set_num_threads(THREADS)
    network = create_model("focus_on_depth_sharp").eval()
    tensor = torch.from_numpy(image)

    def eager() -> None:
        with torch.inference_mode():
            network(tensor)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    contenders = {"PyTorch eager f32": eager, "ONNX Runtime f32": lambda: session.run(None, {"image": image})}
    core = openvino.Core()
    for precision in ("f32", "bf16"):
        properties = {
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": THREADS,
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,
        }
        request = core.compile_model(model, "CPU", properties).create_infer_request()
        contenders[f"OpenVINO {precision}"] = lambda request=request: request.infer({"image": image})
    assert np.isfinite(session.run(None, {"image": image})[0]).all()
    height, width = SIZE
    return [Section(f"Network, {height} x {width}, batch 1, {THREADS} threads", interleave(contenders, rounds=rounds))]
