"""Maps smoothed within a photo's edges."""

import numpy as np
import pytest

from service.imaging.guided import Guide


def test_what_colours_say_in_straight_lines_stays() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    red, green, blue = np.moveaxis(photo.astype(np.float32) / 255, 2, 0)
    values = 0.5 * red - 0.25 * green + 0.125 * blue + 0.3
    assert Guide(photo, 4).smoothed(values) == pytest.approx(values, abs=0.002)


def test_a_doubtful_map_gets_one_value_on_each_side_of_an_edge() -> None:
    rng = np.random.default_rng(1)
    photo = np.full((40, 60, 3), 40, np.uint8)
    photo[:, 31:] = (40, 200, 40)
    told = np.where(np.arange(60) >= 31, 0.8, 0.2) + rng.normal(0, 0.2, (40, 60))
    found = Guide(photo, 8).smoothed(told.astype(np.float32))
    assert np.abs(found[:, :31] - 0.2).max() < 0.12
    assert np.abs(found[:, 31:] - 0.8).max() < 0.12
    assert np.ptp(told[:, :31]) > 0.8


def test_without_colours_it_is_a_mean_of_means() -> None:
    values = np.zeros((9, 9), np.float32)
    values[4, 4] = 1
    found = Guide(np.full((9, 9, 3), 128, np.uint8), 1).smoothed(values)
    # windows of 3 x 3 twice over: 1 2 3 2 1 in either direction, over 81
    assert found[2:7, 4] == pytest.approx(np.array([1, 2, 3, 2, 1]) * 3 / 81, abs=1e-6)
    assert found.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (3, 2)])
def test_any_size(size: tuple[int, int]) -> None:
    values = np.full(size, 0.25, np.float32)
    assert Guide(np.zeros((*size, 3), np.uint8), 8).smoothed(values) == pytest.approx(values, abs=1e-6)
