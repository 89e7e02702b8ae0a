"""The blur of a layer: whichever way OpenCV goes fastest for a kernel, it is the same aperture in the same place."""

import math

import numpy as np
import pytest

from service.imaging.lens import Aperture, blur, shrink

TRIANGLE = Aperture(3, 20.0)  # like none of its mirror images


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("radius_px", [2.0, 3.0, 3.8, 4.3, 9.5])  # kernels of 9, 13, 15, 17 and 33 pixels
def test_a_point_becomes_the_aperture(radius_px: float, channels: int) -> None:
    layer = np.zeros((90, 80, channels), np.float32)
    row, column = 43, 37
    layer[row, column] = 1
    blurred = blur(layer if channels > 1 else layer[..., 0], radius_px, 1, TRIANGLE, inverted=True)
    blurred = blurred.reshape(layer.shape)
    assert blurred.sum() == pytest.approx(channels, rel=1e-4)
    assert np.array_equal(blurred[..., 0], blurred[..., -1])
    # a triangle of a disc's area a, on the point: side s with s^2 sqrt(3) / 4 = a, corners s / sqrt(3) from its middle
    corner_px = math.sqrt(math.pi * radius_px**2 * 4 / math.sqrt(3)) / math.sqrt(3)
    shown = blurred[..., 0] / blurred.max()
    y, x = np.mgrid[:90, :80]
    assert np.average(y, weights=shown) == pytest.approx(row, abs=0.02)
    assert np.average(x, weights=shown) == pytest.approx(column, abs=0.02)
    for angle in np.radians([110, 230, 350]):
        down, right = corner_px * math.sin(-angle), corner_px * math.cos(angle)
        assert shown[round(row + 0.6 * down), round(column + 0.6 * right)] > 0.5
        assert shown[round(row - 0.9 * down), round(column - 0.9 * right)] < 1e-6


def test_an_edge_of_the_photo_goes_on_beyond_it() -> None:
    for radius_px in (2.0, 5.0, 6.0, 9.5):
        layer = np.repeat(np.linspace(0, 1, 40, dtype=np.float32)[:, None], 30, axis=1)
        blurred = blur(layer, radius_px, 1)
        assert np.ptp(blurred, axis=1).max() < 1e-6  # to the left and right of it everything is alike
        assert 0 < blurred[0, 0] < blurred[-1, 0] < 1


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_shrinking_takes_the_mean_of_whole_squares(scale: int) -> None:
    values = np.random.default_rng(0).random((24, 16, 4), np.float32)
    squares = values.reshape(24 // scale, scale, 16 // scale, scale, 4)
    assert np.abs(shrink(values, scale) - squares.mean(axis=(1, 3))).max() < 1e-6
