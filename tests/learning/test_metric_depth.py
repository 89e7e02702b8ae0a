import math

import numpy as np
import pytest

from training.metric_depth import held_to, in_range, mean_over_pictures, metric_depth_errors, ssim

# 4 x 4: ten pixels are right, the rest by hand below; depth in metres
TARGET = np.array([[1.0, 1.0, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0], [4.0, 4.0, 4.0, 4.0], [8.0, 8.0, 8.0, 8.0]])
PREDICTION = TARGET.copy()
PREDICTION[0] = [1.2, 1.3, 1.6, 2.0]  # ratios 1.2 (delta1), 1.3 (delta2), 1.6 (delta3), 2.0 (none)
PREDICTION[3, :2] = [4.0, 16.0]  # ratio 2 both ways
ALL = np.ones((4, 4), bool)


def test_a_perfect_prediction():
    found = metric_depth_errors(TARGET, TARGET, ALL)
    perfect = {"delta1": 1.0, "delta2": 1.0, "delta3": 1.0}
    assert found == {name: perfect.get(name, 0.0) for name in found}
    assert len(found) == 12


def test_four_by_four_by_hand():
    found = metric_depth_errors(PREDICTION, TARGET, ALL)
    # errors: .2 .3 .6 1 at 1 m; -4 and +8 at 8 m
    assert found["delta1"] == 11 / 16
    assert found["delta2"] == 12 / 16
    assert found["delta3"] == 13 / 16
    assert found["abs_rel"] == pytest.approx((0.2 + 0.3 + 0.6 + 1 + 0.5 + 1) / 16)
    assert found["mae"] == pytest.approx((0.2 + 0.3 + 0.6 + 1 + 4 + 8) / 16)
    squares = 0.04 + 0.09 + 0.36 + 1
    assert found["rmse"] == pytest.approx(math.sqrt((squares + 16 + 64) / 16))
    assert found["sq_rel"] == pytest.approx((squares + 2 + 8) / 16)
    assert found["sq_rel_gt2"] == pytest.approx((squares + 0.25 + 1) / 16)
    logs = [math.log(x) for x in (1.2, 1.3, 1.6, 2, 0.5, 2)]
    assert found["rmse_log"] == pytest.approx(math.sqrt(sum(x * x for x in logs) / 16))
    assert found["log10"] == pytest.approx(sum(abs(x) for x in logs) / math.log(10) / 16)
    variance = sum(x * x for x in logs) / 16 - (sum(logs) / 16) ** 2
    assert found["silog_eigen"] == pytest.approx(variance)
    assert found["silog"] == pytest.approx(100 * math.sqrt(variance))


def test_a_wrong_scale_costs_no_silog():
    found = metric_depth_errors(3 * TARGET, TARGET, ALL)
    assert found["silog"] == pytest.approx(0, abs=1e-5)
    assert found["rmse_log"] == pytest.approx(math.log(3))
    assert found["delta3"] == 0


def test_the_limit_of_delta_is_exclusive():
    assert metric_depth_errors(1.25 * TARGET, TARGET, ALL)["delta1"] == 0
    assert metric_depth_errors(1.2499 * TARGET, TARGET, ALL)["delta1"] == 1


def test_pixels_that_are_not_valid_do_not_count():
    target, prediction = TARGET.copy(), PREDICTION.copy()
    target[0], target[3, 0], prediction[3, 1] = np.nan, np.inf, np.nan
    valid = in_range(target, 1e-3, 10)
    valid[3, 1] = False
    assert valid.sum() == 10
    assert metric_depth_errors(prediction, target, valid)["rmse"] == 0


def test_range_is_exclusive_and_knows_nan():
    target = np.array([0.0, -1.0, 1e-3, 0.5, 10.0, np.nan, np.inf, -np.inf])
    assert in_range(target, 1e-3, 10).tolist() == [False, False, False, True, False, False, False, False]


def test_predictions_are_held_to_the_range():
    wild = np.array([np.nan, np.inf, -np.inf, -3.0, 0.0, 4.0, 99.0])
    assert held_to(wild, 1e-3, 10).tolist() == [1e-3, 10, 1e-3, 1e-3, 1e-3, 4, 10]


