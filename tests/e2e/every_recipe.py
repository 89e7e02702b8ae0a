"""Every recipe of `training/configs` in small: trained a few steps, stopped, resumed, judged; networks are exported.

    every_recipe.py SCENES OUT REPOSITORY [FOLDER/ ...]

Networks have tiny siblings, pictures are small, published weights are left out; all else is the recipe's own: task,
losses, schedule, what is frozen, which other runs it starts from and who teaches it. All recipes of a folder in one
process, because importing torch a hundred times would take longer than the rest; folders, which need nothing of one
another, may have a process each.
"""

import math
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from training.__main__ import main
from training.checkpoint import Checkpoint, load_checkpoint
from training.comparison.runs import System, assemble, systems
from training.models import MODELS

CONFIGS = Path(__file__).resolve().parents[2] / "training" / "configs"
STOP, STEPS = 2, 3
CHANGES = {
    "batch": "2",
    "sizes": "[[64, 64]]",
    "final_sizes": "[[64, 96]]",
    "final_steps": "1",
    "validate_every": "2",
    "checkpoint_every": "1",
    "paste": "0",
    "encoder_weights": "''",
    "network_weights": "''",
    "sources": "{synthetic_cc0: 1.0}",
}
OF_A_TASK = {
    "stereo": {"sizes": "[[64, 128]]", "final_sizes": "[[64, 128]]", "sources": "{layered: 1.0}", "layered": "8"},
    "confidence": {"sources": "{pairs: 1.0}", "pairs": "['clean:1-5']", "frames": "1"},
    "proxy_adaptation": {
        "sources": "{pairs: 1.0}",
        "pairs": "['fog:6000-6003']",
        "frames": "1",
        "confidence": "left_right",
        "ccnn": "''",
    },
    "person_votes": {"sources": "{plain_crowds: 1.0}", "plain_crowds": "6"},
}
"""What differs for a task whose samples are no photos."""
TINY = {  # of the first that a name begins with
    "focus_on_depth_vit": "focus_on_depth_vit_base_tiny",
    "focus_on_depth": "focus_on_depth_tiny",
    "resnet50_encoder_decoder": "resnet50_encoder_decoder_tiny",
    "adabins": "adabins_ghost_tiny",
    "bts": "bts_ghost_tiny",
    "lapdepth": "lapdepth_ghost_tiny",
    "stacked_meta_rgbd": "stacked_meta_rgbd_tiny",
    "stacked_meta_rgb": "stacked_meta_rgb_tiny",
    "stacked_meta_d": "stacked_meta_d_tiny",
    "stacked_average": "stacked_average_tiny",
    "cnn_student": "cnn_transformer_tiny_cnn",
    "madnet": "madnet",  # small as it is
    "ccnn": "ccnn",
    "madnet_normalised": "madnet_normalised",
    "person_votes": "person_votes",
}


EXPORTED = {
    "focus_on_depth_vit_base_tiny",
    "resnet50_encoder_decoder_tiny",
    "cnn_transformer_tiny",
    "cnn_transformer_tiny_cnn",
    "stacked_meta_rgbd_tiny",
}
"""One of each kind, because torch's exporter takes ten to twenty seconds for each graph. The stack holds AdaBins, BTS
and LapDepth; its other meta-learners are exported in tests/learning/test_stack_export.py, and focus_on_depth_tiny in
train_smoke.py."""


class RecipeError(RuntimeError):
    """A recipe did not come to its end."""


def tiny(model: str) -> str:
    """The small sibling of a network."""
    if model.startswith("cnn_transformer"):
        return "cnn_transformer_tiny_cnn" if model.endswith("_cnn") else "cnn_transformer_tiny"
    found = next((small for name, small in TINY.items() if model.startswith(name)), None)
    if found is None or found not in MODELS:
        raise RecipeError(f"no tiny network stands for {model}: name it in {__file__}")
    return found


def run(arguments: Sequence[object], log: Path) -> None:
    """One command of `python -m training`, its output in a file."""
    with log.open("a") as file, redirect_stdout(file), redirect_stderr(file):
        status = main([str(argument) for argument in arguments])
    if status:
        raise RecipeError(f"{' '.join(map(str, arguments))}: {log.read_text().splitlines()[-1]}")


def train(system: System, scenes: Path, log: Path) -> Checkpoint:
    """Trains, stops, resumes; the last checkpoint."""
    config = system.config
    changes = CHANGES | OF_A_TASK.get(config.task, {}) | {"model": tiny(config.model)}
    common = ["train", "--config", system.recipe, "--scenes", scenes, "--out", system.folder, "--threads", 1]
    common += [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    run([*common, "--set", f"steps={STOP}"], log)
    run([*common, "--set", f"steps={STEPS}", "--resume"], log)
    checkpoint = load_checkpoint(system.checkpoint)
    if checkpoint.step != STEPS:
        raise RecipeError(f"{system.recipe}: ended at step {checkpoint.step} of {STEPS}")
    judged = checkpoint.metrics.get(config.select_by, math.nan)
    if not math.isfinite(judged):
        raise RecipeError(f"{system.recipe}: not judged by {config.select_by}: {checkpoint.metrics}")
    return checkpoint


def export(checkpoint: Path, network: str, repository: Path, log: Path) -> None:
    """Writes the network as a served model, compared with torch at one size."""
    place = ["--checkpoint", checkpoint, "--repository", repository, "--model", f"depth_{network}"]
    run(["export", *place, "--size", "64x96", "--threads", 1], log)


def claimed(network: str, out: Path) -> bool:
    """Whether this process is the first to export the network."""
    try:
        (out / f"exported_{network}").mkdir(parents=True)
    except FileExistsError:
        return False
    return True


def all_recipes(scenes: Path, out: Path, repository: Path, folders: Sequence[str] = ()) -> None:
    """Every recipe (of `folders`, as `compare/`), after what it starts from; networks are exported once."""
    paths = [path for path in CONFIGS.rglob("*.yaml") if not folders or f"{path.parent.name}/" in folders]
    paths.sort(key=lambda path: (path.parent, path.name))
    exported = 0
    for folder, group in groupby(paths, key=lambda path: path.parent):
        for system in systems(list(group), out / folder.name):
            begun = time.monotonic()
            system.folder.mkdir(parents=True, exist_ok=True)
            log, network = system.folder / "log", tiny(system.config.model)
            told = f"{folder.name}/{system.name:<36} "
            if system.config.steps:
                checkpoint = train(system, scenes, log)
                told += f"{checkpoint.config.select_by} {checkpoint.metrics[checkpoint.config.select_by]:.3f}"
            else:  # put together of what others, or another recipe, have learned
                assemble(replace(system, config=replace(system.config, model=network, network_weights="")))
                told += "nothing to train"
            trained = time.monotonic() - begun
            told += f", {trained:.1f} s"
            if network in EXPORTED and claimed(network, out):
                export(system.checkpoint, network, repository, log)
                exported += 1
                told += f", exported {network} {time.monotonic() - begun - trained:.1f} s"
            print(told, flush=True)
        shutil.rmtree(out / folder.name)  # nobody else starts from these; all checkpoints together are gigabytes
    print(f"{len(paths)} recipes, {exported} networks", flush=True)


if __name__ == "__main__":
    try:
        all_recipes(*map(Path, sys.argv[1:4]), sys.argv[4:])
    except RecipeError as error:
        sys.exit(f"FAILED: {error}")
