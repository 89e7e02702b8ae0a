import math

import cv2
import numpy as np
import pytest

from training.data.stereo_pairs import layered_sequence
from training.proxies import (
    MATCHERS,
    Match,
    ad_census,
    costs_from_the_right,
    disagreement,
    largest_disparity,
    matching_costs,
    semi_global,
    with_outliers,
)
from training.proxies import _cheapest as cheapest

SHIFT = 7


@pytest.fixture(scope="module")
def pair():
    """A plane of soft noise at a disparity of 7."""
    wide = np.random.default_rng(0).integers(0, 256, (48, 96 + SHIFT, 3), np.uint8)
    wide = cv2.GaussianBlur(wide, (0, 0), 1.0)
    return wide[:, :96].copy(), wide[:, SHIFT:].copy()


@pytest.mark.parametrize("matcher", MATCHERS)
def test_both_views_of_a_plane_are_found(matcher, pair):
    match = MATCHERS[matcher](*pair)
    assert match.disparity_px.dtype == match.right_px.dtype == np.float32
    inner = np.s_[4:-4, SHIFT + 4 : -SHIFT - 4]
    for found in (match.disparity_px[inner], match.right_px[inner]):
        assert np.median(np.abs(found - SHIFT)) < 0.15
        assert (np.abs(found - SHIFT) < 1).mean() > 0.98
    assert (disagreement(match)[inner] < 1).mean() > 0.97


def test_the_first_columns_are_labelled_too(pair):
    # OpenCV leaves as many columns empty as there are disparities, here 32 of 96
    found = semi_global(*pair, largest_px=32).disparity_px
    assert (np.abs(found[:, SHIFT + 4 : 32] - SHIFT) < 1).mean() > 0.95


def test_unchecked_labels_are_denser_and_worse():
    frame = next(layered_sequence("clean", 3, 1))
    shares, errors = [], []
    for checked in (False, True):
        found = semi_global(frame.left, frame.right, checked=checked).disparity_px
        shares.append((found > 0).mean())
        errors.append((np.abs(found - frame.disparity_px)[found > 0] > 1).mean())
    assert shares[0] > shares[1] + 0.01
    assert errors[0] > errors[1]


def test_disparities_looked_for_grow_with_the_picture():
    assert [largest_disparity(width) for width in (64, 80, 128, 640, 1242)] == [16, 16, 32, 128, 256]


def test_costs_by_hand():
    left, right = np.full((8, 10, 3), 100, np.uint8), np.full((8, 10, 3), 110, np.uint8)
    # nobody is darker than anybody: no census; ten grey levels are 1 - 1/e
    assert matching_costs(left, right, 2)[1, 4, 5] == pytest.approx(1 - math.exp(-1), abs=1e-6)
    assert np.abs(matching_costs(left, left, 2)).max() < 1e-6
    # a bright pixel has 62 darker neighbours in its window of 63, and is the only one with any
    dot = np.zeros((15, 15), np.uint8)
    dot[7, 7] = 255
    found = matching_costs(dot, np.zeros_like(dot), 1)[0]
    alone = 2 - math.exp(-62 / 30) - math.exp(-255 / 10)
    assert found[7, 7] == pytest.approx(alone / 25, abs=1e-5)  # mean of five by five
    assert found[0, 0] == pytest.approx(0, abs=1e-6)


def test_the_cheapest_disparity_is_the_parabolas_vertex():
    costs = np.array([4, 1, 2, 5, 6], np.float32)[:, None, None]
    assert cheapest(costs)[0, 0] == pytest.approx(1 + (4 - 2) / (2 * (4 + 2 - 2 * 1)))
    assert cheapest(costs[::-1])[0, 0] == pytest.approx(3 - 0.25)
    assert cheapest(np.arange(4, dtype=np.float32)[:, None, None])[0, 0] == 0  # the best has no neighbour below


def test_costs_from_the_right_are_the_same_pairs():
    costs = np.arange(3 * 1 * 4, dtype=np.float32).reshape(3, 1, 4)  # cost of d and x is 4 d + x
    assert costs_from_the_right(costs)[:, 0].tolist() == [[0, 1, 2, 3], [5, 6, 7, 7], [10, 11, 11, 11]]


def test_left_right_check_by_hand():
    left = np.array([[0, 2, 2, 2, 2.5, 1]], np.float32)
    right = np.array([[2, 2.5, 0, 0, 1.2, 9]], np.float32)
    # nothing found; out of the picture; exact; half a pixel off; leads to column 2, where there is nothing; 0.2 off
    found = disagreement(Match(left, right))[0]
    assert found.tolist() == [math.inf, math.inf, 0, 0.5, math.inf, pytest.approx(0.2)]


def test_outliers_are_patches_and_the_same_again():
    match = Match(np.full((64, 128), 5, np.float32), np.full((64, 128), 5, np.float32))
    made = [with_outliers(match, 0.2, 32, np.random.default_rng(seed)).disparity_px for seed in (1, 1, 2)]
    assert (made[0] == made[1]).all()
    assert (made[0] != made[2]).any()
    wrong = made[0] != 5
    assert 0.19 < wrong.mean() < 0.25
    assert made[0].min() >= 1
    assert made[0].max() <= 32
    assert (match.disparity_px == 5).all()  # what was given stays


def test_grey_pictures_match_like_coloured_ones(pair):
    grey = [np.ascontiguousarray(picture[..., 0]) for picture in pair]
    stacked = [np.repeat(picture[..., None], 3, 2) for picture in grey]
    assert np.abs(ad_census(*grey).disparity_px - ad_census(*stacked).disparity_px).max() < 1e-3
