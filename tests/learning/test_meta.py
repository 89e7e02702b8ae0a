"""Learning to adapt: its gradients against finite differences, what first order cannot teach, and that it teaches."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

import training
from training.adaptation import AdaptationConfig, Adapter
from training.errors import TrainingError
from training.losses_stereo import photometric, photometric_error, weighted_photometric
from training.meta import Learner, Moment, adapted, drawn, load_meta_config, task_loss, tasks_of
from training.models.madnet import MADNet
from training.models.matching import in_view
from training.models.wad import ErrorWeights

RECIPE = Path(training.__file__).with_name("meta_learning.yaml")
H, W = 12, 24


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


class Tiny(nn.Module):
    """A smooth stereo network of 257 weights."""

    def __init__(self, largest_px=8.0):
        super().__init__()
        self.first, self.last = nn.Conv2d(6, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1)
        self.largest_px = largest_px

    def forward(self, left, right):
        pair = torch.cat([left, right], 3).permute(0, 3, 1, 2).to(self.first.weight.dtype) / 255
        return self.largest_px * torch.sigmoid(self.last(torch.tanh(self.first(pair))))[:, 0]


def smooth(rng, shape):
    """Random greys without steps, 0..255."""
    coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, 4, 8)))
    return interpolate(coarse, shape, mode="bicubic", align_corners=False).clamp(0, 255).permute(0, 2, 3, 1)


def moments(count, size=(H, W), disparity=3, dtype=torch.float64, seed=0):
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        wide = smooth(rng, (size[0], size[1] + disparity))
        left, right = wide[:, :, : size[1]], wide[:, :, disparity:]
        truth = torch.full((1, *size), float(disparity))
        found.append(Moment(*(part.to(dtype).contiguous() for part in (left, right, truth))))
    return found


def tiny(seed=0):
    torch.manual_seed(seed)
    return Tiny().double(), ErrorWeights().double()


@pytest.mark.parametrize("weighted", [True, False], ids=["WAd", "plain"])
def test_the_meta_gradient_is_that_of_finite_differences(weighted):
    network, error_weights = tiny()
    task, rate = moments(3), 0.5  # large enough that the steps bend the loss: first order must fail below
    parts = [*network.parameters(), *(error_weights.parameters() if weighted else ())]

    def loss():
        return task_loss(network, task, rate, "second", error_weights if weighted else None)

    slopes = torch.autograd.grad(loss(), parts)
    step = 1e-6
    rng = np.random.default_rng(1)
    for part, slope in zip(parts, slopes, strict=True):
        for place in rng.choice(part.numel(), min(3, part.numel()), replace=False):
            flat = part.detach().view(-1)  # shares the parameter's memory
            kept = flat[place].item()
            found = []
            for moved in (kept + step, kept - step):
                flat[place] = moved
                found.append(float(loss().detach()))
            flat[place] = kept
            assert (found[0] - found[1]) / (2 * step) == pytest.approx(
                float(slope.reshape(-1)[place]), rel=2e-4, abs=1e-7
            )


def test_the_meta_gradient_of_madnet_is_right_along_a_random_direction():
    torch.manual_seed(0)
    network, error_weights = MADNet().double().eval(), ErrorWeights().double()
    task, rate = moments(2, (64, 64)), 1e-2
    parts = [*network.parameters(), *error_weights.parameters()]
    slopes = torch.autograd.grad(task_loss(network, task, rate, "second", error_weights), parts)
    ways = [0.1 * torch.randn_like(part) for part in parts]
    expected = sum(float((slope * way).sum()) for slope, way in zip(slopes, ways, strict=True))
    step, found = 1e-7, []
    for sign in (1, -1):
        with torch.no_grad():
            for part, way in zip(parts, ways, strict=True):
                part.add_(sign * step * way)
        found.append(float(task_loss(network, task, rate, "second", error_weights).detach()))
        with torch.no_grad():
            for part, way in zip(parts, ways, strict=True):
                part.sub_(sign * step * way)
    assert (found[0] - found[1]) / (2 * step) == pytest.approx(expected, rel=1e-3)


def gradients(order):
    network, error_weights = tiny()
    loss = task_loss(network, moments(3), 0.5, order, error_weights)
    parts = list(network.parameters()), list(error_weights.parameters())
    return [torch.autograd.grad(loss, part, retain_graph=True, allow_unused=True) for part in parts]


def test_first_order_gives_wad_nothing_and_the_network_something_else():
    (network, error_weights), (exact, taught) = gradients("first"), gradients("second")
    assert all(slope is None for slope in error_weights)
    assert all(slope is not None and slope.abs().max() > 0 for slope in taught)
    assert not any(torch.allclose(one, other, rtol=1e-3) for one, other in zip(network, exact, strict=True))


def test_first_order_is_the_gradient_at_the_adapted_weights():
    network, _ = tiny()
    task, rate = moments(2), 0.5
    found = torch.autograd.grad(task_loss(network, task, rate, "first"), list(network.parameters()))
    moved = adapted(network, dict(network.named_parameters()), task[0], rate, second_order=False)
    leaves = {name: value.detach().requires_grad_() for name, value in moved.items()}
    prediction = torch.func.functional_call(network, leaves, (task[1].left, task[1].right))
    error = (prediction - task[1].truth).abs().mean()
    for one, other in zip(found, torch.autograd.grad(error, list(leaves.values())), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("weighted", [True, False], ids=["WAd", "plain"])
def test_a_step_is_that_of_plain_sgd_on_the_online_loss(weighted):
    network, error_weights = tiny()
    (moment,) = moments(1)
    moved = adapted(network, dict(network.named_parameters()), moment, 0.1, error_weights if weighted else None)
    found = moment.left, moment.right, network(moment.left, moment.right)
    loss = weighted_photometric(*found, error_weights) if weighted else photometric(*found)
    loss.backward()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(moved[name], parameter - 0.1 * parameter.grad)


def test_wad_has_the_papers_size_and_its_weights_sum_to_at_most_one():
    torch.manual_seed(0)
    network = ErrorWeights()
    assert sum(parameter.numel() for parameter in network.parameters()) == 20_161
    with torch.no_grad():
        weights = network(torch.rand(2, 3, 30, 45))
    assert weights.shape == (2, 1, 30, 45)
    assert (weights > 0).all()
    assert 0.2 < float(weights.sum()) < 0.8
    with torch.no_grad():
        network.last.bias.fill_(100.0)
        assert float(network(torch.rand(1, 3, 30, 45)).sum()) == pytest.approx(1)


def test_errors_that_are_all_trusted_are_the_photometric_loss():
    (moment,) = moments(1, dtype=torch.float32)
    pair, disparity = (moment.left, moment.right), torch.full((1, H, W), 2.0)
    network = ErrorWeights()
    with torch.no_grad():
        network.last.bias.fill_(100.0)
    found = weighted_photometric(*pair, disparity, network)
    torch.testing.assert_close(found, photometric_error(*pair, disparity).mean(), rtol=1e-5, atol=0)


def tiny_config(**changes):
    small = {"worlds": 2, "validated": 1, "frames": 4, "size": (64, 64), "steps": 3, "validate_every": 2}
    return dataclasses.replace(load_meta_config(RECIPE), **small | {"domains": ("clean", "noise")} | changes)


def test_tasks_are_consecutive_frames_and_the_same_for_the_same_step():
    config = tiny_config()
    sequences = drawn(config)
    assert [len(sequence) for sequence in sequences] == [4] * 4
    places = {id(moment): (which, at) for which, s in enumerate(sequences) for at, moment in enumerate(s)}
    seen = set()
    for step in range(30):
        for task in tasks_of(step, sequences, config):
            which, at = zip(*(places[id(moment)] for moment in task), strict=True)
            assert len(set(which)) == 1
            assert list(at) == [at[0], at[0] + 1, at[0] + 2]
            seen.add((which[0], at[0]))
        again = tasks_of(step, sequences, config)
        assert [[id(m) for m in task] for task in again] == [
            [id(m) for m in t] for t in tasks_of(step, sequences, config)
        ]
    assert seen == {(which, at) for which in range(4) for at in (0, 1)}
    left = {moment.left.numpy().tobytes() for sequence in sequences for moment in sequence}
    assert not left & {moment.left.numpy().tobytes() for s in drawn(config, validation=True) for moment in s}


def occluded_moments(count, seed):
    """Pairs whose left third has nothing to do with the right picture: errors there teach nonsense."""
    found = []
    for moment in moments(count, seed=seed):
        left = moment.left.clone()
        left[:, :, : W // 3] = smooth(np.random.default_rng(seed + 99), (H, W // 3))
        found.append(dataclasses.replace(moment, left=left))
    return found


def test_meta_training_finds_weights_that_adapt_better_to_worlds_it_has_not_seen():
    config = dataclasses.replace(
        load_meta_config(RECIPE), inner_lr=0.5, lr=3e-3, error_weights_lr=3e-3, steps=40, tasks=2, inner_steps=1
    )
    torch.manual_seed(0)
    learner = Learner(Tiny().double(), config)
    learner.error_weights.double()
    unseen = [occluded_moments(2, seed) for seed in range(100, 106)]
    before = learner.validate(unseen)["epe"]
    for step in range(config.steps):
        learner.advance([occluded_moments(2, 2 * step), occluded_moments(2, 2 * step + 1)])
    assert learner.validate(unseen)["epe"] < 0.8 * before


def test_a_learner_goes_on_to_the_bit():
    config = dataclasses.replace(load_meta_config(RECIPE), inner_lr=0.1, inner_steps=1)

    def learner(seed):
        torch.manual_seed(seed)
        made = Learner(Tiny().double(), config)
        made.error_weights.double()
        return made

    one, two = learner(0), learner(1)
    one.advance([moments(2, seed=1)])
    two.adopt(one.state())
    for seed in (2, 3):
        assert one.advance([moments(2, seed=seed)]) == two.advance([moments(2, seed=seed)])
    assert two.step == 3
    pairs = zip(one.network.state_dict().values(), two.network.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_contradictions_are_refused():
    with pytest.raises(TrainingError, match="order first gives WAd no gradient"):
        tiny_config(order="first")
    with pytest.raises(TrainingError, match="frames is 2: it must be above inner_steps, 2"):
        tiny_config(frames=2)
    with pytest.raises(TrainingError, match="choose from clean, night"):
        tiny_config(domains=("dawn",))
    with pytest.raises(TrainingError, match="inner_lr is 0"):
        tiny_config(inner_lr=0.0)
    with pytest.raises(TrainingError, match="size is"):
        tiny_config(size=(32, 128))


def test_a_wild_task_counts_no_more_than_a_tame_one():
    config = tiny_config(error_weights=False, clip_norm=0.1, inner_lr=0.5, inner_steps=1)
    tasks = [moments(2), [dataclasses.replace(moment, truth=30 * moment.truth) for moment in moments(2, seed=1)]]
    learner = Learner(tiny()[0], config)
    expected = [torch.zeros_like(part) for part in learner.network.parameters()]
    norms = []
    for task in tasks:
        slopes = torch.autograd.grad(
            task_loss(learner.network, task, 0.5, "second"), list(learner.network.parameters())
        )
        norms.append(torch.cat([slope.flatten() for slope in slopes]).norm())
        assert norms[-1] > 0.1
        for total, slope in zip(expected, slopes, strict=True):
            total += 0.1 * slope / norms[-1] / 2
    found = learner.advance(tasks)
    assert found["gradient_norm"] == pytest.approx(float(sum(norms)) / 2)
    for part, total in zip(learner.network.parameters(), expected, strict=True):
        torch.testing.assert_close(part.grad, total)


def test_rates_fall_along_half_a_cosine_to_a_fiftieth():
    learner = Learner(tiny()[0], tiny_config(steps=4, lr=0.001, error_weights_lr=0.01, inner_steps=1))
    learner.error_weights.double()
    rates = []
    for _ in range(4):
        learner.advance([moments(2)])
        rates.append([group["lr"] for group in learner.optimizer.param_groups])
    shares = [1, 0.02 + 0.98 * 0.853553, 0.02 + 0.98 * 0.5, 0.02 + 0.98 * 0.146447]  # (1 + cos(k pi / 4)) / 2
    assert rates == [pytest.approx([0.001 * share, 0.01 * share], rel=1e-5) for share in shares]


class Half(nn.Module):
    """Trusts nothing in the left half."""

    def forward(self, error):
        trusted = torch.ones_like(error[:, :1])
        trusted[..., : error.shape[3] // 2] = 0
        return trusted / trusted.numel()


def test_online_wad_learns_by_its_choice_and_stays_as_it_is():
    torch.manual_seed(0)
    base = MADNet().eval()
    rng = np.random.default_rng(0)
    pair = rng.integers(0, 256, (2, 64, 64, 3), np.uint8)
    error_weights = ErrorWeights()
    kept = {name: value.clone() for name, value in error_weights.state_dict().items()}
    config = AdaptationConfig(mode="full", lr=1e-2, compare_every=0)
    plain, weighted = Adapter(base, config), Adapter(base, config, error_weights=error_weights)
    one, other = plain.step(*pair), weighted.step(*pair)
    assert one.loss == pytest.approx(other.loss)  # what is told, and what drift is judged by, is of all errors
    moved = [
        not torch.equal(a, b) for a, b in zip(plain.network.parameters(), weighted.network.parameters(), strict=True)
    ]
    assert any(moved)
    assert all(torch.equal(kept[name], value) for name, value in error_weights.state_dict().items())
    with pytest.raises(TrainingError, match="supervision is proxy"):
        Adapter(base, AdaptationConfig(supervision="proxy"), error_weights=error_weights)


def test_an_error_that_is_not_trusted_teaches_nothing():
    (moment,) = moments(1, dtype=torch.float32)
    disparity = torch.full((1, H, W), 2.0, requires_grad=True)
    weighted_photometric(moment.left, moment.right, disparity, Half()).backward()
    taught = disparity.grad[0].abs() > 0
    assert in_view(disparity)[0, :, W // 2 + 2 : -1].all()
    assert not taught[:, : W // 2 - 2].any()
    assert taught[1:-1, W // 2 + 2 : -1].any()


def shifted_moments(count, seed, gain):
    """A sequence with one disparity of its own, seen `gain` times as bright."""
    disparity = int(np.random.default_rng(seed).integers(1, 6))
    seen = moments(count, disparity=disparity, seed=seed)
    return [dataclasses.replace(moment, left=moment.left * gain, right=moment.right * gain) for moment in seen]


def test_meta_training_makes_steps_help_on_a_domain_held_out_where_they_ruin_supervised_weights():
    rate = 2.0

    def before_and_after(order):
        changes = {"inner_lr": rate, "lr": 1e-2, "order": order, "error_weights": False}
        config = dataclasses.replace(load_meta_config(RECIPE), steps=60, tasks=4, inner_steps=1, **changes)
        torch.manual_seed(0)
        learner = Learner(Tiny().double(), config)
        for step in range(config.steps):  # the same frames for both
            learner.advance([shifted_moments(2, 4 * step + number, gain=1.0) for number in range(4)])
        learner.config = dataclasses.replace(config, order="second")
        found = learner.validate([shifted_moments(2, 10_000 + number, gain=0.5) for number in range(12)])
        return found["epe_before"], found["epe"]

    (taught_before, taught), (supervised_before, supervised) = before_and_after("second"), before_and_after("none")
    assert taught < 0.6 * taught_before
    assert taught < 0.7 * supervised_before
    assert supervised > supervised_before
