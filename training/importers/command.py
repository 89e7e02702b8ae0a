"""`python -m training import`: a published file as a checkpoint of ours."""

import argparse
from pathlib import Path


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Arguments of `import`."""
    command.add_argument("--weights", type=Path, required=True, help="file that `depthlens weights pull` fetched")
    command.add_argument("--as", dest="name", required=True, metavar="NAME", help="e.g. depth_anything_v2_small")
    command.add_argument("--out", type=Path, required=True, help="checkpoint, e.g. runs/depth_anything.pt")
    command.set_defaults(run=_import)


def _import(arguments: argparse.Namespace) -> None:
    from training.checkpoint import save_checkpoint
    from training.importers.networks import import_checkpoint

    checkpoint = import_checkpoint(arguments.weights, arguments.name)
    save_checkpoint(arguments.out, checkpoint)
    parameters = sum(value.numel() for value in checkpoint.ema.values())
    print(f"{arguments.out}: {arguments.name}, {len(checkpoint.ema)} tensors, {parameters:,} values, all of them found")
