"""`python -m training meta`: learning to adapt, with logs, checkpoints to go on from, and files that `adapt` takes."""

import argparse
import dataclasses
import json
import pickle  # nosec B403  # for its error alone: what is loaded is loaded with weights_only
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.errors import TrainingError

if TYPE_CHECKING:
    from torch import nn

    from training.meta import Learner, MetaConfig

LAST, NETWORK, ERROR_WEIGHTS = "last.pt", "network.safetensors", "error_weights.safetensors"

_MAY_CHANGE = {"validate_every", "checkpoint_every"}  # steps say how the rates fall
_LOG_EVERY = 5  # steps


def add_meta(command: argparse.ArgumentParser) -> None:
    """Declares the options of `meta`."""
    command.add_argument("--config", type=Path, required=True, help="e.g. training/meta_learning.yaml")
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key; repeatable")
    command.add_argument(
        "--weights", type=Path, required=True, help="supervised network to begin with: checkpoint or file of `weights`"
    )
    command.add_argument("--out", type=Path, required=True, help="folder of the run, e.g. runs/l2a")
    command.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint")
    command.add_argument("--threads", type=int, default=2, help="threads of the network (default 2)")
    command.set_defaults(run=run_meta)


def run_meta(arguments: argparse.Namespace) -> None:
    """Trains to the last step; the best weights so far lie in `network.safetensors` and `error_weights.safetensors`.

    Raises:
        TrainingError: Weights, config or checkpoint cannot be used, the folder cannot be written, or the loss is not
            finite.
    """
    import torch
    from tqdm import tqdm

    from training.logs import RunLog
    from training.meta import Learner, drawn, load_meta_config, tasks_of
    from training.stereo_evaluation import load_stereo_network

    config = load_meta_config(arguments.config, arguments.set)
    torch.set_num_threads(arguments.threads)
    learner = Learner(load_stereo_network(arguments.weights), config)
    best = _resumed(learner, arguments.out / LAST) if arguments.resume else None
    print(f"drawing {len(config.domains) * config.worlds} sequences of {config.frames} frames", flush=True)
    sequences, validated = drawn(config), drawn(config, validation=True)
    try:
        log = RunLog(arguments.out, learner.step)
    except OSError as error:
        raise TrainingError(f"cannot write {arguments.out}: {error.strerror}") from error
    if not learner.step:
        best = _validated(learner, log, arguments.out, learner.validate(validated), best)
    with tqdm(total=config.steps, initial=learner.step, desc="meta", unit="step", mininterval=5) as bar:
        while learner.step < config.steps:
            values = learner.advance(tasks_of(learner.step, sequences, config))
            bar.update()
            last = learner.step == config.steps
            if learner.step % _LOG_EVERY == 0 or last:
                bar.set_postfix({name: f"{value:.3f}" for name, value in values.items()})
                log.trained(learner.step, values)
            if learner.step % config.validate_every == 0 or last:
                best = _validated(learner, log, arguments.out, learner.validate(validated), best)
            if learner.step % config.checkpoint_every == 0 or last:
                _save(learner, best, arguments.out / LAST)
    log.finished({"steps": learner.step, "best": best, "config": dataclasses.asdict(config)})
    log.close()


def _validated(learner: "Learner", log: Any, out: Path, found: dict[str, float], best: float | None) -> float | None:
    """Tells and keeps a validation; writes the weights when they are the best after adapting."""
    print(f"step {learner.step}: " + ", ".join(f"{name} {value:.3f}" for name, value in found.items()), flush=True)
    log.validated(learner.step, found)
    if best is not None and found["epe"] >= best:
        return best
    write_weights(learner.network, learner.error_weights, learner.step, out)
    return found["epe"]


def write_weights(network: "nn.Module", error_weights: "nn.Module | None", step: int, out: Path) -> None:
    """What `adapt` takes: the network in float16 as `python -m training weights` writes it, and WAd in float32."""
    import safetensors.torch

    from training.checkpoint import source_revision
    from training.models import MODELS

    name = next(name for name, builder in MODELS.items() if builder is type(network))
    about = {"model": name, "step": str(step), "commit": source_revision()}
    half = {key: value.half().contiguous() for key, value in network.state_dict().items()}
    safetensors.torch.save_file(half, out / NETWORK, metadata=about)
    if error_weights is not None:
        safetensors.torch.save_file(error_weights.state_dict(), out / ERROR_WEIGHTS, metadata=about | {"model": "wad"})


def _plain(config: "MetaConfig") -> dict[str, Any]:
    """As JSON has it, so that what was stored and what was read are the same."""
    found: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return found


def _save(learner: "Learner", best: float | None, path: Path) -> None:
    import torch

    partial = path.with_name(path.name + ".tmp")
    torch.save(learner.state() | {"best": best, "config": _plain(learner.config)}, partial)
    partial.replace(path)


def _resumed(learner: "Learner", path: Path) -> float | None:
    """Puts the run's last checkpoint into the learner; its best validation."""
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        stored = state["config"]
        for key, value in _plain(learner.config).items():
            if stored.get(key) != value and key not in _MAY_CHANGE:
                raise TrainingError(f"checkpoint {path}: {key} is {stored.get(key)} there, {value} now")
        learner.adopt(state)
        best: float | None = state["best"]
    except FileNotFoundError as error:
        raise TrainingError(f"checkpoint not found: {path}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, TypeError, KeyError, IndexError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise TrainingError(f"checkpoint {path}: not readable: {reason}") from error
    return best
