"""Recipes: one flat YAML file is one complete training run."""

import dataclasses
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin

import yaml

from service.contract import NETWORK_SIZES, Size
from training.config_stereo import ConfidenceConfig, ProxyConfig, StereoConfig
from training.config_votes import VotesConfig
from training.errors import TrainingError
from training.losses import DepthForm
from training.recipe import TrainConfig


@dataclass(frozen=True, kw_only=True)
class FocusOnDepthConfig(TrainConfig):
    """Relative inverse depth and people by one network (`training.tasks.focus_on_depth`).

    Attributes:
        depth_form: Of the scale-and-shift-invariant term: `trimmed`, or `mse` as FocusOnDepth's code has it.
        trim: Share of the depth residuals that is left out.
        depth_weight: Of the scale-and-shift-invariant term.
        gradient_weight: Of the multi-scale gradient term.
        log_weight: Of the aligned log-depth term, for targets whose shift is known.
        person_weight: Of the person cross-entropy.
        dice_weight: Of the person Dice term.
    """

    depth_form: DepthForm = "trimmed"
    trim: float
    depth_weight: float
    gradient_weight: float
    log_weight: float = 0.0
    person_weight: float
    dice_weight: float

    def __post_init__(self) -> None:
        """Refuses values that cannot work together."""
        super().__post_init__()
        if not 0 <= self.trim < 1:
            raise TrainingError(f"trim is {self.trim}: it must be at least 0 and below 1")


MetricLoss = Literal["silog", "rmse", "mse", "l1"]


@dataclass(frozen=True, kw_only=True)
class MetricDepthConfig(TrainConfig):
    """Depth in metres (`training.tasks.metric_depth`).

    Attributes:
        loss_form: Loss against truth, in `training.losses`.
        nearest_m: Truth that is nearer does not count.
        farthest_m: Truth that is farther does not count; beyond all, the sky.
        chamfer_weight: Of the distance of AdaBins' bins from the true depths; 0 for networks without bins.
    """

    loss_form: MetricLoss = "silog"
    nearest_m: float = 1e-3
    farthest_m: float = 10.0
    chamfer_weight: float = 0.0

    def __post_init__(self) -> None:
        """Refuses values that cannot work together."""
        super().__post_init__()
        if not 0 < self.nearest_m < self.farthest_m:
            raise TrainingError(f"nearest_m is {self.nearest_m}: it must be above 0 and below farthest_m")


@dataclass(frozen=True, kw_only=True)
class DistillationConfig(MetricDepthConfig):
    """Depth in metres from truth and a teacher (`training.tasks.distillation`); the loss is SILog.

    Attributes:
        teacher: Weights of a network of this package, or another teacher, as `training.lessons.batch_teacher` takes.
        teacher_sha256: Of that file; empty where it is of a run of one's own.
        alignment: How the teacher's inverse depth becomes metres: `per_picture` by truth, or `none`.
        target: `both` truth and teacher, a term each, or one `filled`: truth, and the teacher where it has holes.
        truth_weight: Of the term against truth, filled or not.
        teacher_weight: Of the term against the teacher.
        pair_wise_weight: Of the pair-wise likeness of the coarsest features.
        attention_weight: Of the likeness of several layers' attention.
    """

    teacher: str
    teacher_sha256: str = ""
    alignment: Literal["per_picture", "none"] = "per_picture"
    target: Literal["both", "filled"] = "both"
    truth_weight: float = 1.0
    teacher_weight: float = 0.5
    pair_wise_weight: float = 0.0
    attention_weight: float = 0.0


