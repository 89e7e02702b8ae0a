"""A served network in one more form beside the ONNX file of its version, kept only where the forms agree."""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from service.contract import ModelSpec
from training.errors import TrainingError
from training.parity import TOLERANCES, Array, Batch, Errors, Runtime, Tolerance, compare, eager, onnx_runtime
from training.version import file_sha256

_SAME = Tolerance(0.05, 2e-3)
"""Between the ONNX file and another form: weights kept in float16 in between are allowed, other weights are not."""

Write = Callable[[nn.Module, ModelSpec, Path], Runtime]
"""Writes the network into a file, and gives what the file, read again, computes."""


def join(
    network: nn.Module,
    spec: ModelSpec,
    batches: Sequence[Batch | Array],
    repository: Path,
    variant: str,
    path: Path,
    write: Write,
    tolerance: Tolerance | None = None,
) -> dict[str, Any]:
    """Writes one more form of a version that is there; what was written is compared with eager and with `model.onnx`.

    Args:
        network: As it is served: it gives the tensors of `spec` in their order.
        spec: What it takes and gives.
        batches: To compare on, at every size of `spec`.
        repository: Model repository.
        variant: What the form is called, among the version's `variants` and in `TOLERANCES`.
        path: Its file, in a folder that is made if need be.
        write: Makes it, under a name that ends as that of `path`.
        tolerance: Against eager, in the place of that of `variant`.

    Returns:
        The version's metadata, in which `variants` has what is said of this one.

    Raises:
        TrainingError: There is no version, it is of other weights, or the form differs from the network. Nothing is
            written.
    """
    version = repository / spec.name / "1"
    metadata = _metadata(version / "metadata.json", variant)
    if [list(size) for size in spec.sizes] != metadata.get("sizes", [list(size) for size in spec.sizes]):
        raise TrainingError(
            f"{spec.name} was exported at other sizes, {metadata['sizes']}: give those, --size or --side"
        )
    with tempfile.TemporaryDirectory(prefix=f".{variant}-", dir=version.parent) as staging:
        made = Path(staging) / path.name
        run = write(network, spec, made)
        errors = _parity(network, run, spec, batches, variant, tolerance or TOLERANCES[variant])
        _compare_with_onnx(run, version / "model.onnx", spec, batches)
        made.chmod(0o644)
        path.parent.mkdir(parents=True, exist_ok=True)
        made.replace(path)
    about = {"sha256": file_sha256(path), "parity": asdict(errors), "torch": str(torch.__version__)}
    metadata["variants"] = metadata.get("variants", {}) | {variant: about}
    (version / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n")
    return metadata


def _parity(
    network: nn.Module,
    run: Runtime,
    spec: ModelSpec,
    batches: Sequence[Batch | Array],
    variant: str,
    tolerance: Tolerance,
) -> Errors:
    names = [tensor.name for tensor in spec.outputs]
    try:
        return compare(eager(network), {variant: run}, batches, names, {variant: tolerance})[variant]
    except (TrainingError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1][:200]
        raise TrainingError(
            f"{spec.name}: its {variant} does not hold at all of its {len(spec.sizes)} sizes; give one --size to "
            f"`export`, as onnx and as {variant} ({reason})"
        ) from error


def _compare_with_onnx(run: Runtime, path: Path, spec: ModelSpec, batches: Sequence[Batch | Array]) -> None:
    names = [tensor.name for tensor in spec.outputs]
    try:
        compare(run, {"onnxruntime": onnx_runtime(path, names)}, batches, names, {"onnxruntime": _SAME})
    except TrainingError as error:
        raise TrainingError(f"{spec.name}: model.onnx has other weights than this checkpoint: {error}") from error


def _metadata(path: Path, variant: str) -> dict[str, Any]:
    try:
        metadata: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise TrainingError(f"no {path}: export it as onnx first, {variant} stands beside it") from error
    return metadata
