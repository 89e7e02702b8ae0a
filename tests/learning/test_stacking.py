import argparse
import dataclasses
import json

import numpy as np
import pytest
import torch

from training.data.bank import Bank, Batch, is_held_out
from training.data.transforms import warp, whole_map
from training.errors import TrainingError
from training.models.meta_learner import BASES
from training.stack_command import by_fold, fold
from training.stacking import (
    FINAL,
    BaseSet,
    fold_of,
    folds_of,
    with_predictions,
    without_fold,
    write_predictions,
)


@pytest.fixture
def scenes(sample_of):
    """Twelve scenes of two frames, one more held out."""

    def frames(scene):
        return [
            dataclasses.replace(sample_of(seed, 32, 64), name=f"rooms/{scene}_{seed}", scene=scene, metric=True)
            for seed in (1, 2)
        ]

    return Bank({"rooms": {scene: frames(scene) for scene in map(str, range(12))}}, frames("kept"))


class Constant:
    """A base network that says one depth and remembers how often it was asked."""

    def __init__(self, depth_m):
        self.depth_m, self.asked = depth_m, 0

    def __call__(self, image):
        self.asked += 1
        return np.full(image.shape[:2], self.depth_m, np.float32)


def sets(*folds, digest="0"):
    return {
        fold: BaseSet(
            {name: Constant(10 * index + k) for k, name in enumerate(BASES)}, dict.fromkeys(BASES, digest + fold)
        )
        for index, fold in enumerate(folds)
    }


def test_no_network_predicts_a_scene_it_has_seen(scenes):
    assert {fold_of(scene, 3) for scene in scenes.train["rooms"]} == {0, 1, 2}
    seen = {str(fold): set(without_fold(scenes, fold, 3).train["rooms"]) for fold in range(3)}
    seen[FINAL] = set(scenes.train["rooms"])
    dealt = list(folds_of(scenes, 3))
    assert [sample.scene for fold, sample in dealt if sample.scene in seen[fold]] == []
    assert len(dealt) == 26
    # each base network has all scenes but its fold's, and every scene is missing from one of them
    assert all(sum(scene in seen[str(fold)] for fold in range(3)) == 2 for scene in seen[FINAL])
    assert without_fold(scenes, 0, 3).held_out == scenes.held_out


def test_folds_do_not_follow_the_held_out_tenth():
    kept = [scene for scene in map(str, range(1000)) if is_held_out(scene)]
    assert len({fold_of(scene, 5) for scene in kept}) == 5


def test_one_fold_is_the_papers_way(scenes):
    assert {fold for fold, _ in folds_of(scenes, 1)} == {FINAL}


def test_impossible_folds(scenes):
    with pytest.raises(TrainingError, match="fold 3 of 3: folds are counted from 0 to 2"):
        without_fold(scenes, 3, 3)
    alone = dataclasses.replace(scenes, train={"rooms": {"0": scenes.train["rooms"]["0"]}})
    with pytest.raises(TrainingError, match="too few scenes"):
        without_fold(alone, 0, 1)


def test_predictions_are_kept_and_not_made_twice(scenes, tmp_path):
    networks = sets("0", "1", FINAL)
    assert write_predictions(scenes, networks, {"size": [32, 64]}, tmp_path) == 26
    bank = with_predictions(scenes, tmp_path)
    for scene, samples in bank.train["rooms"].items():
        for sample in samples:
            assert sample.base_depths_m.shape == (32, 64, 3)
            assert sample.base_depths_m[5, 7].tolist() == [10 * fold_of(scene, 2) + k for k in range(3)]
    assert bank.held_out[0].base_depths_m[0, 0].tolist() == [20, 21, 22]

    (tmp_path / "rooms" / "3_1.npz").unlink()
    again = sets("0", "1", FINAL)
    assert write_predictions(scenes, again, {"size": [32, 64]}, tmp_path) == 1
    assert sum(p.asked for one in again.values() for p in one.predictors.values()) == 3
    assert json.loads((tmp_path / "stack.json").read_text())["folds"][FINAL]["bts"] == f"0{FINAL}"


