import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from training.__main__ import main
from training.checkpoint import Checkpoint, save_checkpoint
from training.comparison import page, runs
from training.comparison.drawing import draw_sheet
from training.comparison.headlines import HEADLINES
from training.comparison.judging import IN_METRES, Judged, Picture
from training.comparison.latency import interleaved
from training.comparison.relations import RELATIONS, Relation, check, choose, difference
from training.config import TrainConfig, load_config
from training.data.bank import is_held_out
from training.data.sample import Sample
from training.errors import TrainingError
from training.export import file_sha256
from training.start import FirstWeights, make_network


def judged_of(*rmse: float, kind: str = "scenes", source: str = "rooms", better: float = 0.0) -> Judged:
    """A system judged on one picture for each RMSE."""
    pictures = [
        Picture(kind, source, f"{source}/{index}", IN_METRES, {"rmse": value - better, "delta1": 1 - value / 10})
        for index, value in enumerate(rmse)
    ]
    return Judged("abc", "truth", "depth_m", 1_500_000, 2.5, pictures)


def test_means_are_over_pictures_and_then_over_sources():
    many, one = judged_of(1, 2, 3, kind="real", source="many"), judged_of(8, kind="real", source="one")
    both = replace(many, pictures=many.pictures + one.pictures)
    assert both.mean("real", IN_METRES)["rmse"] == 5
    assert both.mean("real", IN_METRES)["pictures"] == 4
    assert both.mean("scenes", IN_METRES) == {}
    assert list(both.of("real", IN_METRES)) == ["many/0", "many/1", "many/2", "one/0"]


def test_scores_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "judged.json"
    assert Judged.read(path) is None
    judged_of(1, 2).write(path)
    assert Judged.read(path) == judged_of(1, 2)
    path.write_text(path.read_text()[:50])
    assert Judged.read(path) is None
    path.write_text('{"colour": "red"}')
    assert Judged.read(path) is None


def test_a_difference_by_hand():
    better, worse = judged_of(1, 2, 3), judged_of(2, 3, 4)
    found = difference(better.of("scenes", IN_METRES), worse.of("scenes", IN_METRES), "rmse")
    assert (found.better, found.worse) == (2, 3)
    assert (found.low, found.high) == pytest.approx((-1, -1))  # the same on every picture
    assert found.verdict == "holds"
    share = difference(better.of("scenes", IN_METRES), worse.of("scenes", IN_METRES), "delta1")
    assert share.better == pytest.approx(0.8)
    assert share.verdict == "holds"  # a larger share is better
    turned = difference(worse.of("scenes", IN_METRES), better.of("scenes", IN_METRES), "delta1")
    assert turned.verdict == "does not hold"


def test_a_difference_that_pictures_do_not_decide():
    found = difference(judged_of(1, 5).of("scenes", IN_METRES), judged_of(2, 3).of("scenes", IN_METRES), "rmse")
    assert found.low < 0 < found.high
    assert found.verdict == "undecided"


def test_a_difference_needs_shared_pictures():
    one = judged_of(1, 2).of("scenes", IN_METRES)
    assert difference(one, judged_of(1, 2, source="halls").of("scenes", IN_METRES), "rmse") is None
    assert difference(one, one, "ssim") is None


def test_the_best_and_the_worst_of_several():
    judged = {"a": judged_of(3, 3), "b": judged_of(1, 1), "c": judged_of(2, 2)}
    assert choose(("a", "b", "c"), judged, "scenes", "best") == "b"
    assert choose(("a", "b", "c"), judged, "scenes", "worst") == "a"
    assert choose(("d",), judged, "scenes", "best") is None
    claim = Relation("c beats the worst", ("c",), ("a", "b"), "", choice_worse="worst")
    better, worse, differences = check(claim, judged, "scenes", ("rmse",))
    assert (better, worse, differences[0].verdict) == ("c", "a", "holds")
    assert check(replace(claim, better=("d",)), judged, "scenes", ("rmse",)) is None


def test_time_is_taken_in_turn():
    order = []
    names = ("a", "b", "c")
    found = interleaved({name: lambda name=name: order.append(name) for name in names}, rounds=4)
    assert order[:3] == list(names)  # not counted
    rounds = [order[i : i + 3] for i in range(3, len(order), 3)]
    assert len(rounds) == 4
    assert all(sorted(one) == sorted(names) for one in rounds)
    assert len({tuple(one) for one in rounds}) > 1
    assert all(0 <= latency.low_ms <= latency.median_ms <= latency.high_ms for latency in found.values())


