"""A stand-in for NVIDIA's trtexec, which needs a GPU: its "plan" is the ONNX file it was given, run by ONNX Runtime.

It takes what `training.tensorrt` says, and fails where the real one would: a profile missing or twice, weights of the
wrong type, a shape outside its profile. With `BIAS` in the environment its answers are off by that much.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime


def main() -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("onnx", "saveEngine", "timingCacheFile", "loadEngine", "shapes", "loadInputs", "exportOutput"):
        parser.add_argument(f"--{name}")
    for name in ("iterations", "warmUp", "duration", "useProfile"):
        parser.add_argument(f"--{name}", type=int)
    for name in ("profile", "minShapes", "optShapes", "maxShapes"):
        parser.add_argument(f"--{name}", action="append", default=[])
    for name in ("stronglyTyped", "skipInference"):
        parser.add_argument(f"--{name}", action="store_true")
    options = parser.parse_args()
    return infer(options) if options.loadEngine else build(options)


def build(options: argparse.Namespace) -> int:
    if options.profile != [str(number) for number in range(len(options.profile))] or not (
        len(options.profile) == len(options.minShapes) == len(options.optShapes) == len(options.maxShapes)
    ):
        print("[E] profiles are not 0, 1, 2, ... with three shapes each")
        return 1
    model = onnx.load(options.onnx)
    onnx.checker.check_model(model, full_check=True)
    if onnx.TensorProto.FLOAT in {each.data_type for each in model.graph.initializer if len(each.dims) > 1}:
        print("[E] a strongly typed network keeps its float32 weights")
        return 1
    shapes = {"min": options.minShapes, "opt": options.optShapes, "max": options.maxShapes}
    engine = {"profiles": shapes, "onnx": Path(options.onnx).read_bytes().hex()}
    Path(options.saveEngine).write_text(json.dumps(engine))
    Path(options.timingCacheFile).write_text("timing")
    return 0


def infer(options: argparse.Namespace) -> int:
    engine = json.loads(Path(options.loadEngine).read_text())
    bounds = [engine["profiles"][bound][options.useProfile] for bound in ("min", "max")]
    least, most = ([int(side) for side in bound.partition(":")[2].split("x")] for bound in bounds)
    shape = [int(side) for side in options.shapes.partition(":")[2].split("x")]
    if not all(low <= side <= high for low, side, high in zip(least, shape, most, strict=True)):
        print(f"[E] shape {shape} is outside profile {options.useProfile}")
        return 1
    name, _, path = options.loadInputs.partition(":")
    image = np.fromfile(path, np.uint8).reshape(shape)
    session = onnxruntime.InferenceSession(bytes.fromhex(engine["onnx"]), providers=["CPUExecutionProvider"])
    bias = float(os.environ.get("BIAS", "0"))
    answer = [
        {"name": output.name, "dimensions": "x".join(map(str, found.shape)), "values": (found + bias).ravel().tolist()}
        for output, found in zip(session.get_outputs(), session.run(None, {name: image}), strict=True)
    ]
    Path(options.exportOutput).write_text(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
