"""Range, 16-bit storage, colours and values of depth maps; guided upsampling."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from service.imaging import depth, matte
from service.imaging.errors import InvalidMap, OutsideImage
from service.imaging.geometry import resize

MAPS = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.floats(-1e6, 1e6, width=32)
)
CHECKED = settings(deadline=None, derandomize=True, max_examples=60)


def test_hand_computed() -> None:
    values = np.array([[1.0, 2.0], [3.0, 5.0]], np.float32)
    relative, scale, offset = depth.normalise(values)
    assert relative.tolist() == [[0, 0.25], [0.5, 1]]
    assert (scale, offset) == (4, 1)
    stored, scale, offset = depth.quantise16(values)
    assert stored.tolist() == [[0, 16_384], [32_768, 65_535]]  # 16383.75 and 32767.5, to the nearest, ties to even
    assert (scale, offset) == (4 / 65_535, 1)


@CHECKED
@given(MAPS)
def test_stored_values_come_back(values: np.ndarray) -> None:
    stored, scale, offset = depth.quantise16(values)
    span = float(values.max()) - float(values.min())
    magnitude = float(np.abs(values).max())
    assert stored.dtype == np.uint16
    assert np.abs(stored * scale + offset - values).max() <= span / 65_535 * 0.51 + 4e-7 * magnitude
    if span > 1e-3 * max(magnitude, 1e-30):
        assert (stored.min(), stored.max()) == (0, 65_535)
        assert stored.ravel()[values.argmax()] == 65_535


@CHECKED
@given(MAPS)
def test_relative_is_within_0_and_1(values: np.ndarray) -> None:
    relative, scale, offset = depth.normalise(values)
    assert relative.dtype == np.float32
    assert 0 <= relative.min() <= relative.max() <= 1
    magnitude = float(np.abs(values).max())
    assert np.abs(relative * scale + offset - values).max() <= 1e-6 * (scale + magnitude)


@pytest.mark.parametrize("value", [0.0, -3.5, 1e-30, 7e20])
def test_constant_maps(value: float) -> None:
    values = np.full((3, 4), value, np.float32)
    relative, scale, offset = depth.normalise(values)
    assert (relative == 0).all()
    assert (scale, offset) == (1, float(np.float32(value)))
    stored, scale, offset = depth.quantise16(values)
    assert (stored * scale + offset == values).all()
    assert depth.colourise(values, "gray").max() == 0


def test_nan_counts_as_farthest() -> None:
    values = np.array([[np.nan, 2.0], [np.inf, 4.0], [-np.inf, 3.0]], np.float32)
    assert depth.normalise(values)[0].tolist() == [[0, 0], [0, 1], [0, 0.5]]
    assert depth.statistics(values)["min"] == 2
    with pytest.raises(InvalidMap):
        depth.normalise(np.full((2, 2), np.nan))
    with pytest.raises(InvalidMap):
        depth.normalise(np.zeros((2, 2, 1)))
    with pytest.raises(InvalidMap):
        depth.normalise(np.zeros((0, 2)))


def test_statistics() -> None:
    report = depth.statistics(np.arange(101, dtype=np.float32).reshape(1, 101))
    assert (report["min"], report["max"], report["mean"], report["median"]) == (0, 100, 50, 50)
    assert report["percentiles"] == {"1": 1, "5": 5, "25": 25, "50": 50, "75": 75, "95": 95, "99": 99}


def test_values_at_points() -> None:
    values = np.array([[0.0, 1.0], [2.0, 3.0]], np.float32)
    assert depth.values_at(values, [(0, 0), (1, 0), (0, 1), (0.5, 0.5)]) == [0, 1, 2, 1.5]
    # a photo of twice the size: its pixel 0 lies a quarter of a map pixel before the first centre, pixel 1 after it
    assert depth.values_at(values, [(0, 0), (1, 0), (3, 3)], (4, 4)) == [0, 0.25, 3]
    for point in ((-0.1, 0), (2, 0), (math.nan, 0)):
        with pytest.raises(OutsideImage):
            depth.values_at(values, [point])


def test_colours_near_is_red_or_bright() -> None:
    ramp = np.linspace(0, 1, 256, dtype=np.float32)[None]
    for name in depth.COLORMAPS:
        colours = depth.colourise(ramp, name)
        assert colours.shape == (1, 256, 3)
        far, near = colours[0, 4].astype(int), colours[0, 250].astype(int)
        if name == "turbo":
            assert near[0] > near[2]
            assert far[2] > far[0]
        else:
            assert near.sum() > far.sum() + 200
    assert (depth.colourise(ramp, "gray")[0, :, 0] == np.arange(256)).all()


def test_colours_near_and_far_clip() -> None:
    ramp = np.linspace(10, 20, 11, dtype=np.float32)[None]
    gray = depth.colourise(ramp, "gray", near=0.8, far=0.4)[0, :, 0]
    assert gray.tolist() == [0, 0, 0, 0, 0, 64, 128, 191, 255, 255, 255]
    with pytest.raises(ValueError, match="near"):
        depth.colourise(ramp, near=0.2, far=0.2)
    with pytest.raises(ValueError, match="turbo"):
        depth.colourise(ramp, "jet")


def step_photo(height: int = 120, width: int = 160, edge: int = 83) -> np.ndarray:
    photo = np.full((height, width, 3), 60, np.uint8)
    photo[:, edge:] = 180
    return photo


def test_guided_upsampling_finds_the_photos_edge() -> None:
    photo = step_photo()
    network_map = np.clip((np.arange(40) - 18.5) / 4, 0, 1).astype(np.float32)  # soft, between 74 and 94 of 160
    network_map = np.tile(network_map, (30, 1))
    sharp = depth.upsample_guided(network_map, photo)
    plain = resize(network_map, (120, 160))
    truth = (np.arange(160) >= 83).astype(np.float32)
    assert np.abs(sharp - truth).mean() < 0.5 * np.abs(plain - truth).mean()
    assert np.abs(np.diff(sharp[60])).argmax() == 82


@CHECKED
@given(
    hnp.arrays(np.float32, (9, 12), elements=st.floats(-100, 100, width=32)),
    st.integers(1, 70),
    st.integers(1, 70),
    st.integers(0, 9),
)
def test_guided_upsampling_never_overshoots(network_map: np.ndarray, height: int, width: int, seed: int) -> None:
    photo = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    full = depth.upsample_guided(network_map, photo)
    assert full.shape == (height, width)
    assert full.dtype == np.float32
    slack = 1e-5 * float(np.abs(network_map).max())
    assert network_map.min() - slack <= full.min() <= full.max() <= network_map.max() + slack


def test_guided_upsampling_leaves_flat_parts_alone() -> None:
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (200, 300, 3), dtype=np.uint8)
    assert np.allclose(depth.upsample_guided(np.full((20, 30), 0.7, np.float32), photo), 0.7)


def test_metres_in_16_bits() -> None:
    stored, scale, offset = depth.metres16(np.array([[0.001, 1.0004, 65.535]], np.float32))
    assert (stored.tolist(), scale, offset) == ([[1, 1000, 65_535]], 0.001, 0)
    stored, scale, offset = depth.metres16(np.array([[0.5, 65.54, 80.0, 700.0]], np.float32))
    assert (stored.tolist(), scale, offset) == ([[50, 6554, 8000, 65_535]], 0.01, 0)


def test_inverse_of_depth_and_back() -> None:
    metres = np.array([[0.5, 4.0, 80.0]], np.float32)
    assert np.allclose(depth.inverted(metres), [[2, 0.25, 0.0125]])
    assert np.allclose(depth.inverted(depth.inverted(metres)), metres)
    assert depth.inverted(np.zeros((1, 1), np.float32))[0, 0] == pytest.approx(1000)


def test_matte_in_8_bits() -> None:
    person = np.array([[0, 0.5, 1], [np.nan, -1, 2]], np.float32)
    assert matte.to_uint8(person).tolist() == [[0, 128, 255], [0, 0, 255]]
    assert matte.coverage(person) == pytest.approx(2.5 / 6)
    with pytest.raises(InvalidMap):
        matte.to_uint8(np.zeros(3))


def test_matte_box() -> None:
    person = np.zeros((10, 20), np.float32)
    assert matte.bounding_box(person) is None
    person[3:5, 7:11] = 0.9
    assert matte.bounding_box(person) == (7, 3, 11, 5)


def test_guided_matte_stays_a_probability() -> None:
    soft = np.tile(np.clip((np.arange(40) - 18) / 5, 0, 1).astype(np.float32), (30, 1))
    full = matte.upsample_guided(soft, step_photo())
    assert 0 <= full.min() <= full.max() <= 1
    assert full[60, 70] < 0.2
    assert full[60, 95] > 0.8
