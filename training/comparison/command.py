"""The command line of the comparison: `python -m training compare`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from training.errors import TrainingError

if TYPE_CHECKING:
    from service.contract import Size
    from training.comparison.judging import Judged
    from training.comparison.page import Results
    from training.comparison.runs import System
    from training.data.sample import Sample

_DRAWN = 6  # scenes on the sheet
_NEAR_SHARE = 0.95  # of their pixels that are judged: beyond 10 m there is nothing to be seen
_SHEET, _PLOTS = "mono_pictures.png", "mono.png"
_JUDGED = "judged.json"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declares the options of `compare`."""
    command.add_argument(
        "--config", type=Path, nargs="+", required=True, help="recipes, e.g. training/configs/compare/*.yaml"
    )
    command.add_argument("--data", type=Path, required=True, help="data folder, e.g. ../shared/data")
    command.add_argument("--scenes", type=Path, required=True, help="folder of rendered scenes, made by `synth`")
    command.add_argument("--weights", type=Path, help="folder of encoders' weights, where a recipe wants one")
    command.add_argument("--out", type=Path, required=True, help="folder of the runs, e.g. runs/compare")
    command.add_argument("--page", type=Path, default=Path("docs/results/mono.md"), help="default docs/results/mono.md")
    command.add_argument("--size", default="192x256", help="HEIGHTxWIDTH when judged (default 192x256)")
    command.add_argument(
        "--most-scenes", type=int, default=100, help="held-out scenes to judge on (default 100, 0 all)"
    )
    command.add_argument("--jobs", type=int, default=1, help="runs trained at once (default 1)")
    command.add_argument("--threads", type=int, default=1, help="threads of a network (default 1)")
    command.add_argument("--rounds", type=int, default=20, help="rounds of the measurement of time (default 20)")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Trains what is not trained, judges what is not judged, measures time, and writes the page.

    Raises:
        TrainingError: An option, a folder or a recipe cannot be used, or a system could not be trained; the page then
            says which, beside the results of the others.
    """
    import torch

    from training.comparison import page, runs
    from training.comparison.judging import truth
    from training.tables import write_tables

    if arguments.jobs < 1 or arguments.threads < 1 or arguments.rounds < 1 or arguments.most_scenes < 0:
        raise TrainingError("--jobs, --threads and --rounds must be at least 1, --most-scenes at least 0")
    size = parse_size(arguments.size)
    systems = runs.systems(arguments.config, arguments.out)
    samples = truth(arguments.data, arguments.scenes, arguments.most_scenes)  # before hours of training, not after
    options = ["--own-sources", "--data", arguments.data, "--scenes", arguments.scenes, "--threads", arguments.threads]
    options += ["--weights", arguments.weights] if arguments.weights else []
    failed = runs.train_all(systems, [str(option) for option in options], arguments.jobs)
    torch.set_num_threads(arguments.threads)
    trained = [system for system in systems if system.name not in failed]
    if not trained:
        raise TrainingError("no system was trained: " + "; ".join(f"{name}: {why}" for name, why in failed.items()))
    judged = {system.name: _judge(system, samples, size) for system in trained}
    results = _results(arguments, systems, failed, judged, samples)
    write_tables(page.markdown(results), arguments.page, page.MARKS)
    print(f"{arguments.page}: {len(judged)} systems")
    if failed:
        raise TrainingError("not trained: " + "; ".join(f"{name}: {why}" for name, why in failed.items()))


def parse_size(text: str) -> "Size":
    """(height, width) of "HxW"; TrainingError when it is not that, or not of multiples of 32."""
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise TrainingError(f"--size {text}: expected HEIGHTxWIDTH, e.g. 192x256")
    if int(height) % 32 or int(width) % 32:
        raise TrainingError(f"--size {text}: both must be multiples of 32")
    return int(height), int(width)


def _judge(system: "System", samples: "dict[str, list[Sample]]", size: "Size") -> "Judged":
    """Its scores, from its folder where they are of the present checkpoint and truth."""
    from training.comparison.judging import Judged, judge_network, truth_of
    from training.comparison.runs import network_of
    from training.export import file_sha256

    path, digest = system.folder / _JUDGED, file_sha256(system.checkpoint)
    kept = Judged.read(path)
    if kept is not None and (kept.checkpoint_sha256, kept.truth) == (digest, truth_of(samples, size)):
        return kept
    judged = judge_network(network_of(system.checkpoint), samples, size, digest, f"judge {system.name}")
    judged.write(path)
    return judged


def _results(
    arguments: argparse.Namespace,
    systems: "list[System]",
    failed: dict[str, str],
    judged: "dict[str, Judged]",
    samples: "dict[str, list[Sample]]",
) -> "Results":
    """Draws the pictures beside the page, and measures time."""
    from functools import partial

    import torch

    from training.comparison import drawing
    from training.comparison.judging import depth_predictor, metres_share, truth_of
    from training.comparison.latency import interleaved
    from training.comparison.page import Results
    from training.comparison.runs import network_of

    size = parse_size(arguments.size)
    networks = {system.name: network_of(system.checkpoint) for system in systems if system.name in judged}
    image = torch.zeros(1, *size, 3, dtype=torch.uint8)
    with torch.inference_mode():
        runs = {name: partial(network, image) for name, network in networks.items()}
        taken = interleaved(runs, arguments.rounds, title="milliseconds")
    near = [sample for sample in samples["scenes"] if metres_share(sample) > _NEAR_SHARE] or samples["scenes"]
    shown = near[:: max(1, len(near) // _DRAWN)][:_DRAWN]
    drawn = {name: (depth_predictor(network, size), judged[name].output) for name, network in networks.items()}
    drawing.draw_sheet(shown, drawn, arguments.page.with_name(_SHEET))
    drawing.draw_plots(judged, taken, arguments.page.with_name(_PLOTS))
    truth = truth_of(samples, size)
    return Results(systems, failed, judged, taken, arguments.threads, size, truth, (_SHEET, _PLOTS))
