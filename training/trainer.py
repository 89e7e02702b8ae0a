"""The one training loop."""

import copy
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from training.checkpoint import Checkpoint, adopt, load_checkpoint, save_checkpoint, source_revision
from training.data.bank import Bank, Batch, Sampler
from training.data.transforms import Augmentation, warp, whole_map
from training.distributed import rank, share_batch_norm, world_size
from training.errors import TrainingError
from training.logs import RunLog
from training.models import create_model
from training.models.frozen import freeze
from training.optimizer import make_optimizer, update_ema
from training.recipe import TrainConfig
from training.schedules import Schedule
from training.start import FirstWeights, make_network
from training.tasks import make_task
from training.tasks.task import Task

LAST, BEST = "last.pt", "best.pt"
_MAY_CHANGE = {"steps", "final_steps", "validate_every", "checkpoint_every"}
_EXAMPLES = 6  # pictures shown at each validation
_AHEAD = 3  # batches prepared while the network works
_LOG_EVERY = 20  # steps


def make_sampler(config: TrainConfig, bank: Bank) -> Sampler:
    """Batches of a recipe."""
    strength = Augmentation(**{name: getattr(config, name) for name in Augmentation.__dataclass_fields__})
    return Sampler(bank, config.sources, config.seed, strength, config.paste)


def _batches(config: TrainConfig, sampler: Sampler, first: int) -> Iterator[Batch]:
    """Batches of steps `first` to the last, prepared ahead in one thread."""

    def prepare(step: int) -> Batch:
        final = step >= config.steps - config.final_steps
        sizes = config.final_sizes if final else config.sizes
        return sampler.batch(step, config.batch, sizes, rank(), world_size())

    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(prepare, step) for step in range(first, min(first + _AHEAD, config.steps))]
        for step in range(first, config.steps):
            batch = waiting.pop(0).result()
            if step + _AHEAD < config.steps:
                waiting.append(pool.submit(prepare, step + _AHEAD))
            yield batch


def _parallel(forward: nn.Module) -> nn.Module:
    if world_size() == 1:
        return forward
    share_batch_norm(forward)
    return nn.parallel.DistributedDataParallel(forward, broadcast_buffers=False)


