import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from training.chamfer import bin_chamfer
from training.checkpoint import save_checkpoint
from training.config import parse_config
from training.data.bank import Batch
from training.data.sample import Sample
from training.data.transforms import warp, whole_map
from training.errors import TrainingError
from training.lessons import batch_teacher
from training.models.adabins import Bins
from training.tasks import make_task
from training.tasks.distillation import DistillationTask
from training.tasks.metric_depth import MetricDepthTask
from training.trainer import Run

SIZE = (64, 64)
_OF_FOCUS = ("depth_form", "trim", "depth_weight", "gradient_weight", "log_weight", "person_weight", "dice_weight")


def recipe(values, **changes):
    """The tiny recipe for another task."""
    kept = {key: value for key, value in values.items() if key not in _OF_FOCUS}
    return parse_config(kept | {"sizes": [list(SIZE)]} | changes, "tiny")


def room(depth_m, name="room", metric=True):
    """A picture whose depth is `depth_m`, (H, W)."""
    inverse = np.divide(1, depth_m, out=np.zeros_like(depth_m), where=depth_m > 0).astype(np.float32)
    image = np.full((*depth_m.shape, 3), 90, np.uint8)
    return Sample(name, "rooms", name, image, inverse, metric=metric)


def batch_of(*samples):
    return Batch.of([warp(sample, whole_map(SIZE, SIZE), SIZE) for sample in samples])


class Flat(nn.Module):
    """Says the same depth everywhere."""

    output = "depth_m"

    def __init__(self, depth_m):
        super().__init__()
        self.depth_m = nn.Parameter(torch.tensor(float(depth_m)))

    def forward(self, image):
        return self.depth_m.expand(image.shape[:3])

    def bins(self, image):
        edges = torch.tensor([0.0, 2.0, 4.0]).expand(len(image), 3)
        return Bins(edges, self(image))


def test_metres_travel_through_a_batch_with_their_holes():
    depth = np.full(SIZE, 4.0)
    depth[:10] = 0
    batch = batch_of(room(depth), room(depth, metric=False))
    assert batch.depth_m[0, :10].eq(0).all()
    assert torch.allclose(batch.depth_m[0, 10:], torch.tensor(4.0))
    assert batch.depth_m[1].eq(0).all()


def test_truth_counts_within_the_range_and_where_there_is_enough(tiny_values):
    config = recipe(tiny_values, task="metric_depth", nearest_m=1.0, farthest_m=5.0)
    depth = np.full(SIZE, 2.0)
    depth[0], depth[1] = 0.5, 500.0  # too near; the sky
    few = np.zeros(SIZE)
    few[0, :63] = 2.0
    found = make_task(config).truth(batch_of(room(depth), room(few)))
    assert found[0, :2].eq(0).all()
    assert torch.allclose(found[0, 2:], torch.tensor(2.0))
    assert found[1].eq(0).all()


@pytest.mark.parametrize(("form", "expected"), [("rmse", 1.5), ("mse", 2.25), ("l1", 1.5)])
def test_losses_in_metres_by_hand(tiny_values, form, expected):
    task = make_task(recipe(tiny_values, task="metric_depth", loss_form=form))
    parts = task.losses(Flat(3.5), batch_of(room(np.full(SIZE, 2.0))))
    assert set(parts) == {"loss", form}
    assert parts["loss"].item() == pytest.approx(expected, rel=1e-4)
    parts["loss"].backward()


def test_silog_forgives_part_of_a_wrong_scale(tiny_values):
    task = make_task(recipe(tiny_values, task="metric_depth"))
    loss = task.losses(Flat(2.0 * np.e), batch_of(room(np.full(SIZE, 2.0))))["loss"]
    # g = 1 everywhere: 10 * sqrt(1 - 0.85)
    assert loss.item() == pytest.approx(10 * 0.15**0.5, rel=1e-3)


def test_bins_have_a_term_of_their_own(tiny_values):
    task = make_task(recipe(tiny_values, task="metric_depth", loss_form="l1", chamfer_weight=0.1))
    batch = batch_of(room(np.full(SIZE, 2.0)))
    parts = task.losses(task.forward(Flat(2.0)), batch)
    wanted = bin_chamfer(torch.tensor([[1.0, 3.0]]), batch.depth_m)
    assert parts["bin_chamfer"].item() == pytest.approx(wanted.item()) == pytest.approx(2.0)
    assert parts["loss"].item() == pytest.approx(0.2)


def test_only_pictures_in_metres_are_trained_on(tiny_values, sample_of):
    task = make_task(recipe(tiny_values, task="metric_depth"))
    assert task.wants(room(np.full(SIZE, 2.0)))
    assert not task.wants(sample_of(1))