@dataclass(frozen=True, kw_only=True)
class StackedConfig(MetricDepthConfig):
    """Depth in metres by base networks and a meta-learner (`training.tasks.stacked`).

    Attributes:
        base_weight: Of each base network's own loss; 0 where they are frozen, or learn by what is made of them alone.
    """

    base_weight: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ImportedConfig(TrainConfig):
    """No recipe, but where a network's published weights come from (`training.importers`); the rest is not known.

    Attributes:
        imported_file: Name of the file.
        imported_sha256: Of that file.
    """

    imported_file: str
    imported_sha256: str
    encoder_weights: str = ""
    encoder_sha256: str = ""
    seed: int = 0
    steps: int = 0
    batch: int = 0
    sizes: tuple[Size, ...] = ()
    final_sizes: tuple[Size, ...] = ()
    final_steps: int = 0
    lr: float = 0.0
    encoder_lr: float = 0.0
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    warmup_steps: int = 0
    ema_decay: float = 0.0
    bf16: bool = False
    min_crop: float = 0.0
    max_crop: float = 0.0
    stretch: float = 0.0
    rotation_deg: float = 0.0
    validate_every: int = 0
    checkpoint_every: int = 0
    sources: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Nothing is to be refused: nothing is trained with it."""

    def flat(self) -> dict[str, Any]:
        """What is known."""
        return {key: getattr(self, key) for key in ("task", "model", "imported_file", "imported_sha256", "sources")}


CONFIGS: MappingProxyType[str, type[TrainConfig]] = MappingProxyType(
    {
        "focus_on_depth": FocusOnDepthConfig,
        "metric_depth": MetricDepthConfig,
        "distillation": DistillationConfig,
        "stacked": StackedConfig,
        "stereo": StereoConfig,
        "confidence": ConfidenceConfig,
        "proxy_adaptation": ProxyConfig,
        "person_votes": VotesConfig,
        "imported": ImportedConfig,
    }
)
"""By the `task` of a recipe."""


def parse_config(values: Any, origin: str) -> TrainConfig:
    """Checks plain values and makes the config.

    Args:
        values: What the YAML file holds. `final_sizes: served` stands for the sizes of the service. A key may be left
            out where its field has a default, so that checkpoints from before the key was there stay readable.
        origin: File name for messages.

    Raises:
        TrainingError: Unknown, missing or mistyped key.
    """
    if not isinstance(values, dict):
        raise TrainingError(f"{origin}: expected one mapping of keys to values")
    # a key that is a list cannot be looked up; as a string it is just unknown
    task = str(values.get("task", TrainConfig.task))
    if task not in CONFIGS:
        raise TrainingError(f"{origin}: task is {task!r}: expected {' or '.join(CONFIGS)}")
    config: TrainConfig = parse_fields(CONFIGS[task], values, origin)
    return config


def parse_fields(kind: type[Any], values: dict[str, Any], origin: str) -> Any:
    """The same for any dataclass, e.g. of a run that is none of the trainer's."""
    fields = {f.name: f.type for f in dataclasses.fields(kind)}
    needed = {f.name for f in dataclasses.fields(kind) if f.default is f.default_factory is MISSING}
    unknown, missing = sorted(set(values) - set(fields)), sorted(needed - set(values))
    if unknown:
        raise TrainingError(f"{origin}: unknown key {', '.join(unknown)}; known: {', '.join(fields)}")
    if missing:
        raise TrainingError(f"{origin}: missing key {', '.join(missing)}")
    read = {key: _read_value(value, fields[key], f"{origin}: {key}") for key, value in values.items()}
    return kind(**read)


def _read_value(value: Any, wanted: Any, where: str) -> Any:
    """`value` as the type of its field."""
    if wanted is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if wanted in (int, bool, str) and type(value) is wanted:
        return value
    if get_origin(wanted) is Literal:
        if value in get_args(wanted):
            return value
        raise TrainingError(f"{where} is {value!r}: expected {' or '.join(get_args(wanted))}")
    try:
        if wanted == dict[str, float]:
            return {str(key): float(chance) for key, chance in value.items()}
        if wanted == dict[str, str]:
            return {str(part): str(path) for part, path in value.items()}
        if wanted == tuple[int, ...]:
            return tuple(int(entry) for entry in value)
        if wanted == tuple[float, ...]:
            return tuple(float(entry) for entry in value)
        if wanted == tuple[str, ...] and isinstance(value, list | tuple):
            return tuple(str(entry) for entry in value)
        if wanted == tuple[Size, ...]:
            if value == "served":
                return NETWORK_SIZES
            return tuple((int(height), int(width)) for height, width in value)
    except (AttributeError, TypeError, ValueError):
        pass
    raise TrainingError(f"{where} is {value!r}: expected {getattr(wanted, '__name__', wanted)}")


def load_config(path: Path, changes: Sequence[str] = ()) -> TrainConfig:
    """The recipe in a YAML file.

    Args:
        path: The file.
        changes: `KEY=VALUE` each, the value as in YAML: what to change for this run.

    Raises:
        TrainingError: It cannot be read, is not a recipe, or a change is not one.
    """
    return parse_config(read_values(path, changes), str(path))


def read_values(path: Path, changes: Sequence[str] = ()) -> dict[str, Any]:
    """What a YAML file holds, with its changes; arguments and errors as `load_config`."""
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise TrainingError(f"config {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise TrainingError(f"config {path}: not YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(values, dict):
        raise TrainingError(f"{path}: expected one mapping of keys to values")
    return values | dict(_read_change(change) for change in changes)


def _read_change(text: str) -> tuple[str, Any]:
    key, found, value = text.partition("=")
    if not found:
        raise TrainingError(f"--set {text}: expected KEY=VALUE")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise TrainingError(f"--set {text}: the value is not YAML") from error
