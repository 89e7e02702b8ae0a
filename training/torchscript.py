"""A served network as TorchScript, for Triton's libtorch backend on GPUs: `1/model.pt`, `configs/torchscript.pbtxt`.

It stands beside the ONNX file of the same version, and is chosen for the whole server with
`--model-config-name=torchscript`. PyTorch calls TorchScript deprecated and points to torch.export; what Triton runs of
that is `training.aoti`.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from service.contract import ModelSpec
from training.parity import Array, Batch, Runtime, eager, trace
from training.serving import torchscript_config
from training.variant import join
from training.version import example, write_config

FILE = "model.pt"
VARIANT = "torchscript"


def write_torchscript(
    network: nn.Module, spec: ModelSpec, batches: Sequence[Batch | Array], repository: Path
) -> dict[str, Any]:
    """Writes the traced network into version 1 of a model that is there.

    A trace holds no device, its constants move with it: Triton's backend loads it onto the GPU of the instance. It
    differs at other sizes than its own where the graph depends on the size.

    Args:
        network: As it is served: it gives the tensors of `spec` in their order.
        spec: What it takes and gives.
        batches: To compare on, at every size of `spec`.
        repository: Model repository.

    Returns:
        As `training.variant.join`, which says what it raises too.
    """
    metadata = join(network, spec, batches, repository, VARIANT, repository / spec.name / "1" / FILE, _write)
    write_config(repository, spec.name, torchscript_config(spec), VARIANT)
    return metadata


def _write(network: nn.Module, spec: ModelSpec, path: Path) -> Runtime:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.*` is deprecated")
        trace(network, example(spec)).save(str(path))
        loaded = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]  # torch has no types
    return eager(loaded)
