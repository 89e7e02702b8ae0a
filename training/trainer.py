"""The one training loop."""

import copy
import math
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from training.checkpoint import Checkpoint, adopt, load_checkpoint, load_weights, save_checkpoint, source_revision
from training.config import TrainConfig
from training.data.bank import Bank, Batch, Sampler
from training.data.transforms import Augmentation
from training.distributed import rank, share_batch_norm, world_size
from training.errors import TrainingError
from training.models import create_model
from training.models.encoder_weights import load_encoder
from training.tasks import make_task
from training.tasks.task import Task

LAST = "last.pt"
_MAY_CHANGE = {"steps", "final_steps", "validate_every", "checkpoint_every"}
_EXAMPLES = 6  # pictures shown at each validation
_AHEAD = 3  # batches prepared while the network works


def make_network(config: TrainConfig, weights: Path | None) -> nn.Module:
    """The recipe's network with its first weights: another run's, or seeded ones with the encoder's from ImageNet."""
    torch.manual_seed(config.seed)
    network = create_model(config.model)
    if config.network_weights:
        own = Path(__file__).parent / "weights" / config.network_weights
        path = own if own.is_file() or weights is None else weights / config.network_weights
        load_weights(network, path, config.network_sha256)
    elif config.encoder_weights:
        if weights is None:
            raise TrainingError(f"the recipe starts from {config.encoder_weights}; give its folder with --weights")
        load_encoder(network.get_submodule("encoder"), weights / config.encoder_weights, config.encoder_sha256)
    return network


def make_optimizer(config: TrainConfig, network: nn.Module) -> torch.optim.AdamW:
    """AdamW with encoder and rest at their own rates, and decay on convolution weights only."""
    groups = []
    encoder = {id(parameter) for parameter in _encoder_parameters(network)}
    for in_encoder in (True, False):
        for decays in (True, False):
            parameters = [
                p for p in network.parameters() if (id(p) in encoder) == in_encoder and (p.ndim > 1) == decays
            ]
            peak = config.encoder_lr if in_encoder else config.lr
            groups.append(
                {
                    "params": parameters,
                    "lr": peak,
                    "peak_lr": peak,
                    "weight_decay": config.weight_decay if decays else 0.0,
                }
            )
    return torch.optim.AdamW(groups)


def _encoder_parameters(network: nn.Module) -> Iterable[nn.Parameter]:
    parameters: Iterable[nn.Parameter] = network.encoder_parameters()  # type: ignore[operator]  # every network has it
    return parameters


