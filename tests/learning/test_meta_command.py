"""`meta` and `meta-results`: files that `adapt` takes, runs that go on, tables by hand."""

import csv
import json
from pathlib import Path

import pytest
import safetensors
import torch
import yaml

import training
from training.__main__ import main
from training.errors import TrainingError
from training.meta import Learner
from training.meta_command import write_weights
from training.meta_results import BEGIN, END, Rows, Run, Variant, best_rate, overall
from training.models.madnet import MADNet
from training.models.wad import ErrorWeights
from training.stereo_evaluation import load_error_weights, load_stereo_network

RECIPE = Path(training.__file__).with_name("meta_learning.yaml")
SMALL = {"domains": "[noise]", "worlds": 1, "validated": 1, "frames": 3, "size": "[64, 64]", "tasks": 1}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("base")
    write_weights(MADNet(), ErrorWeights(), 7, folder)
    return folder


def meta(base, out, *more, **changes):
    words = [
        word
        for key, value in (SMALL | {"inner_steps": 1, "checkpoint_every": 1, "validate_every": 2} | changes).items()
        for word in ("--set", f"{key}={value}")
    ]
    place = ["--weights", str(base / "network.safetensors"), "--out", str(out), "--threads", "1"]
    return main(["meta", "--config", str(RECIPE), *place, *words, *more])


def error_of(capsys):
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def test_a_run_that_was_stopped_ends_as_one_that_was_not(base, tmp_path, capsys, monkeypatch):
    assert meta(base, tmp_path / "whole", steps=2) == 0
    advance = Learner.advance

    def stopped(learner, tasks):
        if learner.step == 1:
            raise TrainingError("stopped")
        return advance(learner, tasks)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "advance", stopped)
        assert meta(base, tmp_path / "halves", steps=2) == 1
    assert error_of(capsys) == "error: stopped"
    assert meta(base, tmp_path / "halves", "--resume", steps=2) == 0
    whole, halves = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "halves"))
    assert whole["step"] == halves["step"] == 2
    for part in ("network", "error_weights"):
        assert all(torch.equal(value, halves[part][name]) for name, value in whole[part].items())
    rows = list(csv.DictReader((tmp_path / "halves" / "validation.csv").read_text().splitlines()))
    assert [row["step"] for row in rows] == ["0", "2"]
    assert "step 2: epe " in capsys.readouterr().out
    network = load_stereo_network(tmp_path / "whole" / "network.safetensors")
    assert isinstance(network, MADNet)
    load_error_weights(tmp_path / "whole" / "error_weights.safetensors")
    assert json.loads((tmp_path / "whole" / "summary.json").read_text())["config"]["inner_steps"] == 1
    assert meta(base, tmp_path / "halves", "--resume", steps=2, inner_lr=0.5) == 1
    assert ", 0.5 now" in error_of(capsys)


def test_what_cannot_be_used_is_one_line(base, tmp_path, capsys):
    assert meta(base, tmp_path, order="first") == 1
    assert "order first gives WAd no gradient" in error_of(capsys)
    assert meta(base, tmp_path, order="third") == 1
    assert "order is 'third': expected second or first or none" in error_of(capsys)
    assert meta(base, tmp_path, "--resume") == 1
    assert "checkpoint not found" in error_of(capsys)
    (tmp_path / "last.pt").write_bytes(b"torn")
    assert meta(base, tmp_path, "--resume") == 1
    assert "not readable" in error_of(capsys)
    adapt = ["adapt", "--weights", str(base / "network.safetensors"), "--sequence", "noise:1", "--out", str(tmp_path)]
    assert main([*adapt, "--error-weights", str(base / "network.safetensors")]) == 1
    assert "has shape" in error_of(capsys)


def test_the_recipe_is_one_complete_run():
    assert set(yaml.safe_load(RECIPE.read_text())) >= set(SMALL)


