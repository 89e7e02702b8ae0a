"""Networks as `service.contract` states them: what each gives, at which sizes, and its `config.pbtxt` for Triton."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from service.contract import (
    CANARY_SIZE,
    DEPTH_M,
    IMAGE,
    INVERSE_DEPTH,
    MODEL_NAME,
    MODELS,
    NETWORK_SIZES,
    PARAMETER_PREFIX,
    PERSON,
    ModelSpec,
    Size,
    Task,
    TensorSpec,
)
from training.errors import TrainingError
from training.models.focus_on_depth import Served
from training.tensorrt import CAPABILITIES, plan_name, profile_sizes

_LEAST_M = 1e-3
_TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}
_MAX_BATCH = 8
_STRIDE = 32


class ServedMap(nn.Module):
    """A network of one map in the contract's type and range.

    Args:
        network: uint8 (B, H, W, 3) -> (B, H, W), what `output` names; of a person a logit.
        output: Name of the contract's tensor.
    """

    def __init__(self, network: nn.Module, output: str) -> None:
        super().__init__()
        self.network = network
        self.output = output

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """uint8 (B, H, W, 3) -> float32 (B, H, W): metres from 0.001, inverse depth from 0, or probability."""
        found = self.network(image).float()
        if self.output == PERSON.name:
            return (torch.sigmoid(found),)
        return (found.clamp(min=_LEAST_M if self.output == DEPTH_M.name else 0.0),)


def served(network: nn.Module) -> nn.Module:
    """The network as Triton serves it, in evaluation mode: it gives the tensors of `outputs_of`, in that order."""
    output = getattr(network, "output", None)
    wrapped = Served(network) if output is None else ServedMap(network, str(output))
    return wrapped.eval()


def outputs_of(network: nn.Module) -> tuple[TensorSpec, ...]:
    """The contract's tensors that a network of `training.models` gives.

    Raises:
        TrainingError: it names an output that the contract has not.
    """
    output = getattr(network, "output", None)
    if output is None:
        return INVERSE_DEPTH, PERSON
    return tensors_named([output])


def tensors_named(names: Sequence[str]) -> tuple[TensorSpec, ...]:
    """The contract's tensors of these names.

    Raises:
        TrainingError: the contract has not all of them.
    """
    known = {tensor.name: tensor for tensor in (INVERSE_DEPTH, DEPTH_M, PERSON)}
    for name in names:
        if name not in known:
            raise TrainingError(f"the network gives {name!r}; served are {', '.join(known)}")
    return tuple(known[name] for name in names)


def served_sizes(network: nn.Module, side_px: int | None = None) -> tuple[Size, ...]:
    """Fixed input sizes of the eight served aspects, multiples of the network's stride.

    Args:
        network: its `stride` says what its sides must be multiples of, 32 where it says nothing.
        side_px: side of the square one, the others having about its area; None: about the size of `NETWORK_SIZES`.
    """
    stride = int(getattr(network, "stride", _STRIDE))
    if side_px is None and all(side % stride == 0 for size in NETWORK_SIZES for side in size):
        return NETWORK_SIZES
    factor = 1.0 if side_px is None else side_px / NETWORK_SIZES[0][0]
    rounded = [tuple(max(1, round(side * factor / stride)) * stride for side in size) for size in NETWORK_SIZES]
    return tuple(dict.fromkeys((height, width) for height, width in rounded))


def canary_size(network: nn.Module, sizes: Sequence[Size]) -> Size:
    """The smallest input that the network takes of: about 64x64, and the smallest of `sizes`."""
    stride = int(getattr(network, "stride", _STRIDE))
    small = -(-CANARY_SIZE[0] // stride) * stride
    if len(sizes) > 1:
        try:
            with torch.inference_mode():
                network(torch.zeros(1, small, small, 3, dtype=torch.uint8))
        except (TrainingError, RuntimeError, IndexError):
            pass
        else:
            return small, small
    return min(sizes, key=lambda size: size[0] * size[1])


def check_name(name: str, outputs: Sequence[TensorSpec]) -> None:
    """Raise TrainingError for a name that no model with these outputs can be served under."""
    if not re.fullmatch(MODEL_NAME, name):
        raise TrainingError(f"model {name!r}: a name has lower-case letters, digits and _, 64 at most, a letter first")
    if name in MODELS and tuple(outputs) != MODELS[name].outputs:
        wanted = " and ".join(tensor.name for tensor in MODELS[name].outputs)
        found = " and ".join(tensor.name for tensor in outputs)
        raise TrainingError(f"model {name} gives {wanted}, this network {found}: name it otherwise, with --model")


@dataclass(frozen=True)
class Traits:
    """What only the one who exports knows of a model.

    Attributes:
        description: One line.
        license: Of its weights.
        focal_share: Focal length of the camera a metric network learned with, as a share of the longer side.
    """

    description: str = ""
    license: str = "not stated"
    focal_share: float | None = None


def spec_for(
    name: str,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    sizes: tuple[Size, ...],
    canary: Size,
    traits: Traits,
    steps: bool = False,
) -> ModelSpec:
    """The contract's entry of a model that is exported; `steps` says that it is an ensemble."""
    given = {tensor.name for tensor in outputs}
    depth_kind = "metric" if DEPTH_M.name in given else "relative-inverse" if INVERSE_DEPTH.name in given else None
    does: dict[Task, bool] = {
        "depth": depth_kind is not None,
        "segmentation": PERSON.name in given,
        "focus": len(given) > 1,
    }
    return ModelSpec(
        name=name,
        kind="ensemble" if steps else "network",
        tasks=frozenset(task for task, done in does.items() if done and inputs == (IMAGE,)),
        inputs=inputs,
        outputs=outputs,
        depth_kind=depth_kind,  # type: ignore[arg-type]  # one of the two words
        max_batch_size=_MAX_BATCH,
        precision="that of its steps" if steps else "that of the server's CPU",
        description=traits.description,
        license=traits.license,
        sizes=sizes,
        canary_size=canary,
        focal_share=traits.focal_share,
    )