def test_a_folder_of_other_networks_is_refused(scenes, tmp_path):
    write_predictions(scenes, sets(FINAL), {}, tmp_path)
    with pytest.raises(TrainingError, match="what other base networks said"):
        write_predictions(scenes, sets(FINAL, digest="1"), {}, tmp_path)
    with pytest.raises(TrainingError, match="folds 0, final: expected final"):
        write_predictions(scenes, sets("0", FINAL), {}, tmp_path / "other")


def test_bad_predictions_are_one_line_with_the_file(scenes, tmp_path):
    with pytest.raises(TrainingError, match="no base predictions in"):
        with_predictions(scenes, tmp_path)
    write_predictions(scenes, sets(FINAL), {}, tmp_path)
    path = tmp_path / "rooms" / "3_1.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(TrainingError, match=r"base predictions .*3_1\.npz"):
        with_predictions(scenes, tmp_path)
    np.savez(path, base_depths_m=np.zeros((2, 2, 3), np.float16))
    with pytest.raises(TrainingError, match=r"3_1\.npz: float16 \(2, 2, 3\), its photo \(32, 64\)"):
        with_predictions(scenes, tmp_path)
    path.unlink()
    with pytest.raises(TrainingError, match=r"3_1\.npz"):
        with_predictions(scenes, tmp_path)


@pytest.mark.parametrize("said", [np.full((32, 64), np.nan, np.float32), np.zeros((32, 63), np.float32)])
def test_base_networks_that_say_nonsense_are_named(said, scenes, tmp_path):
    networks = sets(FINAL)
    networks[FINAL].predictors["bts"] = lambda image: said
    with pytest.raises(TrainingError, match=r"base network bts: expected finite depths of \(32, 64\)"):
        write_predictions(scenes, networks, {}, tmp_path)


def test_base_depths_move_with_the_picture_into_the_batch(sample_of):
    sample = sample_of(1, 32, 64)
    columns = np.broadcast_to(np.arange(64, dtype=np.float16)[None, :, None], (32, 64, 3))
    sample = dataclasses.replace(sample, base_depths_m=np.ascontiguousarray(columns))
    mapping = whole_map((32, 64), (64, 128))
    mapping[0] = [-mapping[0, 0], 0, 63 - mapping[0, 2]]  # mirrored
    item = warp(sample, mapping, (64, 128))
    assert item.base_depths_m.shape == (64, 128, 3)
    # pixel 10 of the doubled, mirrored picture lies at 63 - 4.75; OpenCV interpolates in steps of 1/32
    assert item.base_depths_m[3, 10].tolist() == pytest.approx([58.25] * 3, abs=1 / 32)
    batch = Batch.of([item, item])
    assert batch.base_depths_m.shape == (2, 3, 64, 128)
    assert torch.equal(batch.to("cpu").base_depths_m, batch.base_depths_m)
    without = warp(sample_of(1, 32, 64), mapping, (64, 128))
    assert Batch.of([item, without]).to("cpu").base_depths_m is None


def test_base_arguments():
    found = by_fold(["adabins=a", "bts=b", "lapdepth=c", "1:adabins=d", "1:bts=e", "1:lapdepth=f=g"])
    assert set(found) == {FINAL, "1"}
    assert str(found["1"]["lapdepth"]) == "f=g"
    with pytest.raises(TrainingError, match="--base: no bts of fold final"):
        by_fold(["adabins=a", "lapdepth=c"])
    for wrong in ("adabins", "midas=a", "x:bts=a"):
        with pytest.raises(TrainingError, match=f"--base {wrong}: expected"):
            by_fold([wrong])


@pytest.mark.parametrize("text", ["3/3", "x", "1", "-1/2", "0/0"])
def test_wrong_folds_are_named(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not FOLD/FOLDS"):
        fold(text)
    assert fold("1/3") == (1, 3)
