"""`python -m training benchmark`: a checkpoint on NYU Depth V2 or KITTI, by the protocols of the literature."""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from training.errors import TrainingError

if TYPE_CHECKING:
    from training.data.sample import Sample

PROTOCOL_NAMES = ("nyu_eigen", "nyu_zero_shot", "kitti_garg", "kitti_eigen", "kitti_zero_shot")


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declares the options of `benchmark`."""
    command.add_argument("--checkpoint", type=Path, required=True, help="e.g. runs/bts/last.pt")
    command.add_argument("--protocol", choices=PROTOCOL_NAMES, required=True, help="crop, limits and alignment")
    command.add_argument(
        "--nyu", type=Path, help="folder with nyu_depth_v2_labeled.mat and splits.mat, for the NYU protocols"
    )
    command.add_argument("--kitti", type=Path, help="folder of KITTI's photos, for the KITTI protocols")
    command.add_argument("--kitti-depth", type=Path, help="folder of KITTI's depth (default: that of the photos)")
    command.add_argument(
        "--kitti-list", type=Path, help="list of pairs, `PHOTO DEPTH FOCAL` a line: Eigen's test split"
    )
    command.add_argument("--size", metavar="HxW", help="input size (default 480x640 for NYU, 352x1216 for KITTI)")
    command.add_argument("--flip", action="store_true", help="average with the mirrored picture's prediction")
    command.add_argument("--threads", type=int, default=2, help="threads of the network (default 2)")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Prints the means over pictures; broken pictures are counted and left out.

    Raises:
        TrainingError: A folder, a file or an option cannot be used, or no picture can be judged.
    """
    import torch
    from tqdm import tqdm

    from training.comparison.command import parse_size
    from training.comparison.judging import depth_predictor, output_of
    from training.comparison.runs import network_of
    from training.data import kitti
    from training.metric_depth import mean_over_pictures
    from training.protocols import PROTOCOLS, flip_averaged, judge

    torch.set_num_threads(arguments.threads)
    protocol, is_kitti = PROTOCOLS[arguments.protocol], arguments.protocol.startswith("kitti")
    readers = list(_readers(arguments, is_kitti))
    network = network_of(arguments.checkpoint)
    size = parse_size(arguments.size or ("352x1216" if is_kitti else "480x640"))
    predict, output = depth_predictor(network, size), output_of(network)
    predict = kitti.in_benchmark_crop(predict) if is_kitti else predict
    predict = flip_averaged(predict) if arguments.flip else predict
    broken: list[str] = []
    samples = _readable(tqdm(readers, desc=arguments.protocol, unit="picture"), broken)
    rows = judge(protocol, predict, output, samples)
    if broken:
        print(f"{len(broken)} broken pictures left out, first: {broken[0]}", file=sys.stderr)
    if not rows:
        raise TrainingError(f"none of {len(readers)} pictures can be judged by {arguments.protocol}")
    for name, value in mean_over_pictures(rows.values()).items():
        print(f"{name:12} {value:.4f}")


def _readers(arguments: argparse.Namespace, is_kitti: bool) -> "Iterator[Callable[[], Sample]]":
    from training.data import kitti, nyu

    if not is_kitti:
        if arguments.nyu is None:
            raise TrainingError(f"protocol {arguments.protocol} needs the folder of NYU Depth V2: give --nyu")
        return nyu.labelled_readers(arguments.nyu, "test")
    if arguments.kitti is None or arguments.kitti_list is None:
        raise TrainingError(f"protocol {arguments.protocol} needs KITTI: give --kitti and --kitti-list")
    depth = arguments.kitti_depth or arguments.kitti
    return kitti.judged_readers(arguments.kitti, depth, arguments.kitti_list)


def _readable(readers: "Iterable[Callable[[], Sample]]", broken: list[str]) -> "Iterator[Sample]":
    from training.data.sample import BrokenSampleError

    for read in readers:
        try:
            yield read()
        except BrokenSampleError as error:
            broken.append(str(error))
