"""One person followed among others."""

import numpy as np

from service.imaging.tracking import Sight, Track, look_at

RED, BLUE, WALL = (200, 30, 30), (30, 30, 200), (120, 120, 120)
SIZE = (90, 160)


def frame(*people: tuple[int, tuple[int, int, int], float]) -> list[Sight]:
    """Sights of people at a column, in a colour, at an inverse depth; nearest first, as the gateway numbers them."""
    picture = np.full((*SIZE, 3), WALL, np.uint8)
    ordered = sorted(people, key=lambda person: -person[2])
    mattes = np.zeros((len(people), *SIZE), np.uint8)
    for matte, (left, colour, _) in zip(mattes, ordered, strict=True):
        left = max(0, left)
        matte[20:80, left : left + 24] = 255
        picture[20:80, left : left + 24] = colour
    return look_at(mattes, picture, [depth for _, _, depth in ordered])


def test_numbers_change_places_when_two_cross_and_the_one_followed_stays() -> None:
    track = Track()
    track.begin(frame((10, RED, 0.4), (120, BLUE, 0.5))[1])
    for step in range(1, 24):
        red, blue = (10 + 5 * step, RED, 0.4 + 0.01 * step), (120 - 5 * step, BLUE, 0.5 - 0.01 * step)
        sights = frame(red, blue)
        found = track.find(sights)
        assert found is not None, step
        assert sights[found].depth == red[2], step


def test_he_is_lost_when_he_leaves_and_found_when_he_comes_back_elsewhere() -> None:
    track = Track()
    track.begin(frame((40, RED, 0.6))[0])
    assert track.find(frame((90, BLUE, 0.6))) is None
    assert track.find([]) is None
    assert track.lost == 2
    back = frame((90, BLUE, 0.6), (10, RED, 0.55))
    assert track.find(back) == 1
    assert track.lost == 0


def test_somebody_else_in_his_place_is_not_him() -> None:
    track = Track()
    track.begin(frame((40, RED, 0.6))[0])
    assert track.find(frame((100, BLUE, 0.2))) is None


def test_a_track_without_a_beginning_finds_nobody_and_other_sizes_are_lost() -> None:
    assert Track().find(frame((40, RED, 0.6))) is None
    track = Track()
    track.begin(frame((40, RED, 0.6))[0])
    small = look_at(np.full((1, 40, 40), 255, np.uint8), np.zeros((40, 40, 3), np.uint8), [0.6])
    assert track.find(small) is None
