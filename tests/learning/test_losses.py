import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.losses import depth_loss, gradient_term, normalise, person_loss, trimmed_mean


def random_map(seed, height=24, width=32):
    return torch.rand(1, height, width, generator=torch.Generator().manual_seed(seed)) + 0.1


def test_normalise_uses_only_valid_pixels():
    values = torch.tensor([[1.0, 2.0, 3.0, 1000.0]])
    valid = torch.tensor([[True, True, True, False]])
    # median 2, mean |x - 2| = 2/3
    assert normalise(values, valid)[valid].tolist() == pytest.approx([-1.5, 0.0, 1.5], abs=1e-5)


def test_trimmed_mean_drops_the_largest_fifth():
    residual = torch.tensor([1.0, 2.0, 3.0, 4.0, 100.0])
    # the four smallest, over the count of all five
    assert float(trimmed_mean(residual, 0.2)) == pytest.approx(10 / 5)
    assert float(trimmed_mean(residual, 0.0)) == pytest.approx(110 / 5)


def test_trimmed_pixels_get_no_gradient():
    residual = torch.arange(1.0, 11.0, requires_grad=True)
    trimmed_mean(residual, 0.2).backward()
    assert residual.grad.tolist() == pytest.approx([0.1] * 8 + [0.0] * 2)


def test_gradient_term_by_hand():
    residual = torch.tensor([[[0.0, 1.0], [0.0, 3.0]]])
    valid = torch.ones(1, 2, 2, dtype=torch.bool)
    # one scale: down (0 + 2) / 2, across (1 + 3) / 2
    assert float(gradient_term(residual, valid, scales=1)) == pytest.approx(3.0)
    valid[0, 1, 1] = False
    # left: down 0, across 1
    assert float(gradient_term(residual, valid, scales=1)) == pytest.approx(1.0)


@given(scale=st.floats(0.01, 100), shift=st.floats(-50, 50), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_depth_loss_does_not_see_scale_and_shift(scale, shift, seed):
    target, prediction = random_map(seed), random_map(seed + 1)
    plain = depth_loss(prediction.double(), target, 0.2)
    moved = depth_loss((scale * prediction.double() + shift), target, 0.2)
    assert float(moved.ssi) == pytest.approx(float(plain.ssi), rel=2e-2, abs=1e-3)
    assert float(moved.gradient) == pytest.approx(float(plain.gradient), rel=2e-2, abs=1e-3)


def test_depth_loss_is_zero_for_the_truth_and_large_for_the_wrong_polarity():
    target = random_map(0)
    right, wrong = depth_loss(3 * target + 1, target, 0.2), depth_loss(5 - target, target, 0.2)
    assert float(right.ssi) < 1e-4
    assert float(wrong.ssi) > 0.5
    assert float(wrong.gradient) > 1


def test_depth_loss_ignores_pixels_without_data():
    target = random_map(0)
    target[:, :8] = 0
    prediction = target.clone()
    prediction[:, :8] = 1e6
    assert float(depth_loss(prediction, target, 0.2).ssi) < 1e-4


def test_depth_loss_without_data_is_zero_with_a_gradient():
    prediction = random_map(0).requires_grad_()
    loss = depth_loss(prediction, torch.zeros(1, 24, 32), 0.2)
    (loss.ssi + loss.gradient).backward()
    assert loss.ssi.item() == 0
    assert not prediction.grad.any()


def test_depth_loss_skips_a_flat_target():
    flat = torch.full((1, 24, 32), 0.5)
    both = depth_loss(torch.cat([random_map(1), random_map(2)]), torch.cat([flat, random_map(3)]), 0.2)
    alone = depth_loss(random_map(2), random_map(3), 0.2)
    assert float(both.ssi) == pytest.approx(float(alone.ssi))


def test_depth_gradient_reaches_every_valid_pixel():
    prediction = random_map(1).requires_grad_()
    loss = depth_loss(prediction, random_map(2), 0.0)
    (loss.ssi + loss.gradient).backward()
    assert torch.isfinite(prediction.grad).all()
    assert (prediction.grad != 0).float().mean() > 0.9


def test_person_loss_by_hand():
    logit = torch.tensor([[[0.0, 0.0, 50.0]]])
    target = torch.tensor([[[1.0, 0.0, -1.0]]])
    loss = person_loss(logit, target)
    assert float(loss.cross_entropy) == pytest.approx(0.6931, abs=1e-4)
    # overlap 2 * 0.5 over 0.25 + 0.25 + 1
    assert float(loss.dice) == pytest.approx(1 - 1 / 1.5, abs=1e-4)


def test_person_loss_counts_every_labelled_picture_alike_and_dice_only_people():
    logit = torch.zeros(2, 4, 4)
    target = torch.stack([torch.zeros(4, 4), -torch.ones(4, 4)])
    loss = person_loss(logit, target)
    assert float(loss.cross_entropy) == pytest.approx(0.6931, abs=1e-4)
    assert float(loss.dice) == 0


def test_person_loss_without_labels_is_zero_with_a_gradient():
    logit = torch.zeros(1, 4, 4, requires_grad=True)
    loss = person_loss(logit, -torch.ones(1, 4, 4))
    (loss.cross_entropy + loss.dice).backward()
    assert loss.cross_entropy.item() == 0
    assert not logit.grad.any()
