"""`python -m training stack`: what trained base networks say of every sample, for a meta-learner to learn from."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from training.errors import TrainingError


def fold(text: str) -> tuple[int, int]:
    """`0/3` -> (0, 3): the first of three folds."""
    number, _, count = text.partition("/")
    if not (number.isdigit() and count.isdigit() and int(number) < int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is not FOLD/FOLDS, e.g. 0/3, counted from 0")
    return int(number), int(count)


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Arguments of `stack`."""
    command.add_argument(
        "--base",
        action="append",
        required=True,
        metavar="[FOLD:]NAME=CHECKPOINT",
        help="a trained base network, adabins, bts or lapdepth; with FOLD one that was trained with `train --fold "
        "FOLD/FOLDS` and predicts that fold; without, it predicts held-out scenes, and all where there are no folds",
    )
    command.add_argument("--size", type=_size, default=(288, 384), metavar="HxW", help="input size (default 288x384)")
    command.add_argument("--data", type=Path, help="data folder, e.g. ../shared/data")
    command.add_argument("--labels", type=Path, help="folder of teacher labels, as given to `train`")
    command.add_argument("--scenes", type=Path, help="folder of rendered scenes")
    command.add_argument(
        "--source", action="append", metavar="NAME", help="sources to predict; repeatable, default all"
    )
    command.add_argument("--out", type=Path, required=True, help="folder of the predictions: `train --base-depths`")
    command.add_argument("--threads", type=int, default=2, help="threads of the networks (default 2)")
    command.set_defaults(run=run)


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not HxW, e.g. 288x384")
    return int(height), int(width)


def by_fold(given: Sequence[str]) -> dict[str, dict[str, Path]]:
    """`--base` arguments as checkpoints by fold and name; TrainingError where one is malformed or a set not whole."""
    from training.models.meta_learner import BASES
    from training.stacking import FINAL

    found: dict[str, dict[str, Path]] = {}
    for text in given:
        left, equals, path = text.partition("=")
        number, colon, name = left.rpartition(":")
        if not equals or name not in BASES or (colon and not number.isdigit()):
            raise TrainingError(f"--base {text}: expected [FOLD:]NAME=CHECKPOINT, NAME one of {', '.join(BASES)}")
        found.setdefault(number or FINAL, {})[name] = Path(path)
    for which, checkpoints in found.items():
        missing = [name for name in BASES if name not in checkpoints]
        if missing:
            raise TrainingError(f"--base: no {', '.join(missing)} of fold {which}")
    return found


def run(arguments: argparse.Namespace) -> None:
    """Predicts what is not there yet."""
    import torch

    from training.checkpoint import load_checkpoint
    from training.data.bank import fill, readers
    from training.export import file_sha256, trained_network
    from training.stacking import BaseSet, DepthPredictor, in_metres, write_predictions
    from training.tasks.metric_depth import see

    torch.set_num_threads(arguments.threads)

    def predictor(path: Path) -> DepthPredictor:
        network = trained_network(load_checkpoint(path), f"checkpoint {path}")
        if getattr(network, "output", None) != "depth_m":
            raise TrainingError(f"checkpoint {path}: its network does not give metres")
        return lambda image: see(network, image, arguments.size)

    sets = {
        which: BaseSet(
            {name: predictor(path) for name, path in checkpoints.items()},
            {name: file_sha256(path) for name, path in checkpoints.items()},
        )
        for which, checkpoints in by_fold(arguments.base).items()
    }
    bank = fill(readers(arguments.data, arguments.labels, arguments.scenes, arguments.source)).only(in_metres)
    made = write_predictions(bank, sets, {"size": list(arguments.size)}, arguments.out)
    print(f"{made} predictions made in {arguments.out}")
