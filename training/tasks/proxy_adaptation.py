"""Offline adaptation of stereo and monocular networks to pairs without truth.

Tonioni et al., "Unsupervised Domain Adaptation for Depth Prediction from Images", arXiv:1909.03943: regression on
what a matcher says, guided by confidence, with photometric and smoothness terms.
"""

from collections.abc import Sequence
from typing import Self

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from service.contract import Size
from training.config_stereo import ProxyConfig
from training.data.bank import Batch
from training.data.sample import Sample
from training.distributed import share
from training.errors import TrainingError
from training.losses_stereo import LearnedThreshold, known, photometric, proxy_regression, smoothness
from training.metrics import disparity_metrics
from training.models.mono_disparity import MonoDisparity
from training.tasks.stereo import drawn, mean_of, predict
from training.tasks.task import Surroundings

Floats = npt.NDArray[np.float32]

_TRUSTED = 0.5  # confidence of labels to judge by where there is no truth


class Guided(nn.Module):
    """A network run so that its loss sees its disparity and, where the recipe learns one, the threshold.

    Batch norm keeps the statistics that the network came with: a few batches of one camera say less of what it will
    see than all that it learned on, and an adapted network is judged and used with what is kept.

    Args:
        network: Stereo or monocular.
        config: Recipe.
    """

    def __init__(self, network: nn.Module, config: ProxyConfig) -> None:
        super().__init__()
        self.network = network
        self._mono = None if is_stereo(network) else MonoDisparity(network, config.disparity_share)
        self._fixed = config.threshold if config.guidance == "fixed" else None
        if config.guidance == "learned":
            # a part of the network from now on, so that it is optimised, saved and resumed; the averaged weights, which
            # are judged and exported, were copied before and have none
            speed = config.threshold_lr / config.lr
            network.guide = LearnedThreshold(config.threshold, config.threshold_penalty, speed)
            network.guide.to(next(network.parameters()).device)

    def train(self, mode: bool = True) -> Self:
        """As any module, but for batch norm."""
        super().train(mode)
        for part in self.network.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.eval()
        return self

    def forward(self, left: Tensor, right: Tensor, proxy: Tensor, confidence: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Disparity (B, H, W) in pixels of uint8 (B, H, W, 3) pairs, its regression on labels, and the threshold."""
        disparity = self.network(left, right) if self._mono is None else self._mono(left)
        disparity = disparity.float()
        guide = getattr(self.network, "guide", None)
        if isinstance(guide, LearnedThreshold):
            return disparity, guide(disparity, proxy, confidence), guide.threshold
        tau = torch.tensor(self._fixed or 0.0)
        trusted = None if self._fixed is None else confidence
        return disparity, proxy_regression(disparity, proxy, trusted, float(tau)), tau


def is_stereo(network: nn.Module) -> bool:
    """Whether a network sees both pictures."""
    return hasattr(network, "scales")


class ProxyAdaptationTask:
    """Regression on labels, smoothness, and how well the right picture explains the left."""

    def __init__(self, config: ProxyConfig, surroundings: Surroundings) -> None:
        self._config = config

    def wants(self, sample: Sample) -> bool:
        """Pairs with labels."""
        return sample.right is not None and sample.proxy_px is not None and sample.confidence is not None

    def forward(self, network: nn.Module) -> nn.Module:
        """The network with what guides it."""
        return Guided(network, self._config)

    def losses(self, forward: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """`loss`, its parts `proxy`, `smoothness`, `photometric`; `threshold`, and the share of labels `counted`."""
        config, device = self._config, batch.image.device
        right, proxy, confidence = batch.right, batch.proxy_px, batch.confidence
        if right is None or proxy is None or confidence is None:
            raise TrainingError("task proxy_adaptation: a batch without labels; sources must hold `pairs` alone")
        with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
            disparity, regression, tau = forward(batch.image, right, proxy, confidence)
        parts = {
            "proxy": regression,
            "smoothness": smoothness(disparity, batch.image),
            "photometric": photometric(batch.image, right, disparity),
        }
        labels = known(proxy)
        with torch.no_grad():
            counted = (labels & (confidence > tau)).sum() / labels.sum().clamp(min=1)
        labelled = share(int(labels.flatten(1).any(1).sum()), device)
        total = labelled * parts["proxy"]
        # every process brings as many pictures
        total = total + config.smoothness_weight * parts["smoothness"]
        total = total + config.photometric_weight * parts["photometric"]
        return {"loss": total} | parts | {"threshold": tau, "counted": counted}

    def metrics(self, network: nn.Module, samples: Sequence[Sample]) -> dict[str, float]:
        """EPE (pixels), bad3 and d1 (shares), means over pairs; none without pairs.

        Judged by truth, or where a pair has none by its labels of a confidence of a half and more.
        """
        rows = []
        for sample in samples:
            truth = sample.disparity_px
            if truth is None:
                assert sample.proxy_px is not None  # `wants` says so
                assert sample.confidence is not None
                truth = np.where(sample.confidence >= _TRUSTED, sample.proxy_px, 0)
            if truth.any():
                rows.append(disparity_metrics(self.predicted(network, sample), truth))
        return mean_of(rows) if rows else {}

    def predicted(self, network: nn.Module, sample: Sample) -> Floats:
        """Disparity of a pair, or of its left picture by a monocular network, float32 (H, W), pixels."""
        if is_stereo(network):
            return predict(network, sample.image, sample.image if sample.right is None else sample.right)
        return predict_mono(MonoDisparity(network, self._config.disparity_share), sample.image, self._config.sizes[0])

    def panel(self, network: nn.Module, sample: Sample) -> npt.NDArray[np.uint8]:
        """Left picture, label, its confidence, result, and truth where there is any."""
        shown = [sample.image]
        if sample.proxy_px is not None and sample.confidence is not None:
            grey = (sample.confidence * 255).astype(np.uint8)
            shown += [drawn(sample.proxy_px), np.repeat(grey[..., None], 3, 2)]
        shown.append(drawn(self.predicted(network, sample)))
        if sample.disparity_px is not None:
            shown.append(drawn(sample.disparity_px))
        return np.hstack(shown)


def predict_mono(network: MonoDisparity, image: npt.NDArray[np.uint8], size: Size) -> Floats:
    """Disparity of a picture of any size, stretched to `size` and seen both ways, float32 (H, W), pixels of its own."""
    height, width = image.shape[:2]
    small = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    with torch.inference_mode():
        found = network.both_ways(torch.from_numpy(small[None]))[0].numpy()
    enlarged = cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR) * (width / size[1])
    return enlarged.astype(np.float32)
