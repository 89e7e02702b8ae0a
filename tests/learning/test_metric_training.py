"""Networks of seeds 1 and 2 learn depth in metres from four rendered rooms, each by its own rules."""

import copy

import numpy as np
import pytest
import torch

from training.data.bank import Batch
from training.data.synthetic.assets import load_library
from training.data.synthetic.generator import render_scene
from training.data.synthetic.people import Cast
from training.data.transforms import Item
from training.distillation import align_teacher, two_terms, unaligned
from training.losses import masked_error, silog
from training.models import create_model
from training.models.frozen import freeze
from training.schedules import triangular

SIZE = (64, 64)
FARTHEST_M = 10.0
STAGES = ("encoder.body.conv1", "encoder.body.bn1", "encoder.body.layer1", "encoder.body.layer2")


@pytest.fixture(autouse=True)
def one_thread(two_threads):
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def rooms():
    library = load_library(drawn=1)
    cast = Cast(library.characters)
    items = []
    for seed in range(4):
        rendering = render_scene(seed, library, cast, SIZE, kind="room")
        inverse = np.maximum(rendering.view.inverse_depth, 1e-3).astype(np.float32)
        items.append(Item(rendering.image, inverse, np.full(SIZE, -1, np.float32), True, True))
    return Batch.of(items)


def truth_m(batch):
    return torch.where(batch.depth_m < FARTHEST_M, batch.depth_m, 0)


def learn(network, batch, loss, steps, lr, frozen=()):
    """Adam with a triangular cyclical rate; the loss of the first and of the last step."""
    torch.manual_seed(0)
    freeze(network, frozen)
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=lr)
    values = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * triangular(step, 8, 0.01)
        freeze(network.train(), frozen)
        value = loss(network(batch.image), truth_m(batch))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    return values[0], values[-1]


def rmse_m(prediction, target):
    return masked_error(prediction, target).sqrt().item()


def tensors(module):
    return copy.deepcopy(module.state_dict())


def same(before, module):
    after = module.state_dict()
    return all(torch.equal(value, after[key]) for key, value in before.items())


@pytest.mark.parametrize("name", ["resnet50_encoder_decoder_tiny", "cnn_transformer_tiny", "cnn_student"])
def test_networks_begin_at_the_depth_of_a_room(name, rooms):
    torch.manual_seed(0)
    network = create_model(name).train()
    with torch.no_grad():
        assert 2 < network(rooms.image).mean() < 3


def test_the_encoder_decoder_learns_more_than_the_mean_depth_and_keeps_its_frozen_stages(rooms):
    torch.manual_seed(0)
    network = create_model("resnet50_encoder_decoder_tiny")
    before = {part: tensors(network.get_submodule(part)) for part in STAGES}
    learn(network, rooms, masked_error, 40, 1e-2, STAGES)
    target = truth_m(rooms)
    mean = torch.full_like(target, target[target > 0].mean())
    with torch.no_grad():
        assert rmse_m(network.eval()(rooms.image), target) < 0.8 * rmse_m(mean, target)
    assert all(same(before[part], network.get_submodule(part)) for part in STAGES)


def test_in_two_stages_the_cnn_learns_first_and_then_stays_as_it_is(rooms):
    torch.manual_seed(0)
    cnn = create_model("cnn_transformer_tiny_cnn")
    start = tensors(cnn.encoder)
    first, last = learn(cnn, rooms, silog, 12, 5e-3)
    assert last < 0.8 * first
    assert not same(start, cnn.encoder)

    network = create_model("cnn_transformer_tiny")
    network.encoder.load_state_dict(cnn.encoder.state_dict())
    kept = tensors(network.encoder)
    first, last = learn(network, rooms, silog, 12, 5e-3, ("encoder",))
    assert last < 0.8 * first
    assert same(kept, network.encoder)


def test_end_to_end_the_cnn_learns_with_the_transformer(rooms):
    torch.manual_seed(0)
    network = create_model("cnn_transformer_tiny")
    cnn, transformer = tensors(network.encoder), tensors(network.transformer)
    first, last = learn(network, rooms, silog, 12, 5e-3)
    assert last < 0.8 * first
    assert not same(cnn, network.encoder)
    assert not same(transformer, network.transformer)


def test_a_student_of_an_aligned_teacher_is_not_worse_than_one_without_and_better_than_of_an_unaligned_one(rooms):
    whole = truth_m(rooms)
    rng = torch.Generator().manual_seed(0)
    # a sensor that sees nothing in half of the blocks, and a teacher that sees all in units of its own
    known = torch.rand(4, 8, 8, generator=rng).repeat_interleave(8, 1).repeat_interleave(8, 2) < 0.5
    truth = torch.where(known, whole, 0)
    inverse = 40 * rooms.inverse_depth + 10 + 0.5 * torch.rand(rooms.inverse_depth.shape, generator=rng)
    holes = torch.where(known, 0, whole)
    rmse = {}
    for name, teacher in (
        ("without", torch.zeros_like(truth)),
        ("aligned", align_teacher(inverse, truth)),
        ("unaligned", unaligned(inverse)),
    ):
        torch.manual_seed(0)
        student = create_model("cnn_transformer_tiny_cnn")

        def loss(depth, _, teacher=teacher):
            terms = two_terms(depth, truth, teacher)
            return terms.truth + 0.5 * terms.teacher

        learn(student, rooms, loss, 12, 5e-3)
        with torch.no_grad():
            rmse[name] = rmse_m(student(rooms.image), holes)
    assert rmse["aligned"] <= 1.1 * rmse["without"]
    assert rmse["aligned"] < rmse["unaligned"]
