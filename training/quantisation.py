"""Networks in int8, for CPUs that multiply int8 faster than anything else they have: opt-in, since they judge worse.

Static quantisation by ONNX Runtime (onnxruntime.ai/docs/performance/model-optimizations/quantization.html): the
weights of convolutions and matrix products in int8 per channel, what goes into them in uint8, within the ranges that
real photos showed. What that gains and costs where it was measured: docs/results/performance.md.
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from service.contract import IMAGE, MODELS, PERSON, Size
from service.imaging.geometry import Letterbox
from training.errors import TrainingError
from training.parity import Errors, difference, onnx_runtime
from training.serving import Traits, check_name, network_config, spec_for, tensors_named
from training.version import file_sha256, staged, write_config

Pictures = npt.NDArray[np.uint8]

OPERATORS = ("Conv", "MatMul", "Gemm")
PRECISION = "int8; sums between layers in float32"


class _Photos(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime has no types
    def __init__(self, batches: Sequence[Pictures]) -> None:
        self._batches: Iterator[Pictures] = iter(batches)

    def get_next(self) -> dict[str, Pictures] | None:
        batch = next(self._batches, None)
        return None if batch is None else {IMAGE.name: batch}


def quantise(source: Path, target: Path, batches: Sequence[Pictures]) -> None:
    """Writes `source`, an exported network, as `target` in int8.

    Args:
        source: ONNX.
        target: The same, with quantisation written as pairs of QuantizeLinear and DequantizeLinear.
        batches: uint8 (B, H, W, 3), photos to take ranges from; a few tens are plenty.
    """
    with tempfile.TemporaryDirectory(prefix="depthlens-int8-") as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            target,
            _Photos(batches),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=list(OPERATORS),
        )


def write_int8(
    source: str, name: str, photos: Sequence[Pictures], repository: Path, license_: str = "not stated"
) -> dict[str, Any]:
    """Writes the model `name`: `source` of the same repository in int8, served in float32 otherwise.

    Args:
        source: An exported model of photos.
        name: Of the new one.
        photos: RGB uint8 (H, W, 3), to take ranges from; how far it is off `source` is measured on them too.
        repository: Model repository.
        license_: Of the weights, for models that are not of the contract.

    Returns:
        Its metadata.

    Raises:
        TrainingError: `source` is not there or takes no photo, `name` is taken or cannot be, or there is no photo.
    """
    version = repository / source / "1"
    try:
        about = json.loads((version / "metadata.json").read_text())
        outputs, sizes = tensors_named(about["outputs"]), [(int(h), int(w)) for h, w in about["sizes"]]
    except (OSError, ValueError, KeyError) as error:
        raise TrainingError(f"model {source} is not an exported network of {repository}") from error
    if not (version / "model.onnx").is_file():
        raise TrainingError(f"model {source} has no network of its own: quantise its steps")
    if name in MODELS or (repository / name).exists():
        raise TrainingError(f"there is a model {name}: choose another name, with --as")
    check_name(name, outputs)
    if not photos:
        raise TrainingError("ranges are taken from photos: give --photos")
    known = MODELS.get(source)
    traits = Traits(f"{source} in int8", known.license if known else license_)
    canary: Size = tuple(about["canary_size"])
    spec = replace(spec_for(name, (IMAGE,), outputs, tuple(sizes), canary, traits), precision=PRECISION)
    batches = [_fitted(photo, sizes) for photo in photos]
    with staged(repository / name / "1") as folder:
        path = folder / "model.onnx"
        quantise(version / "model.onnx", path, batches)
        kept = {key: about[key] for key in ("parameters", "gflop", "outputs", "sizes", "canary_size")}
        metadata = kept | {
            "model": name,
            "quantised_from": {"model": source, "sha256": file_sha256(version / "model.onnx")},
            "quantised_on": len(photos),
            "off_by": off_by(version / "model.onnx", path, about["outputs"], batches),
            "sha256": file_sha256(path),
        }
        (folder / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n")
    write_config(repository, name, network_config(spec, bf16=False))
    return metadata


def _fitted(photo: Pictures, sizes: Sequence[Size]) -> Pictures:
    """(1, H, W, 3) of the size nearest in aspect."""
    height, width = photo.shape[:2]
    size = min(sizes, key=lambda each: abs(np.log(each[1] / each[0] * height / width)))
    return Letterbox.of(height, width, size).fit(photo)[None]


def off_by(source: Path, target: Path, outputs: Sequence[str], batches: Sequence[Pictures]) -> dict[str, float]:
    """How far the one is off the other at most, of all pictures: see `training.parity.Tolerance`."""
    wanted, found = onnx_runtime(source, outputs), onnx_runtime(target, outputs)
    errors = Errors()
    for batch in batches:
        errors = errors.merged(difference(found(batch), wanted(batch), outputs))
    kinds = {"person" if name == PERSON.name else "depth" for name in outputs}
    return {f"{kind}_{of}": getattr(errors, f"{kind}_{of}") for kind in sorted(kinds) for of in ("largest", "mean")}
