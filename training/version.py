"""One version of a served model: `<model>/1/model.onnx` and `metadata.json` in a repository, and its `config.pbtxt`.

Everything is written into a temporary folder beside the target, compared there with the network in torch, and then
renamed: a version is whole or absent, and a failed export leaves what was there.
"""

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from service.contract import CANARY_SIZE, MODELS, NETWORK_SIZES, ModelSpec, Size
from training.errors import TrainingError
from training.parity import (
    METRIC_BF16,
    TOLERANCES,
    Array,
    Batch,
    Errors,
    Runtime,
    compare,
    eager,
    onnx_runtime,
    openvino_runtime,
    torchscript,
)
from training.serving import network_config, tensorrt_config

OPSET = 18
LARGEST_BYTES = 25 * 2**20
"""Of an ONNX file that enters git."""

_FLOP_SIZE: Size = (288, 384)
_BF16 = "openvino_bf16"


def file_sha256(path: Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def comparison_batches(
    photos: Sequence[npt.NDArray[np.uint8]],
    sizes: Sequence[Size] = (*NETWORK_SIZES, CANARY_SIZE),
    seed: int = 0,
    count: int = 3,
) -> list[npt.NDArray[np.uint8]]:
    """Inputs to compare on: at each size noise in a batch of `count`, and `photos` in batches of `count` and 1."""
    rng = np.random.default_rng(seed)
    batches = []
    for height, width in sizes:
        batches.append(rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8))
        if photos:
            fitted = [cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA) for photo in photos]
            chosen = [fitted[int(i)] for i in rng.integers(len(fitted), size=count)]
            batches += [np.stack(chosen).astype(np.uint8), chosen[0][None].astype(np.uint8)]
    return batches


def write_onnx(network: nn.Module, spec: ModelSpec, stride: int, path: Path) -> None:
    """The network as one ONNX file, batch free, and height and width multiples of `stride`; one size alone is fixed."""
    with warnings.catch_warnings():
        # two inputs of one size have one name for it
        warnings.filterwarnings("ignore", "# The axis name: .* will not be used")
        program = torch.onnx.export(
            network,
            example(spec),
            input_names=[tensor.name for tensor in spec.inputs],
            output_names=[tensor.name for tensor in spec.outputs],
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=dynamic_shapes(spec, stride),
            verbose=False,
        )
    if program is None:
        raise TrainingError("the ONNX exporter made nothing")
    program.save(str(path), external_data=False)
    _forget_origin(path)


def dynamic_shapes(spec: ModelSpec, stride: int) -> tuple[dict[int, Any], ...]:
    """What `torch.export` may vary of each input: the batch, and where there are several sizes, height and width."""
    batch = torch.export.Dim("batch", min=1, max=256)
    shapes: list[dict[int, Any]] = [{0: batch} for _ in spec.inputs]
    if len(spec.sizes) > 1:
        dim = torch.export.Dim
        most = max(64 * 32, *(side for size in spec.sizes for side in size)) // stride
        height, width = dim(f"height_{stride}", min=1, max=most), dim(f"width_{stride}", min=1, max=most)
        shapes = [shape | {1: stride * height, 2: stride * width} for shape in shapes]
    return tuple(shapes)


def example(spec: ModelSpec) -> tuple[Tensor, ...]:
    """A batch of two blank inputs at the smallest size that is not square, or else the smallest."""
    height, width = min(spec.sizes, key=lambda size: (size[0] == size[1], size[0] * size[1]))
    types = {"uint8": torch.uint8, "float32": torch.float32}
    return tuple(torch.zeros(2, height, width, *each.dims[2:], dtype=types[each.dtype]) for each in spec.inputs)


def _forget_origin(path: Path) -> None:
    """Removes what the exporter notes of each node: Python's stack trace, with this machine's paths, and the like."""
    model = onnx.load(path)
    for part in (model, model.graph, *model.functions):
        part.ClearField("metadata_props")
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        for node in nodes:
            node.ClearField("metadata_props")
            node.ClearField("doc_string")
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        value.ClearField("metadata_props")
    onnx.save(model, path)


