"""Layouts: under which names a published checkpoint keeps the tensors of one of our networks."""

import pickle  # nosec B403  # for its error alone: what is loaded is loaded with weights_only
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from training.errors import TrainingError

_WRAPPERS = ("model", "state_dict", "model_state_dict")
_PARALLEL = "module."  # what DataParallel puts before every name


@dataclass(frozen=True)
class Layout:
    """Where a file keeps what a network needs.

    Attributes:
        mark: Name of a tensor that only files of this layout have.
        names: Beginning of a name here -> the same beginning there; the longest that fits holds. `query|key|value` in
            the latter stands for three tensors, which are one here, row after row.
        unused: Beginnings of the names there that the published network itself never uses, or only while training.
    """

    mark: str
    names: Mapping[str, str] = field(repr=False)
    unused: tuple[str, ...] = ()

    def there(self, name: str) -> tuple[str, ...]:
        """Names in the file of what is called `name` here: one, or several to be joined."""
        begin = max((begin for begin in self.names if name.startswith(begin)), key=len)
        whole = self.names[begin] + name.removeprefix(begin)
        if "|" not in whole:
            return (whole,)
        before, _, after = whole.rpartition(".")
        before, _, parts = before.rpartition(".")
        return tuple(f"{before}.{part}.{after}" for part in parts.split("|"))


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors of a published checkpoint by name; code in the file is never run.

    Args:
        path: safetensors, or a file of `torch.save`: a state dict, or a mapping with one under `model`, `state_dict` or
            `model_state_dict`.

    Raises:
        TrainingError: File missing or unreadable, or it holds no state dict.
    """
    import safetensors
    import safetensors.torch

    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        values = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise TrainingError(f"weights not found: {path}") from error
    except (safetensors.SafetensorError, pickle.UnpicklingError, OSError, RuntimeError, EOFError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise TrainingError(f"weights {path}: not readable: {reason}") from error
    for name in _WRAPPERS:
        if isinstance(values, dict) and isinstance(values.get(name), dict):
            values = values[name]
            break
    if not isinstance(values, dict) or not values or not all(isinstance(value, Tensor) for value in values.values()):
        raise TrainingError(f"weights {path}: not a state dict")
    if all(name.startswith(_PARALLEL) for name in values):
        return {name.removeprefix(_PARALLEL): value for name, value in values.items()}
    return values


def translate(stored: Mapping[str, Tensor], network: nn.Module, layouts: Sequence[Layout], origin: str) -> None:
    """Copies a published state dict into `network`, every tensor of it and of the file used or known to be unused.

    Args:
        stored: Of `read_state`.
        network: One of `training.models`.
        layouts: Those known for it.
        origin: File name for messages.

    Raises:
        TrainingError: No layout fits, or one does and a tensor is missing, of another shape or not expected; the
            message says its name in the file.
    """
    layout = next((layout for layout in layouts if layout.mark in stored), None)
    if layout is None:
        marks = " or ".join(layout.mark for layout in layouts)
        raise TrainingError(f"{origin}: of another network: no tensor {marks}; its first is {next(iter(stored))}")
    wanted = network.state_dict()
    taken: dict[str, Tensor] = {}
    used: set[str] = set()
    for name, tensor in wanted.items():
        sources = layout.there(name)
        missing = [source for source in sources if source not in stored]
        if missing:
            raise TrainingError(f"{origin}: no tensor {missing[0]}")
        whole = torch.cat([stored[source] for source in sources]) if len(sources) > 1 else stored[sources[0]]
        if whole.shape != tensor.shape:
            shapes = f"{tuple(whole.shape)}, the network has {tuple(tensor.shape)}"
            raise TrainingError(f"{origin}: {' + '.join(sources)} is {shapes}")
        taken[name] = whole.to(tensor.dtype)
        used.update(sources)
    left = [name for name in stored if name not in used and not name.startswith(layout.unused or ("\0",))]
    if left:
        raise TrainingError(f"{origin}: {left[0]} is not part of the network ({len(left)} such tensors)")
    network.load_state_dict(taken)
