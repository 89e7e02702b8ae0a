"""Checkpoints: weights, averaged weights, optimiser, step, config and source revision in one file."""

import hashlib
import pickle  # nosec B403  # for its error alone: what is loaded is loaded with weights_only
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.config import parse_config
from training.errors import TrainingError
from training.models import create_model
from training.models.context import Context
from training.models.person_votes import PersonVotes, completed
from training.recipe import TrainConfig


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
        best: Of the metric `select_by`, over all validations.
        schedule: State of the schedule.
    """

    step: int
    model: dict[str, Any]
    ema: dict[str, Any]
    optimizer: dict[str, Any]
    config: TrainConfig
    commit: str
    metrics: dict[str, float]
    best: float | None = None
    schedule: dict[str, Any] = field(default_factory=dict)


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


def save_weights(path: Path, checkpoint: Checkpoint) -> None:
    """Writes the averaged weights alone, in float16: a quarter of a checkpoint's size, to start other runs from.

    The file is safetensors; its metadata names the network, the step and the commit.
    """
    import safetensors.torch

    tensors = {name: (value.half() if value.is_floating_point() else value) for name, value in checkpoint.ema.items()}
    about = {"model": checkpoint.config.model, "step": str(checkpoint.step), "commit": checkpoint.commit}
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file({name: value.contiguous() for name, value in tensors.items()}, path, metadata=about)


def load_weights(network: nn.Module, path: Path, sha256: str) -> None:
    """Copies weights of `save_weights` into `network`.

    What the file lacks must be a `Context`: it changes little before it is trained, so a network can grow one. A
    `PersonVotes` takes a `FocusOnDepth`'s, too.

    Raises:
        TrainingError: File missing, of another digest, or of another network; names the first key that differs.
    """
    import safetensors
    import safetensors.torch

    try:
        content = path.read_bytes()
    except OSError as error:
        raise TrainingError(f"network weights {path}: {error.strerror}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise TrainingError(f"network weights {path}: SHA-256 is {found}, the recipe pins {sha256}")
    try:
        stored = safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise TrainingError(f"network weights {path}: not readable: {error}") from error
    if isinstance(network, PersonVotes):
        stored = dict(completed(network, stored))
    grown = tuple(f"{name}." for name, part in network.named_modules() if isinstance(part, Context))
    own = {name: value for name, value in network.state_dict().items() if grown and name.startswith(grown)}
    adopt(network, own | stored, f"network weights {path}")


def load_averaged(path: Path, config: TrainConfig) -> Checkpoint:
    """As much of a checkpoint as a file of `save_weights` holds: what can be served, not gone on with.

    Args:
        path: The file.
        config: Recipe that the weights were trained with.

    Raises:
        TrainingError: Missing, damaged, or of another network than the recipe's.
    """
    import safetensors
    import safetensors.torch

    try:
        with safetensors.safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
        weights = safetensors.torch.load_file(path)
        step, commit, model = int(about["step"]), about["commit"], about["model"]
    except FileNotFoundError as error:
        raise TrainingError(f"weights not found: {path}") from error
    except (OSError, safetensors.SafetensorError, KeyError, ValueError) as error:
        raise TrainingError(f"weights {path}: not readable: {str(error).splitlines()[0][:200]}") from error
    # a network that adds nothing to be learned takes another's
    adopt(create_model(config.model), weights, f"weights {path} of {model}, wanted are those of {config.model}")
    return Checkpoint(step, {}, weights, {}, config, commit, {})


def adopt(network: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Copies a state dict into `network`, in the network's own types.

    Raises:
        TrainingError: It is of another network; the message says `origin` and the first key that differs.
    """
    wanted = network.state_dict()
    for name in (*wanted, *state):
        if name not in state or name not in wanted or state[name].shape != wanted[name].shape:
            shapes = [tuple(values[name].shape) if name in values else None for values in (state, wanted)]
            raise TrainingError(f"{origin}: {name} has shape {shapes[0]} there, {shapes[1]} here")
    network.load_state_dict({name: value.to(wanted[name].dtype) for name, value in state.items()})


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
