import dataclasses
import json

import pytest
import torch

from training.checkpoint import load_checkpoint, save_checkpoint
from training.data.bank import fill
from training.errors import TrainingError
from training.export import served_network
from training.models import create_model
from training.optimizer import make_optimizer, update_ema
from training.schedules import Schedule
from training.start import FirstWeights
from training.trainer import BEST, LAST, Run, train


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)


class Stop(Exception):
    pass


class Unreadable:
    """A held-out sample that ends the run when validation looks at it."""

    @property
    def image(self):
        raise Stop


def test_a_resumed_run_ends_with_the_same_bits(tiny, bank, tmp_path):
    whole = train(tiny, bank, None, tmp_path / "whole", resume=False)

    out = tmp_path / "halves"
    # the checkpoint of step 2 is written, the validation of step 3 ends the run
    half = dataclasses.replace(tiny, checkpoint_every=2, validate_every=3)
    with pytest.raises(Stop):
        train(half, dataclasses.replace(bank, held_out=[Unreadable()]), None, out, resume=False)
    assert load_checkpoint(out / LAST).step == 2
    resumed = train(half, bank, None, out, resume=True)

    assert resumed.step == whole.step == tiny.steps
    assert same(resumed.network.state_dict(), whole.network.state_dict())
    assert same(resumed.average.state_dict(), whole.average.state_dict())


def test_training_writes_checkpoint_events_and_metrics(tiny, bank, tmp_path):
    run = train(tiny, bank, None, tmp_path, resume=False)
    names = {path.name for path in tmp_path.iterdir() if not path.name.startswith("events.")}
    assert names == {"last.pt", "best.pt", "train.csv", "validation.csv", "pictures", "summary.json"}
    assert (tmp_path / "train.csv").read_text().splitlines()[0].startswith("step,loss,depth_ssi")
    assert len((tmp_path / "validation.csv").read_text().splitlines()) == 2
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["0_0000004.jpg"]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["steps"], summary["broken"], summary["failed"]) == (4, [], {})
    assert load_checkpoint(tmp_path / BEST).best == run.best == run.metrics["delta1"]
    stored = load_checkpoint(tmp_path / LAST)
    assert stored.step == 4
    assert stored.config == tiny
    assert stored.commit
    assert {"delta1", "abs_rel", "polarity", "iou"} <= set(run.metrics)
    assert stored.metrics == run.metrics


def test_a_checkpoint_of_another_recipe_is_refused(tiny, bank, tmp_path):
    train(tiny, bank, None, tmp_path, resume=False)
    with pytest.raises(TrainingError, match=r"last\.pt: lr is 0.001 there, 0.5 in the recipe"):
        train(dataclasses.replace(tiny, lr=0.5), bank, None, tmp_path, resume=True)


@pytest.mark.parametrize("part", ["model", "ema"])
def test_weights_of_another_network_are_refused_by_their_first_key(tiny, tmp_path, part):
    path = tmp_path / LAST
    ours, other = Run.start(tiny, None), create_model("focus_on_depth_small").state_dict()
    save_checkpoint(path, dataclasses.replace(ours.checkpoint(tiny, "abc"), **{part: other}))
    # the encoder is the same; the decoder's first tensor is the first that differs
    said = (
        r"last\.pt: decoder\.reassemble\.0\.project\.0\.weight has shape \(32, 16, 1, 1\) there, \(8, 16, 1, 1\) here$"
    )
    with pytest.raises(TrainingError, match=said):
        Run.resume(tiny, path)


def test_weights_with_a_key_too_few_or_too_many_are_refused(tiny, tmp_path):
    path = tmp_path / LAST
    checkpoint = Run.start(tiny, None).checkpoint(tiny, "abc")
    short = dict(checkpoint.ema)
    del short["depth_head.body.4.bias"]
    for state, said in (
        (short, r"depth_head\.body\.4\.bias has shape None there, \(1,\) here"),
        (checkpoint.ema | {"more": torch.zeros(2)}, r"more has shape \(2,\) there, None here"),
    ):
        save_checkpoint(path, dataclasses.replace(checkpoint, ema=state))
        with pytest.raises(TrainingError, match=said):
            served_network(load_checkpoint(path), f"checkpoint {path}")


def test_a_run_may_be_made_longer(tiny, bank, tmp_path):
    train(tiny, bank, None, tmp_path, resume=False)
    assert train(dataclasses.replace(tiny, steps=5), bank, None, tmp_path, resume=True).step == 5


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_damaged_checkpoints(tmp_path, content):
    path = tmp_path / LAST
    path.write_bytes(content)
    with pytest.raises(TrainingError, match=r"last\.pt: not readable"):
        load_checkpoint(path)
    with pytest.raises(TrainingError, match="checkpoint not found"):
        load_checkpoint(tmp_path / "none.pt")


