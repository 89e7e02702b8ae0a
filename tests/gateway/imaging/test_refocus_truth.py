"""The refocus benchmark's own truth and scorer: identities, a closed form, numbers worked out by hand."""

import numpy as np
import pytest

from tests.benchmarks.refocus import baselines, degrade, scenes, score, truth
from tests.benchmarks.refocus.renderers import Order
from tests.benchmarks.refocus.scenes import HEIGHT, WIDTH, Layer, Stage, View, visible

SIZE = (64, 96)


def opaque(value: float | np.ndarray, plane: tuple[float, float, float], size: tuple[int, int] = SIZE) -> Layer:
    light = np.ones((size[0] + 40, size[1] + 40, 4), np.float32)
    light[..., :3] = value
    return Layer(light, -20, -20, plane)


def half_plane(value: float, first_column: int, depth: float) -> Layer:
    light = np.zeros((SIZE[0] + 40, SIZE[1] + 40, 4), np.float32)
    light[:, 20 + first_column :] = (value, value, value, 1)
    return Layer(light, -20, -20, (depth, 0, 0))


def chord_share(x: np.ndarray, radius: float) -> np.ndarray:
    """Share of a disc that lies to the right of a line at distance x to the right of its centre."""
    t = np.clip(x / radius, -1, 1)
    return np.arccos(t) / np.pi - t * np.sqrt(1 - t * t) / np.pi


@pytest.fixture(scope="module")
def small_scene() -> tuple[Layer, ...]:
    stage = Stage(np.random.default_rng(3))
    stage.wall("bricks")
    stage.floor("planks", 380, 0.1, 0.7)
    stage.figure(300, 480, 160, 0.4)
    stage.figure(330, 500, 180, 0.6)
    return tuple(stage.layers)


@pytest.mark.parametrize("blades", [0, 5, 6])
def test_lens_points_fill_the_aperture(blades: int) -> None:
    points = truth.lens_points(1024, 0, blades)
    assert np.abs(points.mean(axis=0)).max() < 0.01
    # a disc of radius 1 has a mean square radius of 1/2; a polygon of its area a little more
    assert (points**2).sum(axis=1).mean() == pytest.approx(0.5, abs=0.02)
    assert np.hypot(*points.T).max() <= (1 if not blades else 1.2)
    assert np.array_equal(points, truth.lens_points(1024, 0, blades))
    assert not np.array_equal(points, truth.lens_points(1024, 1, blades))


def test_a_closed_lens_gives_the_photo(small_scene: tuple[Layer, ...]) -> None:
    closed = truth.expose(small_scene, focus=0.3, strength_px=0)
    behind = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    for layer in small_scene:
        rows, columns, part = scenes.framed(layer)
        behind[rows, columns] *= 1 - layer.light[part][..., 3:]
        behind[rows, columns] += layer.light[part][..., :3]
    assert np.allclose(closed, behind, atol=1e-6)


@pytest.mark.parametrize(("near", "focus", "radius"), [(0.8, 0.3, 10.0), (0.3, 0.8, 7.0)])
def test_half_plane_edge_is_the_chord_integral(near: float, focus: float, radius: float) -> None:
    layers = (opaque(0.1, (focus if near > focus else 0.1, 0, 0)), half_plane(0.9, 48, near))
    seen = truth.expose(layers, focus=focus, strength_px=radius / abs(near - focus), size=SIZE)
    # the edge lies at 47.5, and linear interpolation makes it a ramp of a pixel: the mean over that ramp
    steps = (np.arange(32) + 0.5) / 32 - 0.5
    share = np.mean([chord_share(47.5 + step - np.arange(SIZE[1]), radius) for step in steps], axis=0)
    assert np.abs(seen - (0.1 + 0.8 * share)[None, :, None]).max() < 0.004


def test_tilted_plane_is_blurred_by_its_own_depth() -> None:
    lines = (np.arange(SIZE[1] + 40) % 8 < 4).astype(np.float32)[None, :, None]
    seen = truth.expose((opaque(lines, (0.5, 0.5 / SIZE[1], 0)),), focus=0.5, strength_px=16, points=256, size=SIZE)
    contrast = [float(np.ptp(seen[30, left : left + 9, 0])) for left in (0, 40, 80)]
    assert contrast[0] > 0.95
    assert contrast[0] > contrast[1] > contrast[2]


def test_the_subject_is_whole_and_hidden_parts_stay_hidden(small_scene: tuple[Layer, ...]) -> None:
    seen = visible(small_scene)
    photo = truth.expose(small_scene, focus=0, strength_px=0)
    taken = truth.expose(small_scene, focus=0.2, strength_px=20, subject=1, points=64)
    own = seen.mattes[1] == 1
    assert np.allclose(taken[own], photo[own], atol=1e-5)
    assert seen.mattes.sum(axis=0).max() <= 1 + 1e-5


