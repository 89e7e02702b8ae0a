"""Groups of parameters with their rates, and the average of weights that training leaves behind."""

from collections.abc import Iterable

import torch
from torch import nn

from training.errors import TrainingError
from training.recipe import TrainConfig

_OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}


def encoder_parameters(network: nn.Module) -> Iterable[nn.Parameter]:
    """Those that learn at the encoder's rate, as the network says."""
    parameters: Iterable[nn.Parameter] = network.encoder_parameters()  # type: ignore[operator]  # every network has it
    return parameters


def make_optimizer(config: TrainConfig, network: nn.Module) -> torch.optim.AdamW:
    """The recipe's optimiser: encoder and rest at their own rates, decay on convolution weights only.

    What needs no gradient is left out; TrainingError when nothing is left.
    """
    groups = []
    encoder = {id(parameter) for parameter in encoder_parameters(network)}
    learning = [p for p in network.parameters() if p.requires_grad]
    if not learning:
        raise TrainingError("frozen leaves nothing to learn")
    for in_encoder in (True, False):
        for decays in (True, False):
            parameters = [p for p in learning if (id(p) in encoder) == in_encoder and (p.ndim > 1) == decays]
            peak = config.encoder_lr if in_encoder else config.lr
            groups.append(
                {
                    "params": parameters,
                    "lr": peak,
                    "peak_lr": peak,
                    "weight_decay": config.weight_decay if decays else 0.0,
                }
            )
    # Adam is AdamW's base and has the same arguments
    made: torch.optim.AdamW = _OPTIMIZERS[config.optimizer](
        [group for group in groups if group["params"]], eps=config.adam_eps
    )
    return made


@torch.no_grad()
def update_ema(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Moves the averaged weights and norm statistics towards the network's; faster in the first steps."""
    decay = min(decay, (1 + step) / (10 + step))
    current = network.state_dict()
    for key, value in average.state_dict().items():
        if value.is_floating_point():
            value.lerp_(current[key], 1 - decay)
        else:
            value.copy_(current[key])