def network_config(spec: ModelSpec, *, bf16: bool = True) -> str:
    """`config.pbtxt` of an exported network, for OpenVINO on the CPU.

    Args:
        spec: What it takes and gives.
        bf16: Whether it may be computed in bfloat16 where the CPU has it.
    """
    parameters = _said(spec) | ({} if bf16 else {"HINT_BF16": "NO"})
    warm = "\n".join(_warm_up(spec, size) for size in dict.fromkeys((*spec.sizes, spec.canary_size)))
    return f"""# Written by `python -m training export`, and written anew by the next one. The settings are those of
# focus_on_depth, whose config.pbtxt gives their reasons; what begins with {PARAMETER_PREFIX} is read by the gateway
# (service/contract.py).
name: "{spec.name}"
backend: "openvino"
default_model_filename: "model.onnx"
max_batch_size: {spec.max_batch_size}
{tensor_entries("input", spec.inputs)}
{tensor_entries("output", spec.outputs)}
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
dynamic_batching {{ }}
{parameter_entries(parameters)}
{warm}
"""


def torchscript_config(spec: ModelSpec) -> str:
    """`configs/torchscript.pbtxt`: the same tensors from `model.pt`, on every GPU.

    None of the tensors is named as libtorch's convention wants it (`NAME__0`), so Triton's backend takes them in the
    order written here, which is that of the network's arguments and results.
    """
    return _gpu_config(
        spec,
        f"""platform: "pytorch_libtorch"
default_model_filename: "model.pt"
{parameter_entries({"ENABLE_WEIGHT_SHARING": "true"})}
instance_group [ {{ kind: KIND_GPU count: 2 }} ]""",
        "two instances, with one copy of the weights, let one photo's tensors travel while another's are computed.",
    )


def tensorrt_config(spec: ModelSpec) -> str:
    """`configs/tensorrt.pbtxt`: the same tensors from the plan of the GPU's compute capability."""
    plans = "\n".join(
        f'cc_model_filenames {{ key: "{capability}" value: "{plan_name(capability)}" }}' for capability in CAPABILITIES
    )
    profiles = ", ".join(f'"{number}"' for number, _ in enumerate(profile_sizes(spec.sizes, spec.canary_size)))
    return _gpu_config(
        replace(spec, precision="float16"),
        f"""platform: "tensorrt_plan"
default_model_filename: "{plan_name("")}"
{plans}
instance_group [ {{ kind: KIND_GPU count: 1 profile: [ {profiles} ] }} ]""",
        "a plan has one optimisation profile for each fixed size, in the order of `sizes`, the probe's last.",
    )


def aoti_config(spec: ModelSpec, device: str) -> str:
    """`configs/torch_aoti.pbtxt` of a model that holds a package; its tensors have the platform's names, by place.

    Args:
        spec: What the network takes and gives, under the name of that model.
        device: `cuda` or `cpu`, which the package is compiled for.
    """
    placed = replace(spec, inputs=_by_place("INPUT", spec.inputs), outputs=_by_place("OUTPUT", spec.outputs))
    return _gpu_config(
        placed,
        f"""platform: "torch_aoti"
default_model_filename: "model.pt2"
{parameter_entries({"ENABLE_WEIGHT_SHARING": "true"})}
instance_group [ {{ kind: {"KIND_GPU" if device == "cuda" else "KIND_CPU"} count: 1 }} ]""",
        "a package runs on the kind of device it was compiled for; its tensors have no names of their own.",
    )


