"""Relative inverse depth and people by one network."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from training.config import FocusOnDepthConfig
from training.data.bank import Batch
from training.data.sample import Sample
from training.distributed import share
from training.evaluation import evaluate, predictor
from training.losses import depth_loss, person_loss
from training.models.focus_on_depth import Served
from training.sheets import panel
from training.tasks.task import Surroundings


class FocusOnDepthTask:
    """Scale-and-shift-invariant depth and person segmentation, any sample that has truth for either."""

    def __init__(self, config: FocusOnDepthConfig, surroundings: Surroundings) -> None:
        self._config = config

    def wants(self, sample: Sample) -> bool:
        """Every sample: what it lacks does not count."""
        return True

    def forward(self, network: nn.Module) -> nn.Module:
        """The network itself."""
        return network

    def losses(self, forward: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """`loss` and its named parts, unweighted."""
        config, device = self._config, batch.image.device
        with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
            inverse_depth, logit = forward(batch.image)
        depth = depth_loss(inverse_depth, batch.inverse_depth, config.trim, batch.shift_known, config.depth_form)
        person = person_loss(logit, batch.person)
        total = share(depth.pictures, device) * (
            config.depth_weight * depth.ssi + config.gradient_weight * depth.gradient + config.log_weight * depth.log
        )
        total = total + share(person.labelled, device) * config.person_weight * person.cross_entropy
        total = total + share(person.showing, device) * config.dice_weight * person.dice
        return {
            "loss": total,
            "depth_ssi": depth.ssi,
            "depth_gradient": depth.gradient,
            "depth_log": depth.log,
            "person_cross_entropy": person.cross_entropy,
            "person_dice": person.dice,
        }

    def metrics(self, network: nn.Module, samples: Sequence[Sample]) -> dict[str, float]:
        """delta1, AbsRel and polarity after alignment, person IoU: means over sources."""
        return evaluate(predictor(Served(network)), samples)["all"]

    def panel(self, network: nn.Module, sample: Sample) -> npt.NDArray[np.uint8]:
        """Photo, inverse depth, people."""
        return panel(predictor(Served(network)), sample.image)
