"""TensorRT plans of served networks, built on the machine with the GPU, where torch need not be.

A plan belongs to one compute capability and one version of TensorRT, so none is in git: this makes it of the exported
`model.onnx` with the `trtexec` of Triton's image, and keeps it only when it agrees with that file in ONNX Runtime.

The network becomes float16 in the ONNX graph, not by trtexec's `--fp16`: TensorRT 10 calls networks of that kind of
typing deprecated and TensorRT 11 has no other than strongly typed ones. Inputs and outputs stay as the contract has
them.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from service.contract import IMAGE, MODELS, Size
from training.errors import TrainingError
from training.parity import TOLERANCES, Errors, Results, difference, onnx_runtime

CAPABILITIES = ("7.5", "8.0", "8.6", "8.7", "8.9", "9.0", "10.0", "10.3", "11.0", "12.0", "12.1")
"""Compute capabilities that plans are told apart by: Turing to Blackwell. A GPU of another runs `model.plan`."""

VARIANT = "tensorrt"
TOLERANCE = TOLERANCES["tensorrt_f16"]

_TRTEXEC = Path("/usr/src/tensorrt/bin/trtexec")
"""In NVIDIA's images, where it is not on the PATH."""
_BUILD_TIMEOUT_S = 3600.0
_MAX_BATCH = 8
_USUAL_BATCH = 4


class PlanError(TrainingError):
    """A plan could not be built, or differs from its ONNX file."""


@dataclass(frozen=True)
class Exported:
    """What is known of a model of one photo in a repository.

    Attributes:
        name: Of the model.
        folder: Of its version 1.
        outputs: Names of its tensors.
        sizes: Fixed input sizes, the probe's last: one optimisation profile each.
    """

    name: str
    folder: Path
    outputs: tuple[str, ...]
    sizes: tuple[Size, ...]


def plan_name(capability: str) -> str:
    """File of the plan for GPUs of a compute capability such as `8.9`, or for all others."""
    return f"model.sm{capability.replace('.', '')}.plan" if capability in CAPABILITIES else "model.plan"


def profile_sizes(sizes: Sequence[Size], canary_size: Size) -> tuple[Size, ...]:
    """The sizes that a plan has a profile for, in their order."""
    return tuple(dict.fromkeys((*sizes, canary_size)))


def find_trtexec(given: Path | None = None) -> Path:
    """`given`, or that on the PATH, or that of NVIDIA's images; TrainingError where there is none."""
    found = given or shutil.which("trtexec") or _TRTEXEC
    if not os.access(found, os.X_OK):
        raise TrainingError(f"no trtexec at {found}: run this inside Triton's image, or name one with --trtexec")
    return Path(found)


def compute_capability() -> str:
    """Of the first GPU, such as `8.9`; TrainingError where nvidia-smi names none."""
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    except (OSError, subprocess.SubprocessError) as error:
        raise TrainingError("no NVIDIA GPU: nvidia-smi cannot be run; a plan is built where it will serve") from error
    if not said:
        raise TrainingError("nvidia-smi names no GPU; a plan is built where it will serve")
    return said[0]


def exported(repository: Path, name: str) -> Exported:
    """A model of a repository; TrainingError if it has not been exported, PlanError if it takes more than a photo."""
    import onnx

    folder = repository / name / "1"
    path = folder / "model.onnx"
    if not path.is_file():
        raise TrainingError(f"model {name}: no {path}; export it first")
    taken = [tensor.name for tensor in onnx.load(path, load_external_data=False).graph.input]
    if taken != [IMAGE.name]:
        raise PlanError(f"model {name} takes {', '.join(taken)}; plans are made of networks of one photo")
    known = MODELS.get(name)
    if known is not None:
        outputs = tuple(tensor.name for tensor in known.outputs)
        return Exported(name, folder, outputs, profile_sizes(known.sizes, known.canary_size))
    try:
        metadata = json.loads((folder / "metadata.json").read_text())
        sizes = [(int(height), int(width)) for height, width in (*metadata["sizes"], metadata["canary_size"])]
        return Exported(name, folder, tuple(metadata["outputs"]), profile_sizes(sizes[:-1], sizes[-1]))
    except (OSError, ValueError, KeyError) as error:
        raise TrainingError(
            f"model {name}: {folder / 'metadata.json'} does not say its sizes; export it anew"
        ) from error


def build_plan(model: Exported, trtexec: Path, capability: str, timing_cache: Path) -> dict[str, Any]:
    """Builds the plan of one model beside its ONNX file, after comparing the two at every size.

    Args:
        model: What to build.
        trtexec: The tool.
        capability: Of this machine's GPU; names the file.
        timing_cache: Of all plans of this GPU: what was measured for one layer is not measured again.

    Returns:
        What was added to the version's `metadata.json`.

    Raises:
        PlanError: trtexec failed, or the plan is outside `TOLERANCE`. Nothing is written.
    """
    timing_cache.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".plan-", dir=model.folder) as staging:
        half, plan = Path(staging) / "half.onnx", Path(staging) / "model.plan"
        write_half(model.folder / "model.onnx", half)
        _run(build_command(trtexec, half, plan, model.sizes, timing_cache))
        errors = _compare(model, trtexec, plan)
        if not errors.within(TOLERANCE):
            raise PlanError(f"the plan of {model.name} differs from model.onnx: {errors}, accepted {TOLERANCE}")
        plan.chmod(0o644)
        plan.replace(model.folder / plan_name(capability))
    about = {"file": plan_name(capability), "parity": asdict(errors), "tolerance": asdict(TOLERANCE)}
    path = model.folder / "metadata.json"
    metadata = json.loads(path.read_text())
    variants = metadata.setdefault("variants", {})
    variants[VARIANT] = variants.get(VARIANT, {}) | {capability: about}
    path.write_text(json.dumps(metadata, indent=2) + "\n")
    return about


