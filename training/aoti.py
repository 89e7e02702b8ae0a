"""A served network compiled ahead of time, for Triton's platform `torch_aoti`: the successor of TorchScript there.

`torch.export` makes a graph and AOTInductor compiles it into a `.pt2` package: a library for one kind of device and one
version of torch. The platform (in Triton from 26.03 in beta, in batches from 26.07) names tensors by their place in the
call, `INPUT__0` and `OUTPUT__0`, and takes no others. So the package is a model of its own, `<model>_pt2`, and in the
configuration `torch_aoti` the model itself is an ensemble of that one step, which keeps the contract's names.

    https://docs.pytorch.org/docs/stable/torch.compiler_aot_inductor.html
    https://github.com/triton-inference-server/pytorch_backend (src/pt2/model_state.cc: the names)
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from service.contract import ModelSpec
from training.errors import TrainingError
from training.parity import TOLERANCES, Array, Batch, Results, Runtime
from training.serving import aoti_config, one_step_config
from training.variant import join
from training.version import dynamic_shapes, example, write_config

FILE = "model.pt2"
VARIANT = "torch_aoti"


def step_name(model: str) -> str:
    """Name of the model that holds the package of `model`."""
    return f"{model}_pt2"


def write_aoti(
    network: nn.Module, spec: ModelSpec, stride: int, batches: Sequence[Batch | Array], repository: Path
) -> dict[str, Any]:
    """Compiles the network beside a version that is there, for this machine's GPU or, where torch finds none, its CPU.

    Args:
        network: As it is served: it gives the tensors of `spec` in their order.
        spec: What it takes and gives.
        stride: What heights and widths are multiples of.
        batches: To compare on, at every size of `spec`; single pictures are compared besides.
        repository: Model repository.

    Returns:
        As `training.variant.join`.

    Raises:
        TrainingError: As there; or no C++ compiler is installed, or the network cannot be compiled. Nothing is written.
    """
    find_compiler()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tolerance = TOLERANCES["torch_aoti_cuda" if device == "cuda" else VARIANT]
    singles = [tuple(part[:1] for part in (batch if isinstance(batch, tuple) else (batch,))) for batch in batches]

    def write(network: nn.Module, spec: ModelSpec, path: Path) -> Runtime:
        return _compiled(network, spec, stride, path, device)

    name = step_name(spec.name)
    path = repository / name / "1" / FILE
    metadata = join(network, spec, [*batches, *singles], repository, VARIANT, path, write, tolerance)
    write_config(repository, name, aoti_config(replace(spec, name=name), device), VARIANT)
    write_config(repository, spec.name, one_step_config(spec, name), VARIANT)
    return metadata


def find_compiler() -> None:
    """Raise TrainingError where no C++ compiler is installed."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise TrainingError("--target aoti needs a C++ compiler: install g++, or name one in CXX") from error


def _compiled(network: nn.Module, spec: ModelSpec, stride: int, path: Path, device: str) -> Runtime:
    shapes = dynamic_shapes(spec, stride)
    # A header compiled in advance is for those who compile often.
    settings = {"cpp_cache_precompile_headers": False}
    try:
        with torch.no_grad():
            inputs = tuple(each.to(device) for each in example(spec))
            program = torch.export.export(network.to(device), inputs, dynamic_shapes=shapes)
            torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=settings)
        loaded = torch._inductor.aoti_load_package(str(path))
    except (RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise TrainingError(f"{spec.name} cannot be compiled: {reason}") from error
    finally:
        network.to("cpu")

    def run(*batch: Array) -> Results:
        with torch.inference_mode():
            found = loaded(*(torch.from_numpy(each).to(device) for each in batch))
        return tuple(each.cpu().numpy() for each in found)

    return run
