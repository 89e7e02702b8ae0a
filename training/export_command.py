"""`python -m training export` and `pair`: a checkpoint as a served model, two served models as one for focusing."""

import argparse
import json
from pathlib import Path

from training.errors import TrainingError

_SHOWN = ("model", "sha256", "parameters", "gflop", "parity")


def _size(text: str) -> tuple[int, int]:
    """`384x384` -> (384, 384)."""
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"{text!r} is not HxW, e.g. 384x384")
    return int(height), int(width)


def add_export(command: argparse.ArgumentParser) -> None:
    """Arguments of `export`."""
    command.add_argument("--checkpoint", type=Path, required=True, help="e.g. runs/first_network/last.pt")
    command.add_argument("--repository", type=Path, default=Path("model_repository"), help="default: model_repository")
    command.add_argument(
        "--model",
        default="focus_on_depth",
        help="name to be served under, e.g. depth_adabins; default focus_on_depth. A stack becomes an ensemble of this "
        "name over one model for each of its networks, depth_adabins, depth_bts, depth_lapdepth and depth_meta for "
        "depth_stacked",
    )
    command.add_argument(
        "--size", type=_size, action="append", default=[], metavar="HxW", help="fixed input size, repeatable"
    )
    command.add_argument(
        "--side", type=int, metavar="PX", help="side of the square one of eight input sizes; default: the served ones"
    )
    command.add_argument(
        "--precision", choices=("auto", "f32"), default="auto", help="auto: bfloat16 where good enough"
    )
    command.add_argument("--description", default="", help="one line for GET /models")
    command.add_argument("--license", default="not stated", help="of the weights, for GET /models")
    command.add_argument(
        "--focal-share",
        type=float,
        metavar="F",
        help="focal length of the camera that a metric network learned with, as a share of its pictures' longer side: "
        "0.81 for NYUv2. POST /depth then takes focal_px",
    )
    command.add_argument("--photos", type=Path, help="folder of photos to compare on, e.g. ../shared/data/photos/bsds")
    command.add_argument("--count", type=int, default=12, help="photos to compare on at most (default 12)")
    command.add_argument("--metrics", type=Path, help="JSON file that `evaluate --out` wrote for this checkpoint")
    command.add_argument("--threads", type=int, default=2, help="threads of the network (default 2)")
    command.set_defaults(run=_export)


def add_pair(command: argparse.ArgumentParser) -> None:
    """Arguments of `pair`."""
    command.add_argument("--depth", required=True, help="depth model of the repository, e.g. depth_anything")
    command.add_argument("--segmentation", required=True, help="segmentation model of it, e.g. focus_on_depth")
    command.add_argument("--model", required=True, help="name of the ensemble, e.g. focus_anything")
    command.add_argument("--repository", type=Path, default=Path("model_repository"), help="default: model_repository")
    command.set_defaults(run=_pair)


def _export(arguments: argparse.Namespace) -> None:
    import torch

    from training.checkpoint import load_checkpoint
    from training.export import Provenance, Request, export, read_photos
    from training.report import metrics_of
    from training.serving import Traits
    from training.version import file_sha256

    torch.set_num_threads(arguments.threads)
    checkpoint = load_checkpoint(arguments.checkpoint)
    digest = file_sha256(arguments.checkpoint)
    metrics = {}
    if arguments.metrics:
        try:
            found = metrics_of(json.loads(arguments.metrics.read_text()), digest)
        except (OSError, ValueError) as error:
            raise TrainingError(f"metrics {arguments.metrics}: {error}") from error
        if found is None:
            raise TrainingError(f"metrics {arguments.metrics} are of another checkpoint than {arguments.checkpoint}")
        metrics = found
    paths = sorted(arguments.photos.rglob("*.jpg"))[: arguments.count] if arguments.photos else []
    if arguments.photos and not paths:
        raise TrainingError(f"no photos (*.jpg) below {arguments.photos}")
    provenance = Provenance(str(arguments.checkpoint), digest, metrics)
    request = Request(
        name=arguments.model,
        sizes=tuple(arguments.size),
        side_px=arguments.side,
        bf16=arguments.precision == "auto",
        traits=Traits(arguments.description, arguments.license, arguments.focal_share),
    )
    metadata = export(checkpoint, provenance, read_photos(paths), arguments.repository, request)
    print(json.dumps({key: metadata[key] for key in _SHOWN if key in metadata}, indent=2))


def _pair(arguments: argparse.Namespace) -> None:
    from training.export import pair

    metadata = pair(arguments.depth, arguments.segmentation, arguments.model, arguments.repository)
    print(json.dumps(metadata, indent=2))
