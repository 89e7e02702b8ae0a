"""A network that says how far each label of a matcher can be trusted (`training.models.ccnn`)."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.confidence import optimal_area, sparsification_area
from training.config_stereo import ConfidenceConfig
from training.data.bank import Batch
from training.data.sample import Sample
from training.distributed import share
from training.errors import TrainingError
from training.tasks.stereo import drawn
from training.tasks.task import Surroundings

_AGREED = 0.5  # confidence of a measure from which a label is called right


class Logits(nn.Module):
    """A confidence network run so that its loss sees what stands before the sigmoid."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, disparity_px: Tensor) -> Tensor:
        """(B, H, W), pixels -> (B, H, W)."""
        found: Tensor = self.network.logits(disparity_px)  # type: ignore[operator]  # confidence networks have it
        return found


class ConfidenceTask:
    """Cross-entropy of what is right and wrong among the labels."""

    def __init__(self, config: ConfidenceConfig, surroundings: Surroundings) -> None:
        self._config = config

    def wants(self, sample: Sample) -> bool:
        """Labels with what tells right from wrong."""
        told = sample.disparity_px if self._config.target == "truth" else sample.confidence
        return sample.proxy_px is not None and told is not None

    def forward(self, network: nn.Module) -> nn.Module:
        """The network up to its sigmoid; TrainingError for one that is not a confidence network."""
        if not hasattr(network, "logits"):
            raise TrainingError(f"task confidence: {self._config.model} is no confidence network")
        return Logits(network)

    def _told(self, proxy: Tensor, truth: Tensor | None, confidence: Tensor | None) -> tuple[Tensor, Tensor]:
        """Which labels are right, and which count, bool (B, H, W)."""
        if self._config.target == "truth":
            if truth is None:
                raise TrainingError("task confidence: pairs without truth; set target: confidence and a measure")
            return (proxy - truth).abs() <= self._config.right_px, (proxy > 0) & (truth > 0)
        if confidence is None:
            raise TrainingError("task confidence: pairs without labels")
        return confidence >= _AGREED, proxy > 0

    def losses(self, forward: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """`loss`, which is `cross_entropy`, and the share of labels that are `right`."""
        proxy, device = batch.proxy_px, batch.image.device
        if proxy is None:
            raise TrainingError("task confidence: a batch without labels; sources must hold `pairs` alone")
        right, counts = self._told(proxy, batch.disparity_px, batch.confidence)
        with torch.autocast(device.type, torch.bfloat16, enabled=self._config.bf16):
            logits = forward(proxy)
        error = F.binary_cross_entropy_with_logits(logits.float(), right.float(), reduction="none")
        count = counts.sum().clamp(min=1)
        entropy = torch.where(counts, error, 0.0).sum() / count
        pictures = int(counts.flatten(1).any(1).sum())
        return {
            "loss": share(pictures, device) * entropy,
            "cross_entropy": entropy,
            "right": (right & counts).sum() / count,
        }

    def metrics(self, network: nn.Module, samples: Sequence[Sample]) -> dict[str, float]:
        """`area` of sparsification and `optimal_area`, share of `wrong` labels: means over pairs; none without."""
        rows = []
        for sample in samples:
            arrays = (sample.proxy_px, sample.disparity_px, sample.confidence)
            proxy, truth, given = (None if array is None else torch.from_numpy(array) for array in arrays)
            assert proxy is not None  # `wants` says so
            right, counts = self._told(proxy, truth, given)
            if counts.any():
                with torch.inference_mode():
                    found = network(proxy[None])[0]
                wrong = (~right)[counts].numpy()
                area = sparsification_area(found[counts].numpy(), wrong)
                rows.append((area, optimal_area(float(wrong.mean())), float(wrong.mean())))
        names = ("area", "optimal_area", "wrong")
        return dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True)) if rows else {}

    def panel(self, network: nn.Module, sample: Sample) -> npt.NDArray[np.uint8]:
        """Left picture, label, confidence."""
        assert sample.proxy_px is not None  # `wants` says so
        with torch.inference_mode():
            found = network(torch.from_numpy(sample.proxy_px[None]))[0].numpy()
        grey = (found * 255).astype(np.uint8)
        return np.hstack([sample.image, drawn(sample.proxy_px), np.repeat(grey[..., None], 3, 2)])
