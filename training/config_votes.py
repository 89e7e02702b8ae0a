"""Keys of the objective that tells people apart."""

from dataclasses import dataclass

from training.errors import TrainingError
from training.recipe import TrainConfig


@dataclass(frozen=True, kw_only=True)
class VotesConfig(TrainConfig):
    """Votes for chest and height (`training.tasks.person_votes`).

    Attributes:
        beta: Error, in units of the network's output, from which on the loss grows linearly.
        height_weight: Of the height's logarithm beside dx and dy.
        owner_weight: Of the votes that fall to others than their owner.
        plain_crowds: How many crowds of plain figures to draw as the source `plain_crowds`, for trials without data.
    """

    beta: float = 0.05
    height_weight: float = 0.5
    owner_weight: float = 0.0
    plain_crowds: int = 0

    def __post_init__(self) -> None:
        """Refuses values that cannot work together."""
        super().__post_init__()
        if self.beta <= 0 or min(self.height_weight, self.owner_weight) < 0 or self.plain_crowds < 0:
            raise TrainingError("beta must be above 0, weights and plain_crowds at least 0")
        if self.paste:
            raise TrainingError(f"paste is {self.paste}: it must be 0, votes know nothing of pasted figures")
