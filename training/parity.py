"""Comparison of an exported ONNX file with the network it was made from."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from training.errors import TrainingError

if TYPE_CHECKING:  # where a plan is built, in Triton's image, there is no torch
    import torch
    from torch import nn

Array = npt.NDArray[Any]
Results = tuple[npt.NDArray[np.float32], ...]
Runtime = Callable[..., Results]
"""What a network takes, uint8 (B, H, W, 3) first -> what it gives, float32 (B, H, W) each: of the served default
inverse_depth and person."""
Batch = tuple[Array, ...]
"""One array for each thing that a network takes."""

_PERSON = "person"
_BOTH = ("inverse_depth", _PERSON)


@dataclass(frozen=True)
class Tolerance:
    """Largest accepted errors.

    Depth errors are shares of the picture's largest inverse depth, because its unit is free, or of its largest depth;
    person errors are differences of probability.

    Attributes:
        largest: Of any pixel.
        mean: Of the mean over a picture.
    """

    largest: float
    mean: float


TOLERANCES: dict[str, Tolerance] = {
    "torchscript": Tolerance(1e-4, 1e-5),
    "onnxruntime": Tolerance(1e-3, 1e-4),
    "openvino_f32": Tolerance(1e-3, 1e-4),
    # bfloat16 keeps 8 bits of mantissa in every layer. Measured on the first network: means of 1 to 4 % of the largest
    # inverse depth on photos, mostly a common scale and shift (correlation with eager at least 0.994), and up to 0.36
    # of probability at single pixels on a person's border. A wrong graph is off by far more.
    "openvino_bf16": Tolerance(0.5, 0.06),
    # float16 keeps 11 bits. Measured of the default network with float16 weights and arithmetic in ONNX Runtime: 0.012
    # at the worst pixel, 0.003 in the mean of the worst picture; four times that for a GPU's own order of sums.
    "tensorrt_f16": Tolerance(0.05, 0.012),
    "torch_aoti": Tolerance(1e-3, 1e-4),
    # Not measured. A GPU's convolutions take float32 as TF32 where nobody forbids it, of 10 bits like float16.
    "torch_aoti_cuda": Tolerance(0.05, 0.012),
}
"""By runtime."""

METRIC_BF16 = Tolerance(0.1, 0.01)
"""Of bfloat16 where metres are given: nobody takes a common scale out of those."""


@dataclass(frozen=True)
class Errors:
    """Errors of one runtime over all compared batches, as `Tolerance` measures them."""

    depth_largest: float = 0.0
    depth_mean: float = 0.0
    person_largest: float = 0.0
    person_mean: float = 0.0

    def merged(self, other: "Errors") -> "Errors":
        """The larger of each."""
        return Errors(*(max(getattr(self, name), getattr(other, name)) for name in self.__dataclass_fields__))

    def within(self, tolerance: Tolerance) -> bool:
        """Whether all are accepted; NaN is not."""
        return (
            self.depth_largest <= tolerance.largest
            and self.person_largest <= tolerance.largest
            and self.depth_mean <= tolerance.mean
            and self.person_mean <= tolerance.mean
        )


def difference(found: Results, wanted: Results, outputs: Sequence[str] = _BOTH) -> Errors:
    """Errors of one batch of these outputs; infinite when shape or type differ, or values are not finite."""
    errors = Errors()
    for name, f, w in zip(outputs, found, wanted, strict=True):
        if f.shape != w.shape or f.dtype != np.float32 or not np.isfinite(f).all():
            return Errors(*[float("inf")] * 4)
        off = np.abs(f - w)
        if name == _PERSON:
            errors = errors.merged(Errors(0, 0, *_worst(off)))
        else:
            errors = errors.merged(Errors(*_worst(off / (np.abs(w).max(axis=(1, 2), keepdims=True) + 1e-12))))
    return errors


def _worst(off: npt.NDArray[np.float32]) -> tuple[float, float]:
    return float(off.max()), float(off.mean(axis=(1, 2)).max())


def eager(network: "nn.Module") -> Runtime:
    """The network itself."""
    import torch

    def run(*batch: Array) -> Results:
        with torch.inference_mode():
            found = network(*map(torch.from_numpy, batch))
        return tuple(each.numpy() for each in (found if isinstance(found, tuple) else (found,)))

    return run


def torchscript(network: "nn.Module", example: "Sequence[torch.Tensor] | None" = None) -> Runtime:
    """The network traced at one size (that of `example`), as Triton's libtorch backend would run it at all of them."""
    import torch

    return eager(trace(network, tuple(example or (torch.zeros(2, 64, 96, 3, dtype=torch.uint8),))))


def trace(network: "nn.Module", inputs: "Sequence[torch.Tensor]") -> "torch.jit.ScriptModule":
    """The network as TorchScript, traced with `inputs`."""
    import torch

    with torch.inference_mode(), warnings.catch_warnings():
        # torch points to torch.export, which Triton 2.51 cannot run
        warnings.filterwarnings("ignore", "`torch.jit.*` is deprecated")
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]  # not exported
        traced: torch.jit.ScriptModule = torch.jit.trace(network, tuple(inputs), check_trace=False)  # type: ignore[no-untyped-call]  # torch has no types
    return traced


def onnx_runtime(path: Path, outputs: Sequence[str]) -> Runtime:
    """The file in ONNX Runtime on CPU, with as many threads as it finds cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]

    def run(*batch: Array) -> Results:
        return tuple(session.run(list(outputs), dict(zip(names, batch, strict=True))))

    return run


def openvino_runtime(path: Path, outputs: Sequence[str], precision: str) -> Runtime:
    """The file in OpenVINO on CPU, `precision` being `f32` or `bf16`."""
    import openvino
    import torch

    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    indices = [compiled.output(name) for name in outputs]

    def run(*batch: Array) -> Results:
        result = compiled(list(batch))
        return tuple(np.array(result[index]) for index in indices)

    return run


def compare(
    reference: Runtime,
    runtimes: dict[str, Runtime],
    batches: Sequence[Batch | Array],
    outputs: Sequence[str] = _BOTH,
    tolerances: dict[str, Tolerance] = TOLERANCES,
) -> dict[str, Errors]:
    """Errors of each runtime against `reference` over `batches`, whose first array is uint8 (B, H, W, 3).

    Raises:
        TrainingError: A runtime is outside its tolerance, or finds a depth below 0 or a probability outside 0..1.
    """
    table = {name: Errors() for name in runtimes}
    for given in batches:
        batch = given if isinstance(given, tuple) else (given,)
        wanted = reference(*batch)
        for name, run in runtimes.items():
            found = run(*batch)
            for output, values in zip(outputs, found, strict=True):
                if values.min() < 0 or (output == _PERSON and values.max() > 1):
                    raise TrainingError(f"{name}: result outside its range for a batch of shape {batch[0].shape}")
            table[name] = table[name].merged(difference(found, wanted, outputs))
    for name, errors in table.items():
        if not errors.within(tolerances[name]):
            raise TrainingError(f"{name} differs from eager: {errors}, accepted {tolerances[name]}; nothing written")
    return table
