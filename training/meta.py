"""Learning to adapt: first weights from which steps of unsupervised adaptation help the next frame most, and WAd.

Tonioni, Rahnama, Joy, Di Stefano, Ajanthan and Torr, "Learning to adapt for stereo", CVPR 2019, arXiv:1904.02957, after
the facts of CVLAB-Unibo/Learning2AdaptForStereo (Apache-2.0). A task is some consecutive frames of one sequence: plain
SGD takes a step on each frame's photometric loss, without truth, and what the weights then say of the next frame is
judged by truth. The gradient of that judgement goes back through the steps to the first weights and to WAd
(`training.models.wad`), which says what the steps learn from and has no other teacher. Without the steps' own
gradients (first order) the first weights can still be trained; WAd gets none.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from training.config import parse_fields, read_values
from training.data.domains import DOMAINS
from training.data.stereo_pairs import StereoFrame, layered_sequence
from training.errors import TrainingError
from training.losses_stereo import disparity_error, photometric, photometric_error
from training.models.matching import PYRAMID_STRIDE
from training.models.wad import ErrorWeights

Order = Literal["second", "first", "none"]
ORDERS: tuple[Order, ...] = ("second", "first", "none")
Weights = dict[str, Tensor]

WORLD_FRAMES = 20
"""Of a drawn world, whose camera takes so many to go through it; tasks see the first ones."""
_TRAINED_WORLDS, _VALIDATED_WORLDS = 10_000, 20_000
"""First seeds. Worlds of recipes begin at 0, those of comparisons should lie elsewhere."""
_LAST_RATE = 0.02
"""Adam's rates fall to this share of their first along half a cosine, so that the last steps settle."""