@pytest.fixture
def recipes(tmp_path, tiny_values):
    def write(**changes) -> list[Path]:
        for name, change in changes.items():
            (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(tiny_values | change))
        return [tmp_path / f"{name}.yaml" for name in changes]

    return write


def test_systems_come_after_those_they_start_from(recipes, tmp_path):
    paths = recipes(student={"starts_from": {"all": "../teacher/last.pt"}}, teacher={}, other={})
    found = runs.systems(paths, tmp_path / "out")
    assert [system.name for system in found] == ["teacher", "other", "student"]
    assert found[-1].needs == ("teacher",)
    assert found[-1].folder == tmp_path / "out" / "student"


def test_systems_that_cannot_be_ordered(recipes, tmp_path):
    paths = recipes(a={"starts_from": {"all": "../b/last.pt"}}, b={"starts_from": {"all": "../a/last.pt"}})
    with pytest.raises(TrainingError, match="recipes need each other in a circle: a, b"):
        runs.systems(paths, tmp_path)
    with pytest.raises(TrainingError, match="a starts from b: give their recipes too"):
        runs.systems(paths[:1], tmp_path)
    (tmp_path / "more").mkdir()
    again = tmp_path / "more" / "a.yaml"
    again.write_text(paths[0].read_text())
    with pytest.raises(TrainingError, match="two recipes are called a"):
        runs.systems([paths[0], again], tmp_path)


def test_a_run_of_another_recipe_is_not_taken_for_finished(recipes, tmp_path):
    (system,) = runs.systems(recipes(a={}), tmp_path / "out")
    assert not system.finished
    system.folder.mkdir(parents=True)
    system.checkpoint.write_bytes(b"weights")
    assert not system.finished  # stopped before its end
    (system.folder / runs.DONE).write_text("0" * 64)
    with pytest.raises(TrainingError, match=r"was trained with another version of .*a\.yaml: remove the folder"):
        assert system.finished


def test_a_recipe_of_no_steps_is_put_together(recipes, tmp_path):
    none = {"steps": 0, "final_steps": 0, "seed": 2, "starts_from": {"all": "../first/last.pt"}}
    first, copy = runs.systems(recipes(first={}, copy=none), tmp_path / "out")
    state = make_network(first.config, FirstWeights()).state_dict()
    save_checkpoint(first.checkpoint, Checkpoint(4, state, state, {}, first.config, "abc", {}))
    (first.folder / runs.DONE).write_text(file_sha256(first.recipe))
    assert runs.train_all([first, copy], [], jobs=1) == {}
    assert copy.finished
    found = runs.network_of(copy.checkpoint).state_dict()
    assert all(torch.equal(found[name], value) for name, value in state.items())


def write_scene(folder: Path, name: str, far_m: float) -> None:
    """A floor that goes from 1 m to `far_m`, in the files of the generator."""
    folder.mkdir(parents=True, exist_ok=True)
    inverse = np.linspace(1 / far_m, 1, 96)[:, None].repeat(128, axis=1)
    stored = np.rint(inverse * 65535).astype(np.uint16)
    cv2.imwrite(str(folder / f"{name}.jpg"), (inverse[..., None] * [200, 150, 100]).astype(np.uint8))
    cv2.imwrite(str(folder / f"{name}.inv.png"), stored)
    (folder / f"{name}.json").write_text(json.dumps({"inverse_depth_scale_per_m": 1 / 65535, "terms": "cc0"}))


@pytest.fixture
def scenes(tmp_path) -> Path:
    names = [f"s{index:08d}" for index in range(60)]
    held_out, trained = ([name for name in names if is_held_out(name) == out] for out in (True, False))
    for index, name in enumerate(held_out[:2] + trained[:3]):
        write_scene(tmp_path / "scenes", name, 5 + index)
    return tmp_path / "scenes"


@pytest.fixture
def truth_folder(data_folder) -> Path:
    folder = data_folder / "truth_depth"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.jpg"), np.full((96, 128, 3), 90, np.uint8))
    depth = np.linspace(900, 4000, 96)[:, None].repeat(128, axis=1)
    cv2.imwrite(str(folder / "a.png"), depth.astype(np.uint16))
    entry = {"rgb": "truth_depth/a.jpg", "gt": "truth_depth/a.png", "kind": "depth", "unit": 0.001, "set": "nyu"}
    (folder / "index.json").write_text(json.dumps([entry]))
    return data_folder


