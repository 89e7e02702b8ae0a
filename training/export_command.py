"""`python -m training export`, `quantise`, `pair`: a checkpoint as a served model, one in int8, two as one to focus."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from service.contract import STEREO
from training.errors import TrainingError

if TYPE_CHECKING:
    from training.checkpoint import Checkpoint

_SHOWN = ("model", "sha256", "parameters", "gflop", "parity", "variants")


def _size(text: str) -> tuple[int, int]:
    """`384x384` -> (384, 384)."""
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"{text!r} is not HxW, e.g. 384x384")
    return int(height), int(width)


def add_export(command: argparse.ArgumentParser) -> None:
    """Arguments of `export`."""
    command.add_argument(
        "--target",
        choices=("onnx", "torchscript", "aoti", "tensorrt"),
        default="onnx",
        help="onnx (default) makes a version; torchscript adds model.pt to the one that is there; aoti, its successor, "
        "compiles it for this machine's GPU or else its CPU, as the model NAME_pt2; tensorrt builds its plan for this "
        "machine's GPU, of model.onnx alone",
    )
    command.add_argument(
        "--checkpoint",
        type=Path,
        help="e.g. runs/first_network/last.pt, or weights alone, training/weights/*.safetensors; not for tensorrt",
    )
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
    command.add_argument(
        "--max-streams", type=int, default=8, help="of stereo_madnet: sequences whose weights are kept (default 8)"
    )
    command.add_argument("--states", type=Path, help="of stereo_madnet: folder for weights that callers ask to be kept")
    command.add_argument("--trtexec", type=Path, help="for tensorrt: the tool, where it is not found")
    command.add_argument(
        "--timing-cache",
        type=Path,
        help="for tensorrt: times measured before; default in ~/.cache/depthlens",
    )
    command.set_defaults(run=_export)


def add_pair(command: argparse.ArgumentParser) -> None:
    """Arguments of `pair`."""
    command.add_argument("--depth", required=True, help="depth model of the repository, e.g. depth_anything")
    command.add_argument("--segmentation", required=True, help="segmentation model of it, e.g. focus_on_depth")
    command.add_argument("--model", required=True, help="name of the ensemble, e.g. focus_anything")
    command.add_argument("--repository", type=Path, default=Path("model_repository"), help="default: model_repository")
    command.set_defaults(run=_pair)


def add_quantise(command: argparse.ArgumentParser) -> None:
    """Arguments of `quantise`."""
    command.add_argument("--model", default="focus_on_depth", help="of the repository; default focus_on_depth")
    command.add_argument("--as", dest="name", metavar="NAME", help="name of the new model; default: MODEL_int8")
    command.add_argument("--photos", type=Path, required=True, help="folder of photos to take ranges from (*.jpg)")
    command.add_argument("--count", type=int, default=24, help="photos at most, spread over the folder (default 24)")
    command.add_argument("--license", default="not stated", help="of the weights, for GET /models")
    command.add_argument("--repository", type=Path, default=Path("model_repository"), help="default: model_repository")
    command.set_defaults(run=_quantise)


def _export(arguments: argparse.Namespace) -> None:
    if arguments.target == "tensorrt":
        _build(arguments)
        return
    if arguments.checkpoint is None:
        raise TrainingError("--checkpoint is missing: what should be exported?")
    if arguments.model == STEREO.name:
        _export_stereo(arguments)
        return
    import torch

    from training.export import Provenance, Request, export, read_photos
    from training.report import metrics_of
    from training.serving import Traits
    from training.version import file_sha256

    torch.set_num_threads(arguments.threads)
    checkpoint = _checkpoint(arguments)
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
        target=arguments.target,
    )
    metadata = export(checkpoint, provenance, read_photos(paths), arguments.repository, request)
    print(json.dumps({key: metadata[key] for key in _SHOWN if key in metadata}, indent=2))


def _export_stereo(arguments: argparse.Namespace) -> None:
    from training.stereo_export import export_stereo

    if min(arguments.max_streams, arguments.threads) < 1:
        raise TrainingError("--max-streams and --threads must be at least 1")
    states = arguments.states.resolve() if arguments.states else None
    metadata = export_stereo(
        arguments.checkpoint,
        arguments.repository,
        threads=arguments.threads,
        max_streams=arguments.max_streams,
        states=states,
    )
    print(json.dumps(metadata, indent=2))


def _checkpoint(arguments: argparse.Namespace) -> "Checkpoint":
    """The checkpoint, or weights alone with the recipe that the version they join was exported with."""
    from training.checkpoint import load_averaged, load_checkpoint
    from training.config import parse_config

    path: Path = arguments.checkpoint
    if path.suffix != ".safetensors":
        return load_checkpoint(path)
    if arguments.target == "onnx":
        raise TrainingError(
            f"--checkpoint {path} has weights alone: that is enough for --target torchscript and aoti only"
        )
    version = arguments.repository / arguments.model / "1" / "metadata.json"
    try:
        recipe = json.loads(version.read_text())["config"]
    except (OSError, ValueError, KeyError) as error:
        raise TrainingError(f"no {version} that says how the network was trained: export it as onnx first") from error
    return load_averaged(path, parse_config(recipe, str(version)))


def _build(arguments: argparse.Namespace) -> None:
    """The plan for this machine's GPU; where it cannot be had, the model's TorchScript, with a warning."""
    from training.tensorrt import PlanError, build_plan, compute_capability, exported, fall_back, find_trtexec

    trtexec, capability = find_trtexec(arguments.trtexec), compute_capability()
    cache = arguments.timing_cache or Path.home() / ".cache" / "depthlens" / f"timing.sm{capability}.cache"
    try:
        model = exported(arguments.repository, arguments.model)
        print(json.dumps(build_plan(model, trtexec, capability, cache), indent=2))
    except PlanError as error:
        if not fall_back(arguments.repository, arguments.model, str(error)):
            raise
        print(f"warning: {arguments.model} is served as TorchScript: {error}", file=sys.stderr)


def _quantise(arguments: argparse.Namespace) -> None:
    from training.export import read_photos
    from training.quantisation import write_int8

    paths = sorted(arguments.photos.rglob("*.jpg"))
    if not paths or arguments.count < 1:
        raise TrainingError(f"no photos (*.jpg) below {arguments.photos}")
    chosen = paths[:: max(1, len(paths) // arguments.count)][: arguments.count]
    name = arguments.name or f"{arguments.model}_int8"
    metadata = write_int8(arguments.model, name, read_photos(chosen), arguments.repository, arguments.license)
    print(json.dumps(metadata, indent=2))


def _pair(arguments: argparse.Namespace) -> None:
    from training.export import pair

    metadata = pair(arguments.depth, arguments.segmentation, arguments.model, arguments.repository)
    print(json.dumps(metadata, indent=2))
