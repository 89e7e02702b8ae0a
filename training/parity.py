"""Comparison of an exported ONNX file with the network it was made from."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from training.errors import TrainingError
from training.models.focus_on_depth import Served

Results = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
Runtime = Callable[[npt.NDArray[np.uint8]], Results]
"""uint8 (B, H, W, 3) -> inverse_depth and person, float32 (B, H, W) each."""


@dataclass(frozen=True)
class Tolerance:
    """Largest accepted errors.

    Depth errors are shares of the largest inverse depth of the picture, because its unit is free; person errors are
    differences of probability.

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
}
"""By runtime."""


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


def difference(found: Results, wanted: Results) -> Errors:
    """Errors of one batch; infinite when shape or type differ, or values are not finite."""
    for f, w in zip(found, wanted, strict=True):
        if f.shape != w.shape or f.dtype != np.float32 or not np.isfinite(f).all():
            return Errors(*[float("inf")] * 4)
    scale = np.abs(wanted[0]).max(axis=(1, 2), keepdims=True) + 1e-12
    depth = np.abs(found[0] - wanted[0]) / scale
    person = np.abs(found[1] - wanted[1])
    return Errors(
        float(depth.max()),
        float(depth.mean(axis=(1, 2)).max()),
        float(person.max()),
        float(person.mean(axis=(1, 2)).max()),
    )


def eager(network: Served) -> Runtime:
    """The network itself."""

    def run(image: npt.NDArray[np.uint8]) -> Results:
        with torch.inference_mode():
            inverse, person = network(torch.from_numpy(image))
        return inverse.numpy(), person.numpy()

    return run


def torchscript(network: Served) -> Runtime:
    """The network traced at one size, as Triton's libtorch backend would run it at all of them."""
    example = torch.zeros(2, 64, 96, 3, dtype=torch.uint8)
    with torch.inference_mode(), warnings.catch_warnings():
        # torch points to torch.export, which Triton 2.51 cannot run
        warnings.filterwarnings("ignore", "`torch.jit.*` is deprecated")
        traced = torch.jit.trace(network, example, check_trace=False)  # type: ignore[no-untyped-call]

    def run(image: npt.NDArray[np.uint8]) -> Results:
        with torch.inference_mode():
            inverse, person = traced(torch.from_numpy(image))
        return inverse.numpy(), person.numpy()

    return run


def onnx_runtime(path: Path, outputs: Sequence[str]) -> Runtime:
    """The file in ONNX Runtime on CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(image: npt.NDArray[np.uint8]) -> Results:
        inverse, person = session.run(list(outputs), {name: image})
        return inverse, person

    return run


def openvino_runtime(path: Path, outputs: Sequence[str], precision: str) -> Runtime:
    """The file in OpenVINO on CPU, `precision` being `f32` or `bf16`."""
    import openvino

    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    indices = [compiled.output(name) for name in outputs]

    def run(image: npt.NDArray[np.uint8]) -> Results:
        result = compiled([image])
        inverse, person = (np.array(result[index]) for index in indices)
        return inverse, person

    return run


def compare(
    reference: Runtime, runtimes: dict[str, Runtime], batches: Sequence[npt.NDArray[np.uint8]]
) -> dict[str, Errors]:
    """Errors of each runtime against `reference` over `batches` of uint8 (B, H, W, 3).

    Raises:
        TrainingError: A runtime is outside its tolerance, or finds an inverse depth below 0 or a probability outside
            0..1.
    """
    table = {name: Errors() for name in runtimes}
    for batch in batches:
        wanted = reference(batch)
        for name, run in runtimes.items():
            found = run(batch)
            if found[0].min() < 0 or found[1].min() < 0 or found[1].max() > 1:
                raise TrainingError(f"{name}: result outside its range for a batch of shape {batch.shape}")
            table[name] = table[name].merged(difference(found, wanted))
    for name, errors in table.items():
        if not errors.within(TOLERANCES[name]):
            raise TrainingError(f"{name} differs from eager: {errors}, accepted {TOLERANCES[name]}; nothing written")
    return table