def one_step_config(spec: ModelSpec, step: str) -> str:
    """`configs/torch_aoti.pbtxt` of the model itself: an ensemble of `step`, with the contract's names.

    Args:
        spec: What the model takes and gives.
        step: Name of the model that holds its package.
    """
    inputs = {place.name: own.name for place, own in zip(_by_place("INPUT", spec.inputs), spec.inputs, strict=True)}
    outputs = {place.name: own.name for place, own in zip(_by_place("OUTPUT", spec.outputs), spec.outputs, strict=True)}
    return ensemble_config(spec, [Step(step, inputs, outputs)])


def _by_place(side: str, tensors: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    return tuple(replace(tensor, name=f"{side}__{number}") for number, tensor in enumerate(tensors))


def _gpu_config(spec: ModelSpec, runs: str, why: str) -> str:
    warm = "\n".join(_warm_up(spec, size) for size in profile_sizes(spec.sizes, spec.canary_size))
    return f"""# Written by `python -m training export`; chosen with Triton's --model-config-name. In it
# {why}
# Not measured on a GPU: docs/gpu.md says what was.
name: "{spec.name}"
{runs}
max_batch_size: {spec.max_batch_size}
{tensor_entries("input", spec.inputs)}
{tensor_entries("output", spec.outputs)}
dynamic_batching {{ }}
{parameter_entries(_said(spec))}
{warm}
"""


@dataclass(frozen=True)
class Step:
    """One model within an ensemble.

    Attributes:
        model: Its name.
        inputs: Its tensors -> those of the ensemble.
        outputs: The same.
    """

    model: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


def ensemble_config(spec: ModelSpec, steps: Sequence[Step]) -> str:
    """`config.pbtxt` of an ensemble: steps whose inputs are there run at once, each in its model's own process."""
    return f"""# Written by `python -m training`, and written anew by the next export or pair of this name. Steps must
# have no max_queue_size: a full queue under parallel steps ends Triton 2.51.
name: "{spec.name}"
platform: "ensemble"
max_batch_size: {spec.max_batch_size}
{tensor_entries("input", spec.inputs)}
{tensor_entries("output", spec.outputs)}
{parameter_entries(_said(spec))}
ensemble_scheduling {{
{"".join(_step(step) for step in steps)}}}
"""


def _said(spec: ModelSpec) -> dict[str, str]:
    said = {
        "sizes": " ".join(f"{height}x{width}" for height, width in spec.sizes),
        "canary_size": "{}x{}".format(*spec.canary_size),
        "precision": spec.precision,
        "description": spec.description,
        "license": spec.license,
    }
    if spec.focal_share is not None:
        said["focal_share"] = repr(spec.focal_share)
    return {PARAMETER_PREFIX + key: value for key, value in said.items()}


def parameter_entries(values: Mapping[str, str]) -> str:
    """Parameters as lines of a `config.pbtxt`."""
    return "\n".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{_quoted(value)}" }} }}' for key, value in values.items()
    )


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")


def tensor_entries(side: str, tensors: Sequence[TensorSpec]) -> str:
    """Tensors as lines of a `config.pbtxt`; `side` is `input` or `output`."""
    return "\n".join(
        f'{side} [ {{ name: "{tensor.name}" data_type: {_TYPES[tensor.dtype]} dims: {list(tensor.dims)} }} ]'
        for tensor in tensors
    )


def _warm_up(spec: ModelSpec, size: Size) -> str:
    height, width = size
    inputs = " ".join(
        f'inputs {{ key: "{tensor.name}" value {{ data_type: {_TYPES[tensor.dtype]} '
        f"dims: {[height, width, *tensor.dims[2:]]} random_data: true }} }}"
        for tensor in spec.inputs
    )
    return f'model_warmup [ {{ name: "{height}x{width}" batch_size: 1 {inputs} }} ]'


def _step(step: Step) -> str:
    sides = {"input_map": step.inputs, "output_map": step.outputs}
    lines = "".join(
        f'    {side} {{ key: "{key}" value: "{value}" }}\n'
        for side, names in sides.items()
        for key, value in names.items()
    )
    return f'  step [ {{\n    model_name: "{step.model}"\n    model_version: -1\n{lines}  }} ]\n'
