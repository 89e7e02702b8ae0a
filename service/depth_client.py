"""What the gateway computes through: the protocol of whatever answers, and what it answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from service.contract import ModelSpec

Image = NDArray[np.uint8]

Adapt = Literal["none", "full", "mad"]
Checkpoint = Literal["none", "save", "restore", "forget"]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model answered for one image.

    Args:
        outputs: float32 arrays by tensor name, without a batch axis, finite; units as in the contract.
        model: name of the model.
        version: the version that answered.
    """

    outputs: dict[str, NDArray[np.float32]]
    model: str
    version: str


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One version of a model as the server has it now; `version` is empty where it has none."""

    name: str
    version: str
    ready: bool
    spec: ModelSpec | None = None
    """Of a model that is not in `MODELS`."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two pictures to be matched, and what is to be learned from them.

    Attributes:
        left: uint8 sRGB, (height, width, 3).
        right: the same size, rectified to it.
        adapt: how the network learns from it.
        sequence: number of the sequence whose weights answer; None: those of everybody, which never change.
        checkpoint: whether the sequence's weights are taken from their saved state first, or saved afterwards;
            `forget` lets them go at once, and the pictures count for nothing.
        end: whether it is the sequence's last, whose weights may be forgotten.
    """

    left: Image
    right: Image
    adapt: Adapt = "none"
    sequence: int | None = None
    checkpoint: Checkpoint = "none"
    end: bool = False


class DepthClient(Protocol):
    """Where inferences go: Triton in production, a fake in tests."""

    async def infer(
        self,
        model: str,
        image: Image,
        *,
        outputs: Sequence[str] | None = None,
        timeout_s: float,
        request_id: str | None = None,
    ) -> Prediction:
        """Run `model` on one image.

        Args:
            model: its name.
            image: uint8 sRGB, (height, width, 3).
            outputs: names of the outputs wanted; None: all.
            timeout_s: deadline of the call, its wait in the server's queue included; above 0.
            request_id: for the server's log.

        Raises:
            UnknownModel: as `spec`.
            Overloaded, ModelUnavailable: another try later can succeed.
            DeadlineExceeded: no answer within `timeout_s`.
            ModelFailed: the model failed or answered values that are not finite.
            ContractViolation: server and contract disagree about tensors.
        """
        ...

    async def match(self, pair: Pair, *, timeout_s: float, request_id: str | None = None) -> Prediction:
        """Run the stereo model on one pair; raises as `infer`, too.

        Raises:
            NoSavedState: there is none to restore, or it cannot be saved.
        """
        ...

    async def spec(self, model: str) -> ModelSpec:
        """What a model takes and gives.

        Raises:
            UnknownModel: the server has none of that name that says what it takes and gives.
            ModelUnavailable, DeadlineExceeded: the server cannot be asked.
        """
        ...

    async def is_ready(self, model: str) -> bool:
        """What the server says of the model; it says yes of one whose process died. Never raises."""
        ...

    async def served_models(self) -> list[ServedModel]:
        """Every model that is known of, and whether the server has it; never raises."""
        ...

    async def close(self) -> None:
        """Let go of the connection."""
        ...
