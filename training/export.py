"""Checkpoint -> `<model repository>/<model>/1/model.onnx` and `metadata.json`, after numeric parity.

Everything is written into a temporary folder beside the target, compared there with the network in torch, and then
renamed: a version is whole or absent, and a failed export leaves what was there.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch.utils.flop_counter import FlopCounterMode

from service.contract import CANARY_SIZE, MODELS, NETWORK_SIZES, ModelSpec, Size
from training.checkpoint import Checkpoint, adopt, source_revision
from training.data.sample import read_rgb
from training.errors import TrainingError
from training.models import create_model
from training.models.focus_on_depth import STRIDE, Served
from training.parity import Errors, compare, eager, onnx_runtime, openvino_runtime, torchscript

OPSET = 18
LARGEST_BYTES = 25 * 2**20
"""Of an ONNX file that enters git."""

_FLOP_SIZE: Size = (288, 384)


@dataclass(frozen=True)
class Provenance:
    """Where a model comes from, for its metadata.

    Attributes:
        checkpoint: File name of the checkpoint.
        checkpoint_sha256: Of that file.
        metrics: Result of `evaluate` for it.
    """

    checkpoint: str
    checkpoint_sha256: str
    metrics: dict[str, Any]


def file_sha256(path: Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def served_network(checkpoint: Checkpoint, origin: str = "checkpoint") -> Served:
    """The averaged weights of a checkpoint, ready to run; TrainingError, which names `origin`, if they do not fit."""
    network = create_model(checkpoint.config.model)
    adopt(network, checkpoint.ema, origin)
    return Served(network).eval()


def comparison_batches(photos: Sequence[npt.NDArray[np.uint8]], seed: int = 0) -> list[npt.NDArray[np.uint8]]:
    """Inputs to compare on: at every served size and the canary's, noise of batch 3, and `photos` of batch 1 and 3."""
    rng = np.random.default_rng(seed)
    batches = []
    for height, width in (*NETWORK_SIZES, CANARY_SIZE):
        batches.append(rng.integers(0, 256, (3, height, width, 3), dtype=np.uint8))
        if photos:
            fitted = [cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA) for photo in photos]
            chosen = [fitted[int(i)] for i in rng.integers(len(fitted), size=3)]
            batches += [np.stack(chosen).astype(np.uint8), chosen[0][None].astype(np.uint8)]
    return batches


def write_onnx(network: Served, spec: ModelSpec, path: Path) -> None:
    """The network as one ONNX file with batch, height and width free (height and width multiples of 32)."""
    example = torch.zeros(2, 2 * STRIDE, 3 * STRIDE, 3, dtype=torch.uint8)
    dim = torch.export.Dim
    height, width = dim("height_32", min=1, max=64), dim("width_32", min=1, max=64)
    shapes = {"image": {0: dim("batch", min=1, max=256), 1: STRIDE * height, 2: STRIDE * width}}
    program = torch.onnx.export(
        network,
        (example,),
        input_names=[tensor.name for tensor in spec.inputs],
        output_names=[tensor.name for tensor in spec.outputs],
        opset_version=OPSET,
        dynamo=True,
        dynamic_shapes=shapes,
        verbose=False,
    )
    if program is None:
        raise TrainingError("the ONNX exporter made nothing")
    program.save(str(path), external_data=False)
    _forget_origin(path)


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


def gigaflop(network: Served, size: Size = _FLOP_SIZE) -> float:
    """10^9 floating point operations of one picture of `size`, multiply and add counted apart."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, *size, 3, dtype=torch.uint8))
    total: int = counter.get_total_flops()
    return total / 1e9


def export(
    checkpoint: Checkpoint,
    provenance: Provenance,
    photos: Sequence[npt.NDArray[np.uint8]],
    repository: Path,
    name: str = "focus_on_depth",
) -> dict[str, Any]:
    """Writes version 1 of a served model.

    Args:
        checkpoint: What to export.
        provenance: For the metadata.
        photos: RGB uint8 (H, W, 3) pictures to compare on, beside noise.
        repository: Model repository; the folder of the model is made if need be.
        name: Entry of `service.contract.MODELS`.

    Returns:
        The metadata that was written.

    Raises:
        TrainingError: ONNX Runtime or OpenVINO disagree with torch, or the file is too large. Nothing is written.
    """
    spec = MODELS[name]
    network = served_network(checkpoint, f"checkpoint {provenance.checkpoint}")
    with _staged(repository / name / "1") as folder:
        path = folder / "model.onnx"
        write_onnx(network, spec, path)
        if path.stat().st_size > LARGEST_BYTES:
            raise TrainingError(f"model.onnx has {path.stat().st_size} bytes, at most {LARGEST_BYTES} may enter git")
        outputs = [tensor.name for tensor in spec.outputs]
        runtimes = {
            "torchscript": torchscript(network),
            "onnxruntime": onnx_runtime(path, outputs),
            "openvino_f32": openvino_runtime(path, outputs, "f32"),
            "openvino_bf16": openvino_runtime(path, outputs, "bf16"),
        }
        batches = comparison_batches(photos)
        errors = compare(eager(network), runtimes, batches)
        metadata = _metadata(name, network, checkpoint, provenance, errors, path) | {
            "parity_batches": len(batches),
            "parity_photos": len(photos),
        }
        (folder / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n")
    return metadata


def _metadata(
    name: str,
    network: Served,
    checkpoint: Checkpoint,
    provenance: Provenance,
    errors: dict[str, Errors],
    path: Path,
) -> dict[str, Any]:
    return {
        "model": name,
        "network": checkpoint.config.model,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "gflop": {"size": list(_FLOP_SIZE), "value": round(gigaflop(network), 3)},
        "checkpoint": {
            "file": provenance.checkpoint,
            "sha256": provenance.checkpoint_sha256,
            "step": checkpoint.step,
            "commit": checkpoint.commit,
        },
        "exported_from_commit": source_revision(),
        "config": checkpoint.config.flat(),
        "data_sources": sorted(checkpoint.config.sources),
        "metrics": provenance.metrics,
        "parity": {runtime: asdict(error) for runtime, error in errors.items()},
        "opset": OPSET,
        "sha256": file_sha256(path),
    }


@contextmanager
def _staged(target: Path) -> Iterator[Path]:
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


def read_photos(paths: Sequence[Path]) -> list[npt.NDArray[np.uint8]]:
    """Pictures for the comparison."""
    return [read_rgb(path) for path in paths]
