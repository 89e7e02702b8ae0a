import dataclasses
from functools import partial

import pytest
import torch

from training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from training.config import StackedConfig, parse_config
from training.data.bank import Bank, Batch
from training.data.transforms import warp, whole_map
from training.errors import TrainingError
from training.losses import silog
from training.models import create_model
from training.models.meta_learner import BASES
from training.stacking import FINAL, BaseSet, with_predictions, write_predictions
from training.tasks import make_task
from training.tasks.metric_depth import see
from training.trainer import Run, train


@pytest.fixture(autouse=True)
def one_thread(two_threads):
    torch.set_num_threads(1)


@pytest.fixture
def recipe(tiny_values):
    """A stack of tiny networks; changes as keywords."""
    keys = {"trim", "depth_form", "depth_weight", "gradient_weight", "log_weight", "person_weight", "dice_weight"}
    plain = {key: value for key, value in tiny_values.items() if key not in keys}

    def make(**changes) -> StackedConfig:
        stack = {"task": "stacked", "model": "stacked_meta_rgbd_tiny", "frozen": ["bases"], "schedule": "one_cycle"}
        config = parse_config(plain | stack | {"sizes": [[64, 64]], "final_sizes": [[64, 64]]} | changes, "stack")
        assert isinstance(config, StackedConfig)
        return config

    return make


@pytest.fixture
def metres(bank):
    """The bank's samples, their inverse depth 0.2 to 1.2 per metre."""

    def metric(sample):
        return dataclasses.replace(sample, inverse_depth=sample.inverse_depth + 0.2, metric=True, shift_known=True)

    train = {
        source: {scene: list(map(metric, samples)) for scene, samples in scenes.items()}
        for source, scenes in bank.train.items()
    }
    return Bank(train, list(map(metric, bank.held_out)))


def batch_of(bank):
    samples = [samples[0] for samples in bank.train["rooms"].values()][:2]
    return Batch.of([warp(s, whole_map((96, 128), (64, 64)), (64, 64)) for s in samples])


def test_frozen_bases_stay_and_the_meta_learner_learns(recipe, metres):
    run = Run.start(recipe(), None)
    before = {name: value.clone() for name, value in run.network.state_dict().items()}
    values = run.advance(recipe(), batch_of(metres))
    changed = {name.split(".")[0] for name, v in run.network.state_dict().items() if not torch.equal(v, before[name])}
    assert changed == {"meta"}
    assert {"silog", *BASES, "loss"} <= set(values)
    assert values["loss"] == pytest.approx(values["silog"])


def test_simultaneous_training_gives_each_base_a_loss_of_its_own(recipe, metres):
    config = recipe(frozen=[], base_weight=0.5)
    values = Run.start(config, None).advance(config, batch_of(metres))
    assert values["loss"] == pytest.approx(values["silog"] + 0.5 * sum(values[name] for name in BASES), rel=1e-5)


def test_stored_predictions_take_the_place_of_the_bases(recipe, metres):
    config = recipe()
    task, network = make_task(config), create_model(config.model).train()
    batch = batch_of(metres)
    truth = task.truth(batch)
    said = torch.stack([truth, truth, truth], 1)
    calls = []
    network.bases["bts"].register_forward_hook(lambda *_: calls.append(1))
    parts = task.losses(task.forward(network), dataclasses.replace(batch, base_depths_m=said))
    assert calls == []
    # whatever the shares, three right depths make a right one
    assert parts["loss"].item() == pytest.approx(silog(truth, truth).item(), abs=1e-3)
    with pytest.raises(TrainingError, match=r"freeze \[bases\]"):
        make_task(recipe(frozen=[])).losses(task.forward(network), dataclasses.replace(batch, base_depths_m=said))


def test_a_stack_starts_from_the_runs_of_its_bases(recipe, tmp_path):
    runs = {}
    for name in BASES:
        config = dataclasses.replace(recipe(), model=f"{name}_ghost_tiny")
        state = create_model(config.model).state_dict()
        runs[name] = state
        save_checkpoint(tmp_path / name / "last.pt", Checkpoint(0, state, state, {}, config, "abc", {}))
    config = recipe(starts_from={f"bases.{name}": f"../{name}/last.pt" for name in BASES})
    (tmp_path / "stack").mkdir()
    run = Run.start(config, None, folder=tmp_path / "stack")
    for name in BASES:
        assert all(torch.equal(value, runs[name][key]) for key, value in run.network.bases[name].state_dict().items())


def test_a_recipe_of_another_network_is_refused(recipe):
    config = recipe(model="bts_ghost_tiny", frozen=[])
    with pytest.raises(TrainingError, match="bts_ghost_tiny is no stack of adabins, bts, lapdepth"):
        make_task(config).forward(create_model(config.model))


def test_a_meta_learner_trains_on_what_others_said_of_scenes_they_never_saw(recipe, metres, tmp_path):
    torch.manual_seed(0)
    networks = {name: create_model(f"{name}_ghost_tiny").eval() for name in BASES}
    predictors = {name: partial(see_small, network) for name, network in networks.items()}
    sets = {fold: BaseSet(predictors, dict.fromkeys(BASES, fold)) for fold in ("0", "1", FINAL)}
    assert write_predictions(metres, sets, {}, tmp_path / "said") == 4
    bank = with_predictions(metres, tmp_path / "said")
    config = recipe(steps=2, final_steps=0, validate_every=2, checkpoint_every=2, select_by="rmse", letterbox=0.0)
    run = train(config, bank, None, tmp_path / "run", resume=False)
    assert run.step == 2
    assert run.metrics["rmse"] > 0
    assert load_checkpoint(tmp_path / "run" / "last.pt").config == config


def see_small(network, image):
    return see(network, image, (64, 64))
