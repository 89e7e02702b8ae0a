"""Learning-rate range test: the loss while the rate rises from very small to too large, and a plot of it.

Smith, "Cyclical Learning Rates for Training Neural Networks", arXiv:1506.01186, section 3.3. The peak of a schedule is
best chosen a little below where the loss begins to rise; `steepest` is where it falls fastest.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from training.data.bank import Bank
from training.errors import TrainingError
from training.recipe import TrainConfig
from training.start import FirstWeights
from training.trainer import Run, make_sampler

_SMOOTHING = 0.9  # of the exponential mean
_UNSETTLED = 10  # steps until the mean is one of about ten losses; before, it moves by chance
_TOO_MUCH = 4.0  # times the lowest smoothed loss, where the test ends


@dataclass(frozen=True)
class Curve:
    """Smoothed losses by rate, of the decoder's group."""

    rates: list[float]
    losses: list[float]

    @property
    def steepest(self) -> float:
        """The rate at which the loss falls fastest over the logarithm of the rate, seen over a fifth of the steps."""
        count = len(self.rates)
        if count < 3:
            raise TrainingError(f"the range test made {count} steps: at least 3 are needed")
        reach = max(1, count // 10)
        first = min(_UNSETTLED, count - 1 - 2 * reach) if count > 2 * _UNSETTLED else 0
        losses, places = np.array(self.losses[first:]), np.log(self.rates[first:])
        slopes = (losses[2 * reach :] - losses[: -2 * reach]) / (places[2 * reach :] - places[: -2 * reach])
        return self.rates[first + reach + int(slopes.argmin())]


def range_test(
    config: TrainConfig,
    bank: Bank,
    first: FirstWeights,
    lowest: float = 1e-7,
    highest: float = 1.0,
    steps: int = 100,
    device: str = "cpu",
) -> Curve:
    """Trains a fresh network of the recipe for `steps` steps, the rate growing by the same factor each step.

    It ends early when the loss is four times its lowest or not finite.

    Args:
        config: Recipe; its schedule is not used, the encoder keeps its share of the rate.
        bank: Samples.
        first: First weights.
        lowest: First rate.
        highest: Last rate.
        steps: At most.
        device: `cpu` or `cuda`.
    """
    # poly from 1 to 1 is a constant schedule
    run = Run.start(replace(config, schedule="poly", lr_floor=1.0), first.folder, device, first)
    sampler = make_sampler(config, bank.only(run.task.wants))
    shares = [group["peak_lr"] / config.lr for group in run.optimizer.param_groups]
    rates: list[float] = []
    losses: list[float] = []
    mean = 0.0
    for step in tqdm(range(steps), desc="lr-range", unit="step", mininterval=5):
        rate = lowest * (highest / lowest) ** (step / max(1, steps - 1))
        for group, share in zip(run.optimizer.param_groups, shares, strict=True):
            group["peak_lr"] = rate * share
        try:
            loss = run.advance(config, sampler.batch(step, config.batch, config.sizes).to(device))["loss"]
        except TrainingError:
            if not losses:
                raise
            break
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
        smooth = mean / (1 - _SMOOTHING ** (step + 1))
        rates.append(rate)
        losses.append(smooth)
        if not math.isfinite(smooth) or smooth > _TOO_MUCH * min(losses):
            break
    return Curve(rates, losses)


def plot(curve: Curve, title: str, path: Path) -> None:
    """The curve as a picture, in the format of the file's suffix.

    Raises:
        TrainingError: matplotlib missing, or the file cannot be written.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise TrainingError("matplotlib is not installed: pip install --group dev") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    axes.plot(curve.rates, curve.losses)
    axes.axvline(curve.steepest, linestyle="--", linewidth=1, color="gray")
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss, smoothed", title=title)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120, bbox_inches="tight")
    except (OSError, ValueError) as error:
        raise TrainingError(f"cannot write {path}: {error}") from error
    finally:
        pyplot.close(figure)
