"""Recipes trained as commands of their own, one after the other or several at once; what is finished stays."""

import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from torch import nn
from tqdm import tqdm

from training.checkpoint import Checkpoint, adopt, load_checkpoint, save_checkpoint, source_revision
from training.config import load_config
from training.errors import TrainingError
from training.export import file_sha256
from training.models import create_model
from training.recipe import TrainConfig
from training.start import FirstWeights, make_network

LAST = "last.pt"
LOG = "train.log"
DONE = "trained_with.sha256"
"""Written when a run has ended well: the digest of its recipe."""

_POLL_S = 1.0
_TAIL_BYTES = 4000  # a bar is drawn over and over on one line, the last state stands at the end


@dataclass(frozen=True)
class System:
    """A recipe and its run.

    Attributes:
        recipe: The YAML file; the system is called after it.
        config: What it says.
        folder: Of the run.
        needs: Names of the systems that parts of its network start from.
    """

    recipe: Path
    config: TrainConfig
    folder: Path
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """File name of the recipe without its ending."""
        return self.recipe.stem

    @property
    def checkpoint(self) -> Path:
        """What the run leaves."""
        return self.folder / LAST

    @property
    def finished(self) -> bool:
        """Whether the run has ended well.

        Raises:
            TrainingError: It has, but with another recipe.
        """
        done = self.folder / DONE
        if not (done.is_file() and self.checkpoint.is_file()):
            return False
        if done.read_text().strip() != file_sha256(self.recipe):
            raise TrainingError(f"{self.folder} was trained with another version of {self.recipe}: remove the folder")
        return True


def network_of(path: Path) -> nn.Module:
    """The averaged weights of a checkpoint, ready to run; TrainingError if they do not fit."""
    checkpoint = load_checkpoint(path)
    network = create_model(checkpoint.config.model)
    adopt(network, checkpoint.ema, f"checkpoint {path}")
    return network.eval()


def systems(recipes: Sequence[Path], out: Path) -> list[System]:
    """The systems of some recipes, each after those whose checkpoints it starts from, named as `../NAME/last.pt`.

    Args:
        recipes: YAML files.
        out: Folder of the runs.

    Raises:
        TrainingError: A recipe cannot be read, two share a name, one that is needed is not among them, or they need
            each other in a circle.
    """
    found: dict[str, System] = {}
    for path in recipes:
        if path.stem in found:
            raise TrainingError(f"two recipes are called {path.stem}: {found[path.stem].recipe} and {path}")
        config = load_config(path)
        needs = tuple(sorted({Path(first).parent.name for first in config.starts_from.values()}))
        found[path.stem] = System(path, config, out / path.stem, needs)
    for system in found.values():
        missing = [name for name in system.needs if name not in found]
        if missing:
            raise TrainingError(f"{system.name} starts from {', '.join(missing)}: give their recipes too")
    ordered: dict[str, System] = {}
    while len(ordered) < len(found):
        ready = [s for s in found.values() if s.name not in ordered and set(s.needs) <= set(ordered)]
        if not ready:
            circle = sorted(set(found) - set(ordered))
            raise TrainingError(f"recipes need each other in a circle: {', '.join(circle)}")
        ordered |= {system.name: system for system in ready}
    return list(ordered.values())


@dataclass
class _Running:
    system: System
    process: subprocess.Popen[bytes]
    bar: "tqdm[NoReturn]"
    started: float = field(default_factory=time.monotonic)

    def tail(self) -> str:
        """The end of the log."""
        with (self.system.folder / LOG).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
            return file.read().decode(errors="replace")

    def show(self) -> None:
        """Moves the bar to the step that the log tells last."""
        steps = self.system.config.steps
        found = re.findall(rf"(\d+)/{steps} \[", self.tail())
        if found:
            self.bar.update(int(found[-1]) - self.bar.n)


def train_all(ordered: Sequence[System], arguments: Sequence[str], jobs: int) -> dict[str, str]:
    """Trains what is not finished; a run that was stopped goes on from its last checkpoint.

    Args:
        ordered: See `systems`.
        arguments: Of `python -m training train`, beside recipe, folder and `--resume`.
        jobs: Runs at once.

    Returns:
        Why, by name, for those that failed, and those that need one that failed.
    """
    waiting = [system for system in ordered if not system.finished]
    failed: dict[str, str] = {}
    running: list[_Running] = []
    try:
        while waiting or running:
            for system in list(waiting):
                lost = [name for name in system.needs if name in failed]
                unfinished = {other.name for other in (*waiting, *(one.system for one in running))}
                blocked = bool(unfinished & set(system.needs))
                if lost:
                    failed[system.name] = f"needs {', '.join(lost)}"
                    waiting.remove(system)
                elif not blocked and not system.config.steps:
                    waiting.remove(system)
                    assemble(system)
                elif not blocked and len(running) < jobs:
                    waiting.remove(system)
                    running.append(_start(system, arguments))
            time.sleep(_POLL_S if running else 0)
            for one in list(running):
                one.show()
                if one.process.poll() is not None:
                    running.remove(one)
                    one.bar.close()
                    if one.process.returncode == 0:
                        (one.system.folder / DONE).write_text(file_sha256(one.system.recipe) + "\n")
                    else:
                        failed[one.system.name] = _reason(one)
                        tqdm.write(f"{one.system.name}: {failed[one.system.name]}", file=sys.stderr)
    finally:
        for one in running:
            one.process.terminate()
            one.process.wait()
    return failed


def assemble(system: System) -> None:
    """Writes the checkpoint of a recipe of 0 steps: nothing but the parts that it starts from."""
    system.folder.mkdir(parents=True, exist_ok=True)
    network = make_network(system.config, FirstWeights(), system.folder)
    state = network.state_dict()
    save_checkpoint(system.checkpoint, Checkpoint(0, state, state, {}, system.config, source_revision(), {}))
    (system.folder / DONE).write_text(file_sha256(system.recipe) + "\n")


def _start(system: System, arguments: Sequence[str]) -> _Running:
    system.folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "training", "train", "--config", str(system.recipe), "--out", str(system.folder)]
    more = ["--resume"] if system.checkpoint.is_file() else []
    with (system.folder / LOG).open("ab") as log:
        process = subprocess.Popen([*command, *arguments, *more], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    return _Running(system, process, tqdm(total=system.config.steps, desc=system.name, unit="step"))


def _reason(one: _Running) -> str:
    lines = one.tail().splitlines()
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return errors[-1] if errors else f"ended with {one.process.returncode}; see {one.system.folder / LOG}"
