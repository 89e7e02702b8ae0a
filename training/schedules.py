"""Schedules of the learning rate: the share of its peak at each step. Each group of parameters keeps its own peak.

`cosine`: linear rise, then a cosine to zero. `triangular`: Smith, "Cyclical Learning Rates", arXiv:1506.01186.
`one_cycle`: Smith and Topin, arXiv:1708.07120, in the form of seed 3: 30 % of the steps up a straight line from 1/25,
then a cosine to 1/100. (torch's own rises along a cosine, and overwrites the peaks of groups when given one number.)
`poly`: as BTS and LapDepth fall. `plateau`: torch's ReduceLROnPlateau, shown the loss of every validation.
"""

import math
from typing import Any

import torch

from training.recipe import TrainConfig

_RISE = 0.3  # share of the steps
_FIRST, _LAST = 1 / 25, 1 / 100


def cosine(step: int, steps: int, warmup_steps: int) -> float:
    """Linear warm-up, then a cosine that reaches zero at `steps`."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def triangular(step: int, half_cycle: int, floor: float) -> float:
    """From `floor` to 1 in `half_cycle` steps and back in as many, again and again."""
    cycle = math.floor(1 + step / (2 * half_cycle))
    return floor + (1 - floor) * max(0.0, 1 - abs(step / half_cycle - 2 * cycle + 1))


def one_cycle(step: int, steps: int) -> float:
    """1/25 at the first step, 1 after 30 % of them, 1/100 at the last one."""
    last = max(1, steps - 1)
    top = max(1, round(_RISE * last))
    if step <= top:
        return _FIRST + (1 - _FIRST) * step / top
    progress = min(1.0, (step - top) / max(1, last - top))
    return _LAST + (1 - _LAST) * 0.5 * (1 + math.cos(math.pi * progress))


def poly(step: int, steps: int, power: float, floor: float) -> float:
    """From 1 to `floor`, which is reached at `steps`."""
    left = 1 - min(1.0, step / max(1, steps))
    return floor + (1 - floor) * math.pow(left, power)


class Schedule:
    """The recipe's schedule, with what a plateau remembers."""

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        # torch's own needs an optimiser: one of a single number, whose rate is the factor
        self._factor = torch.optim.SGD([torch.zeros(())], lr=1.0)
        self._plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self._factor, factor=config.plateau_factor, patience=config.plateau_patience
        )

    def factor(self, step: int) -> float:
        """Share of the peak rates at a step, from 0."""
        config = self._config
        match config.schedule:
            case "cosine":
                return cosine(step, config.steps, config.warmup_steps)
            case "triangular":
                return triangular(step, config.cycle_steps, config.lr_floor)
            case "one_cycle":
                return one_cycle(step, config.steps)
            case "poly":
                return poly(step, config.steps, config.poly_power, config.lr_floor)
            case "plateau":
                return float(self._factor.param_groups[0]["lr"])

    def validated(self, loss: float) -> None:
        """Tells the loss of a validation, the same in every process."""
        self._plateau.step(loss)

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        plateau = {key: value for key, value in self._plateau.state_dict().items() if key in _REMEMBERED}
        return plateau | {"factor": float(self._factor.param_groups[0]["lr"])}

    def adopt(self, state: dict[str, Any]) -> None:
        """Goes on from `state`; an empty one, of a checkpoint from before there were others, changes nothing."""
        if state:
            self._factor.param_groups[0]["lr"] = state["factor"]
            self._plateau.load_state_dict({key: state[key] for key in _REMEMBERED})


_REMEMBERED = ("best", "num_bad_epochs", "last_epoch")
