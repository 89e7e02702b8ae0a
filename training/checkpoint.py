"""Checkpoints: weights, averaged weights, optimiser, step, config and source revision in one file."""

import pickle
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.config import TrainConfig, parse_config
from training.errors import TrainingError


@dataclass(frozen=True)
class Checkpoint:
    """State of a run after `step` steps.

    Attributes:
        step: Steps done.
        model: State dict of the trained weights.
        ema: State dict of the averaged weights.
        optimizer: State dict of the optimiser.
        config: Recipe.
        commit: Source revision the run was started from, `-dirty` when files of the package differed.
        metrics: Last validation, by name.
    """

    step: int
    model: dict[str, Any]
    ema: dict[str, Any]
    optimizer: dict[str, Any]
    config: TrainConfig
    commit: str
    metrics: dict[str, float]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Writes the file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".tmp")
    values = {name: getattr(checkpoint, name) for name in Checkpoint.__dataclass_fields__}
    torch.save(values | {"config": checkpoint.config.flat()}, partial)
    partial.replace(path)


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a file of `save_checkpoint`; code in it is never run (`weights_only`).

    Raises:
        TrainingError: Missing, damaged, or not one of ours.
    """
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
        return Checkpoint(**values | {"config": parse_config(values["config"], str(path))})
    except FileNotFoundError as error:
        raise TrainingError(f"checkpoint not found: {path}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, TypeError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise TrainingError(f"checkpoint {path}: not readable: {reason}") from error


def source_revision() -> str:
    """Commit of the checkout this package lies in, `-dirty` if its files differ; `unknown` outside a checkout."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--", "."], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}-dirty" if changed else commit
