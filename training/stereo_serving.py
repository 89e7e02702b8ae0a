"""The served stereo network: one base for everybody, and the networks of the sequences that it adapts to.

What Triton runs is `training/stereo_model.py`, which only moves tensors; all that it does is here, and without Triton.
"""

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from torch import nn

from training.adaptation import (
    MODES,
    AdaptationConfig,
    Adapted,
    Adapter,
    Floats,
    Mode,
    Pictures,
    load_state,
    save_state,
)
from training.errors import TrainingError

Origin = Literal["kept", "new", "evicted", "restored"]
"""Where the weights of a frame come from: the frame before, the base, the base because room was needed for others in
between, or a saved state."""
Checkpoint = Literal["none", "save", "restore", "forget"]

_REASONS = (None, "loss", "worse", "not_finite")
_MOST_REMEMBERED = 4096  # sequences that were evicted


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one pair.

    Attributes:
        adapted: Disparity, loss, group, reset.
        frames: Of this sequence so far, this one among them; 0 without adaptation.
        resets: Of this sequence so far.
        origin: See `Origin`.
    """

    adapted: Adapted
    frames: int
    resets: int
    origin: Origin

    def numbers(self) -> Floats:
        """As the served output `adaptation`, whose numbers `service.contract` names: float32 (6,)."""
        loss, group = self.adapted.loss, self.adapted.group
        return np.array(
            [
                loss if loss is not None and np.isfinite(loss) else -1,
                -1 if group is None else group,
                self.frames,
                self.resets,
                _REASONS.index(self.adapted.reset),
                get_args(Origin).index(self.origin),
            ],
            np.float32,
        )


class StereoStreams:
    """Adapted networks by sequence, the least recently used given up when there are too many.

    One thread at a time may call `adapt`; `predict` may be called beside it.

    Args:
        base: Stereo network in eval mode; never changed.
        max_streams: Sequences that are kept; each holds up to twice the base's size.
        folder: Of saved states, as many as sequences are kept; None: nothing is saved.
        config: How sequences are adapted to; their mode comes with each frame.
    """

    def __init__(
        self,
        base: nn.Module,
        max_streams: int = 8,
        folder: Path | None = None,
        config: AdaptationConfig | None = None,
    ) -> None:
        self._base, self._max_streams, self._folder = base, max_streams, folder
        values = vars(config or AdaptationConfig())
        self._configs = {mode: AdaptationConfig(**values | {"mode": mode}) for mode in MODES}
        self._still = Adapter(base, self._configs["none"])
        self._streams: OrderedDict[int, tuple[Mode, Adapter]] = OrderedDict()
        self._evicted: OrderedDict[int, None] = OrderedDict()

    def predict(self, left: Pictures, right: Pictures) -> Answer:
        """A pair by the base; uint8 (H, W, 3) RGB each."""
        return Answer(self._still.step(left, right), 0, 0, "new")

    def adapt(
        self,
        sequence: int,
        mode: Mode,
        left: Pictures,
        right: Pictures,
        *,
        checkpoint: Checkpoint = "none",
        end: bool = False,
    ) -> Answer:
        """The next pair of a sequence: predicted, then learned from.

        Args:
            sequence: Its number.
            mode: `full` or `mad`; a sequence that changes it starts anew.
            left: uint8 (H, W, 3) RGB.
            right: The same.
            checkpoint: `restore` takes the sequence's saved state first, `save` keeps it after this frame.
            end: Whether its weights can be given up after this frame.

        Raises:
            TrainingError: States are not saved here, or there is none of this sequence and mode.
        """
        adapter, origin = self._adapter(sequence, mode, checkpoint)
        adapted = adapter.step(left, right)
        if checkpoint == "save":
            self._save(sequence, adapter)
        if end:
            del self._streams[sequence]
        return Answer(adapted, adapter.frames, adapter.resets, origin)

    def forget(self, sequence: int, left: Pictures) -> Answer:
        """A sequence of which no more will come: its weights are given up at once, and the answer says nothing."""
        self._streams.pop(sequence, None)
        self._evicted.pop(sequence, None)
        return Answer(Adapted(np.zeros(left.shape[:2], np.float32)), 0, 0, "new")

    def _adapter(self, sequence: int, mode: Mode, checkpoint: Checkpoint) -> tuple[Adapter, Origin]:
        if checkpoint != "none" and self._folder is None:
            raise TrainingError("no folder for states of sequences: export the model with --checkpoints")
        known, adapter = self._streams.get(sequence, (None, None))
        origin: Origin = "kept"
        if adapter is None or known != mode:
            adapter = Adapter(self._base, self._configs[mode])
            origin = "evicted" if sequence in self._evicted else "new"
        if checkpoint == "restore":
            load_state(adapter, self._path(sequence))
            origin = "restored"
        self._streams[sequence] = (mode, adapter)
        self._streams.move_to_end(sequence)
        self._evicted.pop(sequence, None)
        while len(self._streams) > self._max_streams:
            self._evicted[self._streams.popitem(last=False)[0]] = None
        while len(self._evicted) > _MOST_REMEMBERED:
            self._evicted.popitem(last=False)
        return adapter, origin

    def _path(self, sequence: int) -> Path:
        assert self._folder is not None
        return self._folder / f"{sequence:016x}.pt"

    def _save(self, sequence: int, adapter: Adapter) -> None:
        path = self._path(sequence)
        try:
            save_state(adapter, path)
            saved = sorted(path.parent.glob("*.pt"), key=lambda each: each.stat().st_mtime_ns)
            for old in saved[: -self._max_streams]:
                old.unlink()
        except (OSError, RuntimeError) as error:
            raise TrainingError(f"the state cannot be saved: {str(error).splitlines()[0][:200]}") from error

    def memory_bytes(self) -> int:
        """What all sequences hold together."""
        return sum(adapter.memory_bytes() for _, adapter in self._streams.values())
