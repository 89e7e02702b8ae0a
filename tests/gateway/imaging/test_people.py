"""People told apart by place and by depth."""

import numpy as np
import pytest

from service.imaging import people
from service.imaging.errors import InvalidMap

SIZE = (300, 400)


def scene() -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(SIZE, np.float32), np.full(SIZE, 0.1, np.float32)


def overlap(matte: np.ndarray, truth: np.ndarray) -> float:
    picked = matte > 0.5
    return float((picked & truth).sum() / (picked | truth).sum())


def test_nobody() -> None:
    assert people.split(*scene()).shape == (0, *SIZE)


def test_apart_and_nearest_first() -> None:
    person, inverse_depth = scene()
    person[50:250, 50:120], inverse_depth[50:250, 50:120] = 1, 0.4
    person[80:260, 250:340], inverse_depth[80:260, 250:340] = 0.9, 0.8
    mattes = people.split(person, inverse_depth)
    assert mattes.shape == (2, *SIZE)
    assert mattes.dtype == np.float32
    assert mattes[0, 150, 300] == pytest.approx(0.9)
    assert mattes[1, 150, 80] == 1
    assert np.allclose(mattes.sum(axis=0), person)


def test_specks_are_dropped() -> None:
    person, inverse_depth = scene()
    person[50:250, 50:120] = 1
    person[10:14, 10:14] = 1
    assert len(people.split(person, inverse_depth)) == 1


def test_overlapping_people_are_cut_where_depth_jumps() -> None:
    person, inverse_depth = scene()
    behind, before = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    behind[50:250, 60:170] = True
    before[80:280, 140:240] = True
    behind &= ~before
    person[behind | before] = 1
    inverse_depth[behind], inverse_depth[before] = 0.45, 0.75
    mattes = people.split(person, inverse_depth)
    assert len(mattes) == 2
    assert overlap(mattes[0], before) > 0.95
    assert overlap(mattes[1], behind) > 0.95


def test_one_leaning_person_stays_one() -> None:
    person, inverse_depth = scene()
    person[40:280, 150:250] = 1
    inverse_depth[40:280, 150:250] = np.linspace(0.4, 0.8, 240, dtype=np.float32)[:, None]
    mattes = people.split(person, inverse_depth)
    assert len(mattes) == 1


def test_an_arm_in_front_does_not_cut() -> None:
    person, inverse_depth = scene()
    person[40:280, 150:250] = 1
    inverse_depth[40:280, 150:250] = 0.5
    inverse_depth[140:165, 150:250] = 0.62
    assert len(people.split(person, inverse_depth)) == 1


def test_soft_borders_are_kept() -> None:
    person, inverse_depth = scene()
    person[50:250, 100:200] = 1
    person[50:250, 94:100] = np.linspace(0.1, 0.9, 6, dtype=np.float32)
    mattes = people.split(person, inverse_depth)
    assert np.allclose(mattes[0], person)


def test_a_crowd_is_bounded() -> None:
    person, inverse_depth = scene()
    for column in range(0, 400, 25):
        person[20:120, column : column + 15] = 1
        inverse_depth[20:120, column : column + 15] = 0.2 + column / 1000
    mattes = people.split(person, inverse_depth)
    assert len(mattes) == people.MAX_PEOPLE
    medians = [float(np.median(inverse_depth[matte > 0.5])) for matte in mattes]
    assert medians == sorted(medians, reverse=True)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (2, 2)])
def test_tiny_pictures(size: tuple[int, int]) -> None:
    mattes = people.split(np.ones(size, np.float32), np.ones(size, np.float32))
    assert mattes.shape[1:] == size


def test_shapes_must_agree() -> None:
    with pytest.raises(InvalidMap):
        people.split(np.zeros((3, 4), np.float32), np.zeros((4, 3), np.float32))
