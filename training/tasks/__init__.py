"""Training objectives by name: a recipe's `task` chooses one."""

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

from training.config import TrainConfig
from training.errors import TrainingError
from training.tasks.focus_on_depth import FocusOnDepthTask
from training.tasks.task import Task

TASKS: MappingProxyType[str, Callable[[Any], Task]] = MappingProxyType({"focus_on_depth": FocusOnDepthTask})
"""Each takes the config that `training.config.CONFIGS` has under the same name."""


def make_task(config: TrainConfig) -> Task:
    """The objective of a recipe; TrainingError for what is none, such as the origin of imported weights."""
    if config.task not in TASKS:
        raise TrainingError(f"task {config.task} cannot be trained: expected {' or '.join(TASKS)}")
    return TASKS[config.task](config)
