"""Metric depth from truth and from a teacher: `training.distillation` says how, the recipe how much of what."""

import torch
from torch import Tensor, nn

from training.config import DistillationConfig
from training.data.bank import Batch
from training.distillation import align_teacher, attention_transfer, fill_unknown, pair_wise, tapped, unaligned
from training.distributed import share
from training.errors import TrainingError
from training.lessons import Lesson, batch_teacher
from training.losses import counted, silog
from training.tasks.metric_depth import MetricDepthTask
from training.tasks.task import Surroundings


class Student(nn.Module):
    """A network that says its encoder's features along with its depth."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """uint8 (B, H, W, 3) -> depth in metres (B, H, W), and the features, fine to coarse."""
        with tapped(self.network.get_submodule("encoder")) as features:
            depth_m = self.network(image)
        return depth_m, features


class DistillationTask(MetricDepthTask):
    """A student of truth and of a teacher, from samples with depth in metres; judged like any metric network."""

    def __init__(self, config: DistillationConfig, surroundings: Surroundings) -> None:
        super().__init__(config, surroundings)
        self._recipe = config
        self._teacher = batch_teacher(
            surroundings.found(config.teacher), surroundings.weights, surroundings.device, sha256=config.teacher_sha256
        )

    def forward(self, network: nn.Module) -> nn.Module:
        """The network with its features."""
        return Student(network)

    def losses(self, forward: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """`loss` and its named parts, unweighted."""
        recipe, device = self._recipe, batch.image.device
        truth_m = self.truth(batch)
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bf16):
            lesson = self._teacher(batch.image)
            depth_m, features = forward(batch.image)
        if recipe.alignment == "per_picture":
            teacher_m = align_teacher(lesson.inverse_depth, truth_m, farthest_m=recipe.farthest_m)
        else:
            teacher_m = unaligned(lesson.inverse_depth, farthest_m=recipe.farthest_m)
        parts, total = {}, depth_m.sum() * 0.0
        if recipe.target == "filled":
            targets = {"filled": (fill_unknown(truth_m, teacher_m), recipe.truth_weight)}
        else:
            targets = {"truth": (truth_m, recipe.truth_weight), "teacher": (teacher_m, recipe.teacher_weight)}
        for name, (target_m, weight) in targets.items():
            parts[f"silog_{name}"] = silog(depth_m, target_m)
            total = total + share(counted(target_m), device) * weight * parts[f"silog_{name}"]
        if recipe.pair_wise_weight or recipe.attention_weight:
            pairs = self._paired(features, lesson)
            parts["pair_wise"] = pair_wise(*pairs[-1])
            parts["attention"] = attention_transfer([s for s, _ in pairs], [t for _, t in pairs])
            # every process brings as many pictures
            total = total + recipe.pair_wise_weight * parts["pair_wise"]
            total = total + recipe.attention_weight * parts["attention"]
        return {"loss": total} | parts

    def _paired(self, features: list[Tensor], lesson: Lesson) -> list[tuple[Tensor, Tensor]]:
        """Features of student and teacher from coarse to fine scale by scale, as many as both have; fine to coarse."""
        if not lesson.features:
            raise TrainingError(
                f"teacher {self._recipe.teacher} shows no features: pair_wise_weight and attention_weight must be 0"
            )
        count = min(len(features), len(lesson.features))
        return list(zip(features[-count:], lesson.features[-count:], strict=True))
