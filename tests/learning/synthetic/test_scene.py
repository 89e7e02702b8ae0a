"""Scenes of every kind, and that a seed is a scene."""

import numpy as np
import pytest

from training.data.synthetic.generator import render_scene
from training.data.synthetic.people import ACTIONS, POSES, SEATED, UPRIGHT, drawn_figure, joint_rotations
from training.data.synthetic.scene import KINDS, build_scene, kind_of

SIZE = (48, 64)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_shows_finite_depth(kind, library, cast):
    for seed in (1, 2, 3):
        rendering = render_scene(seed, library, cast, SIZE, kind=kind)
        view, soup = rendering.view, rendering.scene.soup
        assert all(np.isfinite(values).all() for values in (soup.corners, soup.normals, soup.uv, soup.colours))
        assert np.isfinite(view.radiance).all()
        assert np.isfinite(view.inverse_depth).all()
        assert (view.inverse_depth > 0).mean() > 0.15
        assert (soup.layers < len(library.atlas.sizes_px)).all()
        assert rendering.image.std() > 2
        assert rendering.scene.terms == "cc0"


def test_the_same_seed_is_the_same_scene(library, cast):
    first, second = (render_scene(11, library, cast, SIZE, stereo=True) for _ in range(2))
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.right, second.right)
    assert np.array_equal(first.view.inverse_depth, second.view.inverse_depth)
    assert first.scene.finish == second.scene.finish


def test_another_seed_is_another_scene(library, cast):
    first, second = (render_scene(seed, library, cast, SIZE, kind="room") for seed in (11, 12))
    assert not np.array_equal(first.view.inverse_depth, second.view.inverse_depth)


def test_another_attempt_is_another_view(library, cast):
    first, second = (build_scene(11, library, cast, SIZE, attempt, "room") for attempt in (0, 1))
    assert first.kind == second.kind
    assert len(first.soup) != len(second.soup)


def test_kinds_come_in_their_shares():
    kinds = [kind_of(seed) for seed in range(600)]
    total = sum(share for share, _ in KINDS.values())
    for kind, (share, _) in KINDS.items():
        assert kinds.count(kind) / 600 == pytest.approx(share / total, abs=0.05)


def test_close_people_are_close_and_large(library, cast):
    shares = [render_scene(s, library, cast, SIZE, kind="close_person").view.person.mean() / 255 for s in range(8)]
    assert np.median(shares) > 0.05


def test_poses_differ_and_sitting_people_are_lower():
    heights = [drawn_figure(0, joint_rotations(pose)).extent[1] for pose in range(POSES)]
    assert len({round(float(height), 4) for height in heights}) > POSES // 2
    assert max(heights[pose] for pose in SEATED) < 0.85 * min(
        heights[pose] for pose in UPRIGHT if ACTIONS[pose % len(ACTIONS)] == "stand"
    )
