"""Depth in metres by one network, from samples whose truth is in metres."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from service.contract import Size
from service.imaging.geometry import Letterbox
from training.chamfer import bin_chamfer
from training.config import MetricDepthConfig
from training.data.bank import Batch
from training.data.sample import Sample
from training.distributed import share
from training.losses import counted, masked_error, silog
from training.metric_depth import mean_over_pictures
from training.protocols import Protocol, judge
from training.sheets import depth_panel
from training.tasks.task import Surroundings

_FEWEST_VALID = 64  # pixels, as `silog` counts pictures


def error(config: MetricDepthConfig, prediction_m: Tensor, target_m: Tensor) -> Tensor:
    """The recipe's loss of metric depth."""
    match config.loss_form:
        case "silog":
            return silog(prediction_m, target_m)
        case "rmse":
            return torch.sqrt(masked_error(prediction_m, target_m, "mse") + 1e-9)
        case "mse":
            return masked_error(prediction_m, target_m, "mse")
        case "l1":
            return masked_error(prediction_m, target_m, "l1")


class WithBins(nn.Module):
    """A network that chooses its bins, run so that its loss sees them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (B, H, W, 3) -> depth (B, H, W) and centres of the bins (B, bins), metres."""
        bins: Any = self.network.bins(image)  # type: ignore[operator]  # AdaBins has it
        return bins.depth_m, bins.centres_m


class MetricDepthTask:
    """One loss against depth in metres; for AdaBins, the distance of its bins from the true depths beside it."""

    def __init__(self, config: MetricDepthConfig, surroundings: Surroundings) -> None:
        self._config = config

    def wants(self, sample: Sample) -> bool:
        """Samples with depth in metres."""
        return sample.metric and sample.inverse_depth is not None

    def truth(self, batch: Batch) -> Tensor:
        """Depth within the recipe's range, float32 (B, H, W), metres, 0 = none: in pictures with very little, too."""
        depth = batch.depth_m
        depth = torch.where((depth > self._config.nearest_m) & (depth < self._config.farthest_m), depth, 0.0)
        enough = (depth > 0).sum((1, 2)) >= _FEWEST_VALID
        return torch.where(enough[:, None, None], depth, 0.0)

    def forward(self, network: nn.Module) -> nn.Module:
        """The network itself, or with its bins."""
        return WithBins(network) if self._config.chamfer_weight else network

    def losses(self, forward: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """`loss`, the part named after its form, and `bin_chamfer`."""
        config, device = self._config, batch.image.device
        with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
            result = forward(batch.image)
        target = self.truth(batch)
        depth, centres = result if config.chamfer_weight else (result, None)
        parts: dict[str, Tensor] = {config.loss_form: error(config, depth.float(), target)}
        total = parts[config.loss_form]
        if centres is not None:
            parts["bin_chamfer"] = bin_chamfer(centres, target)
            total = total + config.chamfer_weight * parts["bin_chamfer"]
        return {"loss": share(counted(target), device) * total} | parts

    def metrics(self, network: nn.Module, samples: Sequence[Sample]) -> dict[str, float]:
        """All metrics of `training.metric_depth` within the recipe's range, no alignment; means over pictures."""
        config = self._config
        protocol = Protocol("held_out", config.nearest_m, config.farthest_m, _everywhere)
        rows = judge(protocol, lambda image: see(network, image, config.sizes[0]), "depth_m", samples)
        return mean_over_pictures(rows.values())

    def panel(self, network: nn.Module, sample: Sample) -> npt.NDArray[np.uint8]:
        """Photo and inverse depth."""
        return depth_panel(sample.image, 1 / np.maximum(see(network, sample.image, self._config.sizes[0]), 1e-3))


def _everywhere(size: Size) -> tuple[slice, slice]:
    return slice(0, size[0]), slice(0, size[1])


def see(network: nn.Module, image: npt.NDArray[np.uint8], size: Size) -> npt.NDArray[np.float32]:
    """What a depth network, in eval mode, makes of a picture of any size, letterboxed to `size`; float32 (H, W)."""
    letterbox = Letterbox.of(image.shape[0], image.shape[1], size)
    with torch.inference_mode():
        depth = network(torch.from_numpy(letterbox.fit(image)[None]))[0].float().numpy()
    found: npt.NDArray[np.float32] = letterbox.unfit(depth)
    return found
