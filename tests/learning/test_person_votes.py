import dataclasses
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from torch import nn

from training import votes_export
from training.__main__ import main
from training.checkpoint import load_checkpoint
from training.config import load_config
from training.config_votes import VotesConfig
from training.data.bank import Bank, Batch, Sampler
from training.data.crowd_files import PLAIN_SOURCE, crowd_readers, plain_crowd
from training.data.transforms import Augmentation, jittered, warp, whole_map
from training.errors import TrainingError
from training.models import create_model
from training.models.person_votes import REFERENCE_HEIGHT_PX, UNIT_PX, PersonVotes, completed, network_input
from training.tasks import make_task
from training.tasks.person_votes import PersonVotesTask, confusion, predict, target, weights
from training.trainer import train

RECIPE = Path(votes_export.__file__).parent / "configs" / "person_votes.yaml"
SMALL = ["batch=2", "sizes=[[64, 96]]", "final_sizes=[[64, 96]]", "bf16=false", "warmup_steps=1"]
SMALL += [f"sources={{{PLAIN_SOURCE}: 1.0}}", "plain_crowds=6", "validate_every=2", "checkpoint_every=2"]


def small_config(*more: str) -> VotesConfig:
    config = load_config(RECIPE, [*SMALL, *more])
    assert isinstance(config, VotesConfig)
    return config