def lr_factor(config: TrainConfig, step: int) -> float:
    """Share of the peak rate at a step: linear warm-up, then cosine to zero."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


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


def _parallel(network: nn.Module, task: Task) -> nn.Module:
    forward = task.forward(network)
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
    step: int
    metrics: dict[str, float]
    task: Task
    forward: nn.Module
    """What the task runs, wrapped in what averages gradients over the processes where there are several."""

    @classmethod
    def start(cls, config: TrainConfig, weights: Path | None, device: str = "cpu") -> "Run":
        """A fresh run."""
        network, task = make_network(config, weights).to(device), make_task(config)
        average = copy.deepcopy(network).requires_grad_(False)
        return cls(network, average, make_optimizer(config, network), 0, {}, task, _parallel(network, task))

    @classmethod
    def resume(cls, config: TrainConfig, path: Path, device: str = "cpu") -> "Run":
        """The run of a checkpoint, which must have been made with the same recipe, apart from its length."""
        checkpoint = load_checkpoint(path)
        for key, value in config.flat().items():
            stored = checkpoint.config.flat().get(key)
            if stored != value and key not in _MAY_CHANGE:
                raise TrainingError(f"checkpoint {path}: {key} is {stored} there, {value} in the recipe")
        network, average = create_model(config.model).to(device), create_model(config.model).to(device)
        average.requires_grad_(False)
        adopt(network, checkpoint.model, f"checkpoint {path}")
        adopt(average, checkpoint.ema, f"checkpoint {path}")
        optimizer = make_optimizer(config, network)
        optimizer.load_state_dict(checkpoint.optimizer)
        task = make_task(config)
        return cls(network, average, optimizer, checkpoint.step, checkpoint.metrics, task, _parallel(network, task))

    def advance(self, config: TrainConfig, batch: Batch) -> dict[str, float]:
        """One optimiser step; the parts of the loss. TrainingError when the loss is not finite."""
        factor = lr_factor(config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        self.network.train()
        parts = self.task.losses(self.forward, batch)
        values = {name: float(value.detach()) for name, value in parts.items()}
        if not math.isfinite(values["loss"]):
            raise TrainingError(f"loss is {values['loss']} at step {self.step}: {values}; lower lr or look at the data")
        self.optimizer.zero_grad(set_to_none=True)
        parts["loss"].backward()  # type: ignore[no-untyped-call]  # torch leaves it without annotations
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), config.clip_norm)
        if not math.isfinite(float(norm)):
            raise TrainingError(
                f"gradient is {float(norm)} at step {self.step}: {values}; lower lr or look at the data"
            )
        self.optimizer.step()
        update_ema(self.average, self.network, config.ema_decay, self.step)
        self.step += 1
        return values | {"lr": factor * config.lr, "gradient_norm": float(norm)}

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
        )


def train(config: TrainConfig, bank: Bank, weights: Path | None, out: Path, resume: bool, device: str = "cpu") -> Run:
    """Trains to the recipe's last step; writes checkpoints, TensorBoard events and validation into `out`.

    With several processes (`training.distributed.processes`) each works on its share of every batch, and the first
    one writes.

    Args:
        config: Recipe.
        bank: Samples.
        weights: Folder with the encoder's first weights.
        out: Folder of the run.
        resume: Whether to go on from `out`/last.pt.
        device: `cpu` or `cuda`.

    Returns:
        The finished run.

    Raises:
        TrainingError: Checkpoint of another recipe, source without samples, loss not finite.
    """
    strength = Augmentation(config.min_crop, config.max_crop, config.stretch, config.rotation_deg, config.letterbox)
    run = Run.resume(config, out / LAST, device) if resume else Run.start(config, weights, device)
    bank = bank.only(run.task.wants)
    sampler = Sampler(bank, config.sources, config.seed, strength, config.paste)
    commit, writes = source_revision(), rank() == 0
    bar = tqdm(total=config.steps, initial=run.step, desc=config.model, unit="step", mininterval=5, disable=not writes)
    with SummaryWriter(str(out)) if writes else nullcontext() as writer:
        for batch in _batches(config, sampler, run.step):
            values = run.advance(config, batch.to(device))
            bar.update()
            last = run.step == config.steps
            if writer and run.step % 20 == 0:
                bar.set_postfix({name: f"{value:.3f}" for name, value in values.items() if name != "lr"})
                for name, value in values.items():
                    writer.add_scalar(f"train/{name}", value, run.step)
            if writer and (run.step % config.validate_every == 0 or last):
                _validate(run, bank, writer)
            if writer and (run.step % config.checkpoint_every == 0 or last):
                save_checkpoint(out / LAST, run.checkpoint(config, commit))
    bar.close()
    return run


def _validate(run: Run, bank: Bank, writer: SummaryWriter) -> None:
    """Judges the averaged weights on the held-out scenes; numbers and example pictures go to TensorBoard."""
    network = copy.deepcopy(run.average).cpu().eval()
    run.metrics = run.task.metrics(network, bank.held_out)
    tqdm.write(f"step {run.step}: " + ", ".join(f"{k} {v:.3f}" for k, v in run.metrics.items()))
    for name, value in run.metrics.items():
        writer.add_scalar(f"held_out/{name}", value, run.step)
    for index, sample in enumerate(bank.held_out[:: max(1, len(bank.held_out) // _EXAMPLES)][:_EXAMPLES]):
        picture = run.task.panel(network, sample.image)
        writer.add_image(f"held_out/{index}", picture, run.step, dataformats="HWC")