def test_files_of_a_run_are_adapted_with_and_exported(base, tmp_path, monkeypatch):
    monkeypatch.setattr("training.stereo_evaluation.SEQUENCE_SIZE", (64, 64))
    common = ["adapt", "--weights", str(base / "network.safetensors"), "--sequence", "noise:1", "--frames", "2"]
    common += ["--mode", "full", "--lr", "0.01", "--threads", "1"]
    assert main([*common, "--out", str(tmp_path / "plain")]) == 0
    wad = ["--error-weights", str(base / "error_weights.safetensors")]
    assert main([*common, *wad, "--out", str(tmp_path / "wad")]) == 0
    found = [
        list(csv.DictReader((tmp_path / name / "frames.csv").read_text().splitlines())) for name in ("plain", "wad")
    ]
    (first, second), (same, other) = found
    assert (first["epe"], first["loss"]) == (same["epe"], same["loss"])  # nothing was learned before the first frame
    assert second["epe"] != other["epe"]
    with safetensors.safe_open(base / "network.safetensors", framework="pt") as file:
        assert file.metadata()["model"] == "madnet"


V = Variant


def test_rates_are_chosen_and_tables_made_by_hand():
    full, none = V("a", "full"), V("a", "none")
    tried = {
        Run(full, 0.1, "x"): [(2.0, 0.5), (4.0, 0.5)],  # mean 3 at 0.1: (3 + 1) / 2 = 2 over x and y
        Run(full, 0.1, "y"): [(1.0, 0.5), (1.0, 0.5)],
        Run(full, 0.2, "x"): [(1.0, 0.5), (1.0, 0.5)],  # (1 + 4) / 2 = 2.5
        Run(full, 0.2, "y"): [(4.0, 0.5), (4.0, 0.5)],
    }
    assert best_rate(tried, full, [0.1, 0.2]) == 0.1
    judged = {
        Run(none, 0.0, "p"): [(3.0, 0.2)] * 6,
        Run(none, 0.0, "q"): [(1.0, 0.0)] * 6,
        Run(full, 0.1, "p"): [(2.0, 0.1)] * 5 + [(0.5, 0.1)],
        Run(full, 0.1, "q"): [(2.0, 0.1)] * 5 + [(0.5, 0.1)],
    }
    row_none, row_full = overall(judged, {full: 0.1}, ["a"]).splitlines()[2:]
    assert row_none == "| a | none |  | 2.000 / 10.0 | 2.000 / 10.0 | 2.000 / 10.0 | 1 of 2 |"
    # 10.5 / 6 = 1.75; the first five 2; the last five (4 * 2 + 0.5) / 5 = 1.7
    assert row_full == "| a | full | 0.1 | 1.750 / 10.0 | 2.000 / 10.0 | 1.700 / 10.0 |  |"


def test_rows_of_a_stopped_comparison_are_kept_and_torn_ones_made_again(tmp_path):
    run, other = Run(V("a", "full"), 0.1, "x"), Run(V("a", "full, WAd"), 0.1, "x")
    rows = Rows(tmp_path / "rows.csv", 2)
    rows.add(run, [(1.0, 0.5), (2.0, 0.25)])
    rows.add(other, [(1.0, 0.5)])
    again = Rows(tmp_path / "rows.csv", 2)
    assert again.get(run) == [(1.0, 0.5), (2.0, 0.25)]
    assert again.get(other) is None


def test_networks_are_compared_on_a_page(base, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("training.stereo_evaluation.SEQUENCE_SIZE", (64, 64))
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n{BEGIN}\n{END}\nrest\n")
    words = [
        "--network",
        f"SL={base / 'network.safetensors'}",
        "--error-weights",
        f"SL={base / 'error_weights.safetensors'}",
    ]
    words += ["--sequence", "noise:3", "--lr", "0.001", "--frames", "2", "--out", str(tmp_path), "--threads", "1"]
    assert main(["meta-results", *words, "--page", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("# Title\n")
    assert text.endswith("rest\n")
    assert text.count("| SL | full, WAd | 0.001 |") == 1
    assert (tmp_path / "meta.png").stat().st_size > 1000
    assert main(["meta-results", *words, "--lr", "0.01"]) == 1
    assert "nothing to choose on" in error_of(capsys)
    assert main(["meta-results", *words, "--choose", "noise:3"]) == 1
    assert "noise:3 cannot choose the rate and judge it" in error_of(capsys)
