"""`python -m training adapt` and `stereo`: a network along a sequence, with logs and a plot; a network on pairs."""

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from training.errors import TrainingError

if TYPE_CHECKING:
    from training.stereo_evaluation import FrameRow

FRAMES, SUMMARY, PLOT = "frames.csv", "summary.json", "adaptation.png"


def add_adapt(command: argparse.ArgumentParser) -> None:
    """Declares the options of `adapt`."""
    command.add_argument("--weights", type=Path, required=True, help="checkpoint of train, or file of `weights`")
    command.add_argument(
        "--sequence",
        required=True,
        help="folder with left/ and right/ (or a layout of KITTI), or DOMAIN:SEED to draw one: clean, night, fog, "
        "noise, textures, dusk",
    )
    command.add_argument("--mode", choices=("none", "full", "mad"), action="append", help="repeatable (default mad)")
    command.add_argument("--supervision", choices=("photometric", "proxy"), default="photometric")
    command.add_argument(
        "--error-weights", type=Path, metavar="FILE", help="error_weights.safetensors of `meta`: learn by WAd's choice"
    )
    command.add_argument(
        "--policy",
        choices=("reward", "fixed", "random", "sequential", "argmax"),
        default="fixed",
        help="how MAD chooses the group of a frame; the paper's is reward (default fixed)",
    )
    command.add_argument(
        "--fixed-group", type=int, default=3, help="of policy fixed, 0 the coarsest, 4 the finest (default 3)"
    )
    command.add_argument("--lr", type=float, default=1e-4, help="learning rate of SGD (default 1e-4)")
    command.add_argument("--frames", type=int, default=200, help="frames at most (default 200)")
    command.add_argument("--width", type=int, help="reduce larger frames of a folder to this width")
    command.add_argument("--seed", type=int, default=0, help="of MAD's choices (default 0)")
    command.add_argument("--out", type=Path, required=True, help="folder for frames.csv, summary.json and the plot")
    command.add_argument("--threads", type=int, default=2, help="threads of the network (default 2)")
    command.set_defaults(run=run_adapt)


def run_adapt(arguments: argparse.Namespace) -> None:
    """Adapts in each mode along the same frames; writes and prints what came of it.

    Raises:
        TrainingError: Weights or sequence cannot be used, or the folder not written.
    """
    import torch
    from tqdm import tqdm

    from training.adaptation import AdaptationConfig
    from training.stereo_evaluation import frames_of, load_error_weights, load_stereo_network, run_sequence, summary

    if arguments.frames < 1:
        raise TrainingError(f"--frames is {arguments.frames}: it must be at least 1")
    torch.set_num_threads(arguments.threads)
    network = load_stereo_network(arguments.weights)
    error_weights = load_error_weights(arguments.error_weights) if arguments.error_weights else None
    frames = list(tqdm(frames_of(arguments.sequence, arguments.frames, arguments.width), "read", unit="frame"))
    runs: dict[str, list[FrameRow]] = {}
    for mode in arguments.mode or ["mad"]:
        config = AdaptationConfig(
            mode=mode,
            policy=arguments.policy,
            fixed_group=arguments.fixed_group,
            supervision=arguments.supervision,
            lr=arguments.lr,
            seed=arguments.seed,
        )
        run = run_sequence(network, frames, config, error_weights=error_weights)
        bar = tqdm(run, mode, total=len(frames), unit="frame", mininterval=1)
        rows = []
        for row in bar:
            rows.append(row)
            if row.metrics is not None:
                bar.set_postfix(epe=f"{row.metrics.epe:.2f}", d1=f"{row.metrics.d1:.3f}")
        runs[mode] = rows
    summaries = {mode: summary(rows) for mode, rows in runs.items()}
    options = {name: value for name, value in vars(arguments).items() if name not in ("run", "out", "threads")}
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
        _write_rows(runs, arguments.out / FRAMES)
        document = {"options": {name: str(value) for name, value in options.items()}, "modes": summaries}
        (arguments.out / SUMMARY).write_text(json.dumps(document, indent=2) + "\n")
    except OSError as error:
        raise TrainingError(f"cannot write {arguments.out}: {error.strerror}") from error
    plot(runs, arguments.sequence, arguments.out / PLOT)
    for mode, values in summaries.items():
        said = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
        print(f"{mode}: {said}")


