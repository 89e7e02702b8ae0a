"""A meta-learner on three base networks, as in `training.models.meta_learner`; `training.stacking` has the folds.

Frozen, tuned and simultaneous differ in the recipe alone: `frozen: [bases]`; `starts_from` trained bases that learn
on; or bases from the start, each with a loss of its own (`base_weight`), without which nothing would make it a depth.
"""

from typing import Any

import torch
from torch import Tensor, nn

from training.config import StackedConfig
from training.data.bank import Batch
from training.distributed import share
from training.errors import TrainingError
from training.losses import counted
from training.models.meta_learner import BASES, Stacked
from training.tasks.metric_depth import MetricDepthTask, error
from training.tasks.task import Surroundings


class WithBases(nn.Module):
    """A stack run so that its loss sees what the base networks said."""

    def __init__(self, network: Stacked) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, base_depths_m: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Runs the stack.

        Args:
            image: uint8 (B, H, W, 3).
            base_depths_m: (B, 3, H, W), what the base networks said of it before; None runs them.

        Returns:
            Depth (B, H, W) and the base depths (B, 3, H, W), metres.
        """
        said = self.network.base_depths(image) if base_depths_m is None else base_depths_m
        mixed: Tensor = self.network.meta(image, said)
        return mixed, said


class StackedTask(MetricDepthTask):
    """The loss of the weighed depth, and of each base network's own where the recipe says so."""

    def __init__(self, config: StackedConfig, surroundings: Surroundings) -> None:
        super().__init__(config, surroundings)
        self._recipe = config

    def forward(self, network: nn.Module) -> nn.Module:
        """The stack with what its bases say; TrainingError for another network."""
        if not isinstance(network, Stacked):
            raise TrainingError(f"task stacked: {self._recipe.model} is no stack of {', '.join(BASES)}")
        return WithBases(network)

    def losses(self, forward: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """`loss`, the part named after its form, and one of each base network, which counts `base_weight`."""
        recipe, device = self._recipe, batch.image.device
        stored = batch.base_depths_m
        if stored is not None and "bases" not in recipe.frozen:
            raise TrainingError("base predictions from a folder leave nothing for the bases to learn: freeze [bases]")
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bf16):
            depth, said = forward(batch.image, stored)
        target = self.truth(batch)
        parts: dict[str, Tensor] = {recipe.loss_form: error(recipe, depth.float(), target)}
        total = parts[recipe.loss_form]
        for name, base in zip(BASES, said.unbind(1), strict=True):
            parts[name] = error(recipe, base.float(), target)
            if recipe.base_weight:
                total = total + recipe.base_weight * parts[name]
        result: dict[str, Any] = {"loss": share(counted(target), device) * total}
        return result | parts
