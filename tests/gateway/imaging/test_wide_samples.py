"""Samples wider than a byte, read out in bands: the same bytes as in one piece, and less memory."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.imaging.colour import to_uint8


def whole(samples: NDArray[np.generic]) -> NDArray[np.uint8]:
    """The rules of `colour`, written plainly for all samples at once."""
    values = samples.astype(np.float64)
    if samples.dtype.kind == "f":
        finite = values[np.isfinite(values)]
        values[np.isposinf(values)] = finite.max() if finite.size else 0.0
        values[~np.isfinite(values)] = 0.0
    low, high = values.min(), values.max()
    if samples.dtype.kind == "f" and low >= 0 and high <= 1:
        values = values * 255
    elif low < 0 or high > 255:
        integers = samples.dtype.kind in "iu" and low >= 0 and high <= 65_535
        values = np.floor(values / 256) if integers else (values - low) * (255 / (high - low))
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("span", [(0, 1), (0, 200), (-5, 5), (0, 60_000), (3, 1e30)])
@pytest.mark.parametrize("broken", [(), (np.nan,), (np.inf,), (-np.inf, np.nan, np.inf)])
def test_floats(span: tuple[float, float], broken: tuple[float, ...]) -> None:
    rng = np.random.default_rng(3)
    samples = rng.uniform(*span, (700, 9)).astype(np.float32)
    for value in broken:
        samples[rng.integers(0, 700, 40), rng.integers(0, 9, 40)] = value
    assert np.array_equal(to_uint8(Image.fromarray(samples), 32), whole(samples))


@pytest.mark.parametrize("span", [(0, 256), (0, 65_536), (-1000, 1000), (0, 10**8)])
def test_integers(span: tuple[int, int]) -> None:
    samples = np.random.default_rng(4).integers(*span, (700, 9)).astype(np.int32)
    assert np.array_equal(to_uint8(Image.fromarray(samples), 32), whole(samples))


@pytest.mark.parametrize(("bit_depth", "shift"), [(16, 8), (12, 4), (10, 2)])
def test_unsigned_by_their_stated_depth(bit_depth: int, shift: int) -> None:
    samples = np.random.default_rng(5).integers(0, 2**bit_depth, (700, 9)).astype(np.uint16)
    assert np.array_equal(to_uint8(Image.fromarray(samples), bit_depth), samples >> shift)
