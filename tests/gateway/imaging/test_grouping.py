"""People whom outlines and depth leave together, told apart by votes; and those who are one, left whole."""

import itertools

import numpy as np
import pytest

from service.imaging import depth, grouping, matte, people, votes
from service.imaging.geometry import resize
from tests.benchmarks.refocus import picking, truth
from tests.benchmarks.refocus.degrade import network_output
from tests.benchmarks.refocus.figures import Pose
from tests.benchmarks.refocus.scenes import Stage, visible

ARMS = ("down", "akimbo", "raised", "out", "folded")


def best_overlaps(mattes: np.ndarray, true: np.ndarray) -> list[float]:
    """Of every true person with whichever matte fits best."""
    return [max(picking.iou(matte > 0.5, person > 0.5) for matte in mattes) for person in true]


@pytest.mark.parametrize(("number", "touching"), [(127, [2, 3, 4]), (139, [0, 1]), (140, [3, 4])])
def test_those_who_touch_at_one_depth(number: int, touching: list[int]) -> None:
    layers = picking.crowd(number)
    seen = visible(layers)
    photo = truth.srgb.photo(truth.expose(layers, focus=0, strength_px=0))
    output = network_output(seen, number)
    inverse_depth = depth.upsample_guided(depth.normalise(output.inverse_depth)[0], photo)
    person = matte.upsample_guided(output.person, photo)
    together = best_overlaps(people.split(person, inverse_depth), seen.mattes)
    apart = best_overlaps(people.split(person, inverse_depth, photo), seen.mattes)
    for index in touching:
        assert together[index] < 0.65
        assert apart[index] > 0.7
    others = [index for index in range(len(apart)) if index not in touching]
    assert all(apart[index] >= together[index] - 0.03 for index in others)


@pytest.mark.parametrize(("left", "right"), list(itertools.combinations_with_replacement(ARMS, 2)))
def test_one_person_stays_whole_whatever_the_arms_do(left: str, right: str) -> None:
    on = Stage(np.random.default_rng(1))
    on.wall("plaster", (0.03, 0, 0))
    on.floor("planks", 300, 0.1, 0.5)
    on.figure(380, 480, 400, 0.5, Pose((left, right)))
    seen = visible(tuple(on.layers))
    photo = truth.srgb.photo(truth.expose(tuple(on.layers), focus=0, strength_px=0))
    assert len(people.split(seen.mattes[0], seen.inverse_depth, photo)) == 1


@pytest.mark.parametrize("pose", [("down", "akimbo"), ("raised", "out"), ("folded", "folded")])
def test_one_person_close_up_stays_whole(pose: tuple[str, str]) -> None:
    on = Stage(np.random.default_rng(2))
    on.wall("plaster", (0.03, 0, 0))
    on.figure(380, 900, 860, 0.6, Pose(pose))
    seen = visible(tuple(on.layers))
    photo = truth.srgb.photo(truth.expose(tuple(on.layers), focus=0, strength_px=0))
    assert len(people.split(seen.mattes[0], seen.inverse_depth, photo)) == 1


def test_nobody_stays_nobody() -> None:
    labels = np.zeros((200, 320), np.int32)
    flat, photo = np.zeros((200, 320), np.float32), np.zeros((200, 320, 3), np.uint8)
    assert np.array_equal(grouping.divided(labels, flat, flat, photo), labels)
    labels[50:100, 40:200] = 1
    found = grouping.divided(labels, (labels > 0).astype(np.float32), flat, photo)
    assert np.array_equal(found > 0, labels > 0)
    small = labels[:, :240].copy()  # too little to see for the network
    assert np.array_equal(grouping.divided(small, (small > 0).astype(np.float32), flat[:, :240], photo[:, :240]), small)


def test_new_numbers_follow_the_old_and_nobody_is_lost() -> None:
    layers = picking.crowd(127)
    seen = visible(layers)
    size = (213, 320)
    photo = resize(truth.srgb.photo(truth.expose(layers, focus=0, strength_px=0)), size)
    person, inverse_depth = resize(1 - np.prod(1 - seen.mattes, axis=0), size), resize(seen.inverse_depth, size)
    labels = 3 * (person > 0.5).astype(np.int32)
    found = grouping.divided(labels, person, inverse_depth, photo)
    assert np.array_equal(found > 0, labels > 0)
    assert found[labels > 0].min() >= 3
    assert len(np.unique(found)) > 3


@pytest.mark.parametrize(("step", "people_found"), [(0.02, 1), (0.2, 2)])
def test_whom_a_clear_step_in_depth_divides_votes_do_not_join(
    monkeypatch: pytest.MonkeyPatch, step: float, people_found: int
) -> None:
    """Every pixel votes for one chest, but outlines made two of them."""
    size = (200, 320)
    labels = np.zeros(size, np.int32)
    labels[15:85, 40:80], labels[15:85, 80:110] = 1, 2
    inverse_depth = np.where(labels == 2, 0.4 + step, 0.4).astype(np.float32)
    one = [np.full(size, value, np.float32) for value in (75, 35, 80)]
    monkeypatch.setattr(votes, "cast", lambda *_: votes.Votes(*one, np.zeros((*size, 4), np.float32)))
    found = grouping.divided(labels, (labels > 0).astype(np.float32), inverse_depth, np.zeros((*size, 3), np.uint8))
    assert len(np.unique(found[labels > 0])) == people_found
    assert all(len(np.unique(found[labels == label])) == 1 for label in (1, 2))


@pytest.mark.parametrize(
    ("unlike", "step", "people_found"), [(2.5, 0.2, 2), (2.5, 0.02, 1), (1.5, 0.2, 1), (0, 0.2, 1)]
)
def test_two_heaps_of_votes_at_one_chest_are_two_if_depth_says_so_too(
    monkeypatch: pytest.MonkeyPatch, unlike: float, step: float, people_found: int
) -> None:
    """Outlines made one of them, and every pixel votes for one chest: somebody hidden behind another."""
    size = (200, 320)
    labels = np.zeros(size, np.int32)
    labels[15:85, 40:110] = 1
    behind = (np.arange(320) >= 80) & (labels > 0)
    inverse_depth = np.where(behind, 0.6 - step, 0.6).astype(np.float32)
    one = [np.full(size, value, np.float32) for value in (75, 35, 80)]
    likeness = np.zeros((*size, 4), np.float32)
    likeness[behind, 1] = unlike
    monkeypatch.setattr(votes, "cast", lambda *_: votes.Votes(*one, likeness))
    photo = np.where(behind[..., None], 200, 60).astype(np.uint8).repeat(3, axis=2)
    found = grouping.divided(labels, (labels > 0).astype(np.float32), inverse_depth, photo)
    assert len(np.unique(found[labels > 0])) == people_found
    if people_found == 2:
        assert len(np.unique(found[behind])) == len(np.unique(found[(labels > 0) & ~behind])) == 1
