import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import training
from training.config import load_config
from training.data.bank import Bank, Batch, fill
from training.data.stereo_pairs import layered_sample, stereo_readers
from training.data.transforms import warp, whole_map
from training.errors import TrainingError
from training.models.madnet import MADNet
from training.tasks import make_task
from training.trainer import BEST, LAST, train

SIZE = (64, 64)
RECIPE = Path(training.__file__).parent / "configs" / "stereo_madnet.yaml"


class Flat(nn.Module):
    """Says one disparity everywhere, doubled at the finest scale."""

    def __init__(self, disparity_px=4.0):
        super().__init__()
        self.level = nn.Parameter(torch.tensor(disparity_px))

    def scales(self, left, right, modular=False):
        one = self.level.expand(left.shape[:3])
        return [one, 2 * one]

    def forward(self, left, right):
        return self.scales(left, right)[-1]


@pytest.fixture(scope="module")
def samples():
    return [layered_sample(seed, SIZE) for seed in range(2)]


def recipe(**changes):
    small = {"sizes": (SIZE,), "final_sizes": (SIZE,), "steps": 2, "batch": 2, "validate_every": 2, "bf16": False}
    return dataclasses.replace(load_config(RECIPE), **small | changes)


def constant(sample, disparity_px):
    return dataclasses.replace(sample, disparity_px=np.full(SIZE, disparity_px, np.float32))


def test_the_loss_is_the_weighted_error_of_the_scales(samples):
    task = make_task(recipe(scale_weights=(0.5, 2.0)))
    items = [warp(constant(sample, 5.0), whole_map(SIZE, SIZE), SIZE) for sample in samples]
    parts = task.losses(task.forward(Flat(4.0)), Batch.of(items))
    assert parts["scale_1"].item() == pytest.approx(1.0)
    assert parts["scale_2"].item() == pytest.approx(3.0)
    assert parts["loss"].item() == pytest.approx(0.5 * 1 + 2 * 3)
    with pytest.raises(TrainingError, match="scale_weights has 6 entries for 2 scales"):
        make_task(recipe()).losses(task.forward(Flat()), Batch.of(items))


def test_held_out_pairs_are_judged_one_by_one(samples):
    task = make_task(recipe())
    found = task.metrics(Flat(4.0).eval(), [constant(samples[0], 8.0), constant(samples[1], 18.0)])
    assert found == {"epe": pytest.approx(5.0), "bad3": pytest.approx(0.5), "d1": pytest.approx(0.5)}
    picture = task.panel(Flat(4.0).eval(), samples[0])
    assert picture.shape == (64, 3 * 64, 3)
    assert picture.dtype == np.uint8


def test_only_pairs_with_truth_are_trained_on(samples, sample_of):
    task = make_task(recipe())
    assert task.wants(samples[0])
    assert not task.wants(sample_of(1))
    assert not task.wants(dataclasses.replace(samples[0], disparity_px=None))


def test_a_network_without_scales_is_refused():
    with pytest.raises(TrainingError, match="no stereo network"):
        make_task(recipe()).forward(nn.Identity())


def test_the_trainer_trains_it(tmp_path):
    found = fill(stereo_readers(3, SIZE), progress=False)
    pairs = [s for scenes in found.train.values() for group in scenes.values() for s in group] + found.held_out
    bank = Bank({"layered": {s.scene: [s] for s in pairs[:2]}}, pairs[2:])
    run = train(recipe(), bank, None, tmp_path, resume=False)
    assert run.step == 2
    assert set(run.metrics) == {"epe", "bad3", "d1"}
    assert (tmp_path / LAST).is_file()
    assert (tmp_path / BEST).is_file()


def test_madnet_overfits_pairs_of_planes():
    # twenty pairs of one plane each: noise moved by whole columns
    generator = torch.Generator().manual_seed(0)
    wide = torch.rand(20, 3, 8, 12, generator=generator)
    wide = nn.functional.interpolate(wide, (64, 96), mode="bicubic").clamp(0, 1).mul(255).permute(0, 2, 3, 1)
    wide = (wide + 40 * torch.rand(20, 64, 96, 3, generator=generator)).clamp(0, 255)
    shifts = torch.arange(20) % 10 + 2
    left = wide[:, :, :64].to(torch.uint8)
    right = torch.stack([w[:, s : s + 64] for w, s in zip(wide, shifts.tolist(), strict=True)]).to(torch.uint8)
    truth = shifts[:, None, None].expand(20, 64, 64).float()
    torch.set_num_threads(1)  # these maps are too small for two
    torch.manual_seed(0)
    network = MADNet()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, 120)
    for _ in range(120):
        chosen = torch.randperm(20, generator=generator)[:5]
        scales = network.scales(left[chosen], right[chosen])
        errors = [(scale - truth[chosen]).abs().mean() for scale in scales]
        optimizer.zero_grad()
        torch.stack(errors).sum().backward()
        optimizer.step()
        falling.step()
    with torch.no_grad():
        epe = (network(left, right) - truth).abs().mean().item()
    assert epe < 1
