"""Training and judging on rendered scenes alone: no data folder, no labels."""

import json

import cv2
import numpy as np
import pytest
import yaml

from training.__main__ import main
from training.data.bank import is_held_out

SEEDS = (0, 1, 2, 4, 5, 3, 8)
"""Of these, 3 and 8 are held out."""


@pytest.fixture
def scenes(tmp_path, sample_of):
    """Scenes as the generator writes them; the last one without its depth."""
    root = tmp_path / "scenes" / "00000"
    root.mkdir(parents=True)
    for seed in SEEDS:
        sample, path = sample_of(seed), root / f"s{seed:08d}.json"
        cv2.imwrite(str(path.with_suffix(".jpg")), sample.image[..., ::-1])
        if seed != SEEDS[-1]:
            cv2.imwrite(str(path.with_suffix(".inv.png")), (sample.inverse_depth * 60000).astype(np.uint16))
        cv2.imwrite(str(path.with_suffix(".person.png")), sample.person)
        path.write_text(json.dumps({"inverse_depth_scale_per_m": 1 / 60000, "terms": "cc0"}))
    return root.parent


def test_train_then_evaluate_without_a_data_folder(scenes, tiny_values, tmp_path, capsys):
    assert [seed for seed in SEEDS if is_held_out(f"s{seed:08d}")] == [3, 8]
    recipe, out, numbers = tmp_path / "recipe.yaml", tmp_path / "run", tmp_path / "numbers.json"
    recipe.write_text(yaml.safe_dump(tiny_values | {"sources": {"synthetic_cc0": 1.0}, "steps": 2}))
    threads = ["--threads", "1"]
    assert main(["train", "--config", str(recipe), "--scenes", str(scenes), "--out", str(out), *threads]) == 0
    printed = capsys.readouterr()
    assert "samples: {'synthetic_cc0': 5}; held out: 1" in printed.out
    assert "1 broken samples left out, first: " in printed.err

    arguments = ["evaluate", "--checkpoint", str(out / "last.pt"), "--scenes", str(scenes), "--size", "64x96", *threads]
    assert main([*arguments, "--out", str(numbers)]) == 0
    printed = capsys.readouterr()
    assert "### Rendered scenes no training sees: delta1 / AbsRel / boundary F1" in printed.out
    assert "left out: " in printed.err
    (entry,) = json.loads(numbers.read_text())["networks"]
    assert entry["scenes"]["synthetic_cc0"]["pictures"] == 1
    assert {"delta1", "abs_rel", "polarity", "iou"} <= set(entry["scenes"]["synthetic_cc0"])


def test_scenes_that_training_may_see_are_not_judged(scenes, tiny, tmp_path, capsys):
    from training.checkpoint import save_checkpoint
    from training.trainer import Run

    for seed in (3, 8):
        (scenes / "00000" / f"s{seed:08d}.json").unlink()
    path = tmp_path / "last.pt"
    save_checkpoint(path, Run.start(tiny, None).checkpoint(tiny, "abc"))
    assert main(["evaluate", "--checkpoint", str(path), "--scenes", str(scenes), "--threads", "1"]) == 1
    assert f"error: no held-out scene below {scenes}: one in ten is" in capsys.readouterr().err
    assert main(["evaluate", "--checkpoint", str(path), "--threads", "1"]) == 1
    assert "error: nothing to judge on; give --data, --scenes or both" in capsys.readouterr().err


def test_nothing_to_train_on_is_one_line(tiny_values, tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(tiny_values))
    arguments = ["train", "--config", str(recipe), "--out", str(tmp_path / "run")]
    assert main(arguments) == 1
    assert "error: nothing to train on: give --data, --scenes or both\n" in capsys.readouterr().err
    empty = tmp_path / "empty"
    empty.mkdir()
    assert main([*arguments, "--scenes", str(empty)]) == 1
    assert "error: no readable training sample" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