@pytest.mark.parametrize("number", range(1, 13))
def test_nothing_hides_what_is_nearer(number: int) -> None:
    """A lens cannot take a picture in which the floor lies before the feet that stand on it."""
    nearest = np.zeros((HEIGHT + 2 * scenes.MARGIN_PX, WIDTH + 2 * scenes.MARGIN_PX), np.float32)
    for layer in scenes.scene(number).layers:
        rows, columns = layer.light.shape[:2]
        top, left = layer.top + scenes.MARGIN_PX, layer.left + scenes.MARGIN_PX
        here = nearest[top : top + rows, left : left + columns]
        solid, depth = layer.light[..., 3] > 0.5, layer.inverse_depth()
        assert (depth >= here)[solid].all()
        here[solid] = depth[solid]


def test_a_seed_gives_the_same_pixels() -> None:
    first, again, other = (scenes.build(10, seed) for seed in (5, 5, 6))
    assert all(np.array_equal(a.light, b.light) for a, b in zip(first.layers, again.layers, strict=True))
    assert first.views == again.views
    assert not np.array_equal(first.layers[0].light, other.layers[0].light)
    seen = visible(first.layers)
    assert np.array_equal(degrade.network_output(seen, 1).inverse_depth, degrade.network_output(seen, 1).inverse_depth)
    # the service's 0.04 * 768 * 2.8 / N pixels between the nearest and the farthest, at f/2.8, f/2 and f/4
    strengths = [view.strength_px * np.ptp(seen.inverse_depth) for view in first.views]
    assert strengths == pytest.approx([30.72, 43.008, 21.504], rel=1e-4)


def test_scores_of_pictures_made_by_hand() -> None:
    depth = np.full((HEIGHT, WIDTH), 0.2, np.float32)
    depth[:, 400:] = 0.7
    seen = scenes.Visible(depth, np.zeros((0, HEIGHT, WIDTH), np.float32), (), np.zeros((HEIGHT, WIDTH), np.int32))
    where = score.regions(seen, View((500, 200), 0.7, 20))
    assert where.inner.sum() == (HEIGHT - 20) * (WIDTH - 20)
    assert where.sharp[256, 400:700].all()
    assert not where.sharp[256, :400].any()
    assert not where.front.any()
    columns = np.flatnonzero(where.ring[256])
    assert (columns.min(), columns.max()) == (392, 399)
    true = np.random.default_rng(0).integers(20, 200, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    same = score.score(true, true, where)
    assert (same.psnr, same.ssim, same.sharp, same.bleed) == (score.CAP_DB, pytest.approx(1), 1, 0)
    assert np.isnan(same.front)
    brighter = score.score(true + np.uint8(10), true, where)
    assert brighter.psnr == pytest.approx(20 * np.log10(255 / 10))
    assert brighter.bleed == pytest.approx(10, abs=1e-3)
    assert brighter.sharp == pytest.approx(1)
    wrong_in_ring = true.copy()
    wrong_in_ring[where.ring] += 16
    only = score.score(wrong_in_ring, true, where)
    assert only.focus == score.CAP_DB
    assert only.bleed == pytest.approx(16, abs=1e-3)


def test_front_band_reaches_one_circle_round_a_blurred_near_object() -> None:
    depth = np.full((HEIGHT, WIDTH), 0.2, np.float32)
    depth[:, 400:] = 0.7
    seen = scenes.Visible(depth, np.zeros((0, HEIGHT, WIDTH), np.float32), (), np.zeros((HEIGHT, WIDTH), np.int32))
    columns = np.flatnonzero(score.regions(seen, View((100, 200), 0.2, 20)).front[256])
    assert (columns.min(), columns.max()) == (389, 410)


@pytest.mark.parametrize("renderer", [baselines.gather, baselines.scatter, baselines.layered])
def test_plain_renderers_blur_a_plane_like_the_lens(renderer) -> None:
    light = np.zeros((*SIZE, 3), np.float32)
    light[:, 48:] = 1
    inputs = degrade.Inputs(np.full(SIZE, 0.2, np.float32), np.zeros((0, *SIZE), np.float32))
    result = renderer(truth.srgb.photo(light), inputs, Order(0.7, 16, None, 0))
    true = truth.srgb.photo(np.repeat(chord_share(47.5 - np.arange(SIZE[1]), 8)[None, :, None], SIZE[0], axis=0))
    assert np.abs(result[32, 20:76, 0].astype(int) - true[0, 20:76, 0]).max() <= 14
