"""Geometry of the pictures: depth, people, pairs, edges."""

import numpy as np
import pytest

from training.data.synthetic.camera import aim, develop, draw_finish
from training.data.synthetic.render import SAMPLES, Tracer
from training.data.synthetic.scene import build_scene
from training.data.synthetic.soup import Material, box, join, quad
from training.data.synthetic.stereo import disparity_px, occluded

UPRIGHT = np.eye(3)


def wall(distance_m, identity=1):
    """A large wall across the view at `distance_m`."""
    return quad(
        np.array([-50.0, -50.0, -distance_m]), np.array([100.0, 0, 0]), np.array([0, 100.0, 0]), Material(), identity
    )


def cube(distance_m, size_m=1.0, identity=2):
    """A cube on the optical axis whose front is at `distance_m`."""
    middle = np.array([0.0, 0.0, -distance_m - size_m / 2])
    return box(middle, np.full(3, size_m), UPRIGHT, Material(), identity)


def test_a_box_at_known_distance_gives_that_depth(tracer_of, camera):
    view = tracer_of(join([wall(8.0), cube(2.0)])).view(camera, np.random.default_rng(0))
    assert view.inverse_depth[24, 32] == pytest.approx(1 / 2, rel=1e-4)
    assert view.inverse_depth[2, 2] == pytest.approx(1 / 8, rel=1e-4)
    assert (view.objects[24, 32], view.objects[2, 2]) == (2, 1)
    half_width_px = 0.5 / 2 * camera.focal_px
    assert (view.objects[24] == 2).sum() == pytest.approx(2 * half_width_px, abs=1)


def test_depth_is_along_the_axis_not_along_the_ray(tracer_of, camera):
    view = tracer_of(wall(5.0)).view(camera, np.random.default_rng(0))
    assert np.abs(view.inverse_depth - 1 / 5).max() < 1e-5


def test_edges_are_sharp(tracer_of, camera):
    view = tracer_of(join([wall(8.0), cube(2.0)])).view(camera, np.random.default_rng(0))
    known = np.isclose(view.inverse_depth, 1 / 2, rtol=1e-3) | np.isclose(view.inverse_depth, 1 / 8, rtol=1e-3)
    assert known.mean() > 0.999


def test_the_sky_has_no_depth_and_no_object(tracer_of, camera):
    view = tracer_of(cube(2.0)).view(camera, np.random.default_rng(0))
    assert view.inverse_depth[0, 0] == 0
    assert view.objects[0, 0] == 0
    assert np.allclose(view.radiance[0, 0], 0.5)


def test_a_camera_that_pitches_down_sees_the_floor_where_it_should(tracer_of):
    floor = quad(np.array([-50.0, 0, 50.0]), np.array([100.0, 0, 0]), np.array([0, 0, -100.0]), Material(), 1)
    camera = aim(np.array([0, 1.5, 0]), 0.0, -np.pi / 4, 0.0, 60.0, (48, 64))
    view = tracer_of(floor).view(camera, np.random.default_rng(0))
    middle = view.inverse_depth[23:25, 31:33].mean()
    assert 1 / middle == pytest.approx(1.5 * np.sqrt(2), rel=1e-2)
    assert view.inverse_depth[-1, 32] > view.inverse_depth[0, 32]


def test_projection_inverts_the_rays(camera):
    rays = camera.rays(1).reshape(48, 64, 3)
    pixel, depth = camera.project(rays[[10], [50]] * 3.0)
    assert pixel[0] == pytest.approx([50.5, 10.5], abs=1e-4)
    assert depth[0] == pytest.approx(3.0, rel=1e-5)


def test_a_shadow_falls_and_light_arrives(tracer_of, camera):
    floor = quad(np.array([-20.0, -1, 5.0]), np.array([40.0, 0, 0]), np.array([0, 0, -60.0]), Material(), 1)
    roof = box(np.array([0.0, 6.0, 6.0]), np.array([3.0, 0.1, 8.0]), UPRIGHT, Material(), 2)
    bright = tracer_of(floor).view(camera, np.random.default_rng(0)).radiance[40, 32].mean()
    dark = tracer_of(join([floor, roof])).view(camera, np.random.default_rng(0)).radiance[40, 32].mean()
    assert dark < 0.6 * bright