class Oracle(nn.Module):
    """Answers with given votes, whatever it sees."""

    def __init__(self, answer: torch.Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        assert maps.shape[1] == 5
        return self.answer.expand(len(maps), -1, -1, -1)


@pytest.fixture(scope="module")
def crowds():
    return [plain_crowd(seed, 96) for seed in range(4)]


@pytest.fixture
def batch(crowds):
    size = 64, 96
    return Batch.of([warp(crowd, whole_map((64, 96), size), size) for crowd in crowds[:2]])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """Of a run of two steps on drawn crowds."""
    folder = tmp_path_factory.mktemp("run")
    words = ["train", "--config", RECIPE, "--out", folder, "--threads", 1]
    words += [word for change in (*SMALL, "steps=2", "sizes=[[32, 32]]") for word in ("--set", change)]
    # the source is drawn; no folder of crowds is needed
    assert main([str(word) for word in words]) == 0
    return folder / "last.pt"


def test_network():
    network = create_model("person_votes").eval()
    assert isinstance(network, PersonVotes)
    assert 2.7e6 < sum(parameter.numel() for parameter in network.parameters()) < 2.8e6
    for size in ((64, 96), (32, 32)):
        assert network(torch.zeros(2, 5, *size)).shape == (2, 7, *size)


def test_input():
    image = torch.tensor([[[[0, 255, 127]]]], dtype=torch.uint8)
    maps = network_input(image, torch.tensor([[[-1.0]]]), torch.tensor([[[1.0]]]))
    assert maps[0, :, 0, 0].tolist() == pytest.approx([-1, 1, 127 / 127.5 - 1, -1, 1])
    assert network_input(image, torch.tensor([[[0.75]]]), torch.tensor([[[0.25]]]))[0, 3:, 0, 0].tolist() == [0.5, -0.5]


def test_target_and_its_inverse(batch):
    wanted = target(batch.votes)
    assert wanted.isfinite().all()
    found = predict(Oracle(wanted), batch)
    mine = batch.votes[:, 2] > 0
    for channel in range(3):
        assert torch.allclose(found[:, channel][mine], batch.votes[:, channel][mine], atol=1e-3)
    assert (wanted.movedim(1, -1)[~mine] == 0).all()
    votes = torch.tensor([16.0, -32.0, 2 * REFERENCE_HEIGHT_PX, 1.0])[None, :, None, None]
    assert target(votes).flatten().tolist() == pytest.approx([16 / UNIT_PX, -32 / UNIT_PX, np.log(2)])


def test_weights_are_of_persons():
    votes = torch.zeros(2, 4, 10, 10)
    votes[0, 2:, :, :4], votes[0, 3, :, :4] = 64.0, 1  # 40 pixels
    votes[0, 2, 0, 5:], votes[0, 3, 0, 5:] = 64.0, 2  # a speck of 5
    votes[1, 2, :, :], votes[1, 3, :, :] = 128.0, 1  # of the same number in another picture
    found = weights(votes)
    assert found[0, :, :4].unique().tolist() == pytest.approx([2 * 40**-0.75])
    assert not found[0, :, 4:].any()
    assert found[1].sum().item() == pytest.approx(100**0.25)


def test_metrics_by_hand(crowds):
    config = small_config()
    task = make_task(config)
    crowd = crowds[1]
    truth = target(Batch.of([warp(crowd, whole_map((64, 96), (64, 96)), (64, 96))]).votes)
    assert task.metrics(Oracle(truth), [crowd]) == pytest.approx({"vote_error": 0, "height_error": 0}, abs=1e-5)
    height = REFERENCE_HEIGHT_PX * torch.exp(truth[:, 2:])
    moved = truth + torch.cat([0.1 * height / UNIT_PX, torch.zeros_like(height), torch.full_like(height, 0.2)], 1)
    found = task.metrics(Oracle(moved), [crowd])
    assert found == pytest.approx({"vote_error": 0.1, "height_error": np.exp(0.2) - 1}, abs=1e-4)
    assert config.select_by == "vote_error"
    assert config.is_better(0.1, 0.2)
    assert not config.is_better(0.3, 0.2)
    assert task.metrics(Oracle(truth), []) == {}
    assert task.panel(Oracle(truth), crowd).shape == (64, 192, 3)


def test_other_samples_are_left_out(crowds, sample_of, batch):
    task = make_task(small_config())
    assert task.wants(crowds[1])
    assert not task.wants(sample_of(1))
    assert not task.wants(dataclasses.replace(crowds[1], votes=np.zeros_like(crowds[1].votes)))
    without = dataclasses.replace(batch, votes=None)
    with pytest.raises(TrainingError, match="a batch without votes"):
        task.losses(create_model("person_votes"), without)


def test_a_step_can_be_repeated(crowds):
    bank = Bank({PLAIN_SOURCE: {crowd.scene: [crowd] for crowd in crowds}})
    made = [Sampler(bank, {PLAIN_SOURCE: 1.0}, 3, Augmentation()).batch(5, 3, ((64, 96),)) for _ in range(2)]
    for name in ("image", "person", "inverse_depth", "votes"):
        assert torch.equal(getattr(made[0], name), getattr(made[1], name))
    assert made[0].to("cpu").votes.shape == (3, 4, 64, 96)


def test_it_learns_two_crowds_by_heart(batch):
    config = small_config()
    torch.set_num_threads(1)  # pictures this small are quicker without a second
    torch.manual_seed(0)
    network = create_model("person_votes")
    task = PersonVotesTask(config, None)
    optimizer = torch.optim.AdamW(network.parameters(), 4e-3)
    losses = []
    for _ in range(40):
        parts = task.losses(network, batch)
        assert set(parts) == {"loss", "offset", "height", "owner"}
        optimizer.zero_grad()
        parts["loss"].backward()
        optimizer.step()
        losses.append(parts["loss"].item())
    assert np.mean(losses[-5:]) < 0.3 * losses[0]


def test_recipe_runs_and_resumes(tmp_path):
    bank = Bank()
    for index, (source, read) in enumerate(crowd_readers(3, None)):
        sample = read()
        if index:
            bank.train.setdefault(source, {})[sample.scene] = [sample]
        else:
            bank.held_out.append(sample)
    train(small_config("steps=1"), bank, None, tmp_path, resume=False)
    run = train(small_config("steps=2"), bank, None, tmp_path, resume=True)
    assert run.step == 2
    assert set(run.metrics) == {"vote_error", "height_error"}
    assert (tmp_path / "best.pt").is_file()


def test_what_cannot_work_is_refused():
    for change in ("beta=0", "height_weight=-1", "plain_crowds=-1"):
        with pytest.raises(TrainingError, match="beta must be above 0"):
            small_config(change)
    with pytest.raises(TrainingError, match="paste is"):
        small_config("paste=0.5")


def test_export_agrees_with_opencv(checkpoint, tmp_path, capsys):
    out = tmp_path / "folder" / "votes.onnx"
    assert main(["export-votes", "--checkpoint", str(checkpoint), "--out", str(out)]) == 0
    assert "off torch" in capsys.readouterr().out
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    stored = load_checkpoint(checkpoint)
    network = create_model("person_votes")
    network.load_state_dict(stored.ema)
    sizes = ((64, 96), (224, 320), (64, 64))
    assert votes_export.largest_difference(network.eval(), out, sizes) < 1e-4
    about = {entry.key: entry.value for entry in onnx.load(str(out)).metadata_props}
    assert about == {"commit": stored.commit, "seed": "60", "steps": "2", "model": "person_votes"}
    assert str(Path(votes_export.__file__).parent).encode() not in out.read_bytes()


def test_export_refuses(checkpoint, tmp_path, monkeypatch, capsys):
    out = tmp_path / "votes.onnx"
    other = create_model("person_votes").eval()
    (tmp_path / "damaged.onnx").write_bytes(b"no graph")
    with pytest.raises(TrainingError, match="cannot run"):
        votes_export.largest_difference(other, tmp_path / "damaged.onnx")
    monkeypatch.setattr(votes_export, "TOLERANCE", -1.0)
    assert main(["export-votes", "--checkpoint", str(checkpoint), "--out", str(out)]) == 1
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("error: OpenCV's votes are up to")
    assert not out.exists()
    assert main(["export-votes", "--checkpoint", str(tmp_path / "none.pt"), "--out", str(out)]) == 1
    assert "checkpoint not found" in capsys.readouterr().err


def test_the_exported_file_gives_the_same_votes_at_every_size(checkpoint, tmp_path):
    """One reader, sizes back and forth, as the gateway uses it."""
    out = tmp_path / "votes.onnx"
    votes_export.export_votes(checkpoint, out)
    reader = cv2.dnn.readNetFromONNX(str(out))
    answers = []
    for size in ((64, 96), (96, 64), (64, 96)):
        reader.setInput(np.full((1, 5, *size), 0.25, np.float32))
        answers.append(reader.forward().copy())
        assert answers[-1].shape == (1, 7, *size)
    assert np.array_equal(answers[0], answers[2])


def two_side_by_side():
    """Votes of a picture in which two people stand 20 pixels apart, 40 tall; the chests of both are at row 10."""
    votes = torch.zeros(1, 4, 32, 64)
    for number, (left, chest) in enumerate(((10, 15.0), (30, 35.0)), 1):
        there = votes[0, :, 4:30, left : left + 10]
        there[0] = chest - torch.arange(left, left + 10)
        there[1] = 10.0 - torch.arange(4, 30)[:, None]
        there[2], there[3] = 40.0, number
    return votes


def test_votes_for_a_neighbour_cost_more_than_a_miss_away_from_everybody():
    votes = two_side_by_side()
    weight, right = weights(votes), target(votes)
    swapped, aside = right.clone(), right.clone()
    swapped[0, 0, :, 10:20] += 20 / UNIT_PX
    aside[0, 1] -= 20 / UNIT_PX  # as far, upwards, where nobody has a chest
    costs = [float(confusion(found, votes, weight)) for found in (right, aside, swapped)]
    # the other chest is 20 pixels off: 9.77 = 20 squared over (0.16 * 40) squared, 6.56 once bounded
    bounded = 9.765625 / (1 + 9.765625 / 20)
    assert costs[0] == pytest.approx(np.log1p(np.exp(-bounded)), rel=0.01)
    # half of the pixels are as sure of the wrong one
    assert costs[2] == pytest.approx(bounded / 2, rel=0.01)
    assert costs[1] < 0.1 * costs[2]


def test_who_is_alike_is_told_apart_where_votes_are_not():
    votes = two_side_by_side()
    weight, lost = weights(votes), target(votes)
    lost[0, 0] = (25 - torch.arange(64.0)) / UNIT_PX  # all vote for the middle between both chests
    blind = torch.cat([lost, torch.zeros(1, 4, 32, 64)], 1)
    seeing = blind.clone()
    seeing[0, 4, :, 30:] = 2.0  # one number of four differs between them
    costs = [float(confusion(found, votes, weight)) for found in (lost, blind, seeing)]
    assert costs[:2] == pytest.approx([np.log(2)] * 2, rel=1e-4)
    # 10 pixels off both chests, squared over (0.16 * 40) squared: 2.44; to the other 4 more
    near, far = (value / (1 + value / 20) for value in (2.44140625, 6.44140625))
    assert costs[2] == pytest.approx(np.log1p(np.exp(near - far)), rel=1e-3)


def test_a_network_grows_from_the_default_one():
    """It sees a photo as that does, and matte and depth not at all, before it is trained."""
    torch.manual_seed(0)
    grown, source = create_model("person_votes").eval(), create_model("focus_on_depth_sharp").eval()
    grown.load_state_dict(completed(grown, source.state_dict()))
    photo = torch.rand(1, 3, 64, 64) * 2 - 1
    seen = [grown.encoder(torch.cat([photo, torch.full((1, 2, 64, 64), value)], 1))[-1] for value in (-1.0, 0.7)]
    assert torch.equal(*seen)
    assert torch.allclose(seen[0], source.encoder(photo)[-1], atol=1e-5)
    own = grown.state_dict()
    assert completed(grown, own) is own
    assert completed(grown, {"other": photo}) == {"other": photo}


def test_one_person_alone_can_be_confused_with_nobody():
    votes = two_side_by_side()
    votes[..., 30:] = 0
    found = target(votes).requires_grad_()
    cost = confusion(found, votes, weights(votes))
    assert float(cost.detach()) == 0
    cost.backward()
    assert not found.grad.any()


def test_depth_as_given_is_stretched_and_the_photo_at_times_unknown():
    item = warp(plain_crowd(1), whole_map((107, 160), (96, 160)), (96, 160))
    seen = [jittered(np.random.default_rng(seed), item) for seed in range(40)]
    unknown = [bool((one.image == 127).all()) for one in seen]
    assert 0 < sum(unknown) < 12
    again = jittered(np.random.default_rng(3), item)
    assert np.array_equal(again.inverse_depth, seen[3].inverse_depth)
    assert np.abs(seen[3].inverse_depth - seen[4].inverse_depth).mean() > 0.01
    assert all(np.array_equal(one.votes, item.votes) for one in seen)
