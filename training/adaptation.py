"""Online adaptation: a stereo network that goes on learning from every pair it sees, all of it or a module at a time.

Tonioni et al., "Real-time self-adaptive deep stereo", CVPR 2019, arXiv:1810.05424, after the facts of
CVLAB-Unibo/Real-time-self-adaptive-deep-stereo (Apache-2.0). NONE predicts only. FULL trains all weights on the
result's loss. MAD trains one group of `MADNet.groups` per frame on that group's own disparity; gradients of the others
are not computed. Which one, the paper's sampler draws by how much better than expected the next frame's loss is. Here
it is the second-finest, always: on drawn worlds it has most of FULL's gain in the first frames and is steady over a
decade of rates, while groups in turn get a fifth of the steps each and spoil what the others have learned to see.

An `Adapter` is one stream: offline runs and the served model use it alike, frame by frame. It never changes the
network that it is given, keeps no frames, and its whole state can be taken out and put back to the bit. Seams: other
matchers and confidences come in as `Proxies`; another starting point (learning to adapt) is another base network.
"""

import copy
import json
import math
import pickle  # nosec B403  # for its error alone: what is loaded is loaded with weights_only
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from training.data.stereo import proxy_disparity
from training.errors import TrainingError
from training.losses_stereo import photometric, proxy_regression, weighted_photometric

Mode = Literal["none", "full", "mad"]
Policy = Literal["reward", "fixed", "random", "sequential", "argmax"]
Supervision = Literal["photometric", "proxy"]
Pictures = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Proxies = Callable[[Pictures, Pictures], tuple[Floats, Floats | None]]
"""Left and right (H, W, 3) -> disparity (H, W), pixels, 0 = none, and confidence (H, W), 0..1, or None for 1."""

MODES: tuple[Mode, ...] = ("none", "full", "mad")
POLICIES: tuple[Policy, ...] = ("reward", "fixed", "random", "sequential", "argmax")
PROXY_SCALE: dict[Mode, float] = {"full": 0.01, "mad": 0.1}
"""Factor on the proxies' loss, which is in pixels, as the authors have it for continual adaptation."""


class PairError(TrainingError):
    """Two pictures that are no pair."""


def semi_global(left: Pictures, right: Pictures) -> tuple[Floats, None]:
    """Proxies of semi-global matching, those left that both directions agree on."""
    return proxy_disparity(left, right), None


@dataclass(frozen=True, kw_only=True)
class AdaptationConfig:
    """How a stream is adapted to.

    The defaults are the authors', apart from the policy, theirs being `reward`, and the drift rules, of which theirs is
    one.

    Attributes:
        mode: What is trained.
        policy: How MAD chooses a group: `reward` draws by the softmax of the groups' scores, `argmax` takes the best,
            `random` draws all alike, `sequential` takes them in turn, `fixed` one.
        fixed_group: Index of that one, coarsest first.
        supervision: `photometric`, or `proxy` labels.
        lr: Of SGD.
        momentum: Of SGD.
        decay: Factor on the scores each frame.
        reward_rate: Share of a reward that goes to the score of the group that earned it.
        reset_above: A photometric loss above takes the first weights back.
        compare_every: Frames between comparisons with the first weights, which cost a prediction; 0 = never.
        worse_by: Factor on the first weights' loss; above it they are taken back.
        seed: Of the choices.
    """

    mode: Mode = "mad"
    policy: Policy = "fixed"
    fixed_group: int = 3
    supervision: Supervision = "photometric"
    lr: float = 1e-4
    momentum: float = 0.9
    decay: float = 0.99
    reward_rate: float = 0.01
    reset_above: float = 0.5
    compare_every: int = 25
    worse_by: float = 1.1
    seed: int = 0


@dataclass(frozen=True)
class Adapted:
    """What became of one frame.

    Attributes:
        disparity_px: float32 (H, W), predicted before the weights changed.
        loss: Of the result, photometric 0..1 or in `PROXY_SCALE` pixels; None in mode `none`.
        group: Index of the group that was trained, coarsest first; None unless MAD.
        reset: Why the first weights were taken back, and predicted this frame: `loss`, `worse` than the first weights
            would be, or `not_finite`; None when they were not.
    """

    disparity_px: Floats
    loss: float | None = None
    group: int | None = None
    reset: Literal["loss", "worse", "not_finite"] | None = None


