import csv
import json

import numpy as np
import pytest
import safetensors.torch
import torch

from training.__main__ import main
from training.adaptation import AdaptationConfig
from training.data.stereo_pairs import StereoFrame
from training.errors import TrainingError
from training.models.madnet import MADNet
from training.stereo_evaluation import (
    frames_of,
    judge_pairs,
    load_stereo_network,
    moving_average,
    run_sequence,
    summary,
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "madnet.safetensors"
    state = {name: value.half() for name, value in MADNet().state_dict().items()}
    safetensors.torch.save_file(state, path, metadata={"model": "madnet", "step": "1", "commit": "abc"})
    return path


def error_of(capsys):
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def test_a_sequence_is_adapted_to_in_each_mode(weights, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("training.stereo_evaluation.SEQUENCE_SIZE", (64, 64))
    out = tmp_path / "run"
    arguments = ["--weights", str(weights), "--sequence", "night:3", "--frames", "3", "--out", str(out)]
    assert main(["adapt", *arguments, "--mode", "none", "--mode", "mad", "--policy", "sequential"]) == 0
    rows = list(csv.DictReader((out / "frames.csv").read_text().splitlines()))
    assert [(row["mode"], row["frame"], row["group"]) for row in rows] == [
        ("none", "0", ""),
        ("none", "1", ""),
        ("none", "2", ""),
        ("mad", "0", "0"),
        ("mad", "1", "1"),
        ("mad", "2", "2"),
    ]
    assert rows[0]["epe"] == rows[3]["epe"]  # the first frame is predicted before anything is learned
    about = json.loads((out / "summary.json").read_text())
    assert about["options"]["policy"] == "sequential"
    assert about["modes"]["mad"]["frames"] == 3
    assert (out / "adaptation.png").stat().st_size > 1000
    assert "mad: frames 3.000" in capsys.readouterr().out


def test_a_folder_without_truth_has_losses_alone(weights, tmp_path):
    rng = np.random.default_rng(0)
    frames = [StereoFrame(str(i), *rng.integers(0, 256, (2, 64, 64, 3), np.uint8)) for i in range(2)]
    rows = list(run_sequence(load_stereo_network(weights), frames, AdaptationConfig(mode="full")))
    assert all(row.metrics is None for row in rows)
    assert "epe" not in summary(rows)
    assert summary(rows)["loss"] == pytest.approx(np.mean([row.adapted.loss for row in rows]))


def test_pairs_are_judged_and_tabled(weights, capsys, monkeypatch):
    monkeypatch.setattr("training.stereo_evaluation.SEQUENCE_SIZE", (64, 64))
    assert main(["stereo", "--weights", str(weights), "--sequence", "clean:4", "--frames", "2"]) == 0
    found = judge_pairs(load_stereo_network(weights), frames_of("clean:4", 2))
    assert f"| clean:4 | 2 | {found['epe']:.2f} | {100 * found['bad3']:.1f} |" in capsys.readouterr().out
    assert main(["stereo", "--weights", str(weights)]) == 1
    assert "nothing to judge on" in error_of(capsys)


def test_what_cannot_be_used_is_one_line(weights, tmp_path, capsys):
    for sequence in ("dawn:1", str(tmp_path / "none")):
        assert main(["adapt", "--weights", str(weights), "--sequence", sequence, "--out", str(tmp_path)]) == 1
        assert "neither a folder nor DOMAIN:SEED" in error_of(capsys)
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    with pytest.raises(TrainingError, match="not readable"):
        load_stereo_network(tmp_path / "torn.safetensors")


def test_moving_average_by_hand():
    assert moving_average([3.0, 0.0, 6.0, 3.0], 3).tolist() == [1.5, 3.0, 3.0, 4.5]
    assert moving_average([2.0, 4.0], 9).tolist() == [3.0, 3.0]
