import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.losses import (
    aligned_log_term,
    depth_loss,
    gradient_term,
    normalise,
    person_loss,
    silog,
    ssi_mse,
    ssi_residual,
    trimmed_mean,
    wrong_way,
)


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


def test_what_runs_the_wrong_way_is_turned_round():
    generator = torch.Generator().manual_seed(6)
    target = 1 + torch.rand(24, 32, generator=generator)
    everywhere = torch.ones(24, 32, dtype=torch.bool)
    assert float(wrong_way(3 * target + 1, target, everywhere)) == 0
    assert float(wrong_way(5 - target, target, everywhere)) == pytest.approx(1, abs=1e-4)
    slope = torch.tensor(-0.3, requires_grad=True)
    noisy = slope * target + 0.2 * torch.rand(24, 32, generator=generator)
    wrong_way(noisy, target, everywhere).backward()
    assert float(slope.grad) < 0  # a step against the gradient makes the slope larger


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


FORMS = ("trimmed", "mse")


@pytest.mark.parametrize("form", FORMS)
def test_pixels_without_data_are_as_if_they_were_not_there(form):
    # a median or a mean over the zeros of the mask too would move both (isl-org/MiDaS issue 73)
    prediction, target = random_map(1), random_map(2)
    target[:, :, :8] = 0
    masked = depth_loss(prediction, target, 0.2, form=form)
    cropped = depth_loss(prediction[:, :, 8:], target[:, :, 8:], 0.2, form=form)
    assert float(masked.ssi) == pytest.approx(float(cropped.ssi), rel=1e-5)
    assert float(masked.gradient) == pytest.approx(float(cropped.gradient), rel=1e-5)


def test_trimming_leaves_the_largest_fifth_out_of_the_sum():
    # the copied code that takes sort's (values, indices) for the values keeps all of them
    target = random_map(2)
    prediction = random_map(1) + target  # runs the right way
    valid = torch.ones(24, 32, dtype=torch.bool)
    residuals = (normalise(prediction[0], valid) - normalise(target[0], valid)).abs().flatten().sort().values
    kept = residuals[: 768 - int(0.2 * 768)]
    assert float(depth_loss(prediction, target, 0.2).ssi) == pytest.approx(float(kept.sum() / 768 / 2), rel=1e-4)
    assert float(kept.sum()) < 0.65 * float(residuals.sum())


def test_least_squares_by_hand():
    prediction, target = torch.tensor([[0.0, 1.0, 2.0, 3.0]]), torch.tensor([[0.0, 2.0, 2.0, 4.0]])
    valid = torch.ones(1, 4, dtype=torch.bool)
    residual = ssi_residual(prediction, target, valid)
    # scale 6 / 5, shift 0.2
    assert residual.flatten().tolist() == pytest.approx([0.2, -0.6, 0.6, -0.2], abs=1e-5)
    assert float(ssi_mse(residual, valid)) == pytest.approx(0.8 / 8, abs=1e-5)
    # three left: scale 1, shift 1/3; the fourth is aligned like them
    valid[0, 3] = False
    residual = ssi_residual(prediction, target, valid)
    assert residual.flatten().tolist() == pytest.approx([1 / 3, -2 / 3, 1 / 3, -2 / 3], abs=1e-5)
    assert float(ssi_mse(residual, valid)) == pytest.approx((6 / 9) / 6, abs=1e-5)


def test_least_squares_does_not_see_which_way_is_near_and_the_trimmed_form_does():
    target = random_map(0)
    blind = depth_loss(1.2 - target, target, 0.2, form="mse")
    assert float(blind.ssi) < 1e-6
    assert float(blind.gradient) < 1e-3
    assert float(depth_loss(1.2 - target, target, 0.2).ssi) > 0.5


def test_least_squares_does_not_see_the_unit_of_the_target():
    prediction, target = random_map(1), random_map(2)
    metres, millimetres = (depth_loss(prediction, target * unit, 0.2, form="mse") for unit in (1, 1000))
    assert float(metres.ssi) == pytest.approx(float(millimetres.ssi), rel=1e-4)
    assert float(metres.gradient) == pytest.approx(float(millimetres.gradient), rel=1e-4)


def test_a_constant_prediction_stays_where_it_is_under_least_squares_only():
    for form, moves in (("mse", False), ("trimmed", True)):
        prediction = torch.full((1, 24, 32), 0.5, requires_grad=True)
        loss = depth_loss(prediction, random_map(2), 0.2, form=form)
        (loss.ssi + loss.gradient).backward()
        assert torch.isfinite(prediction.grad).all()
        assert bool(prediction.grad.any()) is moves, form


def test_least_squares_gradient_by_differences():
    prediction, target = random_map(1, 2, 3)[0].double(), random_map(2, 2, 3)[0].double()
    valid = torch.ones(2, 3, dtype=torch.bool)
    valid[0, 1] = False
    prediction.requires_grad_()
    assert torch.autograd.gradcheck(lambda p: ssi_mse(ssi_residual(p, target, valid), valid), (prediction,))