def arguments(recipes, data, scenes, tmp_path, *more) -> list[str]:
    said = ["compare", "--config", *map(str, recipes), "--data", str(data), "--scenes", str(scenes)]
    out = ["--out", str(tmp_path / "runs"), "--page", str(tmp_path / "page" / "mono.md"), "--size", "64x96"]
    return [*said, *out, "--rounds", "1", *more]


def test_recipes_are_trained_compared_and_kept_whatever_becomes_of_others(
    recipes, truth_folder, scenes, tmp_path, capsys
):
    short = {"sources": {"synthetic_cc0": 1}, "steps": 2, "final_steps": 0, "validate_every": 9, "checkpoint_every": 1}
    paths = recipes(
        focus_on_depth=short,
        other=short | {"seed": 2},
        wrong=short | {"sources": {"nowhere": 1}},
        later=short | {"starts_from": {"all": "../wrong/last.pt"}},
    )
    assert main(arguments(paths, truth_folder, scenes, tmp_path, "--jobs", "2")) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert errors == [
        "error: not trained: wrong: sources without samples: nowhere; there are synthetic_cc0; later: needs wrong"
    ]
    text = (tmp_path / "page" / "mono.md").read_text()
    assert "- **wrong** was not trained: sources without samples: nowhere" in text
    assert "| focus_on_depth | `focus_on_depth_tiny` | relative | 1.81 |" in text
    assert "| other | 2 | " in text  # two held-out scenes
    assert (tmp_path / "page" / "mono.png").stat().st_size > 1000
    sheet = cv2.imread(str(tmp_path / "page" / "mono_pictures.png"))
    assert sheet.shape[0] == 4 * (96 + 2)  # photo, truth and the two

    # a second time nothing is trained or judged, and what is written by hand stays
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    (tmp_path / "page" / "mono.md").write_text("# By hand\n" + text + "An end.\n")
    assert main(arguments(paths[:2], truth_folder, scenes, tmp_path)) == 0
    assert "judge" not in capsys.readouterr().err
    assert made == {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    again = (tmp_path / "page" / "mono.md").read_text()
    assert again.startswith("# By hand\n" + page.MARKS[0])
    assert again.endswith(page.MARKS[1] + "\nAn end.\n")
    assert "was not trained" not in again


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--size", "64x100"), "--size 64x100: both must be multiples of 32"),
        (("--size", "wide"), "--size wide: expected HEIGHTxWIDTH"),
        (("--rounds", "0"), "--jobs, --threads and --rounds must be at least 1"),
        (("--scenes", "nowhere"), "rendered scenes not found: nowhere"),
        (("--data", "nowhere"), "depth truth not found: nowhere"),
    ],
)
def test_wrong_options_are_one_line(recipes, truth_folder, scenes, tmp_path, capsys, more, says):
    assert main([*arguments(recipes(a={}), truth_folder, scenes, tmp_path), *more]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0].startswith(f"error: {says}")
    assert not (tmp_path / "runs").exists()


def test_photos_are_not_drawn(tmp_path):
    photo = Sample("a", "nyu", "a", np.zeros((96, 128, 3), np.uint8), np.ones((96, 128), np.float32), metric=True)
    with pytest.raises(TrainingError, match="a is a photo: only rendered scenes are drawn"):
        draw_sheet([photo], {}, tmp_path / "sheet.png")


def test_claims_and_headlines_are_about_recipes_that_exist():
    folder = Path(__file__).parents[2] / "training" / "configs" / "compare"
    there = {path.stem for path in folder.glob("*.yaml")}
    named = {name for relation in RELATIONS for name in relation.better + relation.worse}
    named |= {headline.ours for headline in HEADLINES}
    assert named <= there


def test_every_system_has_the_same_budget():
    folder = Path(__file__).parents[2] / "training" / "configs" / "compare"
    configs = {path.stem: load_config(path) for path in folder.glob("*.yaml")}
    own = {"task", "model", "steps", "starts_from", "frozen", "loss_form", "select_by"}
    shared = [
        {
            key: value
            for key, value in config.flat().items()
            if key in TrainConfig.__dataclass_fields__ and key not in own
        }
        for config in configs.values()
    ]
    assert all(values == shared[0] for values in shared)
    steps = {name: config.steps for name, config in configs.items()}
    assert steps.pop("stacked_average") == 0  # nothing is trained
    stages = steps.pop("cnn_transformer_first_stage"), steps.pop("cnn_transformer_multi_stage")
    assert {sum(stages), *steps.values()} == {sum(stages)}
