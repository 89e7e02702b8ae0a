"""What Triton serves: names, tensors, shapes and units, in one place.

The client builds its requests from these entries, `training export` names the graph's tensors from them, and a
test compares every committed `config.pbtxt` with them. Sizes are (height, width) throughout.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Size = tuple[int, int]
"""(height, width) in pixels."""

Task = Literal["depth", "segmentation", "focus"]

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


IMAGE = TensorSpec("image", "uint8", (-1, -1, 3), "sRGB, 0..255, rows top to bottom")
INVERSE_DEPTH = TensorSpec("inverse_depth", "float32", (-1, -1), "relative inverse depth, >= 0, larger = nearer")
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
"""Every served model by name; a name outside it never reaches Triton."""
