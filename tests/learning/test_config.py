import dataclasses
from pathlib import Path

import pytest
import yaml

import training
from service.contract import NETWORK_SIZES
from training.config import CONFIGS, load_config, parse_config
from training.errors import TrainingError
from training.models import MODELS

RECIPES = sorted((Path(training.__file__).parent / "configs").rglob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads(path):
    recipe = load_config(path)
    assert recipe.model in MODELS
    assert not recipe.encoder_weights or len(recipe.encoder_sha256) == 64
    # with defaults that never change (below), one file is one complete run
    assert set(yaml.safe_load(path.read_text())) <= {field.name for field in dataclasses.fields(CONFIGS[recipe.task])}


def test_defaults_never_change():
    shared = {
        "task": "focus_on_depth",
        "network_weights": "",
        "network_sha256": "",
        "starts_from": {},
        "frozen": (),
        "optimizer": "adamw",
        "adam_eps": 1e-8,
        "schedule": "cosine",
        "lr_floor": 0.01,
        "cycle_steps": 1000,
        "poly_power": 0.9,
        "plateau_factor": 0.1,
        "plateau_patience": 10,
        "letterbox": 0.0,
        "geometry": "photo",
        "crop_share": 1.0,
        "rotation_share": 1 / 3,
        "colour_share": 1.0,
        "paste": 0.0,
        "split": (),
        "select_by": "delta1",
    }
    metric = {"loss_form": "silog", "nearest_m": 1e-3, "farthest_m": 10.0, "chamfer_weight": 0.0}
    teacher = {"teacher_sha256": "", "alignment": "per_picture", "target": "both", "truth_weight": 1.0}
    teacher |= {"teacher_weight": 0.5}
    own = {
        "focus_on_depth": {"depth_form": "trimmed", "log_weight": 0.0},
        "metric_depth": metric,
        "distillation": metric | teacher | {"pair_wise_weight": 0.0, "attention_weight": 0.0},
    }
    for task, expected in own.items():
        found = {}
        for field in dataclasses.fields(CONFIGS[task]):
            if field.default is not dataclasses.MISSING:
                found[field.name] = field.default
            elif field.default_factory is not dataclasses.MISSING:
                found[field.name] = field.default_factory()
        assert found == shared | expected


def test_there_are_recipes():
    assert RECIPES


def test_served_stands_for_the_sizes_of_the_service(tiny_values):
    assert parse_config(tiny_values | {"final_sizes": "served"}, "x").final_sizes == NETWORK_SIZES


def test_flat_values_make_the_same_config(tiny):
    assert parse_config(tiny.flat(), "again") == tiny


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 1}, "unknown key learning_rate; known: task, model"),
        ({"task": "stacks"}, "task is 'stacks': expected focus_on_depth or metric_depth"),
        ({"steps": "many"}, "steps is 'many': expected int"),
        ({"steps": True}, "steps is True"),
        ({"bf16": 1}, "bf16 is 1: expected bool"),
        ({"trim": 1.0}, "trim is 1.0"),
        ({"depth_form": "median"}, "depth_form is 'median': expected trimmed or mse"),
        ({"depth_form": ["mse"]}, "depth_form is "),
        ({"sizes": [[64, 60]]}, "size 64x60: both must be multiples of 32"),
        ({"split": [50, 20, 20]}, "split is [50, 20, 20]: it must be three shares"),
        ({"sizes": [64, 64]}, "sizes is "),
        ({"final_steps": 9}, "final_steps is 9"),
        ({"sources": {}}, "sources needs"),
        ({"sources": {"rooms": 0}}, "sources needs"),
        ({"sources": ["rooms"]}, "sources is "),
    ],
)
def test_wrong_values_are_named(tiny_values, change, message):
    with pytest.raises(TrainingError, match=message.replace("[", r"\[")):
        parse_config(tiny_values | change, "recipe.yaml")


def test_missing_key_is_named(tiny_values):
    del tiny_values["seed"]
    with pytest.raises(TrainingError, match=r"recipe.yaml: missing key seed"):
        parse_config(tiny_values, "recipe.yaml")


def test_a_key_younger_than_the_checkpoint_takes_its_default(tiny_values):
    del tiny_values["depth_form"]
    assert parse_config(tiny_values, "last.pt").depth_form == "trimmed"


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "just words"])
def test_files_that_are_no_recipe(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(TrainingError, match=r"recipe\.yaml"):
        load_config(path)


def test_absent_file(tmp_path):
    with pytest.raises(TrainingError, match="No such file"):
        load_config(tmp_path / "none.yaml")


def test_keys_are_changed_for_one_run():
    changed = load_config(RECIPES[0], ["steps=7", "final_steps=0", "sizes=[[64, 96]]", "encoder_weights=''"])
    assert (changed.steps, changed.sizes, changed.encoder_weights) == (7, ((64, 96),), "")
    for change, message in (
        ("steps", "--set steps: expected KEY=VALUE"),
        ("steps=[", "the value is not YAML"),
        ("speed=1", "unknown key speed"),
        ("steps=many", "steps is 'many': expected int"),
    ):
        with pytest.raises(TrainingError, match=message.replace("[", r"\[")):
            load_config(RECIPES[0], [change])