@dataclass(frozen=True, kw_only=True)
class MetaConfig:
    """A run of learning to adapt.

    Attributes:
        domains: Whose sequences are drawn to learn from.
        worlds: Sequences of each.
        frames: Frames that are drawn of each.
        validated: Sequences of each domain that validate, of as many frames.
        size: Height and width of the frames.
        order: `second`: gradients go through the steps. `first`: they do not. `none`: no steps, which is supervised
            training on the very same frames, to compare with.
        error_weights: Whether WAd weighs what the steps learn from, and is trained.
        steps: Of Adam, whose rates fall along half a cosine until the last.
        tasks: Of a step, averaged; b in the paper.
        inner_steps: Frames of a task that are learned from; k.
        inner_lr: Rate of these steps; alpha.
        lr: Of Adam, for the network, at first; beta.
        error_weights_lr: Of Adam, for WAd, which begins with random weights.
        clip_norm: Largest norm of a task's gradient, so that no task drowns the others of its step.
        seed: Of WAd's first weights and the order of tasks.
        validate_every: Steps between validations.
        checkpoint_every: Steps between checkpoints.
    """

    domains: tuple[str, ...]
    worlds: int
    frames: int
    validated: int
    size: tuple[int, ...]
    order: Order
    error_weights: bool
    steps: int
    tasks: int
    inner_steps: int
    inner_lr: float
    lr: float
    error_weights_lr: float
    clip_norm: float
    seed: int
    validate_every: int
    checkpoint_every: int

    def __post_init__(self) -> None:
        """Refuses values that cannot work together."""
        unknown = sorted(set(self.domains) - set(DOMAINS))
        if len(self.size) != 2 or min(self.size) < PYRAMID_STRIDE:
            raise TrainingError(f"size is {list(self.size)}: height and width, at least {PYRAMID_STRIDE} each")
        if unknown or not self.domains:
            raise TrainingError(f"domains are {list(self.domains)}: choose from {', '.join(DOMAINS)}")
        for name in ("worlds", "validated", "steps", "tasks", "inner_steps", "validate_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if not self.inner_steps < self.frames <= WORLD_FRAMES:
            raise TrainingError(
                f"frames is {self.frames}: it must be above inner_steps, {self.inner_steps}, and at most {WORLD_FRAMES}"
            )
        for name in ("inner_lr", "lr", "error_weights_lr", "clip_norm"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise TrainingError(f"{name} is {getattr(self, name)}: it must be above 0")
        if self.error_weights and self.order != "second":
            raise TrainingError(
                f"order {self.order} gives WAd no gradient: train it with order second, or leave it out"
            )


def load_meta_config(path: Path, changes: Sequence[str] = ()) -> MetaConfig:
    """The recipe in a YAML file, read as `training.config.load_config` reads others.

    Raises:
        TrainingError: It cannot be read, is not such a recipe, or a change is not one.
    """
    config: MetaConfig = parse_fields(MetaConfig, read_values(path, changes), str(path))
    return config


@dataclass(frozen=True)
class Moment:
    """A frame as tensors.

    Attributes:
        left: uint8 or float (1, H, W, 3), 0..255.
        right: The same.
        truth: (1, H, W), pixels, 0 = unknown.
    """

    left: Tensor
    right: Tensor
    truth: Tensor

    @classmethod
    def of(cls, frame: StereoFrame) -> "Moment":
        """A frame with truth."""
        if frame.disparity_px is None:
            raise TrainingError(f"{frame.name} has no truth to be judged by")
        return cls(*(torch.from_numpy(array[None]) for array in (frame.left, frame.right, frame.disparity_px)))


Sequences = list[list[Moment]]


def drawn(config: MetaConfig, validation: bool = False) -> Sequences:
    """The sequences of a run, each a world of its own; validation has others."""
    first, count = (_VALIDATED_WORLDS, config.validated) if validation else (_TRAINED_WORLDS, config.worlds)
    found = []
    for number in range(count):
        for place, domain in enumerate(domain for domain in DOMAINS if domain in config.domains):
            seed = first + number * len(config.domains) + place
            sequence = layered_sequence(domain, seed, WORLD_FRAMES, (config.size[0], config.size[1]))
            found.append([Moment.of(frame) for frame in islice(sequence, config.frames)])
    return found


def tasks_of(step: int, sequences: Sequences, config: MetaConfig) -> Sequences:
    """The tasks of a step, the same for the same step and seed: consecutive frames, from anywhere in a sequence."""
    rng = np.random.default_rng([config.seed, step])
    found = []
    for number in rng.integers(len(sequences), size=config.tasks):
        begin = int(rng.integers(config.frames - config.inner_steps))
        found.append(sequences[number][begin : begin + config.inner_steps + 1])
    return found


def adapted(
    network: nn.Module,
    weights: Weights,
    moment: Moment,
    lr: float,
    error_weights: nn.Module | None = None,
    second_order: bool = True,
) -> Weights:
    """The weights after a step of plain SGD on a frame's photometric loss.

    Args:
        network: Its forward is used, not its own weights.
        weights: By name, of all its parameters.
        moment: Its truth is not looked at.
        lr: alpha.
        error_weights: WAd, or None.
        second_order: Whether the step itself can be differentiated.
    """
    disparity = functional_call(network, weights, (moment.left, moment.right))
    return _stepped(disparity, weights, moment, lr, error_weights, second_order)


def _stepped(
    disparity: Tensor, weights: Weights, moment: Moment, lr: float, error_weights: nn.Module | None, second_order: bool
) -> Weights:
    """`adapted`, given what the weights say of the frame; that can be differentiated again after."""
    pair, parts = (moment.left, moment.right), list(weights.values())
    how: dict[str, Any] = {"create_graph": second_order, "retain_graph": True, "materialize_grads": True}
    if error_weights is None:
        gradients = torch.autograd.grad(photometric(*pair, disparity), parts, **how)
    else:
        # the gradient of `weighted_photometric`, which takes what WAd says for fixed; but what it says follows from the
        # weights, too, and that the way back to the first weights must know
        error = photometric_error(*pair, disparity)
        trusted = error_weights(error).expand_as(error) / error.shape[1]
        gradients = torch.autograd.grad(error, parts, trusted, **how)
    return {name: value - lr * slope for (name, value), slope in zip(weights.items(), gradients, strict=True)}


def task_loss(
    network: nn.Module, task: Sequence[Moment], lr: float, order: Order, error_weights: nn.Module | None = None
) -> Tensor:
    """Sum over a task's steps of the error, in pixels, on the frame after each.

    Args:
        network: Whose weights the task begins with.
        task: Frames in order.
        lr: Rate of the steps.
        order: As `MetaConfig` has it.
        error_weights: WAd, or None.
    """
    weights: Weights = dict(network.named_parameters())
    total = torch.zeros(())
    for place, moment in enumerate(task):
        learned_from = order != "none" and place < len(task) - 1
        if not (place or learned_from):
            continue
        disparity = functional_call(network, weights, (moment.left, moment.right))  # is judged, then learned from
        if place:
            total = total + disparity_error(disparity, moment.truth)
        if learned_from:
            weights = _stepped(disparity, weights, moment, lr, error_weights, order == "second")
    return total


def _add_clipped(parts: Sequence[nn.Parameter], slopes: Sequence[Tensor], clip_norm: float, tasks: int) -> float:
    """Adds a task's share, clipped, to the gradients; the share of its norm before."""
    norm = float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(slope) for slope in slopes])))
    for part, slope in zip(parts, slopes, strict=True):
        assert part.grad is not None
        part.grad.add_(slope, alpha=min(1.0, clip_norm / max(norm, 1e-12)) / tasks)
    return norm / tasks


