import numpy as np
import pytest

from training.metrics import align, depth_metrics, iou

ALL = np.ones((1, 4), bool)


def test_alignment_finds_scale_and_shift():
    target = np.array([1.0, 2.0, 3.0])
    assert align(10 * target - 4, target) == pytest.approx(target)


def test_alignment_never_turns_far_into_near():
    target = np.array([1.0, 2.0, 3.0])
    assert align(-target, target) == pytest.approx([2.0, 2.0, 2.0])


def test_depth_metrics_of_a_perfect_prediction():
    target = np.array([[0.1, 0.2, 0.5, 1.0]])
    found = depth_metrics(7 * target + 2, target, ALL)
    assert found.delta1 == 1
    assert found.abs_rel == pytest.approx(0, abs=1e-9)
    assert found.polarity == pytest.approx(1)


def test_depth_metrics_by_hand():
    # no correlation: aligned to the mean, 1.5; depths 2/3 against 1 and 1/2: ratios 1.5 and 1.333
    target = np.array([[1.0, 2.0, 1.0, 2.0]])
    found = depth_metrics(np.array([[1.0, 1.0, 2.0, 2.0]]), target, ALL)
    assert found.delta1 == 0
    assert found.abs_rel == pytest.approx((1 / 3 + 1 / 3) / 2)
    assert found.polarity == pytest.approx(0)


def test_wrong_polarity_is_seen():
    target = np.array([[1.0, 2.0, 3.0, 4.0]])
    found = depth_metrics(-target, target, ALL)
    assert found.polarity == pytest.approx(-1)
    assert found.delta1 < 1


def test_depth_metrics_look_at_valid_pixels_only():
    target = np.array([[1.0, 2.0, 3.0, 0.0]])
    valid = target > 0
    assert depth_metrics(np.array([[1.0, 2.0, 3.0, 99.0]]), target, valid).delta1 == 1


@pytest.mark.parametrize(("target", "valid"), [([[1.0, 2.0]], [[True, False]]), ([[0.0, 2.0]], [[True, True]])])
def test_depth_metrics_refuse_what_cannot_be_judged(target, valid):
    with pytest.raises(ValueError, match="valid pixel"):
        depth_metrics(np.ones((1, 2)), np.array(target), np.array(valid))


def test_iou_by_hand():
    prediction = np.array([True, True, False, True])
    truth = np.array([True, False, True, True])
    counted = np.array([True, True, True, False])
    assert iou(prediction, truth, counted) == pytest.approx(1 / 3)


def test_iou_of_nothing_with_nothing_is_one():
    nothing = np.zeros(4, bool)
    assert iou(nothing, nothing, ~nothing) == 1
