import dataclasses
from itertools import pairwise

import pytest
import torch

from training.checkpoint import load_checkpoint, save_checkpoint
from training.schedules import Schedule, one_cycle, poly, triangular
from training.trainer import LAST, Run, train


def test_triangular_by_hand_and_as_torch_has_it():
    assert [triangular(step, 2, 0.2) for step in range(6)] == pytest.approx([0.2, 0.6, 1.0, 0.6, 0.2, 0.6])
    optimizer = torch.optim.SGD([torch.zeros(())], lr=1e-3)
    peer = torch.optim.lr_scheduler.CyclicLR(optimizer, 1e-5, 1e-3, step_size_up=7, cycle_momentum=False)
    for step in range(40):
        assert 1e-3 * triangular(step, 7, 0.01) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        peer.step()


def test_one_cycle_rises_straight_for_three_tenths_and_ends_at_a_hundredth():
    steps = 101
    trace = [one_cycle(step, steps) for step in range(steps)]
    assert trace[0] == pytest.approx(1 / 25)
    assert trace[30] == max(trace) == pytest.approx(1)
    rises = [b - a for a, b in pairwise(trace[:31])]
    assert max(rises) == pytest.approx(min(rises))
    assert trace[65] == pytest.approx((1 + 1 / 100) / 2)
    assert trace[-1] == pytest.approx(1 / 100)


def test_poly_by_hand():
    assert [poly(step, 4, 0.5, 0.1) for step in (0, 3, 4, 9)] == pytest.approx([1, 0.1 + 0.9 * 0.5, 0.1, 0.1])


def test_a_plateau_lowers_the_rate_and_remembers(tiny):
    recipe = dataclasses.replace(tiny, schedule="plateau", plateau_patience=1, plateau_factor=0.5)
    schedule = Schedule(recipe)
    factors = []
    for loss in (1.0, 0.9, 0.9, 0.95, 0.9):
        schedule.validated(loss)
        factors.append(schedule.factor(0))
    assert factors == [1, 1, 1, 0.5, 0.5]
    again = Schedule(recipe)
    again.adopt(schedule.state())
    again.validated(0.91)
    schedule.validated(0.91)
    assert again.factor(0) == schedule.factor(0) == 0.25
    assert again.state() == schedule.state()


def test_every_schedule_trains_with_each_group_at_its_own_peak(tiny, bank):
    for name in ("cosine", "triangular", "one_cycle", "poly", "plateau"):
        run = Run.start(dataclasses.replace(tiny, schedule=name, cycle_steps=4), None)
        factor = run.schedule.factor(2)
        peaks = [group["peak_lr"] for group in run.optimizer.param_groups]
        assert sorted(set(peaks)) == [tiny.encoder_lr, tiny.lr]
        assert 0 < factor <= 1


def test_a_resumed_run_knows_its_plateau_and_its_best(tiny, bank, tmp_path):
    recipe = dataclasses.replace(tiny, schedule="plateau", select_by="loss", steps=2, final_steps=0, validate_every=1)
    run = train(recipe, bank, None, tmp_path, resume=False)
    stored = load_checkpoint(tmp_path / LAST)
    assert stored.metrics["loss"] > 0
    assert stored.best == run.best <= stored.metrics["loss"]
    assert stored.schedule["best"] == stored.best
    resumed = Run.resume(recipe, tmp_path / LAST)
    assert resumed.schedule.state() == stored.schedule
    assert resumed.best == stored.best


def test_checkpoints_from_before_there_were_schedules_go_on(tiny, tmp_path):
    path = tmp_path / LAST
    save_checkpoint(path, Run.start(tiny, None).checkpoint(tiny, "abc"))
    values = torch.load(path, weights_only=True)
    for key in ("best", "schedule"):
        del values[key]
    for key in ("task", "schedule", "optimizer", "frozen", "starts_from", "select_by"):
        del values["config"][key]
    torch.save(values, path)
    assert Run.resume(tiny, path).schedule.factor(1) == 1