def test_a_checkpoint_is_written_whole_or_not_at_all(tiny, tmp_path):
    path = tmp_path / LAST
    run = Run.start(tiny, None)
    save_checkpoint(path, run.checkpoint(tiny, "abc"))
    before = path.read_bytes()
    bad = dataclasses.replace(run.checkpoint(tiny, "abc"), commit=lambda: None)
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(path, bad)
    assert path.read_bytes() == before


def test_a_loss_that_is_not_finite_stops_the_run_with_its_step(tiny, bank, tmp_path):
    with pytest.raises(TrainingError, match=r"(loss|gradient) is (nan|inf) at step \d"):
        train(dataclasses.replace(tiny, depth_weight=float("nan")), bank, None, tmp_path, resume=False)
    assert not (tmp_path / LAST).exists()


def test_encoder_weights_need_their_folder(tiny):
    with pytest.raises(TrainingError, match="--weights"):
        Run.start(dataclasses.replace(tiny, encoder_weights="x.safetensors"), None)


def test_rate_rises_then_falls_to_zero(tiny):
    recipe = dataclasses.replace(tiny, steps=102, final_steps=0, warmup_steps=2)
    assert [Schedule(recipe).factor(step) for step in (0, 1, 2, 52, 102)] == pytest.approx([0.5, 1, 1, 0.5, 0])


def test_encoder_has_its_own_rate_and_biases_do_not_decay(tiny):
    network = create_model(tiny.model)
    groups = make_optimizer(tiny, network).param_groups
    assert sum(p.numel() for g in groups for p in g["params"]) == sum(p.numel() for p in network.parameters())
    assert {(g["lr"], g["weight_decay"]) for g in groups} == {
        (0.0005, 0.01),
        (0.0005, 0.0),
        (0.001, 0.01),
        (0.001, 0.0),
    }
    assert all(p.ndim > 1 for g in groups if g["weight_decay"] for p in g["params"])


def test_averaged_weights_follow():
    network, average = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    torch.nn.init.ones_(network.weight)
    torch.nn.init.zeros_(average.weight)
    update_ema(average, network, 0.9, step=10_000)
    assert average.weight.item() == pytest.approx(0.1)
    # early steps move faster: (1 + 0) / (10 + 0) is kept
    update_ema(average, network, 0.9, step=0)
    assert average.weight.item() == pytest.approx(0.91)


def test_parts_start_from_other_runs(tiny, tmp_path):
    other = Run.start(dataclasses.replace(tiny, seed=7), None)
    save_checkpoint(tmp_path / "other.pt", other.checkpoint(tiny, "abc"))
    recipe = dataclasses.replace(tiny, starts_from={"encoder": "../other/last.pt"}, frozen=("encoder",))
    said = r"starts from another run's .*other/last\.pt, which is not there: .* --start encoder=CHECKPOINT"
    with pytest.raises(TrainingError, match=said):
        Run.start(recipe, None, folder=tmp_path / "run")
    Run.start(recipe, None, first=FirstWeights(random=True))
    with pytest.raises(TrainingError, match="the network has no such part; it has normalise, encoder"):
        Run.start(tiny, None, first=FirstWeights(parts={"backbone": tmp_path / "other.pt"}))
    named = Run.start(
        dataclasses.replace(recipe, starts_from={"encoder": "../other.pt"}), None, folder=tmp_path / "run"
    )
    given = Run.start(recipe, None, first=FirstWeights(parts={"encoder": tmp_path / "other.pt"}))
    for run in (named, given):
        assert same(run.network.encoder.state_dict(), other.average.encoder.state_dict())
        assert not torch.equal(run.network.decoder.narrow[0].weight, other.average.decoder.narrow[0].weight)


def test_frozen_parts_stay_to_the_bit_and_the_rest_learns(tiny, bank, tmp_path):
    recipe = dataclasses.replace(tiny, steps=2, final_steps=0, frozen=("encoder", "decoder.units"))
    before = Run.start(recipe, None).network.state_dict()
    after = train(recipe, bank, None, tmp_path, resume=False).network.state_dict()
    frozen = [key for key in before if key.startswith(("encoder.", "decoder.units."))]
    assert any("running_mean" in key for key in frozen)
    assert all(torch.equal(before[key], after[key]) for key in frozen)
    assert not torch.equal(before["decoder.narrow.0.weight"], after["decoder.narrow.0.weight"])


def test_nothing_left_to_learn_is_said(tiny):
    frozen = ("encoder", "decoder", "depth_head", "person_head")
    with pytest.raises(TrainingError, match="frozen leaves nothing to learn"):
        Run.start(dataclasses.replace(tiny, frozen=frozen), None)


@pytest.mark.parametrize("value", [float("nan"), -1.0])
def test_bad_depth_is_counted_not_trained_on(sample_of, value):
    bad = sample_of(1)
    bad.inverse_depth[3, 4] = value
    bank = fill([("rooms", lambda: bad), ("rooms", lambda: sample_of(2))], progress=False)
    assert bank.broken == ["rooms/1: depth that is infinite, not a number or below 0"]
    assert bank.counts() == {"rooms": 1}
