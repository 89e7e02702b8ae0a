"""Disparity from rectified pairs, supervised by truth at every scale."""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from training.config_stereo import StereoConfig
from training.data.bank import Batch
from training.data.sample import Sample
from training.distributed import share
from training.errors import TrainingError
from training.losses_stereo import disparity_error, known
from training.metrics import DisparityMetrics, disparity_metrics
from training.tasks.task import Surroundings

BRIGHTEST_PX = 64.0
"""Disparity that pictures of maps show as white; larger ones too."""


class AllScales(nn.Module):
    """A stereo network run so that its loss sees every scale."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) twice -> (B, scales, H, W), pixels, the result last."""
        scales: list[Tensor] = self.network.scales(left, right)  # type: ignore[operator]  # stereo networks have it
        return torch.stack(scales, 1)


class StereoTask:
    """Weighted mean absolute errors of all scales, each enlarged to the pictures' size."""

    def __init__(self, config: StereoConfig, surroundings: Surroundings) -> None:
        self._config = config

    def wants(self, sample: Sample) -> bool:
        """Pairs with truth."""
        return sample.right is not None and sample.disparity_px is not None

    def forward(self, network: nn.Module) -> nn.Module:
        """The network with all its scales; TrainingError for one that is not a stereo network."""
        if not hasattr(network, "scales"):
            raise TrainingError(f"task stereo: {self._config.model} is no stereo network")
        return AllScales(network)

    def losses(self, forward: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """`loss`, and the error of every scale in pixels: `scale_1` the coarsest, the last the result."""
        config, device, truth = self._config, batch.image.device, batch.disparity_px
        if batch.right is None or truth is None:
            raise TrainingError("task stereo: a batch without pairs; sources must hold pairs with truth alone")
        with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
            scales = forward(batch.image, batch.right)
        if scales.shape[1] != len(config.scale_weights):
            raise TrainingError(f"scale_weights has {len(config.scale_weights)} entries for {scales.shape[1]} scales")
        parts = {
            f"scale_{number}": disparity_error(scale.float(), truth) for number, scale in enumerate(scales.unbind(1), 1)
        }
        weighted = zip(config.scale_weights, parts.values(), strict=True)
        total = torch.stack([weight * part for weight, part in weighted]).sum()
        pictures = int(known(truth).flatten(1).any(1).sum())
        return {"loss": share(pictures, device) * total} | parts

    def metrics(self, network: nn.Module, samples: Sequence[Sample]) -> dict[str, float]:
        """EPE (pixels), bad3 and d1 (shares), at the samples' own size; means over pairs."""
        return mean_of([judge(network, sample) for sample in samples])

    def panel(self, network: nn.Module, sample: Sample) -> npt.NDArray[np.uint8]:
        """Left picture, disparity and truth side by side."""
        right = sample.image if sample.right is None else sample.right
        shown = [sample.image, drawn(predict(network, sample.image, right))]
        if sample.disparity_px is not None:
            shown.append(drawn(sample.disparity_px))
        return np.hstack(shown)


def predict(network: nn.Module, left: npt.NDArray[np.uint8], right: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Disparity of one pair by a network in eval mode, float32 (H, W), pixels."""
    with torch.inference_mode():
        found = network(torch.from_numpy(left[None]), torch.from_numpy(right[None]))[0]
    disparity: npt.NDArray[np.float32] = found.float().numpy()
    return disparity


def judge(network: nn.Module, sample: Sample) -> DisparityMetrics:
    """Of one pair with truth."""
    assert sample.right is not None  # `wants` says so
    assert sample.disparity_px is not None
    return disparity_metrics(predict(network, sample.image, sample.right), sample.disparity_px)


def mean_of(rows: Sequence[DisparityMetrics]) -> dict[str, float]:
    """Means over pairs, by name."""
    return {name: float(np.mean([getattr(row, name) for row in rows])) for name in ("epe", "bad3", "d1")}


def drawn(disparity: npt.NDArray[np.float32], brightest_px: float = BRIGHTEST_PX) -> npt.NDArray[np.uint8]:
    """A map in colours, uint8 (H, W, 3) RGB: dark is 0 or unknown, bright is `brightest_px`."""
    scaled = (np.clip(disparity / brightest_px, 0, 1) * 255).astype(np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(scaled, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB).astype(np.uint8)