def test_rays_pass_the_holes_of_a_cutout(library, tracer_of, camera):
    layer = library.leaves[0]
    card = quad(
        np.array([-1.0, -1, -2]), np.array([2.0, 0, 0]), np.array([0, 2.0, 0]), Material(layer=layer, tile_m=0.0), 2
    )
    view = tracer_of(join([wall(8.0), card])).view(camera, np.random.default_rng(0))
    inside = view.inverse_depth[12:36, 20:44]
    leaf = np.isclose(inside, 1 / 2, rtol=1e-3)
    assert 0.1 < leaf.mean() < 0.95
    assert np.isclose(inside, 1 / 8, rtol=1e-2)[~leaf].mean() > 0.95


def test_person_mask_is_the_coverage_of_person_triangles(library, cast):
    seed = next(s for s in range(40) if build_scene(s, library, cast, (48, 64), kind="close_person").soup.people.any())
    scene = build_scene(seed, library, cast, (48, 64), kind="close_person")
    tracer = Tracer(scene.soup, library.atlas, scene.shot.lights, scene.shot.sky)
    view = tracer.view(scene.camera, np.random.default_rng(0))
    rays = scene.camera.rays(SAMPLES)
    eye = np.broadcast_to(scene.camera.position.astype(np.float32), (rays.size // 3, 3))
    triangle = tracer.trace(eye, rays.reshape(-1, 3)).triangle.reshape(rays.shape[:-1])
    people = np.where(triangle >= 0, scene.soup.people[triangle], False)
    assert view.person.max() == 255
    assert np.array_equal(view.person, np.rint(people.mean(axis=(1, 3)) * 255))


def test_disparity_is_focal_times_baseline_over_depth(tracer_of, camera):
    soup = cube(2.0)
    left = tracer_of(soup).view(camera, np.random.default_rng(0))
    right = tracer_of(soup).view(camera.moved_right(0.2), np.random.default_rng(0))
    disparity = disparity_px(left.inverse_depth, camera.focal_px * 0.2)
    assert disparity[24, 32] == pytest.approx(camera.focal_px * 0.2 / 2, rel=1e-4)
    shift = np.flatnonzero(left.objects[24] == 2)[0] - np.flatnonzero(right.objects[24] == 2)[0]
    assert shift == pytest.approx(disparity[24, 32], abs=1)


def test_the_right_picture_warps_onto_the_left(library, cast):
    scene = build_scene(3, library, cast, (96, 128), kind="heap")
    tracer = Tracer(scene.soup, library.atlas, scene.shot.lights, scene.shot.sky)
    left = tracer.view(scene.camera, np.random.default_rng(0))
    right = tracer.view(scene.camera.moved_right(0.06), np.random.default_rng(1))
    focal_baseline = scene.camera.focal_px * 0.06
    hidden = occluded(left.inverse_depth, right.inverse_depth, focal_baseline)
    x = np.arange(128) - disparity_px(left.inverse_depth, focal_baseline)
    column = np.floor(x).astype(int).clip(0, 126)
    part = (x - column).clip(0, 1)[..., None]
    rows = np.arange(96)[:, None]
    warped = right.radiance[rows, column] * (1 - part) + right.radiance[rows, column + 1] * part
    error = np.abs(warped - left.radiance).mean(axis=2)
    middle = np.median(left.radiance)
    assert np.median(x - np.arange(128)) < -1
    assert hidden.mean() < 0.5
    assert np.median(error[~hidden]) < 0.1 * middle
    assert error[hidden].mean() > 2 * error[~hidden].mean()


def test_what_lies_left_of_the_right_picture_is_occluded():
    near, far = np.full((4, 20), 0.5, np.float32), np.full((4, 20), 0.1, np.float32)
    hidden = occluded(near, near, 10.0)
    assert hidden[:, :5].all()
    assert not hidden[:, 5:].any()
    assert occluded(far, near, 10.0).all()


def test_the_camera_makes_a_picture_of_any_radiance():
    rng = np.random.default_rng(0)
    radiance = np.linspace(0, 4, 30 * 40 * 3, dtype=np.float32).reshape(30, 40, 3)
    for _ in range(20):
        image = develop(radiance, 0.5, draw_finish(rng), rng)
        assert image.dtype == np.uint8
        assert image[-5:].mean() > image[:5].mean()
