"""What pixels say of the person they belong to."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from service.imaging import votes
from service.imaging.geometry import resize
from tests.benchmarks.refocus import truth
from tests.benchmarks.refocus.figures import Pose
from tests.benchmarks.refocus.scenes import HEIGHT, WIDTH, Stage, visible

SIZE = (round(HEIGHT * votes.LONG_SIDE / WIDTH), votes.LONG_SIDE)
SCALE = votes.LONG_SIDE / WIDTH
HEIGHT_PX, FEET, COLUMN = 400, 480, 500


@pytest.fixture(scope="module")
def figure() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matte, inverse depth and photo of somebody who stands right of the middle."""
    on = Stage(np.random.default_rng(1))
    on.wall("plaster", (0.03, 0, 0))
    on.floor("planks", 300, 0.1, 0.5)
    on.figure(COLUMN, FEET, HEIGHT_PX, 0.5, Pose(("akimbo", "down")))
    seen = visible(tuple(on.layers))
    photo = truth.srgb.photo(truth.expose(tuple(on.layers), focus=0, strength_px=0))
    return resize(seen.mattes[0], SIZE), resize(seen.inverse_depth, SIZE), resize(photo, SIZE)


def test_everybody_votes_for_the_chest(figure: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    cast, inside = votes.cast(*figure), figure[0] > 0.5
    height = HEIGHT_PX * SCALE
    assert np.median(cast.x[inside]) == pytest.approx(COLUMN * SCALE, abs=0.05 * height)
    assert np.median(cast.y[inside]) == pytest.approx((FEET - 0.765 * HEIGHT_PX) * SCALE, abs=0.08 * height)
    assert np.median(cast.height[inside]) == pytest.approx(height, rel=0.2)
    assert cast.x[inside].std() < 0.1 * height


def test_a_mirror_image_votes_to_the_other_side(figure: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    mirrored = votes.cast(*(np.ascontiguousarray(values[:, ::-1]) for values in figure))
    inside = figure[0][:, ::-1] > 0.5
    expected = votes.LONG_SIDE - 1 - COLUMN * SCALE
    assert np.median(mirrored.x[inside]) == pytest.approx(expected, abs=0.05 * HEIGHT_PX * SCALE)


def test_any_size_is_taken(figure: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    for size in ((320, 213), (1, 1), (33, 320), (160, 160)):
        cast = votes.cast(*(resize(values, size) for values in figure))
        assert cast.x.shape == cast.y.shape == cast.height.shape == size
        assert np.isfinite(cast.x).all()
        assert (cast.height > 0).all()


def test_threads_do_not_get_one_anothers_votes(figure: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    mirrored = tuple(np.ascontiguousarray(values[:, ::-1]) for values in figure)
    alone = [votes.cast(*given).x for given in (figure, mirrored)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda index: votes.cast(*(figure, mirrored)[index % 2]).x, range(12)))
    assert all(np.array_equal(x, alone[index % 2]) for index, x in enumerate(together))
