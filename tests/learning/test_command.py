import dataclasses
import re
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import yaml

from training.__main__ import _parser, main

TRAINING_PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
DOCUMENTED = [
    line
    for block in re.findall(r"```sh\n(.*?)```", TRAINING_PAGE, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("python -m training ")
]


def one_line(capsys):
    text = capsys.readouterr().err
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("command", ["train", "evaluate", "export", "sheet", "label"])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert "usage: python -m training" in capsys.readouterr().out


@pytest.mark.parametrize("line", DOCUMENTED, ids=[line.split()[3] for line in DOCUMENTED])
def test_commands_of_the_training_page_are_understood(line):
    assert _parser().parse_args(shlex.split(line)[3:]).run


def test_help_of_the_whole_needs_no_torch():
    code = "import sys, training.__main__; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_a_missing_recipe_is_one_line(tmp_path, capsys):
    missing = str(tmp_path / "none.yaml")
    assert main(["train", "--config", missing, "--data", str(tmp_path), "--out", str(tmp_path)]) == 1
    assert one_line(capsys) == f"error: config {missing}: No such file or directory"


def test_an_unknown_key_is_one_line(tmp_path, capsys, tiny_values):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(tiny_values | {"colour": "red"}))
    assert main(["train", "--config", str(recipe), "--data", str(tmp_path), "--out", str(tmp_path)]) == 1
    assert "unknown key colour" in one_line(capsys)


def test_a_missing_checkpoint_is_one_line(tmp_path, capsys):
    path = str(tmp_path / "none.pt")
    assert main(["export", "--checkpoint", path]) == 1
    assert one_line(capsys) == f"error: checkpoint not found: {path}"


@pytest.mark.parametrize("command", ["export", "evaluate", "sheet"])
def test_a_checkpoint_of_another_network_is_one_line(command, tiny, tmp_path, capsys):
    from training.checkpoint import save_checkpoint
    from training.models import create_model
    from training.trainer import Run

    path = tmp_path / "last.pt"
    checkpoint = Run.start(tiny, None).checkpoint(tiny, "abc")
    save_checkpoint(path, dataclasses.replace(checkpoint, ema=create_model("focus_on_depth_small").state_dict()))
    more = {
        "export": ["--repository", str(tmp_path / "r")],
        "evaluate": ["--data", str(tmp_path)],
        "sheet": ["--out", str(tmp_path / "s.jpg"), "photo.jpg"],
    }
    assert main([command, "--checkpoint", str(path), "--threads", "1", *more[command]]) == 1
    said = "decoder.reassemble.0.project.0.weight has shape (32, 16, 1, 1) there, (8, 16, 1, 1) here"
    assert one_line(capsys) == f"error: checkpoint {path}: {said}"


def test_metrics_of_another_checkpoint_are_refused(tiny, bank, tmp_path, capsys):
    from training.checkpoint import save_checkpoint
    from training.trainer import Run

    path, metrics = tmp_path / "last.pt", tmp_path / "metrics.json"
    save_checkpoint(path, Run.start(tiny, None).checkpoint(tiny, "abc"))
    metrics.write_text('{"checkpoint_sha256": "123"}')
    arguments = ["export", "--checkpoint", str(path), "--metrics", str(metrics), "--repository", str(tmp_path / "r")]
    assert main(arguments) == 1
    assert "of another checkpoint" in one_line(capsys)
    assert not (tmp_path / "r").exists()


def test_train_then_evaluate(tiny_values, data_folder, tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(tiny_values | {"sources": {"wildrgbd_page": 2, "synth_room": 1}, "steps": 2}))
    out = tmp_path / "run"
    arguments = ["train", "--config", str(recipe), "--data", str(data_folder), "--out", str(out)]
    assert main(arguments) == 0
    assert (out / "last.pt").is_file()
    printed = capsys.readouterr()
    assert "1 broken samples left out, first: " in printed.err
    sheet, photo = tmp_path / "sheet.jpg", str(data_folder / "photos" / "bsds" / "street.jpg")
    assert main(["sheet", "--checkpoint", str(out / "last.pt"), "--out", str(sheet), photo, photo, photo]) == 0
    assert cv2.imread(str(sheet)).shape == (2 * 132, 2 * 3 * 176, 3)
    assert main(["evaluate", "--checkpoint", str(out / "last.pt"), "--data", str(data_folder)]) == 1
    assert "depth truth not found" in one_line(capsys)


def test_start_wants_a_part_and_a_file(tmp_path, capsys):
    recipe = Path(__file__).parents[2] / "training" / "configs" / "smoke.yaml"
    assert main(["train", "--config", str(recipe), "--out", str(tmp_path), "--start", "encoder"]) == 1
    assert "--start encoder: expected PART=CHECKPOINT" in capsys.readouterr().err


def test_a_missing_package_is_one_line(monkeypatch, tmp_path, capsys):
    """As where only what serving needs is installed."""
    arguments = ["sheet", "--checkpoint", str(tmp_path / "a.pt"), "--out", str(tmp_path / "a.jpg"), "a.jpg"]
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(arguments) == 1
    assert one_line(capsys) == "error: torch is not installed; in a checkout `make .venv/.test` installs it"
