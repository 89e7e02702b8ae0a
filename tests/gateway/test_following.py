"""What a video is focused on, frame by frame."""

from collections.abc import Sequence

import numpy as np
import pytest

from service.errors import UnknownPerson
from service.focusing import Aim, Focus
from service.following import Follower, Wish
from service.imaging import refocus
from service.imaging.person import describe
from service.pipeline import FocusScene

SIZE = (60, 100)
COLOURS = ((220, 30, 30), (30, 30, 220))


def frame(*people: tuple[int, float]) -> tuple[FocusScene, np.ndarray]:
    """People (left, inverse depth), the first red, the second blue, before a wall at 0.1; mattes nearest first."""
    picture = np.full((*SIZE, 3), 120, np.uint8)
    depth = np.full(SIZE, 0.1, np.float32)
    mattes = []
    for (left, nearness), colour in zip(people, COLOURS, strict=False):
        picture[10:55, left : left + 16] = colour
        depth[10:55, left : left + 16] = nearness
        matte = np.zeros(SIZE, np.float32)
        matte[10:55, left : left + 16] = 1
        mattes.append((nearness, matte))
    ordered = [matte for _, matte in sorted(mattes, key=lambda each: -each[0])]
    scene = refocus.prepare(picture, depth, np.array(ordered, np.float32).reshape(-1, *SIZE))
    people_found = tuple(describe(scene.mattes, scene.inverse_depth))
    return FocusScene(scene, people_found, None, "image/png", "fake", "1"), picture


def run(
    follower: Follower, frames: Sequence[tuple[FocusScene, np.ndarray]], wish: Wish, transition: int = 0
) -> list[Focus]:
    return [follower.focus(scene, picture, wish, transition, cut=False) for scene, picture in frames]


def test_nobody_named_is_the_nearest_person_then_another_when_he_is_gone() -> None:
    follower, wish = Follower(), Wish(None, "auto")
    both = frame((10, 0.4), (60, 0.7))
    assert run(follower, [both], wish)[0].depth == pytest.approx(0.7, abs=0.01)
    alone = frame((10, 0.4))
    depths = [focus.depth for focus in run(follower, [alone] * 12, wish)]
    assert depths[0] == pytest.approx(0.7, abs=0.01)  # lost: the plane stays where he was
    assert depths[-1] == pytest.approx(0.4, abs=0.01)
    assert follower.tracking == "followed"


def test_the_focus_is_within_a_frame_of_somebody_who_comes_nearer() -> None:
    wish = Wish(Aim(people=(0,)), "auto")
    for rate in (0.004, 0.03):
        follower = Follower()
        depths = np.arange(0.3, 0.6, rate)
        found = [focus.depth for focus in run(follower, [frame((40, float(each))) for each in depths], wish)]
        late = (depths - found)[4:] / rate
        assert late.max() < 1


def test_a_change_of_subject_takes_its_frames_and_then_is_there() -> None:
    follower = Follower()
    both = frame((10, 0.4), (60, 0.7))
    run(follower, [both] * 3, Wish(Aim(people=(0,)), "auto", 0), 4)
    found = [focus.depth for focus in run(follower, [both] * 6, Wish(Aim(people=(1,)), "auto", 1), 4)]
    assert found[:4] == sorted(found[:4], reverse=True)
    assert 0.4 < found[1] < 0.7
    assert found[3:] == [pytest.approx(0.4, abs=0.01)] * 3


def test_a_depth_picked_stays_until_a_cut() -> None:
    follower, wish = Follower(), Wish(Aim(pixel=(80, 30)), "auto")
    assert run(follower, [frame((10, 0.5))], wish)[0].depth == pytest.approx(0.1, abs=0.01)
    walks_in = frame((72, 0.5))
    assert run(follower, [walks_in] * 2, wish)[-1].depth == pytest.approx(0.1, abs=0.01)
    assert follower.focus(*walks_in, wish, 0, cut=True).depth == pytest.approx(0.5, abs=0.01)


def test_everybody_is_everybody_there_is() -> None:
    follower, wish = Follower(), Wish(Aim(people="all"), "auto")
    found = run(follower, [frame((10, 0.4), (60, 0.7)), frame((10, 0.4)), frame()], wish)
    assert [focus.people for focus in found] == [(0, 1), (0,), ()]


def test_a_wish_that_fails_is_told_once_and_the_last_one_holds() -> None:
    follower = Follower()
    one = frame((10, 0.4))
    run(follower, [one], Wish(None, "auto", 0))
    wish = Wish(Aim(people=(3,)), "auto", 1)
    with pytest.raises(UnknownPerson):
        run(follower, [one], wish)
    assert run(follower, [one], wish)[0].people == (0,)


def test_frames_without_anybody_are_focused_on_the_middle() -> None:
    found = run(Follower(), [frame(), frame()], Wish(None, "auto"))
    assert [focus.mode for focus in found] == ["plane", "plane"]
