"""What every recipe has, whatever its objective; `training.config` has the objectives' own keys and the reader."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from service.contract import Size
from training.errors import TrainingError

Optimizer = Literal["adamw", "adam"]
ScheduleName = Literal["cosine", "triangular", "one_cycle", "poly", "plateau"]
Metric = Literal["delta1", "abs_rel", "rmse", "silog", "loss", "epe", "area", "vote_error"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What every training run has, whatever its objective. Defaults never change: recipes and checkpoints rest on them.

    Attributes:
        task: Objective, in `training.tasks.TASKS`; it decides which further keys there are.
        model: Name in `training.models.MODELS`.
        encoder_weights: File in the weights folder the encoder starts from; empty = random.
        encoder_sha256: Of that file.
        network_weights: File of `training/weights` or of the weights folder the whole network starts from; empty =
            the encoder's weights alone.
        network_sha256: Of that file.
        starts_from: Checkpoints of other runs, relative to this run's folder, by the part of the network (name of a
            module, `all` for the whole) that starts from them; `--start PART=CHECKPOINT` gives others.
        frozen: Parts of the network (names of modules) that stay as they are, with the statistics of their batch norm.
        seed: Of initial weights, order of samples and augmentation.
        steps: Optimiser steps in all.
        batch: Samples a step.
        sizes: (height, width) of the batches, drawn per step.
        final_sizes: The same for the last `final_steps` steps.
        final_steps: How many steps `final_sizes` are used for.
        optimizer: `adamw`, or `adam`, whose decay goes through the moments.
        adam_eps: Added to the root of the second moment.
        lr: Peak learning rate of decoder and heads.
        encoder_lr: Peak learning rate of the encoder.
        weight_decay: Of convolution weights; biases and norms have none.
        clip_norm: Largest norm of the gradient.
        schedule: Of the rates, in `training.schedules`.
        warmup_steps: Linear rise to the peak; of `cosine`.
        lr_floor: Share of the peak where `triangular` begins and `poly` ends.
        cycle_steps: Steps from the floor to the peak; of `triangular`.
        poly_power: Of `poly`.
        plateau_factor: By which `plateau` lowers the rates.
        plateau_patience: Validations without a lower loss that `plateau` bears.
        ema_decay: Of the averaged weights, which are the ones validated and exported; 0 = the weights themselves.
        bf16: Whether the network runs in bfloat16 while training (losses stay float32).
        min_crop: Smallest crop, share of the largest that fits.
        max_crop: Largest crop; above 1 it reaches beyond the picture.
        stretch: Largest change of aspect, factor.
        rotation_deg: Largest rotation in degrees.
        letterbox: Share of the samples that are seen whole, letterboxed as the service does it.
        geometry: Of the views, `photo`, `square` or `stereo`, in `training.data.transforms.Augmentation`.
        crop_share: Share of the samples that are cropped; of `square`.
        rotation_share: Share of the samples that are turned.
        colour_share: Share of the samples whose colours are changed.
        paste: Share of the pictures with person labels that get small figures pasted in, cut out of masked photos.
        validate_every: Steps between validations.
        select_by: Metric of the validation by which the best checkpoint, `best.pt`, is chosen; `loss` is the loss of
            held-out pictures seen whole.
        checkpoint_every: Steps between checkpoints.
        split: Percent of the scenes for training, validation and a later test; empty = one scene in ten validates.
        sources: Relative chance of each source of samples.
    """

    task: str = "focus_on_depth"
    model: str
    encoder_weights: str
    encoder_sha256: str
    network_weights: str = ""
    network_sha256: str = ""
    starts_from: dict[str, str] = field(default_factory=dict)
    frozen: tuple[str, ...] = ()
    seed: int
    steps: int
    batch: int
    sizes: tuple[Size, ...]
    final_sizes: tuple[Size, ...]
    final_steps: int
    optimizer: Optimizer = "adamw"
    adam_eps: float = 1e-8
    lr: float
    encoder_lr: float
    weight_decay: float
    clip_norm: float
    warmup_steps: int
    schedule: ScheduleName = "cosine"
    lr_floor: float = 0.01
    cycle_steps: int = 1000
    poly_power: float = 0.9
    plateau_factor: float = 0.1
    plateau_patience: int = 10
    ema_decay: float
    bf16: bool
    min_crop: float
    max_crop: float
    stretch: float
    rotation_deg: float
    letterbox: float = 0.0
    geometry: Literal["photo", "square", "stereo"] = "photo"
    crop_share: float = 1.0
    rotation_share: float = 1 / 3
    colour_share: float = 1.0
    paste: float = 0.0
    validate_every: int
    select_by: Metric = "delta1"
    checkpoint_every: int
    split: tuple[int, ...] = ()
    sources: dict[str, float]

    def __post_init__(self) -> None:
        """Refuses values that cannot work together."""
        if not 0 <= self.final_steps <= self.steps:
            raise TrainingError(f"final_steps is {self.final_steps}: it must be 0..{self.steps}, the steps in all")
        for height, width in self.sizes + self.final_sizes:
            if height % 32 or width % 32:
                raise TrainingError(f"size {height}x{width}: both must be multiples of 32, the encoder's stride")
        if self.split and (len(self.split) != 3 or sum(self.split) != 100 or min(self.split) < 0):
            raise TrainingError(f"split is {list(self.split)}: it must be three shares in percent, 100 in all")
        if not self.sources or min(self.sources.values()) <= 0:
            raise TrainingError("sources needs at least one entry, each with a chance above 0")

    def is_better(self, value: float, best: float | None) -> bool:
        """Whether `value` of the metric `select_by` is better than the best so far."""
        return best is None or (value > best if self.select_by == "delta1" else value < best)

    @property
    def needs_held_out_loss(self) -> bool:
        """Whether validation must know the loss, not only the metrics."""
        return self.schedule == "plateau" or self.select_by == "loss"

    def without(self, sources: Sequence[str]) -> Self:
        """The recipe less some of its sources; TrainingError when it does not have one of them."""
        unknown = sorted(set(sources) - set(self.sources))
        if unknown:
            raise TrainingError(f"no source {', '.join(unknown)} to leave out; there are {', '.join(self.sources)}")
        left = {name: chance for name, chance in self.sources.items() if name not in sources}
        return dataclasses.replace(self, sources=left)

    def flat(self) -> dict[str, Any]:
        """Plain values, as the YAML file has them."""
        values = dataclasses.asdict(self)
        for key, value in values.items():
            if isinstance(value, tuple):
                values[key] = [list(item) if isinstance(item, tuple) else item for item in value]
        return values
