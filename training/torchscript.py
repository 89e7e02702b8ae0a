"""A served network as TorchScript, for Triton's libtorch backend on GPUs: `1/model.pt`, `configs/torchscript.pbtxt`.

It stands beside the ONNX file of the same version, and is chosen for the whole server with
`--model-config-name=torchscript`. PyTorch calls TorchScript deprecated and points to torch.export, whose `.pt2` Triton
runs by its `torch_aoti` platform: in beta, tied to one kind of device and one version of torch, and with names of
tensors of its own, so it is no drop-in yet (docs/gpu.md).
"""

import json
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from service.contract import ModelSpec
from training.errors import TrainingError
from training.parity import Array, Batch, Errors, Runtime, Tolerance, compare, eager, onnx_runtime, trace
from training.serving import torchscript_config
from training.version import example, file_sha256, write_config

FILE = "model.pt"
VARIANT = "torchscript"

_SAME = Tolerance(0.05, 2e-3)
"""Between the ONNX file and the trace: weights kept in float16 between the two are allowed, other weights are not."""


def write_torchscript(
    network: nn.Module, spec: ModelSpec, batches: Sequence[Batch | Array], repository: Path
) -> dict[str, Any]:
    """Writes the traced network into version 1 of a model that is there.

    The file is read again, and compared with eager and with the ONNX file of that version. A trace holds no device, its
    constants move with it: Triton's backend loads it onto the GPU of the instance.

    Args:
        network: As it is served: it gives the tensors of `spec` in their order.
        spec: What it takes and gives.
        batches: To compare on, at every size of `spec`.
        repository: Model repository.

    Returns:
        The version's metadata, in which `variants` has what is said of this one.

    Raises:
        TrainingError: There is no version, it is of other weights, or the trace differs from the network, as it does
            at other sizes than its own where the graph depends on the size. Nothing is written.
    """
    folder = repository / spec.name / "1"
    metadata = _metadata(folder / "metadata.json")
    if [list(size) for size in spec.sizes] != metadata.get("sizes", [list(size) for size in spec.sizes]):
        raise TrainingError(
            f"{spec.name} was exported at other sizes, {metadata['sizes']}: give those, --size or --side"
        )
    with tempfile.TemporaryDirectory(prefix=".torchscript-", dir=folder.parent) as staging:
        path = Path(staging) / FILE
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`torch.jit.*` is deprecated")
            trace(network, example(spec)).save(str(path))
            loaded = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]  # torch has no types
        errors = _parity(network, loaded, spec, batches)
        _compare_with_onnx(eager(loaded), folder / "model.onnx", spec, batches)
        path.chmod(0o644)
        path.replace(folder / FILE)
    about = {"sha256": file_sha256(folder / FILE), "parity": asdict(errors), "torch": str(torch.__version__)}
    metadata["variants"] = metadata.get("variants", {}) | {VARIANT: about}
    (folder / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n")
    write_config(repository, spec.name, torchscript_config(spec), VARIANT)
    return metadata


def _parity(network: nn.Module, loaded: nn.Module, spec: ModelSpec, batches: Sequence[Batch | Array]) -> Errors:
    names = [tensor.name for tensor in spec.outputs]
    try:
        return compare(eager(network), {VARIANT: eager(loaded)}, batches, names)[VARIANT]
    except (TrainingError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1][:200]
        raise TrainingError(
            f"{spec.name}: its trace does not hold at all of its {len(spec.sizes)} sizes; give one --size to `export`, "
            f"as onnx and as torchscript ({reason})"
        ) from error


def _compare_with_onnx(script: Runtime, path: Path, spec: ModelSpec, batches: Sequence[Batch | Array]) -> None:
    names = [tensor.name for tensor in spec.outputs]
    try:
        compare(script, {"onnxruntime": onnx_runtime(path, names)}, batches, names, {"onnxruntime": _SAME})
    except TrainingError as error:
        raise TrainingError(f"{spec.name}: model.onnx has other weights than this checkpoint: {error}") from error


def _metadata(path: Path) -> dict[str, Any]:
    try:
        metadata: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise TrainingError(f"no {path}: export it as onnx first, torchscript stands beside it") from error
    return metadata
