"""What Triton serves: names, tensors, shapes and units, in one place.

The client builds its requests from these entries, `training export` names the graph's tensors from them, and a
test compares every committed `config.pbtxt` with them. What is exported beside the models named here states the same
in its own `config.pbtxt`, which `spec_of` reads. Sizes are (height, width) throughout.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

Size = tuple[int, int]
"""(height, width) in pixels."""

Task = Literal["depth", "segmentation", "focus", "stereo"]

NETWORK_SIZES: tuple[Size, ...] = (
    (320, 320),
    (288, 384),
    (384, 288),
    (256, 384),
    (384, 256),
    (224, 416),
    (416, 224),
    (192, 576),
)
"""The fixed input sizes, about 0.1 megapixel each: photos are letterboxed to the one nearest in aspect (1:1, 4:3,
3:2, 13:7 and their portrait turns, and 3:1 for panoramas and cars' cameras), because Triton's batcher only joins
requests of equal shape. Multiples of 32, the encoder's stride."""

CANARY_SIZE: Size = (64, 64)
"""Input of the readiness probe: a real inference, small enough to repeat every second."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor of a served model; `dims` leaves out the batch axis and writes -1 for a free axis."""

    name: str
    dtype: Literal["uint8", "float32"]
    dims: tuple[int, ...]
    unit: str


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One served model: which tasks it answers, with which tensors, under which terms."""

    name: str
    kind: Literal["network", "ensemble"]
    tasks: frozenset[Task]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    depth_kind: Literal["relative-inverse", "metric"] | None
    max_batch_size: int
    precision: str
    description: str
    license: str
    sizes: tuple[Size, ...] = NETWORK_SIZES
    """The fixed sizes that its image may have; photos are letterboxed to the one nearest in aspect."""
    canary_size: Size = CANARY_SIZE
    """Of its readiness inference."""
    focal_share: float | None = None
    """Focal length of the camera that a metric network learned with, as a share of its pictures' longer side."""

    @property
    def takes_image(self) -> bool:
        """Whether a photo is all it needs; a meta-learner needs other networks' depth."""
        return self.inputs == (IMAGE,)

    @property
    def depth_output(self) -> str:
        """Name of its output with depth; only of a model that does `depth`."""
        return DEPTH_M.name if self.depth_kind == "metric" else INVERSE_DEPTH.name

    def only(self, *outputs: str) -> tuple[str, ...] | None:
        """Those of its outputs, in one order; None when they are all it has."""
        names = tuple(tensor.name for tensor in self.outputs)
        wanted = tuple(name for name in names if name in outputs)
        return None if wanted == names else wanted


IMAGE = TensorSpec("image", "uint8", (-1, -1, 3), "sRGB, 0..255, rows top to bottom")
INVERSE_DEPTH = TensorSpec("inverse_depth", "float32", (-1, -1), "relative inverse depth, >= 0, larger = nearer")
DEPTH_M = TensorSpec("depth_m", "float32", (-1, -1), "depth in metres along the optical axis, > 0")
PERSON = TensorSpec("person", "float32", (-1, -1), "probability that the pixel shows a person, 0..1")

_FOCUS_ON_DEPTH = ModelSpec(
    name="focus_on_depth",
    kind="network",
    tasks=frozenset({"depth", "segmentation"}),
    inputs=(IMAGE,),
    outputs=(INVERSE_DEPTH, PERSON),
    depth_kind="relative-inverse",
    max_batch_size=8,
    precision="float32",
    description="FocusOnDepth, small: one MobileNetV2 encoder, DPT-style fusion, depth and person heads",
    license="Apache-2.0 code; weights: see the model card for the terms of the training pictures",
)

_FOCUS = ModelSpec(
    name="focus",
    kind="ensemble",
    tasks=frozenset({"depth", "segmentation", "focus"}),
    inputs=(IMAGE,),
    outputs=(INVERSE_DEPTH, PERSON),
    depth_kind="relative-inverse",
    max_batch_size=8,
    precision="that of its steps",
    description="Ensemble behind POST /focus: depth and person mask of one photo in one call",
    license="that of its steps",
)

MODELS = MappingProxyType({spec.name: spec for spec in (_FOCUS_ON_DEPTH, _FOCUS)})
"""The models that every repository has, by name."""

LEFT = TensorSpec("left", "uint8", (-1, -1, 3), "sRGB, 0..255, rows top to bottom")
RIGHT = TensorSpec("right", "uint8", (-1, -1, 3), "as left, of the same size, rectified to it")
ADAPT = TensorSpec("adapt", "uint8", (1,), "0 none, 1 full, 2 mad")
CHECKPOINT = TensorSpec("checkpoint", "uint8", (1,), "of the sequence's weights: 0 none, 1 save, 2 restore, 3 forget")
DISPARITY_PX = TensorSpec("disparity_px", "float32", (-1, -1), "columns that a point lies farther left in right, >= 0")
ADAPTATION = TensorSpec(
    "adaptation",
    "float32",
    (6,),
    "loss (-1 = none), group (-1 = none, 0 = coarsest), frames, resets, reset (0 none, 1 loss, 2 worse, 3 not finite), "
    "origin of the weights (0 kept, 1 new, 2 evicted, 3 restored)",
)

STEREO = ModelSpec(
    name="stereo_madnet",
    kind="network",
    tasks=frozenset({"stereo"}),
    inputs=(LEFT, RIGHT, ADAPT, CHECKPOINT),
    outputs=(DISPARITY_PX, ADAPTATION),
    depth_kind=None,
    max_batch_size=1,
    precision="float32",
    description="MADNet: disparity of a rectified pair, adapting online to each sequence of pairs",
    license="Apache-2.0 code; weights: those of whoever exported them",
    sizes=(),
)
"""Optional: exported into a repository (`python -m training export --model stereo_madnet`), and the one model whose
process needs torch."""

MODEL_NAME = r"[a-z][a-z0-9_]{0,63}"
"""Of models beside those of `MODELS`; another name never reaches Triton."""

PARAMETER_PREFIX = "depthlens_"
"""Of the parameters in a `config.pbtxt` that say what Triton's own fields cannot: `sizes` and `canary_size` as
`HxW`, separated by spaces, `focal_share`, `precision`, `description` and `license`. A model without `sizes` is not
served."""

_UNITS = MappingProxyType({tensor.name: tensor.unit for tensor in (IMAGE, INVERSE_DEPTH, DEPTH_M, PERSON)})
_TYPES: Mapping[str, Literal["uint8", "float32"]] = MappingProxyType({"TYPE_UINT8": "uint8", "TYPE_FP32": "float32"})
_OF_ANOTHER_NETWORK = "depth in metres, of the network of that name"


def spec_of(config: Mapping[str, Any]) -> ModelSpec:
    """What a model's `config.pbtxt` says of it.

    Args:
        config: as JSON, in the way Triton's model configuration call gives it.

    Raises:
        ValueError: it is not one of this service's: a type, a task or a parameter is missing or unknown.
    """
    name = str(config["name"])
    if name == STEREO.name:  # its shapes are not a photo's
        return STEREO
    said = {
        key.removeprefix(PARAMETER_PREFIX): str(value.get("string_value", ""))
        for key, value in config.get("parameters", {}).items()
        if key.startswith(PARAMETER_PREFIX)
    }
    inputs, outputs = (tuple(_tensor(entry) for entry in config[side]) for side in ("input", "output"))
    given = {tensor.name for tensor in outputs}
    depth = given - {PERSON.name}
    if not given or len(depth) > 1 or not depth <= {INVERSE_DEPTH.name, DEPTH_M.name}:
        raise ValueError(f"{name}: no known outputs: {', '.join(sorted(given))}")
    does: dict[Task, bool] = {"depth": bool(depth), "segmentation": PERSON.name in given, "focus": len(given) > 1}
    return ModelSpec(
        name=name,
        kind="ensemble" if config.get("platform") == "ensemble" else "network",
        tasks=frozenset(task for task, done in does.items() if done and inputs == (IMAGE,)),
        inputs=inputs,
        outputs=outputs,
        depth_kind=None if not depth else "metric" if DEPTH_M.name in given else "relative-inverse",
        max_batch_size=int(config.get("max_batch_size", 0)),
        precision=said.get("precision", "that of the server's CPU"),
        description=said.get("description", ""),
        license=said.get("license", "not stated"),
        sizes=parse_sizes(said.get("sizes", "")),
        canary_size=parse_sizes(said.get("canary_size", said.get("sizes", "")))[0],
        focal_share=float(said["focal_share"]) if "focal_share" in said else None,
    )


def parse_sizes(text: str) -> tuple[Size, ...]:
    """`288x384 384x288` as sizes.

    Raises:
        ValueError: none, or something else.
    """
    sizes = [re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", word) for word in text.split()]
    if not sizes or None in sizes:
        raise ValueError(f"{text!r} is no list of sizes such as 288x384")
    return tuple((int(size[1]), int(size[2])) for size in sizes if size)


def _tensor(entry: Mapping[str, Any]) -> TensorSpec:
    name, kind = str(entry["name"]), str(entry["data_type"])
    if kind not in _TYPES:
        raise ValueError(f"tensor {name} has the type {kind}")
    dims = tuple(int(size) for size in entry["dims"])
    return TensorSpec(name, _TYPES[kind], dims, _UNITS.get(name, _OF_ANOTHER_NETWORK))