@pytest.mark.parametrize(
    ("prediction", "target", "valid", "says"),
    [
        (TARGET, TARGET, ~ALL, "no valid pixel"),
        (TARGET * 0, TARGET, ALL, "prediction holds"),
        (TARGET, TARGET * np.nan, ALL, "target holds"),
        (TARGET[:2], TARGET, ALL, "prediction \\(2, 4\\)"),
    ],
)
def test_what_cannot_be_judged_is_refused(prediction, target, valid, says):
    with pytest.raises(ValueError, match=says):
        metric_depth_errors(prediction, target, valid)


def test_means_are_over_pictures_and_not_over_pixels():
    # 16 pixels without error and one pixel off by 3 m: 1.5 and not 3 / 17 (mae), whatever their number of pixels
    large = metric_depth_errors(TARGET, TARGET, ALL)
    small = metric_depth_errors([[4.0]], [[1.0]], np.ones((1, 1), bool))
    found = mean_over_pictures([large, small])
    assert found["mae"] == 1.5
    assert found["rmse"] == 1.5
    assert found["pictures"] == 2


def test_a_metric_some_pictures_lack_is_the_mean_of_the_others():
    assert mean_over_pictures([{"mae": 1.0, "ssim": 0.5}, {"mae": 3.0}]) == {"pictures": 2, "mae": 2, "ssim": 0.5}


def window_by_hand(p, t, data_range):
    """SSIM of one 11 x 11 window, written out."""
    line = [math.exp(-((i - 5) ** 2) / (2 * 1.5**2)) for i in range(11)]
    weight = np.outer(line, line) / sum(line) ** 2
    mp, mt = (weight * p).sum(), (weight * t).sum()
    vp, vt, c = (weight * (p - mp) ** 2).sum(), (weight * (t - mt) ** 2).sum(), (weight * (p - mp) * (t - mt)).sum()
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    return (2 * mp * mt + c1) * (2 * c + c2) / ((mp**2 + mt**2 + c1) * (vp + vt + c2))


def test_ssim_of_one_window_by_hand():
    rng = np.random.default_rng(1)
    p, t = rng.uniform(1, 9, (2, 11, 11))
    assert ssim(p, t, np.ones((11, 11), bool), 10) == pytest.approx(window_by_hand(p, t, 10))


def test_ssim_is_the_mean_of_all_whole_windows():
    rng = np.random.default_rng(2)
    p, t = rng.uniform(1, 9, (2, 12, 13))
    windows = [
        window_by_hand(p[y : y + 11, x : x + 11], t[y : y + 11, x : x + 11], 10) for y in (0, 1) for x in range(3)
    ]
    assert ssim(p, t, np.ones((12, 13), bool), 10) == pytest.approx(np.mean(windows))


def test_ssim_of_two_constants():
    # no variance: (2 * 4 * 6 + c1) / (16 + 36 + c1) with c1 = 0.01
    p, t = np.full((20, 20), 4.0), np.full((20, 20), 6.0)
    assert ssim(p, t, np.ones((20, 20), bool), 10) == pytest.approx(48.01 / 52.01)
    assert ssim(p, p, np.ones((20, 20), bool), 10) == pytest.approx(1)


def test_ssim_leaves_out_windows_with_a_hole():
    rng = np.random.default_rng(3)
    p, t = rng.uniform(1, 9, (2, 11, 12))
    valid = np.ones((11, 12), bool)
    valid[5, 0] = False
    p[5, 0] = np.nan
    assert ssim(p, t, valid, 10) == pytest.approx(window_by_hand(p[:, 1:], t[:, 1:], 10))
    assert ssim(p, t, valid & False, 10) is None


def test_ssim_stands_beside_the_others_when_a_range_is_given():
    p = np.full((16, 16), 3.0)
    assert metric_depth_errors(p, p, np.ones((16, 16), bool), 10)["ssim"] == pytest.approx(1)
    assert "ssim" not in metric_depth_errors(TARGET, TARGET, ALL, 10)
