import numpy as np
import pytest

from training.metrics import disparity_metrics


def test_a_picture_of_four_by_four_by_hand():
    truth = np.array([[0, 10, 10, 10], [10, 100, 100, 10], [10, 10, 10, 10], [0, 0, 0, 0]], np.float32)
    prediction = truth.copy()
    prediction[0, 0] = 99  # no truth there
    prediction[0, 1] = 12  # wrong by 2: fine
    prediction[1, 0] = 13  # by 3: not more than 3
    prediction[1, 1] = 104  # by 4, which is 4 % of 100: bad3, not D1
    prediction[1, 2] = 94  # by 6, 6 %: both
    prediction[2, 3] = 5  # by 5, half: both
    found = disparity_metrics(prediction, truth)
    assert found.epe == pytest.approx((2 + 3 + 4 + 6 + 5) / 11)
    assert found.bad3 == pytest.approx(3 / 11)
    assert found.d1 == pytest.approx(2 / 11)


def test_what_is_no_number_is_wrong_by_all_of_it():
    truth = np.full((2, 2), 8.0)
    prediction = np.array([[np.nan, np.inf], [8.0, 8.0]])
    found = disparity_metrics(prediction, truth)
    assert (found.epe, found.bad3, found.d1) == (4.0, 0.5, 0.5)


def test_pixels_can_be_left_out():
    truth, prediction = np.full((1, 2), 8.0), np.array([[8.0, 20.0]])
    assert disparity_metrics(prediction, truth, np.array([[True, False]])).epe == 0


def test_nothing_to_judge_is_said():
    with pytest.raises(ValueError, match="no pixel with truth"):
        disparity_metrics(np.ones((2, 2)), np.zeros((2, 2)))