LOG_PREDICTION, LOG_TARGET = torch.tensor([[0.0, 1.0, 2.0, 3.0]]), torch.tensor([[1.0, 3.0, 3.0, 5.0]])


@pytest.mark.parametrize(("trim", "wanted"), [(0.0, 0.62860 / 4), (0.25, 0.40546 / 4)])
def test_log_term_by_hand(trim, wanted):
    # scale 6 / 5: aligned to 1.2, 2.4, 3.6, 4.8; logs apart by 0.18232, 0.22314, 0.18232, 0.04082
    found = aligned_log_term(LOG_PREDICTION, LOG_TARGET, torch.ones(1, 4, dtype=torch.bool), trim)
    assert float(found) == pytest.approx(wanted, abs=1e-4)


def test_log_term_counts_everything_beyond_a_hundred_times_the_nearest_alike():
    target = torch.tensor([[1.0, 0.01, 0.001, 0.0001]])
    valid = torch.ones(1, 4, dtype=torch.bool)
    far = torch.tensor([[1.0, 0.01, 0.0001, 0.001]])  # the two farthest exchanged
    assert float(aligned_log_term(far, target, valid, 0.0)) < 0.05
    assert float(aligned_log_term(torch.tensor([[1.0, 0.2, 0.0, 0.0]]), target, valid, 0.0)) > 0.5


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (7.0, 3.0), (0.02, -5.0)])
def test_log_term_is_zero_for_an_affine_prediction(scale, shift):
    target = random_map(0)[0]
    found = aligned_log_term(scale * target + shift, target, torch.ones(24, 32, dtype=torch.bool), 0.2)
    assert float(found) < 5e-3  # the guard of the division shows at a scale of 0.02


def test_log_term_gives_no_gradient_to_a_reversed_prediction():
    target = random_map(0)[0]
    prediction = (2 - target).requires_grad_()
    found = aligned_log_term(prediction, target, torch.ones(24, 32, dtype=torch.bool), 0.2)
    found.backward()
    assert found.item() > 0.1
    assert not prediction.grad.any()


def test_log_term_is_for_targets_with_a_known_shift_only():
    prediction, target = torch.cat([random_map(1), random_map(1)]), torch.cat([random_map(2), random_map(2)])
    both, one, none = (
        depth_loss(prediction, target, 0.2, torch.tensor(known)) for known in ([True] * 2, [True, False], [False] * 2)
    )
    assert float(one.log) == pytest.approx(float(both.log) / 2)
    assert float(none.log) == float(depth_loss(prediction, target, 0.2).log) == 0


def test_silog_by_hand():
    target = torch.full((1, 8, 16), 2.0)
    prediction = target.clone()
    prediction[:, :4] *= torch.e  # g is 1 for one half and 0 for the other
    assert float(silog(prediction, target)) == pytest.approx(10 * (0.5 - 0.85 * 0.25) ** 0.5, rel=1e-4)
    assert float(silog(prediction, target, alpha=1, variance_focus=0)) == pytest.approx(0.5**0.5, rel=1e-4)
    # a wrong scale alone costs little, and nothing at a focus of 1
    assert float(silog(2 * target, target)) == pytest.approx(10 * (0.15 * 0.6931**2) ** 0.5, rel=1e-3)
    assert float(silog(2 * target, target, variance_focus=1)) == pytest.approx(0, abs=0.02)


def test_silog_ignores_pixels_without_data_and_pictures_with_too_few():
    prediction, target = torch.cat([random_map(1), random_map(3)]), torch.cat([random_map(2), random_map(4)])
    target[0, :, :8] = 0
    target[1].view(-1)[63:] = 0
    assert float(silog(prediction, target)) == pytest.approx(
        float(silog(prediction[:1, :, 8:], target[:1, :, 8:])), rel=1e-5
    )


@pytest.mark.parametrize("prediction", [0.0, -1.0, 1e-8, 2.0])
def test_silog_never_gives_nan(prediction):
    # a prediction of zero has no logarithm, and one that is right leaves a root of zero
    prediction = torch.full((1, 8, 16), prediction, requires_grad=True)
    loss = silog(prediction, torch.full((1, 8, 16), 2.0))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(prediction.grad).all()


def test_silog_without_data_is_zero_with_a_gradient():
    prediction = random_map(0).requires_grad_()
    loss = silog(prediction, torch.zeros(1, 24, 32))
    loss.backward()
    assert loss.item() == 0
    assert not prediction.grad.any()


def test_silog_runs_in_float32_under_autocast():
    prediction, target = random_map(1), random_map(2)
    with torch.autocast("cpu", torch.bfloat16):
        found = silog(prediction, target)
    assert found.dtype == torch.float32
    assert float(found) == float(silog(prediction, target))


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