def gigaflop(network: nn.Module, inputs: Sequence[Tensor]) -> float:
    """10^9 floating point operations of `inputs`, multiply and add counted apart."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*inputs)
    total: int = counter.get_total_flops()
    return total / 1e9


def write_version(
    network: nn.Module,
    spec: ModelSpec,
    stride: int,
    batches: Sequence[Batch | Array],
    about: dict[str, Any],
    repository: Path,
    bf16: bool = True,
) -> dict[str, Any]:
    """Writes version 1 of a served network, and its `config.pbtxt` unless it is one of the contract's and has one.

    Args:
        network: As it is served: it gives the tensors of `spec` in their order.
        spec: What it takes and gives.
        stride: What heights and widths are multiples of.
        batches: To compare on.
        about: What else the metadata is to say.
        repository: Model repository; the folder of the model is made if need be.
        bf16: Whether it may be computed in bfloat16; where that is too far off, it is not, the contract's models apart.

    Returns:
        The metadata that was written.

    Raises:
        TrainingError: It cannot become an ONNX file, a runtime disagrees with torch, or the file is too large for git.
            Nothing is written.
    """
    in_git = spec.name in MODELS
    with staged(repository / spec.name / "1") as folder:
        path = folder / "model.onnx"
        try:
            write_onnx(network, spec, stride, path)
        except torch.onnx.errors.OnnxExporterError as error:
            raise TrainingError(f"{spec.name} cannot be exported: {_reason(error)}") from error
        if in_git and path.stat().st_size > LARGEST_BYTES:
            raise TrainingError(f"model.onnx has {path.stat().st_size} bytes, at most {LARGEST_BYTES} may enter git")
        errors, bf16 = _parity(network, spec, batches, path, bf16)
        metadata = {
            "model": spec.name,
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "gflop": _gflop(network, spec),
            **about,
            "outputs": [tensor.name for tensor in spec.outputs],
            "sizes": [list(size) for size in spec.sizes],
            "canary_size": list(spec.canary_size),
            "bf16": bf16,
            "parity": {runtime: _shown(found, spec) for runtime, found in errors.items()},
            "parity_batches": len(batches),
            "opset": OPSET,
            "sha256": file_sha256(path),
        }
        (folder / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n")
    if not in_git or not (repository / spec.name / "config.pbtxt").exists():
        said = spec if bf16 else replace(spec, precision="float32")
        write_config(repository, spec.name, network_config(said, bf16=bf16))
    if spec.takes_image:
        write_config(repository, spec.name, tensorrt_config(spec), "tensorrt")
    return metadata


def write_config(repository: Path, name: str, text: str, variant: str = "") -> None:
    """Writes a model's `config.pbtxt`, or `configs/VARIANT.pbtxt`, whole or not at all."""
    path = repository / name / (f"configs/{variant}.pbtxt" if variant else "config.pbtxt")
    path.parent.mkdir(exist_ok=True)
    partial = path.with_name("." + path.name)
    partial.write_text(text)
    partial.replace(path)


def _reason(error: Exception) -> str:
    causes: list[BaseException] = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    return (str(causes[-1]).strip().splitlines() or [type(causes[-1]).__name__])[0][:200]


def _parity(
    network: nn.Module, spec: ModelSpec, batches: Sequence[Batch | Array], path: Path, bf16: bool
) -> tuple[dict[str, Errors], bool]:
    """Errors of each runtime, and whether bfloat16 is near enough to be served."""
    outputs = [tensor.name for tensor in spec.outputs]
    reference = eager(network)
    precise: dict[str, Runtime] = {
        "onnxruntime": onnx_runtime(path, outputs),
        "openvino_f32": openvino_runtime(path, outputs, "f32"),
    }
    traced = example(spec)
    script: dict[str, Runtime] = {"torchscript": torchscript(network, traced)}
    if spec.name in MODELS:
        every = script | precise | {_BF16: openvino_runtime(path, outputs, "bf16")}
        return compare(reference, every, batches, outputs), bf16
    errors = compare(reference, precise, batches, outputs)
    # A trace is good for the size it was made at; networks whose graph depends on the size have one trace for each.
    size = traced[0].shape[1:3]
    here = [batch for batch in batches if (batch[0] if isinstance(batch, tuple) else batch[:1])[0].shape[-3:-1] == size]
    errors |= compare(reference, script, here, outputs)
    if bf16:
        tolerances = TOLERANCES | ({_BF16: METRIC_BF16} if spec.depth_kind == "metric" else {})
        rough: dict[str, Runtime] = {_BF16: openvino_runtime(path, outputs, "bf16")}
        try:
            errors |= compare(reference, rough, batches, outputs, tolerances)
        except TrainingError:
            bf16 = False
    return errors, bf16


def _shown(errors: Errors, spec: ModelSpec) -> dict[str, float]:
    kinds = {"person" if tensor.name == "person" else "depth" for tensor in spec.outputs}
    return {name: value for name, value in asdict(errors).items() if name.partition("_")[0] in kinds}


def _gflop(network: nn.Module, spec: ModelSpec) -> dict[str, Any]:
    size = _FLOP_SIZE if _FLOP_SIZE in spec.sizes else spec.sizes[0]
    inputs = [torch.zeros(1, *size, *each.shape[3:], dtype=each.dtype) for each in example(spec)]
    return {"size": list(size), "value": round(gigaflop(network, inputs), 3)}


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A folder that becomes `target` when the block ends well, and vanishes when it does not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".export-", dir=target.parent))
    try:
        yield staging
        staging.chmod(0o755)
        old = staging.with_name(staging.name + ".old")
        if target.exists():
            os.rename(target, old)
        os.rename(staging, target)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