def fall_back(repository: Path, name: str, reason: str) -> bool:
    """Let `--model-config-name=tensorrt` serve the model's TorchScript; False where there is none."""
    configs = repository / name / "configs"
    script = configs / "torchscript.pbtxt"
    if not (script.is_file() and (repository / name / "1" / "model.pt").is_file()):
        return False
    partial = configs / f".{VARIANT}.pbtxt"
    partial.write_text(f"# TorchScript, because: {' '.join(reason.split())}\n{script.read_text()}")
    partial.replace(configs / f"{VARIANT}.pbtxt")
    return True


def write_half(source: Path, target: Path) -> None:
    """The ONNX file with float16 weights and arithmetic; its inputs and outputs keep their types."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    model = convert_float_to_float16(onnx.load(source), keep_io_types=True)
    made: dict[str, Any] = {}
    for node in model.graph.node:  # a constant that several nodes want in float32 is cast back once for each
        made.setdefault(node.output[0], node)
    del model.graph.node[:]
    model.graph.node.extend(made.values())
    OnnxModel(model).topological_sort()  # ONNX wants it; the casts come last
    del model.graph.value_info[:]  # types of before
    onnx.save(model, target)


def build_command(trtexec: Path, half: Path, plan: Path, sizes: Sequence[Size], timing_cache: Path) -> list[str]:
    """The call of trtexec that makes a plan with one optimisation profile for each size, batches of 1 to 8."""
    command = [str(trtexec), f"--onnx={half}", f"--saveEngine={plan}", "--stronglyTyped", "--skipInference"]
    command.append(f"--timingCacheFile={timing_cache}")
    for number, size in enumerate(sizes):
        command.append(f"--profile={number}")
        for bound, batch in (("min", 1), ("opt", _USUAL_BATCH), ("max", _MAX_BATCH)):
            command.append(f"--{bound}Shapes={_shape(batch, size)}")
    return command


def infer_command(trtexec: Path, plan: Path, profile: int, size: Size, image: Path, answer: Path) -> list[str]:
    """The call of trtexec that runs a plan once on the raw uint8 values of `image`."""
    return [
        str(trtexec),
        f"--loadEngine={plan}",
        f"--useProfile={profile}",
        f"--shapes={_shape(1, size)}",
        f"--loadInputs={IMAGE.name}:{image}",
        f"--exportOutput={answer}",
        "--iterations=1",
        "--warmUp=0",
        "--duration=0",
    ]


def read_answer(path: Path, outputs: Sequence[str]) -> Results:
    """What trtexec's `--exportOutput` wrote, in the order of `outputs`; PlanError if one is missing."""
    try:
        found = {each["name"]: each for each in json.loads(path.read_text())}
        return tuple(_tensor(found[name]) for name in outputs)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PlanError(f"trtexec's answer cannot be read: {type(error).__name__} {error}") from error


def _tensor(entry: dict[str, Any]) -> npt.NDArray[np.float32]:
    shape = [int(size) for size in str(entry["dimensions"]).split("x")]
    return np.asarray(entry["values"], np.float32).reshape(shape)


def _shape(batch: int, size: Size) -> str:
    return f"{IMAGE.name}:{batch}x{size[0]}x{size[1]}x3"


def _compare(model: Exported, trtexec: Path, plan: Path) -> Errors:
    reference = onnx_runtime(model.folder / "model.onnx", model.outputs)
    errors = Errors()
    for number, size in enumerate(model.sizes):
        picture, answer = plan.with_name("image.raw"), plan.with_name("answer.json")
        image = probe(size, seed=number)
        picture.write_bytes(image.tobytes())
        answer.unlink(missing_ok=True)
        _run(infer_command(trtexec, plan, number, size, picture, answer))
        errors = errors.merged(difference(read_answer(answer, model.outputs), reference(image), model.outputs))
    return errors


def probe(size: Size, seed: int) -> npt.NDArray[np.uint8]:
    """uint8 (1, H, W, 3): soft shapes with grain, for noise alone is like nothing a network has seen."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]] / max(size)
    picture = np.zeros((*size, 3))
    for _ in range(12):
        centre, width = rng.random(2), rng.uniform(0.05, 0.4)
        weight = np.exp(-((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2) / width**2)
        picture += weight[..., None] * rng.random(3)
    picture = picture / picture.max() * 230 + rng.normal(0, 6, picture.shape)
    image: npt.NDArray[np.uint8] = picture.clip(0, 255).astype(np.uint8)[None]
    return image


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise PlanError(f"trtexec took longer than {_BUILD_TIMEOUT_S:.0f} s") from error
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines() or ["it says nothing"]
        reason = next((line for line in said if "[E]" in line), said[-1])
        raise PlanError(f"trtexec failed with {done.returncode}: {reason[:300]}")