@dataclass
class Run:
    """Everything that changes while training."""

    network: nn.Module
    average: nn.Module
    optimizer: torch.optim.AdamW
    schedule: Schedule
    task: Task
    forward: nn.Module
    """What the task runs: the network, or a module around it."""
    parallel: nn.Module
    """`forward`, or what averages its gradients over the processes."""
    step: int
    metrics: dict[str, float]
    best: float | None

    @classmethod
    def _of(cls, config: TrainConfig, network: nn.Module, task: Task) -> "Run":
        freeze(network, config.frozen)
        average = copy.deepcopy(network).requires_grad_(False)
        forward = task.forward(network)
        optimizer = make_optimizer(config, network)
        return cls(network, average, optimizer, Schedule(config), task, forward, _parallel(forward), 0, {}, None)

    @classmethod
    def start(
        cls,
        config: TrainConfig,
        weights: Path | None,
        device: str = "cpu",
        first: FirstWeights | None = None,
        folder: Path = Path(),
    ) -> "Run":
        """A fresh run; `folder` is its own, where relative paths of checkpoints begin."""
        network = make_network(config, first or FirstWeights(weights), folder).to(device)
        return cls._of(config, network, make_task(config, weights, device, folder))

    @classmethod
    def resume(cls, config: TrainConfig, path: Path, device: str = "cpu", weights: Path | None = None) -> "Run":
        """The run of a checkpoint, which must have been made with the same recipe, apart from its length."""
        checkpoint = load_checkpoint(path)
        for key, value in config.flat().items():
            stored = checkpoint.config.flat().get(key)
            if stored != value and key not in _MAY_CHANGE:
                raise TrainingError(f"checkpoint {path}: {key} is {stored} there, {value} in the recipe")
        run = cls._of(config, create_model(config.model).to(device), make_task(config, weights, device, path.parent))
        adopt(run.network, checkpoint.model, f"checkpoint {path}")
        adopt(run.average, checkpoint.ema, f"checkpoint {path}")
        run.optimizer.load_state_dict(checkpoint.optimizer)
        run.schedule.adopt(checkpoint.schedule)
        run.step, run.metrics, run.best = checkpoint.step, checkpoint.metrics, checkpoint.best
        return run

    def advance(self, config: TrainConfig, batch: Batch) -> dict[str, float]:
        """One optimiser step; the parts of the loss. TrainingError when the loss is not finite."""
        factor = self.schedule.factor(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        self.forward.train()
        freeze(self.network, config.frozen)
        parts = self.task.losses(self.parallel, batch)
        values = {name: float(value.detach()) for name, value in parts.items()}
        if not math.isfinite(values["loss"]):
            raise TrainingError(f"loss is {values['loss']} at step {self.step}: {values}; lower lr or look at the data")
        self.optimizer.zero_grad(set_to_none=True)
        parts["loss"].backward()  # type: ignore[no-untyped-call]  # torch leaves it without annotations
        norm = nn.utils.clip_grad_norm_(self.forward.parameters(), config.clip_norm)
        if not math.isfinite(float(norm)):
            raise TrainingError(
                f"gradient is {float(norm)} at step {self.step}: {values}; lower lr or look at the data"
            )
        self.optimizer.step()
        update_ema(self.average, self.network, config.ema_decay, self.step)
        self.step += 1
        return values | {"lr": factor * config.lr, "gradient_norm": float(norm)}

    def held_out_loss(self, config: TrainConfig, bank: Bank) -> float:
        """Mean loss of the held-out pictures seen whole at the first size; every process takes part."""
        self.forward.eval()
        device = next(self.network.parameters()).device
        total, count = 0.0, 0
        for first in range(0, len(bank.held_out), config.batch):
            samples, size = bank.held_out[first : first + config.batch], config.sizes[0]
            shapes = [(sample.image.shape[0], sample.image.shape[1]) for sample in samples]
            items = [warp(sample, whole_map(shape, size), size) for sample, shape in zip(samples, shapes, strict=True)]
            with torch.no_grad():
                parts = self.task.losses(self.forward, Batch.of(items).to(str(device)))
            total, count = total + float(parts["loss"]) * len(items), count + len(items)
        if not count:
            raise TrainingError("no held-out sample: the recipe needs their loss; give more scenes")
        return total / count

    def checkpoint(self, config: TrainConfig, commit: str) -> Checkpoint:
        """The present state."""
        return Checkpoint(
            self.step,
            self.network.state_dict(),
            self.average.state_dict(),
            self.optimizer.state_dict(),
            config,
            commit,
            self.metrics,
            self.best,
            self.schedule.state(),
        )


def train(
    config: TrainConfig,
    bank: Bank,
    weights: Path | None,
    out: Path,
    resume: bool,
    device: str = "cpu",
    first: FirstWeights | None = None,
) -> Run:
    """Trains to the recipe's last step; writes checkpoints, logs and validation into `out`.

    With several processes (`training.distributed.processes`) each works on its share of every batch, and the first
    one writes.

    Args:
        config: Recipe.
        bank: Samples.
        weights: Folder of published weights, an encoder's or a teacher's.
        out: Folder of the run.
        resume: Whether to go on from `out`/last.pt.
        device: `cpu` or `cuda`.
        first: First weights; None takes what the recipe names from `weights`.

    Returns:
        The finished run.

    Raises:
        TrainingError: Checkpoint of another recipe, source without samples, loss not finite.
    """
    run = Run.resume(config, out / LAST, device, weights) if resume else Run.start(config, weights, device, first, out)
    bank = bank.only(run.task.wants)
    sampler = make_sampler(config, bank)
    commit, log = source_revision(), RunLog(out, run.step) if rank() == 0 else None
    bar = tqdm(total=config.steps, initial=run.step, desc=config.model, unit="step", mininterval=5, disable=not log)
    for batch in _batches(config, sampler, run.step):
        values = run.advance(config, batch.to(device))
        bar.update()
        last = run.step == config.steps
        if log and (run.step % _LOG_EVERY == 0 or last):
            bar.set_postfix({name: f"{value:.3f}" for name, value in values.items() if name != "lr"})
            log.trained(run.step, values)
        improved = False
        if run.step % config.validate_every == 0 or last:
            improved = _validate(run, config, bank, log)
        if log and (run.step % config.checkpoint_every == 0 or last):
            save_checkpoint(out / LAST, run.checkpoint(config, commit))
        if log and improved:
            save_checkpoint(out / BEST, run.checkpoint(config, commit))
    bar.close()
    if log and not (out / LAST).is_file():  # a recipe of no steps: nothing but the parts that it starts from
        _validate(run, config, bank, log)
        save_checkpoint(out / LAST, run.checkpoint(config, commit))
    if log:
        failures = {"broken": bank.broken, "failed": sampler.failed}
        log.finished({"steps": run.step, "commit": commit, "metrics": run.metrics, "best": run.best} | failures)
        log.close()
    return run


def _validate(run: Run, config: TrainConfig, bank: Bank, log: RunLog | None) -> bool:
    """Judges the averaged weights on the held-out scenes; whether they are the best so far, for the one who writes."""
    loss = run.held_out_loss(config, bank) if config.needs_held_out_loss else None
    if loss is not None:
        run.schedule.validated(loss)
    if log is None:
        return False
    network = copy.deepcopy(run.average).cpu().eval()
    run.metrics = run.task.metrics(network, bank.held_out) | ({} if loss is None else {"loss": loss})
    tqdm.write(f"step {run.step}: " + ", ".join(f"{k} {v:.3f}" for k, v in run.metrics.items()))
    log.validated(run.step, run.metrics)
    for index, sample in enumerate(bank.held_out[:: max(1, len(bank.held_out) // _EXAMPLES)][:_EXAMPLES]):
        log.picture(run.step, index, run.task.panel(network, sample))
    value = run.metrics.get(config.select_by)
    if value is None or not config.is_better(value, run.best):
        return False
    run.best = value
    return True
