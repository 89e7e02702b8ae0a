"""`python -m training COMMAND`: train, judge, compare, export. Each command imports only what it needs."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from training.errors import TrainingError

if TYPE_CHECKING:
    from training.data.bank import Bank
    from training.recipe import TrainConfig
    from training.start import FirstWeights


def _prepared(arguments: argparse.Namespace) -> tuple["TrainConfig", "FirstWeights"]:
    """Recipe and first weights as the command line wants them; torch is imported here for the first time."""
    # oneDNN keeps 1024 compiled primitives; seven batch sizes need more, and making them anew each step takes longer
    # than the step itself. It reads the variable when torch is imported.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")
    import torch

    from training.config import load_config
    from training.start import FirstWeights

    config = load_config(arguments.config, arguments.set)
    if arguments.without:
        config = config.without(arguments.without)
    torch.set_num_threads(arguments.threads)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("no CUDA device here: leave --device away to train on the CPU")
    parts = {}
    for given in arguments.start:
        part, found, path = given.partition("=")
        if not found:
            raise TrainingError(f"--start {given}: expected PART=CHECKPOINT, e.g. encoder=runs/first/best.pt")
        parts[part] = Path(path)
    return config, FirstWeights(arguments.weights, parts, arguments.random_weights)


def _bank(arguments: argparse.Namespace, config: "TrainConfig") -> "Bank":
    """All samples; those that cannot be read are told."""
    from training.config_stereo import PairsConfig, StereoConfig
    from training.config_votes import VotesConfig
    from training.data.bank import fill, readers
    from training.data.crowd_files import crowd_readers
    from training.data.proxy_pairs import proxy_readers
    from training.data.stereo_pairs import stereo_readers
    from training.distributed import rank

    only = set(config.sources) if arguments.own_sources else None
    listed = readers(arguments.data, arguments.labels, arguments.scenes, only)
    if isinstance(config, StereoConfig):
        listed = stereo_readers(config.layered, config.sizes[0], arguments.scenes)
    elif isinstance(config, PairsConfig):
        listed = proxy_readers(config, arguments.out)
    elif isinstance(config, VotesConfig):
        listed = crowd_readers(config.plain_crowds, arguments.scenes)
    bank = fill(listed, rank() == 0, config.split)
    if rank() == 0:
        if bank.broken:
            print(f"{len(bank.broken)} broken samples left out, first: {bank.broken[0]}", file=sys.stderr)
        print(f"samples: {bank.counts()}; held out: {len(bank.held_out)}")
    return bank


def _train(arguments: argparse.Namespace) -> None:
    config, first = _prepared(arguments)

    from training.distributed import processes
    from training.stacking import with_predictions, without_fold
    from training.trainer import train

    with processes(arguments.device):
        bank = _bank(arguments, config)
        if arguments.fold:
            bank = without_fold(bank, *arguments.fold)
        if arguments.base_depths:
            bank = with_predictions(bank, arguments.base_depths)
        train(config, bank, arguments.weights, arguments.out, arguments.resume, arguments.device, first)


def _lr_range(arguments: argparse.Namespace) -> None:
    config, first = _prepared(arguments)

    from training.lr_range import plot, range_test

    lowest, highest = arguments.lowest, arguments.highest
    curve = range_test(config, _bank(arguments, config), first, lowest, highest, arguments.steps, arguments.device)
    plot(curve, f"{arguments.config.stem}, batch {config.batch}", arguments.out)
    print(f"{arguments.out}: {len(curve.rates)} steps, loss falls fastest at {curve.steepest:.1e}")


def _evaluate(arguments: argparse.Namespace) -> None:
    import json

    import torch

    from training import report
    from training.tables import markdown, write_tables

    torch.set_num_threads(arguments.threads)
    if arguments.part:
        _evaluate_part(arguments)
        return
    ours = report.networks(arguments.checkpoint, arguments.onnx, arguments.size)
    if not ours:
        raise TrainingError("nothing to judge; give --checkpoint or --onnx")
    if arguments.data is None and (arguments.scenes is None or arguments.rgbd):
        raise TrainingError(f"nothing to judge on; give --data{'' if arguments.rgbd else ', --scenes or both'}")
    depth_peers, person_peers = report.peers(arguments.weights, arguments.threads)
    if arguments.data:
        report.run(ours, depth_peers, person_peers, arguments.data, arguments.rgbd)
    if arguments.scenes:
        report.run_scenes(ours, depth_peers, person_peers, arguments.scenes)
    entries = [*ours, *depth_peers, *person_peers]
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(report.document(entries, arguments.size), indent=2) + "\n")
    text = markdown(entries)
    if arguments.table:
        write_tables(text, arguments.table)
    print(text)


def _evaluate_part(arguments: argparse.Namespace) -> None:
    import json

    from training import parts
    from training.data.bank import readers

    if not arguments.checkpoint:
        raise TrainingError("--part judges checkpoints: give --checkpoint")
    # listed anew for each: their recipes may split differently
    places = arguments.data, arguments.labels, arguments.scenes
    judged = [parts.judge(path, arguments.part, readers(*places)) for path in arguments.checkpoint]
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        found = [{"name": one.name} | one.about | {"table": one.table} for one in judged]
        arguments.out.write_text(json.dumps({"networks": found}, indent=2) + "\n")
    print(parts.markdown(judged))


def _weights(arguments: argparse.Namespace) -> None:
    from training.checkpoint import load_checkpoint, save_weights
    from training.export import file_sha256

    save_weights(arguments.out, load_checkpoint(arguments.checkpoint))
    print(f"{arguments.out}: SHA-256 {file_sha256(arguments.out)}")


def _sheet(arguments: argparse.Namespace) -> None:
    import torch

    from training.checkpoint import load_checkpoint
    from training.evaluation import predictor
    from training.export import served_network
    from training.sheets import write_sheet

    torch.set_num_threads(arguments.threads)
    checkpoint = load_checkpoint(arguments.checkpoint)
    predict = predictor(served_network(checkpoint, f"checkpoint {arguments.checkpoint}"))
    write_sheet(predict, arguments.photos, arguments.columns, arguments.out)


def _label(arguments: argparse.Namespace) -> None:
    from training.data.person import TRAIN_PHOTO_SETS
    from training.data.rgbd import RGBD_SETS
    from training.data.stereo import STEREO_SETS, read_frames
    from training.labelling import label_pictures, label_stereo

    photos = [arguments.data / "photos" / name for name in TRAIN_PHOTO_SETS]
    if arguments.depth:
        from training.teaching import depth_teacher, label_depth

        teacher = depth_teacher(arguments.depth, arguments.weights, arguments.threads)
        pictures = [picture for folder in photos for picture in sorted(folder.glob("*.jpg"))]
        print("depth:", label_depth(pictures, arguments.data, teacher, arguments.out))
        return
    if arguments.weights is None:
        raise TrainingError("people are labelled by teachers of the weights folder; give it with --weights")
    folders = [arguments.data / "rgbd" / name for name in RGBD_SETS] + photos
    pictures = [picture for folder in folders for picture in sorted(folder.glob("*.jpg"))]
    print("people:", label_pictures(pictures, arguments.data, arguments.weights, arguments.out))
    frames = [pair for name in STEREO_SETS for pair in read_frames(arguments.data, name)]
    print("stereo:", label_stereo(frames, arguments.data, arguments.out))


def _size(text: str) -> tuple[int, int]:
    """`288x384` -> (288, 384); both multiples of 32, the encoder's stride."""
    height, _, width = text.partition("x")
    sides = [int(side) for side in (height, width) if side.isdigit()]
    if len(sides) != 2 or not all(sides) or any(side % 32 for side in sides):
        raise argparse.ArgumentTypeError(f"{text!r} is not HxW with multiples of 32, e.g. 288x384")
    return sides[0], sides[1]


