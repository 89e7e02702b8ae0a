"""People told apart by place and by depth."""

import cv2
import numpy as np
import pytest

from service.imaging import people, person
from service.imaging.behind import people_behind, with_slivers
from service.imaging.errors import InvalidMap
from service.imaging.heads import Head
from service.imaging.parts import Part

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


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_description_by_hand(dtype: type) -> None:
    mattes, inverse_depth = np.zeros((3, 10, 20), dtype), np.zeros((10, 20), np.float32)
    full = 255 if dtype is np.uint8 else 1
    mattes[0, 2:7, 3:8] = full
    mattes[0, 2:7, 8] = 0.4 * full  # soft border: not in the box
    inverse_depth[2:7, 3:8] = 0.1  # the border's own depth, which the core leaves out
    inverse_depth[3:6, 4:7] = np.array([[0.5, 0.6, 0.7], [0.6, 0.6, 0.6], [0.7, 0.8, 0.9]])
    mattes[1, 9, 10:20] = full  # too thin for a core
    inverse_depth[9, 10:20] = 0.3
    first, thin, nobody = person.describe(mattes, inverse_depth)
    assert (first.index, first.box) == (0, (3, 2, 8, 7))
    assert first.depth == pytest.approx(0.6)
    assert first.spread == pytest.approx(1.4826 * 0.1)  # deviations 0 0 0 0, .1 .1 .1, .2, .3
    assert first.area == pytest.approx(25 / 200)
    assert thin == person.Person(1, (10, 9, 20, 10), pytest.approx(0.3), 0.0, pytest.approx(0.05))
    assert nobody == person.Person(2, (0, 0, 0, 0), 0.0, 0.0, 0.0)


def test_description_of_many_pixels() -> None:
    mattes, inverse_depth = np.zeros((1, 900, 1200), np.uint8), np.full((900, 1200), 0.2, np.float32)
    mattes[0, 101:799, 201:1001] = 200
    inverse_depth[101:799, 201:1001] = np.linspace(0.4, 0.6, 800, dtype=np.float32)
    (found,) = person.describe(mattes, inverse_depth)
    assert found.box == (201, 101, 1001, 799)
    assert found.depth == pytest.approx(0.5, abs=0.001)
    assert found.spread == pytest.approx(1.4826 * 0.05 * 772 / 800, abs=0.001)  # 14 px less on either side


def test_description_of_nobody() -> None:
    assert person.describe(np.zeros((0, 5, 7), np.float32), np.zeros((5, 7), np.float32)) == []
    with pytest.raises(InvalidMap):
        person.describe(np.zeros((1, 5, 8), np.float32), np.zeros((5, 7), np.float32))


