"""Parts of a network that stay as they are while the rest learns."""

from collections.abc import Iterable

from torch import nn

from training.errors import TrainingError


def freeze(network: nn.Module, parts: Iterable[str]) -> None:
    """Keeps parts of a network as they are: no gradients, batch norm with the statistics it has.

    Frozen weights are not enough: batch norm in training mode moves its running statistics, and dropout still drops.
    `network.train()` undoes the latter, so this is called after it, every time; it may be called as often as one likes.

    Args:
        network: Any.
        parts: Dotted names of modules, e.g. `encoder.body.layer1`; none frees nothing and freezes nothing.

    Raises:
        TrainingError: No such module.
    """
    for name in parts:
        try:
            part = network.get_submodule(name)
        except AttributeError as error:
            known = ", ".join(child for child, _ in network.named_children())
            raise TrainingError(f"frozen: no part {name!r} in {type(network).__name__}; it has {known}") from error
        part.requires_grad_(False).eval()
