"""What a training objective owns; everything else of a run is the trainer's."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from training.data.bank import Batch
from training.data.sample import Sample


@dataclass(frozen=True)
class Surroundings:
    """Where a run takes place.

    Attributes:
        weights: Folder of published weights; None where none was given.
        device: `cpu` or `cuda`.
        folder: Of the run; relative paths of checkpoints in recipes begin there.
    """

    weights: Path | None
    device: str
    folder: Path

    def found(self, name: str) -> str:
        """The path of a file that the recipe names, if it is there seen from the run's folder; else the name itself."""
        path = self.folder / name
        return str(path) if path.is_file() else name


class Task(Protocol):
    """One objective. It is made from its recipe and holds no weights that are trained.

    The trainer builds the recipe's network, asks `forward` for what it runs (and shares over processes), and calls
    `losses` with exactly that.
    """

    def wants(self, sample: Sample) -> bool:
        """Whether a sample has the truth that this objective needs; others are left out."""
        ...

    def forward(self, network: nn.Module) -> nn.Module:
        """What runs in training: the network, or a module around it that returns what only the loss needs.

        It must hold no parameters but the network's, and everything goes through its one `forward`, which is what
        DistributedDataParallel listens to.
        """
        ...

    def losses(self, forward: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """`loss`, a scalar with a gradient, and its named parts, unweighted scalars.

        Means over pictures are weighted by `training.distributed.share`, so that several processes make one mean.
        """
        ...

    def metrics(self, network: nn.Module, samples: Sequence[Sample]) -> dict[str, float]:
        """The network, in eval mode, judged on held-out samples; means by name, `select_by` among them."""
        ...

    def panel(self, network: nn.Module, sample: Sample) -> npt.NDArray[np.uint8]:
        """A sample and what the network, in eval mode, makes of it side by side, uint8 (h, w, 3) RGB."""
        ...
