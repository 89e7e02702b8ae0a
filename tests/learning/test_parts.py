import dataclasses
import json
from functools import partial

import pytest

from training import parts
from training.__main__ import main
from training.checkpoint import save_checkpoint
from training.data.bank import fill
from training.data.sample import BrokenSampleError
from training.errors import TrainingError
from training.export import trained_network
from training.tasks import make_task
from training.trainer import Run

SPLIT = (50, 20, 30)


@pytest.fixture
def split_run(tiny, tmp_path):
    """A checkpoint whose recipe keeps 30 % for a test, of the source `rooms`."""
    config = dataclasses.replace(tiny, split=SPLIT, sources={"rooms": 1.0})
    path = tmp_path / "run" / "last.pt"
    checkpoint = Run.start(config, None).checkpoint(config, "abc")
    save_checkpoint(path, checkpoint)
    return path, checkpoint


def broken():
    raise BrokenSampleError("torn.jpg: unreadable")


@pytest.fixture
def readers(sample_of):
    listed = [("rooms", partial(sample_of, seed)) for seed in range(20)]
    return [*listed, ("rooms", broken), ("streets", partial(sample_of, 99, source="streets"))]


def test_a_test_part_is_what_neither_training_nor_validation_saw(split_run, readers, capsys):
    path, checkpoint = split_run
    bank = fill(readers, progress=False, split=SPLIT)
    seen = {s.name for scenes in bank.train.values() for found in scenes.values() for s in found}
    seen |= {s.name for s in bank.held_out}
    unseen = [read() for source, read in readers if source == "rooms" and read is not broken]
    unseen = [sample for sample in unseen if sample.name not in seen]
    judged = parts.judge(path, "test", readers)
    assert judged.about["pictures"] == {"rooms": len(unseen)}
    assert 3 <= len(unseen) <= 9
    wanted = make_task(checkpoint.config).metrics(trained_network(checkpoint), unseen)
    assert judged.table == {"rooms": pytest.approx(wanted), "all": pytest.approx(wanted)}
    assert "left out: torn.jpg: unreadable" in capsys.readouterr().err


def test_the_held_out_part_is_that_of_validation(split_run, readers):
    path, _ = split_run
    held_out = [s for s in fill(readers, progress=False, split=SPLIT).held_out if s.source == "rooms"]
    assert parts.judge(path, "held_out", readers).about["pictures"] == {"rooms": len(held_out)}


def test_the_table_has_a_row_for_each_source():
    about = {"part": "test", "split": [50, 20, 30]}
    text = parts.markdown(
        [parts.Judged("run", about, {"rooms": {"rmse": 0.12345}, "all": {"rmse": 0.5, "silog": 2.0}})]
    )
    assert text.splitlines() == [
        "run, test part of its split [50, 20, 30]",
        "",
        "| source | rmse | silog |",
        "|---|---|---|",
        "| rooms | 0.1235 |  |",
        "| all | 0.5 | 2 |",
    ]


def test_a_recipe_without_a_test_part_says_what_to_do(tiny, tmp_path, readers):
    save_checkpoint(tmp_path / "last.pt", Run.start(tiny, None).checkpoint(tiny, "abc"))
    with pytest.raises(TrainingError, match=r"keeps nothing for a test \(split is \[\]\); --part held_out"):
        parts.judge(tmp_path / "last.pt", "test", readers)


def test_a_part_without_samples_names_the_sources(split_run):
    with pytest.raises(TrainingError, match="no sample of its test part; its sources: rooms"):
        parts.judge(split_run[0], "test", [])


def test_the_command_judges_the_data_folder_and_writes_numbers(tiny, data_folder, tmp_path, capsys):
    config = dataclasses.replace(tiny, split=(0, 100, 0), sources={"wildrgbd_page": 1.0})
    path, out = tmp_path / "run" / "last.pt", tmp_path / "numbers.json"
    save_checkpoint(path, Run.start(config, None).checkpoint(config, "abc"))
    arguments = ["evaluate", "--checkpoint", str(path), "--data", str(data_folder), "--out", str(out)]
    assert main([*arguments, "--part", "held_out"]) == 0
    (found,) = json.loads(out.read_text())["networks"]
    assert found["name"] == "run"
    assert found["part"] == "held_out"
    assert found["pictures"]["wildrgbd_page"] > 0
    assert 0 <= found["table"]["all"]["delta1"] <= 1
    assert "run, held_out part" in capsys.readouterr().out
    assert main([*arguments, "--part", "test"]) == 1
    assert main(["evaluate", "--part", "test"]) == 1
    assert capsys.readouterr().err.count("error: ") == 2