def _add_recipe(command: argparse.ArgumentParser) -> None:
    """What is trained, on what, from what."""
    command.add_argument("--config", type=Path, required=True, help="recipe, one of training/configs/*.yaml")
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key; repeatable")
    command.add_argument("--data", type=Path, help="data folder, e.g. ../shared/data; not needed for scenes alone")
    command.add_argument("--weights", type=Path, help="folder of the encoder's weights, e.g. ../shared/weights")
    command.add_argument(
        "--start",
        action="append",
        default=[],
        metavar="PART=CHECKPOINT",
        help="first weights of a part of the network, or of `all`, from another run; repeatable",
    )
    command.add_argument(
        "--random-weights", action="store_true", help="begin with random weights whatever the recipe asks for"
    )
    command.add_argument("--labels", type=Path, help="folder of teacher labels, made by `label`")
    command.add_argument("--scenes", type=Path, help="folder of rendered scenes, made by `synth`")
    command.add_argument("--without", nargs="+", metavar="SOURCE", help="sources to leave out, to be judged on later")
    command.add_argument(
        "--own-sources",
        action="store_true",
        help="read only sources that the recipe names: quicker, and held-out scenes are of these alone",
    )
    command.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default cpu")
    command.add_argument("--threads", type=int, default=2, help="threads of the network (default 2)")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description="Train and export the served networks.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    from training import stack_command

    command = commands.add_parser("train", help="train a recipe", description="Train a recipe to its last step.")
    _add_recipe(command)
    command.add_argument("--out", type=Path, required=True, help="folder of the run, e.g. runs/first_network")
    command.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint")
    command.add_argument("--fold", type=stack_command.fold, metavar="K/N", help="leave this fold of the scenes out")
    command.add_argument("--base-depths", type=Path, metavar="DIR", help="base predictions that `stack` wrote")
    command.set_defaults(run=_train)

    command = commands.add_parser(
        "stack",
        help="predict by base networks",
        description="Keeps what base networks say of every sample, out of fold where they were trained without it.",
    )
    stack_command.add_arguments(command)

    command = commands.add_parser(
        "lr-range", help="find a learning rate", description="Plot the loss of a recipe while the learning rate rises."
    )
    _add_recipe(command)
    command.add_argument("--lowest", type=float, default=1e-7, help="first rate (default 1e-7)")
    command.add_argument("--highest", type=float, default=1.0, help="last rate (default 1)")
    command.add_argument("--steps", type=int, default=100, help="steps at most (default 100)")
    command.add_argument("--out", type=Path, required=True, help="picture of the curve, e.g. runs/lr_range.png")
    command.set_defaults(run=_lr_range)

    command = commands.add_parser("evaluate", help="judge networks", description="Judge networks beside their peers.")
    command.add_argument(
        "--checkpoint", type=Path, action="append", default=[], help="e.g. runs/first_network/last.pt; repeatable"
    )
    command.add_argument("--onnx", type=Path, action="append", default=[], help="an exported model.onnx; repeatable")
    command.add_argument("--data", type=Path, help="data folder with truth, e.g. ../shared/data")
    command.add_argument("--scenes", type=Path, help="folder of rendered scenes; the tenth no training sees is judged")
    command.add_argument("--weights", type=Path, help="teachers' folder, e.g. ../shared/weights; none without it")
    command.add_argument(
        "--part",
        choices=("held_out", "test"),
        help="judge on this part of each checkpoint's own split instead, by its recipe's validation metrics: test is "
        "what neither training nor validation saw",
    )
    command.add_argument("--labels", type=Path, help="with --part: folder of teacher labels, as given to `train`")
    command.add_argument("--rgbd", action="append", default=[], metavar="SET", help="judge on rgbd/SET too; repeatable")
    command.add_argument("--size", type=_size, metavar="HxW", help="input size (default: the served one of each photo)")
    command.add_argument("--out", type=Path, help="JSON file for all numbers, read by `export --metrics`")
    command.add_argument("--table", type=Path, help="Markdown page for the tables, kept outside its marks")
    command.add_argument("--threads", type=int, default=2, help="threads of the network (default 2)")
    command.set_defaults(run=_evaluate)

    from training.importers.command import add_arguments as add_import

    command = commands.add_parser(
        "import",
        help="read published weights",
        description="Published weights of another project as a checkpoint that `export` takes.",
    )
    add_import(command)

    from training.export_command import add_export, add_pair, add_quantise

    add_export(commands.add_parser("export", help="write a served model", description="Write ONNX after parity."))
    add_quantise(commands.add_parser("quantise", help="write a served model in int8, faster and less exact"))
    add_pair(commands.add_parser("pair", help="join a depth and a segmentation model for POST /focus"))

    command = commands.add_parser("weights", help="write weights to start from", description="Weights in float16.")
    command.add_argument("--checkpoint", type=Path, required=True, help="e.g. runs/focus_on_depth/last.pt")
    command.add_argument("--out", type=Path, required=True, help="safetensors file, for a recipe's network_weights")
    command.set_defaults(run=_weights)

    command = commands.add_parser("sheet", help="draw a contact sheet", description="Photo, depth, people on a JPEG.")
    command.add_argument("--checkpoint", type=Path, required=True, help="e.g. runs/first_network/last.pt")
    command.add_argument("--columns", type=int, default=2, help="photos a row (default 2)")
    command.add_argument("--out", type=Path, required=True, help="JPEG file")
    command.add_argument("--threads", type=int, default=2, help="threads of the network (default 2)")
    command.add_argument("photos", type=Path, nargs="+", help="photos")
    command.set_defaults(run=_sheet)

    command = commands.add_parser(
        "label",
        help="label photos with teachers",
        description="Label people and stereo pairs, or with --depth the depth of photos without truth.",
    )
    command.add_argument("--data", type=Path, required=True, help="data folder, e.g. ../shared/data")
    command.add_argument("--weights", type=Path, help="teachers' folder, e.g. ../shared/weights")
    command.add_argument(
        "--depth",
        metavar="TEACHER",
        help="meter_kitti, meter_nyu, a checkpoint's .pt file, or http://host:port of a running Depthlens service, "
        "whose POST /depth answers 16-bit PNGs of relative inverse depth",
    )
    command.add_argument("--out", type=Path, required=True, help="folder for the labels, e.g. runs/labels")
    command.add_argument("--threads", type=int, default=2, help="threads of a depth network (default 2)")
    command.set_defaults(run=_label)

    from training.data.synthetic.command import add_arguments

    command = commands.add_parser("synth", help="render scenes", description="Render scenes with exact depth.")
    add_arguments(command)

    from training.comparison import command as comparison

    command = commands.add_parser(
        "compare",
        help="train recipes and compare them",
        description="Train recipes that are not trained yet, judge them on the same truth, write a page of results.",
    )
    comparison.add_arguments(command)

    from training import adapt_command, crowds_command, meta_command, meta_results, proxy_command

    adapt_command.add_adapt(
        commands.add_parser(
            "adapt", help="adapt a stereo network to a sequence", description="Adapt online, frame by frame."
        )
    )
    adapt_command.add_evaluate(
        commands.add_parser("stereo", help="judge a stereo network", description="EPE, bad3 and D1-all on pairs.")
    )

    meta_command.add_meta(
        commands.add_parser(
            "meta",
            help="teach a stereo network to adapt",
            description="Learn first weights that adapt fast (L2A), and which errors to adapt by (WAd).",
        )
    )

    meta_results.add_results(
        commands.add_parser(
            "meta-results",
            help="compare first weights by how fast they adapt",
            description="First weights along the same sequences, in tables and a plot.",
        )
    )

    crowds_command.add_commands(commands)
    proxy_command.add_commands(commands)

    from training import benchmark

    command = commands.add_parser(
        "benchmark", help="judge on NYU or KITTI", description="Judge a checkpoint on the user's own NYU or KITTI."
    )
    benchmark.add_arguments(command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; 0, or 1 after a one-line error."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("", "service", "training"):
            raise
        print(f"error: {error.name} is not installed; in a checkout `make .venv/.test` installs it", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
