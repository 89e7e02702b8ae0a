"""Photos that are all width or all height: bounded work, and the same promises as for any other photo."""

import cv2
import numpy as np
import pytest

from service.imaging import depth, matte, people, refocus
from service.imaging.geometry import Letterbox, bounded_long_side, neighbourhood
from service.imaging.sharpening import sharp_upsample, working_grid

STRIPS = [(8, 36_000), (5, 65_535), (1, 65_535), (65_535, 1), (36_000, 8), (2, 2), (1, 1)]


def textured(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)


def ramp(size: tuple[int, int]) -> np.ndarray:
    """Inverse depth rising along the long side in eight steps, 0..1."""
    along = np.floor(np.linspace(0, 7.99, max(size), dtype=np.float32)) / np.float32(7)
    return np.ascontiguousarray(np.broadcast_to(along if size[1] >= size[0] else along[:, None], size))


@pytest.mark.parametrize("size", [*STRIPS, (40_000, 1000), (1000, 40_000), (3000, 4000), (6000, 8000)])
def test_windows_stay_small_whatever_the_aspect(size: tuple[int, int]) -> None:
    content = Letterbox.of(*size).content_size
    grid, per_map_px = working_grid(size, content)
    assert grid[0] * grid[1] <= 1.01 * 384 * 288
    assert grid[0] <= size[0]
    assert grid[1] <= size[1]
    assert per_map_px <= 4
    assert bounded_long_side(size) <= min(max(size), 8 * min(size))


def test_ordinary_photos_keep_their_grid() -> None:
    assert working_grid((3000, 4000), (288, 384)) == ((288, 384), pytest.approx(1))
    assert working_grid((4000, 3000), (384, 288)) == ((384, 288), pytest.approx(1))
    assert bounded_long_side((3000, 4000)) == 4000


def test_large_neighbourhoods_can_be_searched_an_axis_at_a_time() -> None:
    """OpenCV visits every pixel of a round element, but only a row and a column of a full square."""
    for radius in (1, 8, 20, 21, 400):
        element = neighbourhood(radius)
        assert element.shape == (2 * radius + 1, 2 * radius + 1)
        assert element.all() or np.count_nonzero(element) < 41 * 41


@pytest.mark.parametrize("size", STRIPS)
def test_maps_come_back_at_the_photos_size_and_in_range(size: tuple[int, int]) -> None:
    photo, content = textured(size), Letterbox.of(*size).content_size
    network_map = np.random.default_rng(2).uniform(-3, 5, content).astype(np.float32)
    full = sharp_upsample(network_map, photo)
    assert full.shape == size
    assert np.isfinite(full).all()
    assert network_map.min() - 1e-4 <= full.min() <= full.max() <= network_map.max() + 1e-4
    person = matte.upsample_guided((network_map > 1).astype(np.float32), photo)
    assert person.shape == size
    assert 0 <= person.min() <= person.max() <= 1


@pytest.mark.parametrize("size", [(8, 36_000), (36_000, 8), (1, 65_535), (65_535, 1)])
def test_a_step_stays_where_it_is(size: tuple[int, int]) -> None:
    content = Letterbox.of(*size).content_size
    long_axis = int(size[0] > size[1])
    half = size[1 - long_axis] // 2
    photo = np.full((*size, 3), 60, np.uint8)
    step = np.zeros(content, np.float32)
    if long_axis == 0:
        photo[:, half:], step[:, content[1] // 2 :] = 180, 1
    else:
        photo[half:], step[content[0] // 2 :] = 180, 1
    along = depth.upsample_guided(step, photo).mean(axis=long_axis)
    margin = 2 * size[1 - long_axis] // max(content)  # two pixels of the network's map
    assert along[: half - margin].max() < 0.1
    assert along[half + margin :].min() > 0.9


@pytest.mark.parametrize("size", STRIPS)
def test_strips_are_split_prepared_and_rendered(size: tuple[int, int]) -> None:
    photo, inverse_depth = textured(size), ramp(size)
    mattes = people.split((inverse_depth > 0.6).astype(np.float32), inverse_depth, photo)
    assert mattes.shape[1:] == size
    scene = refocus.prepare(photo, inverse_depth, mattes)
    assert scene.inverse_depth.shape == size
    assert 0 <= scene.inverse_depth.min() <= scene.inverse_depth.max() <= 1
    strength_px = refocus.strength_from_f_number(1.4, max(size))
    result = refocus.render(scene, focus=0.0, strength_px=strength_px)
    assert result.shape == photo.shape
    assert result.dtype == np.uint8
    assert (refocus.render(scene, focus=0.0, strength_px=0) == photo).all()


def test_no_circle_of_confusion_is_wider_than_the_short_side() -> None:
    """The aperture's kernel grows with the square of its radius, which the long side alone would make 3932 pixels."""
    photo, inverse_depth = textured((8, 4000)), ramp((8, 4000))
    scene = refocus.prepare(photo, inverse_depth)
    cut = refocus.render(scene, focus=0.0, strength_px=8)
    assert (refocus.render(scene, focus=0.0, strength_px=1e6) == cut).all()
    assert not (refocus.render(scene, focus=0.0, strength_px=4) == cut).all()


@pytest.mark.parametrize("size", [(160, 40_000), (40_000, 160)])
def test_a_large_photo_may_be_longer_than_opencvs_remap_takes(size: tuple[int, int]) -> None:
    """Above 5 megapixels blurred parts are enlarged again, by a function that refuses sides from 32,767 on."""
    photo = np.empty((*size, 3), np.uint8)
    along = np.rint(np.linspace(0, 255, max(size))).astype(np.uint8)
    photo[:] = (along[None, :] if size[1] > size[0] else along[:, None])[..., None]
    scene = refocus.prepare(photo, ramp(size))
    result = refocus.render(scene, focus=0.5, strength_px=20)
    assert int(cv2.absdiff(result, photo).max()) <= 2  # a slow ramp blurred is itself, also across the strips' seams
