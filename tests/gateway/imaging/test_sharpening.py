"""Depth brought to the photo's size with its steps on the photo's edges."""

import math

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from service.imaging.errors import InvalidMap
from service.imaging.geometry import resize, row_strips
from service.imaging.sharpening import sharp_upsample
from service.imaging.steps import find_steps

CHECKED = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
MAPS = hnp.arrays(np.float32, (16, 20), elements=st.sampled_from([0.0, 0.25, 1.0, 4.0]))


def soft_step(width: int, middle: float, sigma_px: float, height: int = 60) -> np.ndarray:
    """0 to 1 as a Gaussian blurs it; `middle` lies between pixels: 20 is after the first twenty."""
    distances = np.arange(width) + 0.5 - middle
    values = [0.5 + 0.5 * math.erf(distance / sigma_px / 2**0.5) for distance in distances]
    return np.tile(np.array(values, np.float32), (height, 1))


def two_sided_photo(size: tuple[int, int], edge: int, left: tuple[int, ...], right: tuple[int, ...]) -> np.ndarray:
    photo = np.empty((*size, 3), np.uint8)
    photo[:, :edge], photo[:, edge:] = left, right
    return photo


def random_photo(height: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_step_has_two_levels() -> None:
    values = np.tile(np.array([0.1] * 5 + [0.5] + [0.9] * 5, np.float32), (9, 1))
    steps = find_steps(values)
    assert steps.ramp[4].tolist() == [False] * 4 + [True] * 3 + [False] * 4
    assert steps.far[4, 4:7].tolist() == pytest.approx([0.1, 0.1, 0.1])
    assert steps.near[4, 4:7].tolist() == pytest.approx([0.9, 0.9, 0.9])
    assert (steps.far[4, :4] == steps.near[4, :4]).all()


def test_each_ramp_is_measured_by_the_smallest_window_in_which_it_is_over() -> None:
    """A thing a few pixels farther on, with another depth, stays out of it."""
    values = np.tile(np.array([0.0] * 8 + [0.2, 0.4] + [0.4] * 3 + [0.7, 1.0] + [1.0] * 8, np.float32), (9, 1))
    steps = find_steps(values)
    assert steps.near[4, 8] == pytest.approx(0.4)
    assert steps.far[4, 13] == pytest.approx(0.4)


def test_doubled_pixels_make_no_staircase() -> None:
    """A head that doubles its pixels draws treads; they are neither levels of the step nor corners of its contour."""
    y, x = np.mgrid[0:60, 0:80].astype(np.float32)
    half = np.clip((x - 40 + 0.4 * (y - 30)) / 3 + 0.5, 0, 1)
    doubled = np.repeat(np.repeat(half, 2, axis=0), 2, axis=1)
    full = sharp_upsample(doubled, np.full((480, 640, 3), 90, np.uint8))
    inner = full[40:-40]
    assert ((inner > 0.1) & (inner < 0.9)).mean() < 0.006  # three pixels of each row
    contour = (inner > 0.5).sum(axis=1)
    straight = np.polyval(np.polyfit(np.arange(len(contour)), contour, 1), np.arange(len(contour)))
    assert np.abs(contour - straight).max() < 2.5


def test_slopes_are_no_steps() -> None:
    slope = np.tile(np.linspace(0, 1, 90, dtype=np.float32), (70, 1))
    assert not find_steps(slope).ramp[:, 14:-14].any()
    assert not find_steps(np.ascontiguousarray(slope.T)).ramp[14:-14].any()


@pytest.mark.parametrize(("sigma_px", "edge"), [(0.4, 161), (1.0, 162), (2.0, 164), (3.0, 164)])
@pytest.mark.parametrize(
    ("left", "right"), [((60, 60, 60), (180, 180, 180)), ((200, 60, 60), (60, 140, 60)), ((30, 40, 90), (70, 60, 50))]
)
def test_a_soft_step_takes_the_photos_edge(
    sigma_px: float, edge: int, left: tuple[int, ...], right: tuple[int, ...]
) -> None:
    """80 pixels of the map on 320 of the photo, whose edge is up to one of the map's beside the map's own."""
    full = sharp_upsample(soft_step(80, 40, sigma_px), two_sided_photo((240, 320), edge, left, right))
    middle = full[120]
    assert middle[: edge - 3].max() < 0.1
    assert middle[edge + 3 :].min() > 0.9
    assert np.abs(np.diff(middle)).argmax() == pytest.approx(edge - 1, abs=2)


def test_both_signs_of_contrast_and_of_depth() -> None:
    near_right = soft_step(80, 40, 1.5)
    dark_left = two_sided_photo((240, 320), 163, (40, 40, 40), (150, 150, 150))
    reference = sharp_upsample(near_right, dark_left)
    assert sharp_upsample(near_right, 190 - dark_left) == pytest.approx(reference, abs=0.01)
    assert sharp_upsample(-near_right, dark_left) == pytest.approx(-reference, abs=1e-3)


def test_without_an_edge_in_the_photo_the_maps_own_contour_becomes_hard() -> None:
    rng = np.random.default_rng(5)
    noisy = np.clip(120 + rng.normal(0, 8, (240, 320, 3)), 0, 255).astype(np.uint8)
    full = sharp_upsample(soft_step(80, 40, 1.5), noisy)
    assert full[:, :152].max() < 0.15
    assert full[:, 168:].min() > 0.85
    assert np.abs((full > 0.5).sum(axis=1) - 160).max() <= 4  # one pixel of the map


def test_texture_stays_out_of_flat_and_sloping_parts() -> None:
    y = np.linspace(0, 0.5, 60, dtype=np.float32)[:, None]
    values = np.broadcast_to(y, (60, 80)).copy()
    values[20:40, 30:50] = 1
    photo = random_photo(480, 640, 3)
    full, plain = sharp_upsample(values, photo), resize(values, (480, 640))
    away = np.ones((480, 640), bool)
    away[20 * 8 - 32 : 40 * 8 + 32, 30 * 8 - 32 : 50 * 8 + 32] = False
    assert np.abs(full - plain)[away].max() < 1e-3
    slope = np.ascontiguousarray(np.broadcast_to(y, (60, 80)))
    assert (sharp_upsample(slope, photo) == resize(slope, (480, 640))).all()


def test_no_ghost_beside_an_edge() -> None:
    """A disc before a wall: beyond the width of its soft border, neither is anything but itself."""
    y, x = np.mgrid[0:480, 0:640].astype(np.float32)
    distance = np.hypot(x - 320, y - 240) - 120
    photo = np.where(distance[..., None] < 0, (170, 120, 90), (60, 80, 110)).astype(np.uint8)
    truth = (distance < 0).astype(np.float32)
    small = cv2.GaussianBlur(resize(truth, (120, 160)), (0, 0), 1.5)
    full = sharp_upsample(small, photo)
    assert np.abs(full - truth)[np.abs(distance) > 2].max() < 0.12
    assert np.abs(full - truth).mean() < 0.1 * np.abs(resize(small, (480, 640)) - truth).mean()


@CHECKED
@given(MAPS, st.integers(1, 90), st.integers(1, 90), st.integers(0, 9))
def test_nothing_beyond_what_the_map_has_nearby(values: np.ndarray, height: int, width: int, seed: int) -> None:
    full = sharp_upsample(values, random_photo(height, width, seed))
    assert full.shape == (height, width)
    assert full.dtype == np.float32
    element = np.ones((29, 29), np.uint8)
    rows = np.clip((np.arange(height) + 0.5) * 16 / height, 0, 15).astype(int)
    columns = np.clip((np.arange(width) + 0.5) * 20 / width, 0, 19).astype(int)
    if height * width > values.size:  # else it is an average over more than its own pixel
        assert (full >= cv2.erode(values, element)[rows][:, columns] - 1e-4).all()
        assert (full <= cv2.dilate(values, element)[rows][:, columns] + 1e-4).all()
    assert values.min() - 1e-5 <= full.min() <= full.max() <= values.max() + 1e-5


@CHECKED
@given(MAPS, st.sampled_from([-3.0, 0.01, 7.0, 500.0]), st.sampled_from([-20.0, 0.0, 3.0]), st.integers(0, 9))
def test_scaled_and_shifted_with_the_map(values: np.ndarray, scale: float, shift: float, seed: int) -> None:
    """Near stays near, whatever the unit; with a negative scale far and near are swapped."""
    photo = random_photo(40, 50, seed)
    smooth = cv2.GaussianBlur(values, (0, 0), 1.0)
    expected = sharp_upsample(smooth, photo) * scale + shift
    moved = sharp_upsample((smooth * scale + shift).astype(np.float32), photo)
    # a value exactly at a threshold may fall on either side of it after rounding, with the few pixels it decides
    assert np.mean(np.abs(moved - expected) > 2e-3 * (abs(scale) * 4 + abs(shift) * 1e-3)) < 0.05


@CHECKED
@given(st.floats(-1e6, 1e6, width=32), st.integers(1, 60), st.integers(1, 60))
def test_constant_maps_stay_constant(value: float, height: int, width: int) -> None:
    full = sharp_upsample(np.full((12, 9), value, np.float32), random_photo(height, width, 1))
    assert full.shape == (height, width)
    assert full == pytest.approx(value, rel=1e-6)  # an average of equal numbers, when the photo is the smaller


def test_grey_colourless_and_saturated_photos() -> None:
    """Equal channels leave the colours' spread without an inverse; the contrast floor gives it one."""
    values = soft_step(80, 40, 1.5)
    for left, right in (((0, 0, 0), (255, 255, 255)), ((128, 128, 128), (128, 128, 128)), ((0, 0, 0), (0, 0, 0))):
        full = sharp_upsample(values, two_sided_photo((240, 320), 160, left, right))
        assert np.isfinite(full).all()
        assert full[120, 150] < 0.2
        assert full[120, 170] > 0.8


@pytest.mark.parametrize("size", [(1, 400), (400, 1), (2, 900), (1, 1), (3, 65_000)])
def test_photos_of_one_pixels_width(size: tuple[int, int]) -> None:
    full = sharp_upsample(soft_step(20, 10, 1.0, height=3), random_photo(*size, 2))
    assert full.shape == size
    assert np.isfinite(full).all()


def test_a_map_has_two_axes() -> None:
    with pytest.raises(InvalidMap):
        sharp_upsample(np.zeros((2, 3, 1), np.float32), random_photo(4, 6, 0))


@pytest.mark.parametrize(("source_rows", "rows"), [(1, 1), (1, 50), (2, 7), (7, 7), (30, 101), (288, 3000)])
def test_rows_in_strips_are_those_of_a_resize(source_rows: int, rows: int) -> None:
    source = np.random.default_rng(0).random((source_rows, 5), np.float32)
    strips = [weights @ source[needed] for _, needed, weights in row_strips(source_rows, rows, 32)]
    assert np.concatenate(strips) == pytest.approx(resize(source, (rows, 5)), abs=1e-5)
