"""`python -m training`: train, evaluate, export, sheet, label. Each command imports only what it needs."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.errors import TrainingError


def _train(arguments: argparse.Namespace) -> None:
    # oneDNN keeps 1024 compiled primitives; seven batch sizes need more, and making them anew each step takes longer
    # than the step itself. It reads the variable when torch is imported.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")
    import torch

    from training.config import load_config
    from training.data.bank import fill, readers
    from training.trainer import train

    config = load_config(arguments.config)
    torch.set_num_threads(arguments.threads)
    bank = fill(readers(arguments.data, arguments.labels))
    if bank.broken:
        print(f"{len(bank.broken)} broken samples left out, first: {bank.broken[0]}", file=sys.stderr)
    print(f"samples: {bank.counts()}; held out: {len(bank.held_out)}")
    train(config, bank, arguments.weights, arguments.out, arguments.resume)


def _evaluate(arguments: argparse.Namespace) -> None:
    import json

    import torch

    from training.checkpoint import load_checkpoint
    from training.data.truth import depth_truth, person_truth
    from training.evaluation import constant, evaluate, predictor, vertical_gradient
    from training.export import file_sha256, served_network

    torch.set_num_threads(arguments.threads)
    checkpoint = load_checkpoint(arguments.checkpoint)
    depth, person = list(depth_truth(arguments.data)), list(person_truth(arguments.data))
    predict = predictor(served_network(checkpoint))
    result: dict[str, Any] = {
        "checkpoint_sha256": file_sha256(arguments.checkpoint),
        "step": checkpoint.step,
        "depth": evaluate(predict, depth),
        "person": evaluate(predict, person),
        "depth_vertical_gradient": evaluate(vertical_gradient, depth),
        "depth_constant": evaluate(constant, depth),
    }
    for part in ("depth", "depth_vertical_gradient", "depth_constant", "person"):
        print(part)
        for source, row in result[part].items():
            print(f"  {source:<16}" + "  ".join(f"{name} {value:.3f}" for name, value in row.items()))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


def _export(arguments: argparse.Namespace) -> None:
    import json

    import torch

    from training.checkpoint import load_checkpoint
    from training.export import Provenance, export, file_sha256, read_photos

    torch.set_num_threads(arguments.threads)
    checkpoint = load_checkpoint(arguments.checkpoint)
    digest = file_sha256(arguments.checkpoint)
    metrics = {}
    if arguments.metrics:
        try:
            metrics = json.loads(arguments.metrics.read_text())
        except (OSError, ValueError) as error:
            raise TrainingError(f"metrics {arguments.metrics}: {error}") from error
        if metrics.pop("checkpoint_sha256", None) != digest:
            raise TrainingError(f"metrics {arguments.metrics} are of another checkpoint than {arguments.checkpoint}")
    paths = sorted(arguments.photos.rglob("*.jpg"))[: arguments.count] if arguments.photos else []
    if arguments.photos and not paths:
        raise TrainingError(f"no photos (*.jpg) below {arguments.photos}")
    provenance = Provenance(str(arguments.checkpoint), digest, metrics)
    metadata = export(checkpoint, provenance, read_photos(paths), arguments.repository)
    print(json.dumps({key: metadata[key] for key in ("model", "sha256", "parameters", "gflop", "parity")}, indent=2))


def _sheet(arguments: argparse.Namespace) -> None:
    import torch

    from training.checkpoint import load_checkpoint
    from training.evaluation import predictor
    from training.export import served_network
    from training.sheets import write_sheet

    torch.set_num_threads(arguments.threads)
    predict = predictor(served_network(load_checkpoint(arguments.checkpoint)))
    write_sheet(predict, arguments.photos, arguments.columns, arguments.out)


def _label(arguments: argparse.Namespace) -> None:
    from training.data.person import TRAIN_PHOTO_SETS
    from training.data.rgbd import RGBD_SETS
    from training.labelling import label_pictures

    folders = [arguments.data / "rgbd" / name for name in RGBD_SETS]
    folders += [arguments.data / "photos" / name for name in TRAIN_PHOTO_SETS]
    pictures = [picture for folder in folders for picture in sorted(folder.glob("*.jpg"))]
    print(label_pictures(pictures, arguments.data, arguments.weights, arguments.out))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description="Train and export the served networks.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("train", help="train a recipe", description="Train a recipe to its last step.")
    command.add_argument("--config", type=Path, required=True, help="recipe, one of training/configs/*.yaml")
    command.add_argument("--data", type=Path, required=True, help="data folder, e.g. ../shared/data")
    command.add_argument("--weights", type=Path, help="folder of the encoder's weights, e.g. ../shared/weights")
    command.add_argument("--labels", type=Path, help="folder of teacher labels, made by `label`")
    command.add_argument("--out", type=Path, required=True, help="folder of the run, e.g. runs/first_network")
    command.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint")
    command.add_argument("--threads", type=int, default=2, help="threads of the network (default 2)")
    command.set_defaults(run=_train)

    command = commands.add_parser("evaluate", help="judge a checkpoint", description="Judge a checkpoint on the truth.")
    command.add_argument("--checkpoint", type=Path, required=True, help="e.g. runs/first_network/last.pt")
    command.add_argument("--data", type=Path, required=True, help="data folder, e.g. ../shared/data")
    command.add_argument("--out", type=Path, help="JSON file for the table")
    command.add_argument("--threads", type=int, default=2, help="threads of the network (default 2)")
    command.set_defaults(run=_evaluate)

    command = commands.add_parser("export", help="write a served model", description="Write ONNX after parity.")
    command.add_argument("--checkpoint", type=Path, required=True, help="e.g. runs/first_network/last.pt")
    command.add_argument("--repository", type=Path, default=Path("model_repository"), help="default: model_repository")
    command.add_argument("--photos", type=Path, help="folder of photos to compare on, e.g. ../shared/data/photos/bsds")
    command.add_argument("--count", type=int, default=12, help="photos to compare on at most (default 12)")
    command.add_argument("--metrics", type=Path, help="JSON file that `evaluate --out` wrote for this checkpoint")
    command.add_argument("--threads", type=int, default=2, help="threads of the network (default 2)")
    command.set_defaults(run=_export)

    command = commands.add_parser("sheet", help="draw a contact sheet", description="Photo, depth, people on a JPEG.")
    command.add_argument("--checkpoint", type=Path, required=True, help="e.g. runs/first_network/last.pt")
    command.add_argument("--columns", type=int, default=2, help="photos a row (default 2)")
    command.add_argument("--out", type=Path, required=True, help="JPEG file")
    command.add_argument("--threads", type=int, default=2, help="threads of the network (default 2)")
    command.add_argument("photos", type=Path, nargs="+", help="photos")
    command.set_defaults(run=_sheet)

    command = commands.add_parser("label", help="label people with teachers", description="Label people by teachers.")
    command.add_argument("--data", type=Path, required=True, help="data folder, e.g. ../shared/data")
    command.add_argument("--weights", type=Path, required=True, help="teachers' folder, e.g. ../shared/weights")
    command.add_argument("--out", type=Path, required=True, help="folder for the labels, e.g. runs/labels")
    command.set_defaults(run=_label)

    from training.data.synthetic.command import add_arguments

    command = commands.add_parser("synth", help="render synthetic scenes", description="Render scenes with exact depth.")
    add_arguments(command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; 0, or 1 after a one-line error."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
