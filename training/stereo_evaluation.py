"""Stereo networks judged: sets of pairs, and sequences frame by frame while a network adapts."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
from torch import nn

from training.adaptation import AdaptationConfig, Adapted, Adapter, Proxies, semi_global
from training.checkpoint import adopt, load_checkpoint
from training.data.domains import DOMAINS
from training.data.stereo_pairs import SEQUENCE_SIZE, StereoFrame, layered_sequence, read_folder, reduced
from training.errors import TrainingError
from training.metrics import DisparityMetrics, disparity_metrics
from training.models import create_model
from training.models.wad import ErrorWeights
from training.tasks.stereo import mean_of, predict


def load_stereo_network(path: Path) -> nn.Module:
    """A stereo network in eval mode from a checkpoint of `train`, or from a file that `weights` wrote.

    Raises:
        TrainingError: Missing, unreadable, or no stereo network's.
    """
    if path.suffix == ".pt":
        checkpoint = load_checkpoint(path)
        name, state = checkpoint.config.model, checkpoint.ema
    else:
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                name = (file.metadata() or {}).get("model", "")
                state = {key: file.get_tensor(key) for key in file.keys()}
        except (OSError, safetensors.SafetensorError) as error:
            raise TrainingError(f"weights {path}: not readable: {str(error).splitlines()[0][:200]}") from error
    network = create_model(name)
    if not hasattr(network, "scales"):
        raise TrainingError(f"{path}: {name} is no stereo network")
    adopt(network, state, str(path))
    return network.eval()


def load_error_weights(path: Path) -> ErrorWeights:
    """WAd from a file that `meta` wrote, in eval mode, to be used as it is.

    Raises:
        TrainingError: Missing, unreadable, or no such file.
    """
    try:
        state = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise TrainingError(f"error weights {path}: not readable: {str(error).splitlines()[0][:200]}") from error
    network = ErrorWeights()
    adopt(network, state, f"error weights {path}")
    return network.eval().requires_grad_(False)


def frames_of(sequence: str, count: int, width: int | None = None) -> Iterator[StereoFrame]:
    """Frames by name: `DOMAIN:SEED` draws a world, anything else is a folder (`training.data.stereo_pairs`).

    Args:
        sequence: E.g. `night:7`, or a path.
        count: At most so many.
        width: Larger frames of a folder are reduced to it.

    Raises:
        TrainingError: No such domain or folder.
    """
    domain, found, seed = sequence.partition(":")
    known = next((name for name in DOMAINS if name == domain), None)
    if found and known is not None and seed.isdigit():
        yield from layered_sequence(known, int(seed), count, SEQUENCE_SIZE)
        return
    if not Path(sequence).is_dir():
        raise TrainingError(f"sequence {sequence}: neither a folder nor DOMAIN:SEED with {', '.join(DOMAINS)}")
    for _, frame in zip(range(count), read_folder(Path(sequence)), strict=False):
        yield frame if width is None else reduced(frame, width)


@dataclass(frozen=True)
class FrameRow:
    """One frame of a run.

    Attributes:
        name: Of the frame.
        adapted: What the adapter answered, without its map.
        metrics: Errors; None without truth.
        wall_s: Seconds that prediction and learning took.
        cpu_s: The same in seconds of processor time, which other programs on the machine disturb less.
    """

    name: str
    adapted: Adapted
    metrics: DisparityMetrics | None
    wall_s: float
    cpu_s: float


def run_sequence(
    network: nn.Module,
    frames: Iterable[StereoFrame],
    config: AdaptationConfig,
    proxies: Proxies = semi_global,
    shown: Callable[[int, StereoFrame, Adapted], None] = lambda number, frame, adapted: None,
    error_weights: nn.Module | None = None,
) -> Iterator[FrameRow]:
    """Adapts along a sequence; every frame is judged as it was predicted, before it was learned from.

    Args:
        network: Base, in eval mode; not changed.
        frames: In order.
        config: How.
        proxies: Labels of `supervision: proxy`.
        shown: Is called with number, frame and answer of every frame.
        error_weights: As `Adapter` takes them.
    """
    adapter = Adapter(network, config, proxies, error_weights)
    for number, frame in enumerate(frames):
        start, start_cpu = time.perf_counter(), time.process_time()
        adapted = adapter.step(frame.left, frame.right)
        wall_s, cpu_s = time.perf_counter() - start, time.process_time() - start_cpu
        shown(number, frame, adapted)
        truth, metrics = frame.disparity_px, None
        if truth is not None and truth.any():
            metrics = disparity_metrics(adapted.disparity_px, truth)
        kept = Adapted(np.zeros((0, 0), np.float32), adapted.loss, adapted.group, adapted.reset)
        yield FrameRow(frame.name, kept, metrics, wall_s, cpu_s)


def summary(rows: Sequence[FrameRow]) -> dict[str, float | int]:
    """Means over a run: errors over all frames and over its last half, resets, seconds a frame (median), frames/s."""
    wall = float(np.median([row.wall_s for row in rows]))
    found: dict[str, float | int] = {
        "frames": len(rows),
        "resets": sum(row.adapted.reset is not None for row in rows),
        "wall_s": wall,
        "cpu_s": float(np.median([row.cpu_s for row in rows])),
        "cpu_s_mean": float(np.mean([row.cpu_s for row in rows])),
        "frames_per_s": 1 / wall,
    }
    judged = [row.metrics for row in rows if row.metrics is not None]
    if judged:
        found |= mean_of(judged)
        found |= {f"{name}_last_half": value for name, value in mean_of(judged[len(judged) // 2 :]).items()}
    losses = [row.adapted.loss for row in rows if row.adapted.loss is not None]
    if losses:
        found |= {"loss": float(np.mean(losses))}
    return found


def judge_pairs(network: nn.Module, frames: Iterable[StereoFrame]) -> dict[str, float]:
    """`epe` (pixels), `bad3` and `d1` (shares): means over pairs with truth.

    Raises:
        TrainingError: There are none.
    """
    rows = errors_of_pairs(network, frames)
    return mean_of([row for _, row in rows]) | {"pairs": float(len(rows))}


def errors_of_pairs(network: nn.Module, frames: Iterable[StereoFrame]) -> list[tuple[str, DisparityMetrics]]:
    """Name and errors of every pair with truth.

    Raises:
        TrainingError: There are none.
    """
    rows = [
        (frame.name, disparity_metrics(predict(network, frame.left, frame.right), frame.disparity_px))
        for frame in frames
        if frame.disparity_px is not None and frame.disparity_px.any()
    ]
    if not rows:
        raise TrainingError("no pair with truth to judge")
    return rows


def moving_average(values: npt.ArrayLike, width: int = 9) -> npt.NDArray[np.float64]:
    """Means of up to `width` (odd) neighbours, fewer at the ends, (N,) -> (N,)."""
    array, half = np.asarray(values, np.float64), width // 2
    return np.array([array[max(0, at - half) : at + half + 1].mean() for at in range(len(array))])