def _write_rows(runs: dict[str, "list[FrameRow]"], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("mode", "frame", "name", "epe", "bad3", "d1", "loss", "group", "reset", "wall_s", "cpu_s"))
        for mode, rows in runs.items():
            for number, row in enumerate(rows):
                errors = ("", "", "") if row.metrics is None else (row.metrics.epe, row.metrics.bad3, row.metrics.d1)
                rounded = [value if value == "" else f"{value:.5g}" for value in errors]
                about = (row.adapted.loss, row.adapted.group, row.adapted.reset)
                said = ["" if value is None else value for value in about]
                writer.writerow((mode, number, row.name, *rounded, *said, f"{row.wall_s:.4f}", f"{row.cpu_s:.4f}"))


def plot(runs: dict[str, "list[FrameRow]"], title: str, path: Path) -> None:
    """EPE and D1 over time where there is truth, the loss otherwise; means of nine frames over the single ones.

    Raises:
        TrainingError: matplotlib missing, or the file cannot be written.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise TrainingError("matplotlib is not installed: pip install --group dev") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    from training.stereo_evaluation import moving_average

    with_truth = all(row.metrics is not None for rows in runs.values() for row in rows)
    wanted = ("epe", "d1") if with_truth else ("loss",)
    figure, panels = pyplot.subplots(1, len(wanted), figsize=(5 * len(wanted), 3.4), squeeze=False)
    for axes, name in zip(panels[0], wanted, strict=True):
        for number, (mode, rows) in enumerate(runs.items()):
            holders = [row.metrics if with_truth else row.adapted for row in rows]
            values = [value for holder in holders if (value := getattr(holder, name)) is not None]
            if values:
                axes.plot(values, linewidth=0.5, alpha=0.35, color=f"C{number}")
                axes.plot(moving_average(values), label=mode.upper(), color=f"C{number}")
        label = {"epe": "EPE, pixels", "d1": "D1, share of pixels", "loss": "loss"}[name]
        axes.set(xlabel="frame", ylabel=label, title=title, ylim=(0, None))
        axes.legend()
    try:
        figure.savefig(path, dpi=90, bbox_inches="tight")
    except (OSError, ValueError) as error:
        raise TrainingError(f"cannot write {path}: {error}") from error
    finally:
        pyplot.close(figure)


def add_evaluate(command: argparse.ArgumentParser) -> None:
    """Declares the options of `stereo`."""
    command.add_argument("--weights", type=Path, required=True, help="checkpoint of train, or file of `weights`")
    command.add_argument("--data", type=Path, help="data folder with truth_depth, e.g. ../shared/data")
    command.add_argument(
        "--sequence", action="append", default=[], help="DOMAIN:SEED or a folder with truth, as `adapt`; repeatable"
    )
    command.add_argument("--frames", type=int, default=50, help="frames of a sequence at most (default 50)")
    command.add_argument("--width", type=int, default=640, help="reduce larger pairs to this width (default 640)")
    command.add_argument("--threads", type=int, default=2, help="threads of the network (default 2)")
    command.set_defaults(run=run_evaluate)


def run_evaluate(arguments: argparse.Namespace) -> None:
    """Prints a table: EPE, bad3 and D1 of every set.

    Raises:
        TrainingError: Nothing to judge on, or it cannot be read.
    """
    import torch

    from training.data.stereo_pairs import StereoFrame, reduced, stereo_truth
    from training.stereo_evaluation import frames_of, judge_pairs, load_stereo_network

    torch.set_num_threads(arguments.threads)
    network = load_stereo_network(arguments.weights)
    found: list[tuple[str, dict[str, float]]] = []
    if arguments.data:
        sets: dict[str, list[StereoFrame]] = {}
        for name, frame in stereo_truth(arguments.data):
            sets.setdefault(name, []).append(reduced(frame, arguments.width))
        found += [(name, judge_pairs(network, frames)) for name, frames in sets.items()]
    for sequence in arguments.sequence:
        frames = frames_of(sequence, arguments.frames, arguments.width)
        found.append((sequence, judge_pairs(network, frames)))
    if not found:
        raise TrainingError("nothing to judge on; give --data, --sequence or both")
    print(table(found))


def table(rows: Sequence[tuple[str, dict[str, float]]]) -> str:
    """Markdown: name, pairs, EPE in pixels, bad3 and D1 in percent."""
    lines = ["| set | pairs | EPE px | bad3 % | D1-all % |", "| --- | ---: | ---: | ---: | ---: |"]
    for name, values in rows:
        errors = f"{values['epe']:.2f} | {100 * values['bad3']:.1f} | {100 * values['d1']:.1f}"
        lines.append(f"| {name} | {values['pairs']:.0f} | {errors} |")
    return "\n".join(lines)
