"""Letterbox there and back without a shift, for every size."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.contract import NETWORK_SIZES
from service.imaging.errors import InvalidMap, OutsideImage
from service.imaging.geometry import Letterbox, check_inside, choose_size, relative_to_pixel, resize

CHECKED = settings(deadline=None, derandomize=True, max_examples=60)
SIDES = st.one_of(st.integers(1, 40), st.integers(41, 1200))


@pytest.mark.parametrize(
    ("photo", "network"),
    [
        ((3000, 4000), (288, 384)),
        ((4000, 3000), (384, 288)),
        ((1080, 1920), (224, 416)),
        ((1920, 1080), (416, 224)),
        ((2000, 3000), (256, 384)),
        ((500, 500), (320, 320)),
        ((375, 1242), (192, 576)),
        ((1, 65_535), (192, 576)),
        ((65_535, 1), (416, 224)),
        ((1, 1), (320, 320)),
    ],
)
def test_nearest_aspect(photo: tuple[int, int], network: tuple[int, int]) -> None:
    assert choose_size(*photo) == network


def test_hand_computed_letterbox() -> None:
    box = Letterbox.of(100, 50)  # 2 : 1 goes into 416 x 224, scale 4.16
    assert (box.network, box.content_size, box.top, box.left) == ((416, 224), (416, 208), 0, 8)


@CHECKED
@given(SIDES, SIDES, st.sampled_from([None, *NETWORK_SIZES]))
def test_content_lies_inside_and_touches(height: int, width: int, network: tuple[int, int] | None) -> None:
    box = Letterbox.of(height, width, network)
    assert box.top + box.content_size[0] <= box.network[0]
    assert box.left + box.content_size[1] <= box.network[1]
    assert box.content_size[0] == box.network[0] or box.content_size[1] == box.network[1]
    assert abs(2 * box.top - (box.network[0] - box.content_size[0])) <= 1
    scale_y, scale_x = box.content_size[0] / height, box.content_size[1] / width
    assert abs(scale_y - scale_x) <= max(1 / height, 1 / width)


@CHECKED
@given(SIDES, SIDES)
def test_fit_and_unfit_shapes(height: int, width: int) -> None:
    box = Letterbox.of(height, width)
    image = np.full((height, width, 3), 77, np.uint8)
    fitted = box.fit(image)
    assert fitted.shape == (*box.network, 3)
    assert fitted.dtype == np.uint8
    assert (fitted == 77).all()
    back = box.unfit(np.full(box.network, 0.25, np.float32))
    assert back.shape == (height, width)
    assert back.dtype == np.float32
    assert np.allclose(back, 0.25)


@CHECKED
@given(st.integers(30, 900), st.integers(30, 900), st.booleans(), st.sampled_from([None, *NETWORK_SIZES]))
def test_a_ramp_survives_the_round_trip(
    height: int, width: int, along_rows: bool, network: tuple[int, int] | None
) -> None:
    """A half-pixel shift on either way would show as half a photo pixel, or half a network pixel."""
    box = Letterbox.of(height, width, network)
    length = height if along_rows else width
    ramp = np.arange(length, dtype=np.float32)
    photo = np.broadcast_to(ramp[:, None] if along_rows else ramp, (height, width)).astype(np.float32)
    content = resize(photo, box.content_size)
    small = np.zeros(box.network, np.float32)
    small[box.top : box.top + box.content_size[0], box.left : box.left + box.content_size[1]] = content
    back = box.unfit(small)
    step = max(1.0, length / box.content_size[0 if along_rows else 1])
    inner = slice(math.ceil(step), length - math.ceil(step))  # the outermost half network pixel is held, not continued
    difference = (back - photo)[inner] if along_rows else (back - photo)[:, inner]
    assert np.abs(difference).max(initial=0) < 0.1 * step
    assert abs(float(difference.mean())) < 1e-3 * step if difference.size else True


def test_fit_is_centred() -> None:
    """The centre of mass of a disc lands where the letterbox says, to a fiftieth of a network pixel."""
    y, x = np.mgrid[0:777, 0:1111]
    photo = (255 * np.exp(-((x - 400) ** 2 + (y - 500) ** 2) / 2 / 60**2)).astype(np.uint8)
    box = Letterbox.of(777, 1111)
    fitted = box.fit(np.repeat(photo[..., None], 3, axis=2))[..., 0].astype(float)
    rows, columns = np.mgrid[0 : box.network[0], 0 : box.network[1]]
    row, column = (rows * fitted).sum() / fitted.sum(), (columns * fitted).sum() / fitted.sum()
    assert row == pytest.approx((500.5 * box.content_size[0] / 777) - 0.5 + box.top, abs=0.02)
    assert column == pytest.approx((400.5 * box.content_size[1] / 1111) - 0.5 + box.left, abs=0.02)


def test_padding_repeats_the_edge() -> None:
    box = Letterbox.of(100, 50, (320, 320))
    image = np.zeros((100, 50, 3), np.uint8)
    image[:, :25], image[:, 25:] = 10, 200
    fitted = box.fit(image)
    assert (fitted[:, : box.left] == 10).all()
    assert (fitted[:, box.left + box.content_size[1] :] == 200).all()


def test_shrinking_averages_and_does_not_alias() -> None:
    stripes = np.zeros((900, 1200, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(Letterbox.of(900, 1200).fit(stripes).astype(int) - 127).max() <= 45
    thin = np.zeros((2, 3000), np.float32)
    thin[:, ::2] = 1
    assert np.abs(resize(thin, (50, 300)) - 0.5).max() <= 0.06  # one axis shrinks, the other grows


def test_fit_accepts_a_reduced_decode() -> None:
    box = Letterbox.of(2000, 3000)
    assert box.fit(np.zeros((500, 750, 3), np.uint8)).shape == (*box.network, 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 65_535), (65_535, 1)])
def test_extreme_sizes(size: tuple[int, int]) -> None:
    box = Letterbox.of(*size)
    fitted = box.fit(np.full((*size, 3), 9, np.uint8))
    assert fitted.shape == (*box.network, 3)
    assert (fitted == 9).all()
    assert box.unfit(np.zeros(box.network, np.float32)).shape == size


def test_crop_refuses_another_size() -> None:
    with pytest.raises(InvalidMap):
        Letterbox.of(100, 100).crop(np.zeros((10, 10), np.float32))
    with pytest.raises(InvalidMap):
        Letterbox.of(0, 5)


@pytest.mark.parametrize(
    ("x", "y"), [(-1, 0), (0, -0.001), (40, 0), (0, 24), (math.nan, 0), (math.inf, 0), (0, 1e308), (-math.inf, 1)]
)
def test_points_outside(x: float, y: float) -> None:
    with pytest.raises(OutsideImage, match="40 x 24") as caught:
        check_inside(x, y, 24, 40)
    assert caught.value.field == ("y" if 0 <= x < 40 else "x")
    assert caught.value.code == "outside_image"
    assert caught.value.limit == [39, 23]


def test_points_inside() -> None:
    check_inside(0, 0, 24, 40)
    check_inside(39.9, 23.9, 24, 40)
    assert relative_to_pixel(1, 0.5, 25, 41) == (40, 12)
    with pytest.raises(OutsideImage):
        relative_to_pixel(math.nan, 0, 25, 41)