class GroupSampler:
    """Which group is trained next.

    Attributes:
        scores: float64 (groups,), H in the paper.
    """

    def __init__(self, config: AdaptationConfig, groups: int) -> None:
        if not 0 <= config.fixed_group < groups:
            raise TrainingError(f"fixed_group is {config.fixed_group}: it must be 0..{groups - 1}")
        self._config = config
        self._rng = np.random.default_rng(config.seed)
        self.scores = np.zeros(groups)
        self._turn = 0
        self._last: int | None = None
        self._losses: tuple[float, float] | None = None  # of the last frame and the one before

    def choose(self) -> int:
        """The group of this frame."""
        policy, groups = self._config.policy, len(self.scores)
        self._turn += 1
        if policy == "fixed":
            return self._config.fixed_group
        if policy == "sequential":
            return (self._turn - 1) % groups
        if policy == "argmax":
            return int(self.scores.argmax())
        chances = np.exp(self.scores - self.scores.max()) if policy == "reward" else np.ones(groups)
        return int(self._rng.choice(groups, p=chances / chances.sum()))

    def observe(self, loss: float, group: int) -> None:
        """Rewards the group of the last frame by how far this frame's loss lies below the line through the last two.

        Args:
            loss: Of this frame, before it was trained on.
            group: Trained on this frame.
        """
        one, two = self._losses or (loss, loss)
        self.scores *= self._config.decay
        if self._last is not None:
            self.scores[self._last] += self._config.reward_rate * ((2 * one - two) - loss)
        self._last, self._losses = group, (loss, one)

    def forget(self) -> None:
        """Takes scores and losses back to the start; the choices go on."""
        self.scores[:] = 0
        self._last, self._losses = None, None

    def state(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {
            "scores": self.scores.tolist(),
            "turn": self._turn,
            "last": self._last,
            "losses": None if self._losses is None else list(self._losses),
            "rng": json.dumps(self._rng.bit_generator.state),
        }

    def adopt(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `state`."""
        self.scores = np.array(state["scores"])
        self._turn, self._last = state["turn"], state["last"]
        self._losses = None if state["losses"] is None else (state["losses"][0], state["losses"][1])
        self._rng.bit_generator.state = json.loads(state["rng"])


class Adapter:
    """One stream's network.

    Args:
        base: A stereo network with trained weights, in eval mode; shared by all streams and never changed.
        config: How.
        proxies: Makes the labels of `supervision: proxy`.
        error_weights: `training.models.wad.ErrorWeights`, says which photometric errors are learned from; None: all
            alike. Losses that are told, and rules that look at them, are of all alike.

    Attributes:
        frames: Seen so far.
        resets: Times that the first weights were taken back.

    Raises:
        TrainingError: MAD of a network that has no groups, or error weights without photometric errors.
    """

    def __init__(
        self,
        base: nn.Module,
        config: AdaptationConfig,
        proxies: Proxies = semi_global,
        error_weights: nn.Module | None = None,
    ) -> None:
        if error_weights is not None and config.supervision != "photometric":
            raise TrainingError(f"error weights are of photometric errors, supervision is {config.supervision}")
        self._base, self._config, self._proxies, self._error_weights = base, config, proxies, error_weights
        self.frames = self.resets = 0
        self._network = base if config.mode == "none" else copy.deepcopy(base)
        self._groups: list[list[nn.Parameter]] = []
        if config.mode == "mad":
            self._groups = self._network.groups()  # type: ignore[operator]  # stereo networks have it
            if not self._groups:
                raise TrainingError(f"{type(base).__name__} has no modules to adapt one at a time: use mode full")
            self.sampler = GroupSampler(config, len(self._groups))
        self._optimizer = self._new_optimizer()

    def _new_optimizer(self) -> torch.optim.SGD | None:
        if self._config.mode == "none":
            return None
        return torch.optim.SGD(self._network.parameters(), self._config.lr, self._config.momentum)

    def step(self, left: Pictures, right: Pictures) -> Adapted:
        """Predicts a pair, then learns from it.

        Args:
            left: uint8 (H, W, 3) RGB.
            right: The same, rectified to it.

        Raises:
            PairError: They are not two such pictures of one size.
        """
        for picture in (left, right):
            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
                raise PairError(f"a picture is {picture.dtype} {picture.shape}; expected uint8 (height, width, 3)")
        if left.shape != right.shape:
            raise PairError(f"left is {left.shape[:2]}, right {right.shape[:2]}: both must be of one size")
        self.frames += 1
        pair = torch.from_numpy(left[None]), torch.from_numpy(right[None])
        if self._optimizer is None:
            return Adapted(self._predicted(self._base, pair))
        judge = self._judge(left, right, pair)
        group = self.sampler.choose() if self._groups else None
        trained = None if group is None else {id(parameter) for parameter in self._groups[group]}
        for parameter in self._network.parameters():
            parameter.requires_grad_(trained is None or id(parameter) in trained)
        scales: list[Tensor] = self._network.scales(*pair, modular=group is not None)  # type: ignore[operator]  # as above
        result = scales[-1].detach()
        learned = scales[-1] if group is None else scales[group]
        weights = self._error_weights
        loss = judge(learned) if weights is None else weighted_photometric(*pair, learned, weights)
        with torch.no_grad():
            value = float(loss if group is None and weights is None else judge(result))
            reset = self._drift(value, pair, judge)
        if reset is not None:
            self.reset()
            self.resets += 1
            return Adapted(self._predicted(self._base, pair), value, group, reset)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it without annotations
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if group is not None:
            self.sampler.observe(value, group)
        return Adapted(result[0].numpy(), value, group)

    def _judge(self, left: Pictures, right: Pictures, pair: tuple[Tensor, Tensor]) -> Callable[[Tensor], Tensor]:
        """The loss of a disparity (1, H, W) of this pair."""
        if self._config.supervision == "photometric":
            return lambda disparity: photometric(*pair, disparity)
        labels, confidence = self._proxies(left, right)
        scale, proxy = PROXY_SCALE[self._config.mode], torch.from_numpy(labels[None])
        weight = None if confidence is None else torch.from_numpy(confidence[None])
        return lambda disparity: scale * proxy_regression(disparity, proxy, weight)

    def _drift(
        self, value: float, pair: tuple[Tensor, Tensor], judge: Callable[[Tensor], Tensor]
    ) -> Literal["loss", "worse", "not_finite"] | None:
        """Why this frame's loss says that the weights have gone astray; None if it does not."""
        config = self._config
        if not math.isfinite(value):
            return "not_finite"
        if config.supervision == "photometric" and value > config.reset_above:
            return "loss"
        due = config.compare_every and self.frames % config.compare_every == 0
        if due and value > config.worse_by * float(judge(self._base(*pair))):
            return "worse"
        return None

    @staticmethod
    def _predicted(network: nn.Module, pair: tuple[Tensor, Tensor]) -> Floats:
        with torch.no_grad():
            found: Floats = network(*pair)[0].float().numpy()
        return found

    def reset(self) -> None:
        """Takes the first weights back, and forgets momentum and scores."""
        if self._optimizer is None:
            return
        self._network.load_state_dict(self._base.state_dict())
        self._optimizer = self._new_optimizer()
        if self._groups:
            self.sampler.forget()

    @property
    def network(self) -> nn.Module:
        """The adapted network as it is now; in mode `none` the base itself."""
        return self._network

    def memory_bytes(self) -> int:
        """What this stream holds besides the base: its weights and their momentum, at most twice the base's size."""
        if self._optimizer is None:
            return 0
        tensors = [*self._network.state_dict().values()]
        tensors += [value for entry in self._optimizer.state.values() for value in entry.values() if value is not None]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def state(self) -> dict[str, Any]:
        """Weights, momentum, scores, generator: tensors and plain values that later frames leave alone."""
        taken: dict[str, Any] = {"mode": self._config.mode, "frames": self.frames, "resets": self.resets}
        if self._optimizer is not None:
            taken["weights"] = copy.deepcopy(self._network.state_dict())
            taken["optimizer"] = copy.deepcopy(self._optimizer.state_dict())
        if self._groups:
            taken["sampler"] = self.sampler.state()
        return taken

    def adopt(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `state`, to the bit, given the same base, config and number of threads.

        Raises:
            TrainingError: It is of another mode or network.
        """
        if state.get("mode") != self._config.mode:
            raise TrainingError(f"state of mode {state.get('mode')}, this stream's is {self._config.mode}")
        self.frames, self.resets = int(state["frames"]), int(state["resets"])
        if self._optimizer is None:
            return
        try:
            self._network.load_state_dict(state["weights"])
            self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        except (RuntimeError, ValueError, KeyError) as error:
            raise TrainingError(f"state of another network: {str(error).splitlines()[0][:200]}") from error
        if self._groups:
            self.sampler.adopt(state["sampler"])


def save_state(adapter: Adapter, path: Path) -> None:
    """Writes an adapter's state, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".tmp")
    torch.save(adapter.state(), partial)
    partial.replace(path)


def load_state(adapter: Adapter, path: Path) -> None:
    """Puts a state of `save_state` back; code in the file is never run.

    Raises:
        TrainingError: Missing, damaged, or of another mode or network.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise TrainingError(f"adaptation state {path}: not readable: {str(error).splitlines()[0][:200]}") from error
    adapter.adopt(state)