def test_held_out_pictures_are_judged_in_metres(tiny_values):
    task = make_task(recipe(tiny_values, task="metric_depth"))
    found = task.metrics(Flat(3.0).eval(), [room(np.full((48, 64), 3.0), "a"), room(np.full((48, 64), 2.0), "b")])
    assert found["pictures"] == 2
    assert found["rmse"] == pytest.approx(0.5, abs=1e-5)
    assert found["delta1"] == pytest.approx(0.5)
    assert found["abs_rel"] == pytest.approx(0.25, abs=1e-5)
    picture = task.panel(Flat(3.0).eval(), room(np.full((48, 64), 3.0)))
    assert picture.dtype == np.uint8
    assert picture.ndim == 3


@pytest.fixture
def teacher(tiny, tmp_path):
    """Checkpoint of a tiny network, beside the run's folder."""
    path = tmp_path / "teacher" / "last.pt"
    save_checkpoint(path, Run.start(tiny, None).checkpoint(tiny, "abc"))
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


class Student(nn.Module):
    """Has an encoder, as a network whose features are looked at must."""

    output = "depth_m"

    def __init__(self):
        super().__init__()
        self.encoder = Ladder()
        self.scale = nn.Parameter(torch.tensor(3.0))

    def forward(self, image):
        finest = self.encoder(image.permute(0, 3, 1, 2).float())[0]
        return self.scale + 0 * finest.sum() * torch.ones(image.shape[:3])


class Ladder(nn.Module):
    def __init__(self):
        super().__init__()
        self.steps = nn.ModuleList(nn.Conv2d(3, 4, 1) for _ in range(3))

    def forward(self, x):
        return [step(nn.functional.avg_pool2d(x, 2**k)) for k, step in enumerate(self.steps, 3)]


def slope():
    return np.repeat(np.linspace(1, 5, SIZE[0])[:, None], SIZE[1], 1)


def test_a_student_learns_from_truth_and_teacher(tiny_values, teacher):
    values = {"task": "distillation", "teacher": "../teacher/last.pt", "teacher_weight": 0.25}
    task = make_task(recipe(tiny_values, **values), folder=teacher)
    assert isinstance(task, DistillationTask)
    assert isinstance(task, MetricDepthTask)
    parts = task.losses(task.forward(Student()), batch_of(room(slope())))
    assert set(parts) == {"loss", "silog_truth", "silog_teacher"}
    expected = parts["silog_truth"].item() + 0.25 * parts["silog_teacher"].item()
    assert parts["loss"].item() == pytest.approx(expected, rel=1e-5)


def test_filling_changes_nothing_where_truth_is_whole(tiny_values, teacher):
    picture = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    seen = batch_teacher(str(teacher / "../teacher/last.pt"), None)(torch.from_numpy(picture[None])).inverse_depth[0]
    # a scene of which the teacher is right, so that it has something to fill with
    whole = 1 / (0.2 + 0.8 * (seen - seen.min()) / (seen.max() - seen.min())).double().numpy()
    holes = whole.copy()
    holes[:, :20] = 0
    values = {"task": "distillation", "teacher": "../teacher/last.pt", "target": "filled"}
    filling = make_task(recipe(tiny_values, **values), folder=teacher)
    plain = make_task(recipe(tiny_values, task="metric_depth"))
    student = Student()
    for depth, same in ((whole, True), (holes, False)):
        batch = batch_of(dataclasses.replace(room(depth), image=picture))
        filled = filling.losses(filling.forward(student), batch)["loss"].item()
        bare = plain.losses(student, batch)["loss"].item()
        assert (filled == pytest.approx(bare, rel=1e-6)) == same


def test_features_are_compared_from_the_coarsest_on(tiny_values, teacher):
    values = {"task": "distillation", "teacher": "../teacher/last.pt", "pair_wise_weight": 0.1, "attention_weight": 0.1}
    task = make_task(recipe(tiny_values, **values), folder=teacher)
    parts = task.losses(task.forward(Student()), batch_of(room(slope())))
    assert {"pair_wise", "attention"} <= set(parts)
    parts["loss"].backward()


def test_a_teacher_that_is_not_there_is_named(tiny_values, teacher):
    with pytest.raises(TrainingError, match="nothing"):
        make_task(recipe(tiny_values, task="distillation", teacher="../nothing/last.pt"), folder=teacher)


def test_ranges_must_be_ranges(tiny_values):
    with pytest.raises(TrainingError, match="nearest_m is 10"):
        recipe(tiny_values, task="metric_depth", nearest_m=10.0)


def test_what_is_no_recipe_is_not_trained(tiny):
    with pytest.raises(TrainingError, match="task imported cannot be trained: expected focus_on_depth or"):
        make_task(dataclasses.replace(tiny, task="imported"))
