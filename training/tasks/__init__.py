"""Training objectives by name: a recipe's `task` chooses one."""

from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

from training.config import MetricDepthConfig
from training.errors import TrainingError
from training.recipe import TrainConfig
from training.tasks.confidence import ConfidenceTask
from training.tasks.distillation import DistillationTask
from training.tasks.focus_on_depth import FocusOnDepthTask
from training.tasks.metric_depth import MetricDepthTask
from training.tasks.person_votes import PersonVotesTask
from training.tasks.proxy_adaptation import ProxyAdaptationTask
from training.tasks.stacked import StackedTask
from training.tasks.stereo import StereoTask
from training.tasks.task import Surroundings, Task

TASKS: MappingProxyType[str, Callable[[Any, Surroundings], Task]] = MappingProxyType(
    {
        "focus_on_depth": FocusOnDepthTask,
        "metric_depth": MetricDepthTask,
        "distillation": DistillationTask,
        "stacked": StackedTask,
        "stereo": StereoTask,
        "confidence": ConfidenceTask,
        "proxy_adaptation": ProxyAdaptationTask,
        "person_votes": PersonVotesTask,
    }
)
"""Each takes the config that `training.config.CONFIGS` has under the same name."""


def make_judge(config: TrainConfig) -> Task:
    """What judges the networks of a recipe: its objective's `wants` and `metrics`, which need no teacher or bases."""
    if isinstance(config, MetricDepthConfig):
        return MetricDepthTask(config, Surroundings(None, "cpu", Path()))
    return make_task(config)


def make_task(config: TrainConfig, weights: Path | None = None, device: str = "cpu", folder: Path = Path()) -> Task:
    """The objective of a recipe.

    Args:
        config: Recipe.
        weights: Folder of published weights, for what an objective needs beside the network, e.g. a teacher.
        device: `cpu` or `cuda`, where the network runs.
        folder: Of the run.

    Raises:
        TrainingError: It is none, such as the origin of imported weights.
    """
    if config.task not in TASKS:
        raise TrainingError(f"task {config.task} cannot be trained: expected {' or '.join(TASKS)}")
    return TASKS[config.task](config, Surroundings(weights, device, folder))
