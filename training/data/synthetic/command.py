"""The command line of the generator: `python -m training synth`."""

import argparse
import os
from pathlib import Path

from training.errors import TrainingError

LEAST_SIDE_PX, LARGEST_SIDE_PX = 32, 2048


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declares the options of `synth`."""
    command.add_argument("--count", type=int, required=True, help="scenes to render: seeds SEED to SEED + COUNT - 1")
    command.add_argument("--out", type=Path, required=True, help="folder for the scenes, e.g. runs/synth/cc0")
    command.add_argument("--seed", type=int, default=0, help="first seed (default 0)")
    command.add_argument("--size", default="240x320", help="HEIGHTxWIDTH in pixels (default 240x320)")
    command.add_argument("--stereo", action="store_true", help="render pairs, with disparity and occlusion")
    command.add_argument("--assets", type=Path, help="models and textures (default: drawn ones)")
    command.add_argument("--photos", type=Path, nargs="+", default=(), help="photo folders for posters, backdrops")
    command.add_argument("--people", type=Path, nargs="+", default=(), help="folders of NAME.jpg with NAME_mask.png")
    command.add_argument("--workers", type=int, default=1, help="processes (default 1)")
    command.add_argument("--sheet", type=Path, help="picture of the first 32 scenes of OUT, .jpg or .png")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Renders; prints speed and shares.

    Raises:
        TrainingError: An option or a folder cannot be used.
    """
    if arguments.count < 1 or arguments.seed < 0 or arguments.workers < 1:
        raise TrainingError("--count and --workers must be at least 1, --seed at least 0")
    size = parse_size(arguments.size)
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # parallel work is done by processes
        os.environ.setdefault(variable, "1")
    try:
        import cv2

        from training.data.synthetic.dataset import read_scenes
        from training.data.synthetic.generator import Order, render_all
        from training.data.synthetic.sheet import write_sheet
    except ImportError as error:
        raise TrainingError(f"{error.name} is not installed: pip install -e '.[training]'") from error

    cv2.setNumThreads(1)
    order = Order(
        arguments.out, size, arguments.stereo, arguments.assets, tuple(arguments.photos), tuple(arguments.people)
    )
    print(render_all(order, range(arguments.seed, arguments.seed + arguments.count), arguments.workers))
    if arguments.sheet:
        write_sheet(list(read_scenes(arguments.out)), arguments.sheet)


def parse_size(text: str) -> tuple[int, int]:
    """(height, width) of "HxW"; TrainingError when it is not that, or outside 32..2048."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        raise TrainingError(f"--size {text}: expected HEIGHTxWIDTH, e.g. 240x320")
    height, width = int(parts[0]), int(parts[1])
    if not all(LEAST_SIDE_PX <= side <= LARGEST_SIDE_PX for side in (height, width)):
        raise TrainingError(f"--size {text}: sides must be {LEAST_SIDE_PX} to {LARGEST_SIDE_PX} pixels")
    return height, width
