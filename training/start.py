"""First weights of a run: random ones, an encoder's from ImageNet, a whole network's, or parts from other runs."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from training.checkpoint import adopt, load_checkpoint, load_weights
from training.errors import TrainingError
from training.models import create_model
from training.models.encoder_weights import load_encoder
from training.recipe import TrainConfig

WHOLE = "all"
"""The part that is the whole network."""


@dataclass(frozen=True)
class FirstWeights:
    """What the command line says of them.

    Attributes:
        folder: Of published weights.
        parts: Checkpoints of other runs by the part of the network that starts from them; `all` for the whole.
        random: Whether a recipe whose weights are not at hand may begin with random ones all the same.
    """

    folder: Path | None = None
    parts: Mapping[str, Path] = field(default_factory=dict)
    random: bool = False


def make_network(config: TrainConfig, first: FirstWeights, folder: Path = Path()) -> nn.Module:
    """The recipe's network with its first weights, seeded where they are random.

    Args:
        config: Recipe.
        first: What the command line says.
        folder: Of the run; paths of other runs' checkpoints in the recipe begin there.

    Raises:
        TrainingError: Weights that the recipe asks for are missing, or are another network's.
    """
    torch.manual_seed(config.seed)
    network = create_model(config.model)
    if not first.random:
        if config.network_weights:
            own = Path(__file__).parent / "weights" / config.network_weights
            path = own if own.is_file() or first.folder is None else first.folder / config.network_weights
            load_weights(network, path, config.network_sha256)
        elif config.encoder_weights:
            if first.folder is None:
                raise TrainingError(f"the recipe starts from {config.encoder_weights}; give its folder with --weights")
            load_encoder(network.get_submodule("encoder"), first.folder / config.encoder_weights, config.encoder_sha256)
    # by the text of the path: the run's folder need not exist yet
    beside = {part: Path(os.path.normpath(folder / path)) for part, path in config.starts_from.items()}
    named = {} if first.random else beside
    for part, path in (named | dict(first.parts)).items():
        if not path.is_file():
            raise TrainingError(
                f"{config.model} starts from another run's {path}, which is not there: train that first, give "
                f"--start {part}=CHECKPOINT, or --random-weights"
            )
        _take(network, part, path)
    return network


def _take(network: nn.Module, part: str, path: Path) -> None:
    """Copies a checkpoint's averaged weights into a part: those of its own part of that name, or else all."""
    try:
        target = network if part == WHOLE else network.get_submodule(part)
    except AttributeError as error:
        names = ", ".join(name for name, _ in network.named_children())
        raise TrainingError(f"--start {part}={path}: the network has no such part; it has {names}") from error
    stored = load_checkpoint(path).ema
    own: dict[str, Tensor] = {
        name.removeprefix(f"{part}."): value for name, value in stored.items() if name.startswith(f"{part}.")
    }
    adopt(target, own or stored, f"--start {part}={path}")
