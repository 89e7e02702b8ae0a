import numpy as np
import pytest

from training.data.domains import DOMAINS
from training.data.layered import Layer, Pose, World, build_world, pose, render
from training.data.stereo_pairs import layered_sample, layered_sequence

SIZE = (48, 96)


def wall_world(depth_m=4.0, tilt=0.0, baseline_m=0.25):
    """One large wall ahead, `depth_m` away in the middle; it recedes to the right by `tilt` metres per metre."""
    along = np.array([20.0, 0.0, 20 * tilt])
    corner = np.array([-10.0, -10.0, depth_m - 10 * tilt])
    wall = Layer(corner, along, np.array([0.0, 20.0, 0.0]), 0, 1.0)
    return World((wall,), "plain", 0.8, baseline_m, np.zeros(3), np.zeros(3), 0.0)


STRAIGHT = Pose(np.zeros(3), np.eye(3))


def test_a_wall_has_the_inverse_depth_of_its_distance():
    view = render(wall_world(4.0), STRAIGHT, SIZE)
    np.testing.assert_allclose(view.inverse_depth, 0.25, atol=1e-6)
    assert view.image.std() > 5  # there is something to match


def test_a_tilted_wall_follows_the_formula():
    view = render(wall_world(4.0, tilt=0.5), STRAIGHT, SIZE)
    focal_px = 0.8 * 96
    x = (np.arange(96) - 95 / 2) / focal_px  # z = 4 + 0.5 x z
    np.testing.assert_allclose(view.inverse_depth[10], (1 - 0.5 * x) / 4, atol=1e-6)


def test_the_nearer_layer_hides_the_other():
    far, near = (
        wall_world(6.0).layers[0],
        Layer(np.array([0, -1, 3.0]), np.array([1, 0, 0.0]), np.array([0, 2, 0.0]), 1, 1),
    )
    for layers in ((far, near), (near, far)):
        world = World(layers, "plain", 0.8, 0.25, np.zeros(3), np.zeros(3), 0.0)
        inverse = render(world, STRAIGHT, SIZE).inverse_depth
        assert inverse[24, 60] == pytest.approx(1 / 3, abs=1e-6)
        assert inverse[24, 20] == pytest.approx(1 / 6, abs=1e-6)


@pytest.mark.parametrize("kind", ["street", "clutter"])
def test_the_right_picture_shows_what_disparity_says(kind):
    frame = next(layered_sequence("clean", 3, 1, (96, 192), kind))
    columns = np.arange(192) - frame.disparity_px
    seen = ~frame.occluded & (columns >= 0)
    whole = np.clip(np.floor(columns).astype(int), 0, 190)
    share = (columns - whole)[..., None]
    rows = np.arange(96)[:, None]
    there = frame.right[rows, whole] * (1 - share) + frame.right[rows, whole + 1] * share
    error = np.abs(there - frame.left).mean(2)
    assert np.median(error[seen]) < 4  # grey levels, of which noise is 1.5 in each
    assert np.abs(frame.right[seen].astype(float) - frame.left[seen]).mean() > 2 * error[seen].mean()
    assert 0.005 < frame.occluded.mean() < 0.4


def test_disparity_is_positive_bounded_and_everywhere():
    for seed in range(4):
        sample = layered_sample(seed, SIZE)
        assert sample.disparity_px.min() >= 0
        assert (sample.disparity_px > 0).mean() > 0.9
        assert sample.disparity_px.max() <= 64 * 96 / 320 + 1e-3


def test_a_seed_is_a_sequence():
    one, again = (list(layered_sequence("night", 5, 2, SIZE)) for _ in range(2))
    other = next(layered_sequence("night", 6, 1, SIZE))
    for a, b in zip(one, again, strict=True):
        assert a.left.tobytes() == b.left.tobytes()
        assert a.disparity_px.tobytes() == b.disparity_px.tobytes()
    assert one[0].left.tobytes() != other.left.tobytes()
    assert one[0].left.tobytes() != one[1].left.tobytes()


def test_the_camera_moves_and_its_truth_with_it():
    world = build_world(5, 30, "street")
    ahead = pose(world, 10).position - pose(world, 0).position
    assert ahead[2] == pytest.approx(10 * world.step_m[2])
    first, later = (render(world, pose(world, frame), SIZE).inverse_depth for frame in (0, 10))
    assert np.abs(first - later).max() > 0.01


@pytest.mark.parametrize("domain", DOMAINS)
def test_domains_change_the_picture_and_not_the_truth(domain):
    clean, shifted = (next(layered_sequence(name, 8, 1, SIZE, "street")) for name in ("clean", domain))
    np.testing.assert_array_equal(clean.disparity_px, shifted.disparity_px)
    difference = np.abs(clean.left.astype(float) - shifted.left).mean()
    assert difference == 0 if domain == "clean" else difference > 5


def test_night_is_dark_and_fog_pale():
    means = {d: next(layered_sequence(d, 8, 1, SIZE, "street")).left.mean() for d in ("clean", "night", "fog")}
    assert means["night"] < 0.5 * means["clean"] < means["clean"] < means["fog"]