def standing(x: int, crown: int, radius: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Somebody upright: head, neck, shoulders, body."""
    mask = np.zeros(size, np.uint8)
    cv2.circle(mask, (x, crown + radius), radius, 1, -1)
    cv2.rectangle(mask, (x - radius // 2, crown + radius), (x + radius // 2, crown + 3 * radius), 1, -1)
    cv2.ellipse(mask, (x, crown + 4 * radius), (2 * radius, round(1.5 * radius)), 0, 180, 360, 1, -1)
    cv2.rectangle(mask, (x - 2 * radius, crown + 4 * radius), (x + 2 * radius, crown + 11 * radius), 1, -1)
    return mask.astype(bool)


def test_two_at_one_depth_are_told_apart_by_their_heads() -> None:
    person, inverse_depth = scene()
    left, right = standing(130, 60, 16), standing(190, 66, 16)
    right &= ~left
    person[left | right], inverse_depth[left | right] = 1, 0.6
    mattes = people.split(person, inverse_depth)
    assert len(mattes) == 2
    found = sorted(mattes, key=lambda matte: float(np.nonzero(matte > 0.5)[1].mean()))
    assert overlap(found[0], left) > 0.9
    assert overlap(found[1], right) > 0.9
    assert np.allclose(mattes.sum(axis=0), person)


def test_the_line_between_two_follows_the_edge_of_their_clothes() -> None:
    person, inverse_depth = scene()
    left, right = standing(130, 60, 16), standing(180, 60, 16)
    right[:, :150] = False  # behind the left one's shoulder, whose coat ends here
    left[:, 150:] = False
    person[left | right], inverse_depth[left | right] = 1, 0.6
    image = np.full((*SIZE, 3), 90, np.uint8)
    image[left], image[right] = (170, 60, 40), (40, 60, 170)
    mattes = sorted(
        people.split(person, inverse_depth, image), key=lambda matte: float(np.nonzero(matte > 0.5)[1].mean())
    )
    assert len(mattes) == 2
    assert overlap(mattes[0], left) > 0.97
    assert overlap(mattes[1], right) > 0.97


def test_two_coloured_clothes_do_not_cut() -> None:
    person, inverse_depth = scene()
    one = standing(200, 40, 20)
    person[one], inverse_depth[one] = 1, 0.6
    image = np.full((*SIZE, 3), 200, np.uint8)
    image[150:], image[:, 200:] = (20, 20, 120), (120, 20, 20)
    assert len(people.split(person, inverse_depth, image)) == 1


def test_a_raised_arm_and_a_bag_do_not_cut() -> None:
    person, inverse_depth = scene()
    one = standing(200, 50, 16).astype(np.uint8)
    cv2.line(one, (228, 118), (256, 20), 1, 13)
    cv2.rectangle(one, (140, 150), (172, 200), 1, -1)
    person[one > 0], inverse_depth[one > 0] = 1, 0.6
    assert len(people.split(person, inverse_depth)) == 1


def test_somebody_behind_a_pole_stays_one() -> None:
    person, inverse_depth = scene()
    one = standing(200, 40, 20)
    pole = np.zeros(SIZE, bool)
    pole[:, 192:206] = True
    person[one & ~pole], inverse_depth[one] = 1, 0.5
    inverse_depth[pole] = 0.9
    assert len(people.split(person, inverse_depth)) == 1


def test_a_bag_and_a_shoe_apart_are_their_owners() -> None:
    person, inverse_depth = scene()
    one = standing(200, 40, 20)
    person[one], inverse_depth[one] = 1, 0.6
    person[170:215, 246:280], inverse_depth[170:215, 246:280] = 1, 0.5
    person[266:276, 170:190], inverse_depth[266:276, 170:190] = 1, 0.35
    assert len(people.split(person, inverse_depth)) == 1


def test_a_passer_by_far_behind_a_portrait_is_not_part_of_it() -> None:
    person, inverse_depth = scene()
    one, other = standing(250, 30, 40), standing(145, 190, 3)
    person[one], inverse_depth[one] = 1, 0.9
    person[other], inverse_depth[other] = 1, 0.2
    mattes = people.split(person, inverse_depth)
    assert len(mattes) == 2
    assert not (mattes[0] > 0.5)[other].any()
    inverse_depth[other] = 0.7  # a bag held out at this depth is his
    assert len(people.split(person, inverse_depth)) == 1


def test_trousers_under_a_hem_are_no_person() -> None:
    person, inverse_depth = scene()
    one = standing(200, 20, 16)
    legs = np.zeros(SIZE, bool)
    cv2.circle(legs.view(np.uint8), (200, 178), 14, 1, -1)
    cv2.rectangle(legs.view(np.uint8), (168, 182), (232, 290), 1, -1)
    person[one | legs] = 1
    inverse_depth[one | legs] = 0.6
    inverse_depth[158:166] = np.where(one[158:166], np.float32(0.5), inverse_depth[158:166])  # under the hem
    assert len(people.split(person, inverse_depth)) == 1


def test_a_sleeve_farther_than_its_owner_is_no_person() -> None:
    person, inverse_depth = scene()
    one = standing(200, 40, 20)
    sleeve = np.zeros(SIZE, bool)
    sleeve[112:230, 140:168] = True
    person[one | sleeve], inverse_depth[sleeve], inverse_depth[one] = 1, 0.45, 0.6
    assert len(people.split(person, inverse_depth)) == 1


def test_somebody_hidden_but_for_one_side_is_a_person() -> None:
    person, inverse_depth = scene()
    one, behind = standing(200, 40, 20), np.zeros(SIZE, bool)
    behind[75:270, 135:200] = True
    behind &= ~one
    person[one | behind], inverse_depth[behind], inverse_depth[one] = 1, 0.45, 0.6
    mattes = people.split(person, inverse_depth)
    assert len(mattes) == 2
    assert overlap(mattes[0], one) > 0.95
    assert overlap(mattes[1], behind) > 0.9


def test_scraps_of_one_hidden_person_are_not_cut_by_their_tops() -> None:
    person, inverse_depth = scene()
    one, behind = standing(200, 40, 20), np.zeros(SIZE, bool)
    one[100:116, 130:272] = True  # arms stretched out before the one behind
    behind[110:258, 150:250] = True
    behind &= ~one
    person[one | behind], inverse_depth[behind], inverse_depth[one] = 1, 0.45, 0.7
    mattes = people.split(person, inverse_depth)
    assert len(mattes) == 2
    assert overlap(mattes[1], behind) > 0.9


def far_scrap(scrap: np.ndarray) -> tuple[int, float]:
    """How many people are found when somebody's outline has a piece far behind him; how well the last one fits it."""
    person, inverse_depth = scene()
    one = standing(200, 40, 20)
    one[120:136, 130:200] = True  # an arm
    scrap = scrap & ~one
    person[one | scrap], inverse_depth[scrap], inverse_depth[one] = 1, 0.35, 0.7
    mattes = people.split(person, inverse_depth)
    return len(mattes), overlap(mattes[-1], scrap)


def test_what_is_far_behind_somebody_is_a_person_though_short() -> None:
    scrap = np.zeros(SIZE, bool)
    scrap[130:216, 136:200] = True
    found, fit = far_scrap(scrap)
    assert found == 2
    assert fit > 0.9


def test_an_arm_stretched_out_far_to_the_side_is_no_person() -> None:
    arm = np.zeros(SIZE, np.uint8)
    cv2.line(arm, (232, 136), (300, 62), 1, 18)
    assert far_scrap(arm > 0)[0] == 1


def test_a_head_far_behind_its_body_is_no_person() -> None:
    _, inverse_depth = scene()
    head, body = np.zeros(SIZE, np.uint8), np.zeros(SIZE, bool)
    cv2.circle(head, (200, 70), 40, 1, -1)
    body[80:280, 150:250] = True
    body &= head == 0
    inverse_depth[head > 0], inverse_depth[body] = 0.35, 0.7
    collar = [Head(200, 112, 20.0)]  # where the body's outline looks like one
    layers = [Part.of(head > 0, inverse_depth), Part.of(body, inverse_depth, collar)]
    assert people_behind(layers[:1], layers, layers[1:], inverse_depth) == []
    below = [layers[0], Part.of(body, inverse_depth, [Head(200, 10, 20.0)])]
    assert len(people_behind(below[:1], below, below[1:], inverse_depth)) == 1


def test_slivers_go_to_whoever_is_as_far() -> None:
    _, inverse_depth = scene()
    one, other, sliver = np.zeros(SIZE, bool), np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    one[20:260, 150:240], other[60:260, 90:150] = True, True
    sliver[140:250, 160:163] = True
    inverse_depth[one], inverse_depth[other], inverse_depth[sliver] = 0.8, 0.4, 0.41
    heads = [Head(195, 20, 30.0)], [Head(120, 60, 20.0)]
    mended = with_slivers(
        [Part.of(one, inverse_depth, heads[0]), Part.of(other, inverse_depth, heads[1])], inverse_depth
    )
    assert np.array_equal(mended[0].mask, one & ~sliver)
    assert np.array_equal(mended[1].mask, other | sliver)
    inverse_depth[sliver] = 0.6  # as far as neither
    kept = with_slivers([Part.of(one, inverse_depth, heads[0]), Part.of(other, inverse_depth, heads[1])], inverse_depth)
    assert np.array_equal(kept[0].mask, one)


def test_somebody_small_farther_off_is_a_person() -> None:
    person, inverse_depth = scene()
    one, other = standing(200, 20, 20), standing(265, 80, 8)
    other &= ~one
    person[one | other], inverse_depth[other], inverse_depth[one] = 1, 0.4, 0.8
    mattes = people.split(person, inverse_depth)
    assert len(mattes) == 2
    assert overlap(mattes[1], other) > 0.9


def test_two_with_air_between_stay_two() -> None:
    person, inverse_depth = scene()
    both = standing(140, 40, 16) | standing(226, 40, 16)
    person[both], inverse_depth[both] = 1, 0.5
    assert len(people.split(person, inverse_depth)) == 2


def test_a_lap_nearer_than_its_owner_is_no_person() -> None:
    person, inverse_depth = scene()
    one = standing(200, 40, 20)
    person[one], inverse_depth[one] = 1, 0.5
    inverse_depth[180:] = np.where(one[180:], np.float32(0.62), inverse_depth[180:])
    assert len(people.split(person, inverse_depth)) == 1


def test_sums_never_exceed_the_matte() -> None:
    rng = np.random.default_rng(4)
    for _ in range(4):
        person = cv2.GaussianBlur(rng.random((180, 240)).astype(np.float32), (0, 0), 9)
        person = np.clip((person - 0.5) * 12 + 0.5, 0, 1)
        inverse_depth = cv2.GaussianBlur(rng.random((180, 240)).astype(np.float32), (0, 0), 7)
        mattes = people.split(person, inverse_depth, rng.integers(0, 256, (180, 240, 3), dtype=np.uint8))
        assert (mattes.sum(axis=0) <= person + 1e-5).all()