class Learner:
    """What a run trains: a network's first weights and, where the config says so, WAd.

    Args:
        network: A stereo network with supervised weights: from random ones it does not converge, as the authors found.
        config: How.

    Attributes:
        error_weights: WAd, or None.
        optimizer: Adam of both.
        step: Done so far.
    """

    def __init__(self, network: nn.Module, config: MetaConfig) -> None:
        self.network, self.config, self.step = network.eval(), config, 0
        torch.manual_seed(config.seed)
        self.error_weights = ErrorWeights() if config.error_weights else None
        groups: list[dict[str, Any]] = [{"params": list(network.parameters()), "lr": config.lr}]
        if self.error_weights is not None:
            groups.append({"params": list(self.error_weights.parameters()), "lr": config.error_weights_lr})
        self.optimizer = torch.optim.Adam(groups)

    def advance(self, tasks: Sequences) -> dict[str, float]:
        """One step of Adam on the tasks' mean loss; it and the gradients' norms.

        Raises:
            TrainingError: The loss or a gradient is not finite.
        """
        config = self.config
        kinds = [list(self.network.parameters())]
        if self.error_weights is not None:
            kinds.append(list(self.error_weights.parameters()))
        self.optimizer.zero_grad(set_to_none=True)
        for part in chain(*kinds):
            part.grad = torch.zeros_like(part)
        total, norms = 0.0, [0.0 for _ in kinds]
        for task in tasks:  # one after the other: a graph through k steps is large
            loss = task_loss(self.network, task, config.inner_lr, config.order, self.error_weights)
            slopes = iter(torch.autograd.grad(loss, list(chain(*kinds))))
            total += float(loss.detach()) / len(tasks)
            for kind, parts in enumerate(kinds):
                norms[kind] += _add_clipped(parts, list(islice(slopes, len(parts))), config.clip_norm, len(tasks))
        found = {"loss": total, "epe": total / config.inner_steps}
        found |= dict(zip(("gradient_norm", "error_weights_gradient_norm"), norms, strict=False))
        if not all(map(math.isfinite, found.values())):
            raise TrainingError(f"not finite at step {self.step}: {found}; lower inner_lr or lr")
        gone = min(1.0, self.step / config.steps)
        share = _LAST_RATE + (1 - _LAST_RATE) * (1 + math.cos(math.pi * gone)) / 2
        for group, first in zip(self.optimizer.param_groups, (config.lr, config.error_weights_lr), strict=False):
            group["lr"] = share * first
        self.optimizer.step()
        self.step += 1
        return found

    def validate(self, sequences: Sequences) -> dict[str, float]:
        """Means over all frames but the first: `epe` after a step on every frame before, `epe_before` without steps."""
        config, before, after = self.config, [], []
        first: Weights = dict(self.network.named_parameters())
        for sequence in sequences:
            weights = first
            for now, then in pairwise(sequence):
                if config.order != "none":
                    weights = adapted(self.network, weights, now, config.inner_lr, self.error_weights, False)
                    weights = {name: value.detach().requires_grad_() for name, value in weights.items()}
                before.append(self._error(first, then))
                after.append(before[-1] if weights is first else self._error(weights, then))
        return {"epe": float(np.mean(after)), "epe_before": float(np.mean(before))}

    def _error(self, weights: Weights, moment: Moment) -> float:
        with torch.no_grad():
            disparity = functional_call(self.network, weights, (moment.left, moment.right))
            return float(disparity_error(disparity, moment.truth))

    def state(self) -> dict[str, Any]:
        """Everything that changes, as tensors and plain values."""
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "error_weights": None if self.error_weights is None else self.error_weights.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def adopt(self, state: dict[str, Any]) -> None:
        """Goes on from a `state` of the same network and config."""
        self.network.load_state_dict(state["network"])
        if self.error_weights is not None:
            self.error_weights.load_state_dict(state["error_weights"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.step = int(state["step"])
