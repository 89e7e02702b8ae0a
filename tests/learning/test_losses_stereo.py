import math

import pytest
import torch

from training.losses_stereo import (
    LearnedThreshold,
    disparity_error,
    photometric,
    photometric_error,
    proxy_regression,
    smoothness,
    ssim_error,
)


def noise_pair(shift, height=24, width=64):
    """A picture of noise, and the same moved so that its disparity is `shift`."""
    wide = torch.randint(0, 256, (1, height, width + 16, 3), generator=torch.Generator().manual_seed(0)).float()
    return wide[:, :, :width], wide[:, :, shift : shift + width]


def test_ssim_of_constant_pictures_by_hand():
    ours, theirs = torch.full((1, 1, 3, 3), 0.2), torch.full((1, 1, 3, 3), 0.6)
    ssim = (2 * 0.2 * 0.6 + 1e-4) / (0.04 + 0.36 + 1e-4)  # no variance: the second factor is 1
    found = ssim_error(ours, theirs)
    assert found.shape == (1, 1, 1, 1)
    assert found.item() == pytest.approx((1 - ssim) / 2, abs=1e-4)  # variances are differences of float32
    assert ssim_error(ours, ours).item() == pytest.approx(0, abs=1e-6)


def test_ssim_with_variance_by_hand():
    row = torch.tensor([0.0, 0.5, 1.0])
    ours = row.repeat(3, 1)[None, None]
    theirs = ours.flip(3)
    variance, mean = 1 / 6, 0.5
    ssim = (2 * mean**2 + 1e-4) * (-2 * variance + 9e-4) / ((2 * mean**2 + 1e-4) * (2 * variance + 9e-4))
    assert ssim_error(ours, theirs).item() == pytest.approx((1 - ssim) / 2, abs=1e-5)


def test_photometric_loss_of_constant_pictures_by_hand():
    left, right = torch.full((1, 6, 8, 3), 128.0), torch.full((1, 6, 8, 3), 64.0)
    ssim = (2 * 0.5 * 0.25 + 1e-4) / (0.25 + 0.0625 + 1e-4)
    found = photometric(left, right, torch.zeros(1, 6, 8))
    assert found.item() == pytest.approx(0.85 * (1 - ssim) / 2 + 0.15 * 0.25, abs=1e-5)


def test_true_disparity_explains_the_picture_best():
    left, right = noise_pair(5)
    losses = [photometric(left, right, torch.full((1, 24, 64), float(d))).item() for d in range(10)]
    assert min(losses) == losses[5]
    assert losses[5] < 0.25 * losses[0]


def test_the_error_map_holds_the_loss():
    left, right = noise_pair(3)
    disparity = torch.full((1, 24, 64), 2.0)
    error = photometric_error(left, right, disparity)
    assert error.shape == (1, 3, 22, 62)
    assert error.mean().item() == pytest.approx(photometric(left, right, disparity).item(), rel=0.02)


def test_the_photometric_gradient_is_the_one_of_finite_differences():
    torch.manual_seed(0)
    left, right = (torch.rand(1, 4, 8, 3, dtype=torch.float64) * 255 for _ in range(2))
    disparity = (torch.rand(1, 4, 8, dtype=torch.float64) * 0.4 + 0.3).requires_grad_()
    assert torch.autograd.gradcheck(lambda d: photometric(left, right, d), disparity)


def test_smoothness_by_hand():
    disparity = torch.tensor([[[0.0, 2.0], [0.0, 2.0]]])
    plain = torch.zeros(1, 2, 2, 3)
    assert smoothness(disparity, plain).item() == pytest.approx(2.0)
    edge = plain.clone()
    edge[:, :, 1] = 128.0
    assert smoothness(disparity, edge).item() == pytest.approx(2 * math.exp(-0.5))


def test_error_against_truth_counts_known_pixels_of_pictures_that_have_some():
    truth = torch.tensor([[[2.0, 0.0], [200.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]])
    prediction = torch.tensor([[[1.0, 9.0], [9.0, 7.0]], [[5.0, 5.0], [5.0, 5.0]]], requires_grad=True)
    loss = disparity_error(prediction, truth)
    assert loss.item() == pytest.approx((1 + 3) / 2)  # 0 is unknown, 200 too far, the second picture has no truth
    loss.backward()
    assert prediction.grad[1].abs().sum() == 0
    assert disparity_error(prediction[1:], truth[1:]).item() == 0


def test_confidence_guided_regression_by_hand():
    proxy = torch.tensor([[[10.0, 10.0, 0.0, 10.0]]])
    confidence = torch.tensor([[[1.0, 0.5, 1.0, 0.2]]])
    prediction = torch.tensor([[[12.0, 14.0, 50.0, 90.0]]])
    # sum of C |error| over C > tau, divided by their number and not by the sum of C
    assert proxy_regression(prediction, proxy, confidence, 0.3).item() == pytest.approx((2 + 0.5 * 4) / 2)
    assert proxy_regression(prediction, proxy, confidence, 0.8).item() == pytest.approx(2.0)
    assert proxy_regression(prediction, proxy).item() == pytest.approx((2 + 4 + 80) / 3)
    assert proxy_regression(prediction, proxy, confidence, 1.0).item() == 0


def test_a_learned_threshold_rises_over_bad_labels_and_stays_below_one():
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(1, 32, 32, generator=generator)
    proxy = torch.full((1, 32, 32), 20.0)
    prediction = proxy + torch.where(confidence < 0.6, 8.0, 0.1)  # labels of little confidence are wrong
    guided = LearnedThreshold(first=0.3)
    optimizer = torch.optim.Adam(guided.parameters(), 0.1)
    first = guided.threshold.item()
    for _ in range(150):
        optimizer.zero_grad()
        guided(prediction, proxy, confidence).backward()
        optimizer.step()
    assert first == pytest.approx(0.3)
    assert 0.55 < guided.threshold.item() < 1


def test_labels_with_outliers_teach_better_by_their_confidence():
    # one disparity is fitted to noisy labels, of which a fifth is far off, and doubtful
    generator = torch.Generator().manual_seed(0)
    wrong = torch.rand(1, 48, 64, generator=generator) < 0.2
    proxy = 20 + torch.randn(1, 48, 64, generator=generator) + torch.where(wrong, 30.0, 0.0)
    confidence = torch.where(wrong, 0.1, 0.9)
    errors = {}
    for name, given in (("unweighted", None), ("weighted", confidence)):
        level = torch.tensor(20.0, requires_grad=True)
        optimizer = torch.optim.SGD([level], 0.1)
        for _ in range(100):
            optimizer.zero_grad()
            proxy_regression(level.expand(1, 48, 64), proxy, given).backward()
            optimizer.step()
        errors[name] = abs(level.item() - 20)
    # the median of noise with a fifth beyond it is its 62.5 % quantile, 0.32 standard deviations off
    assert errors["unweighted"] == pytest.approx(0.32, abs=0.06)
    assert errors["weighted"] < 0.1
