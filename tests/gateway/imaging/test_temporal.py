"""Maps over a video: steady where nothing moves, never behind where something does."""

import numpy as np
import pytest

from service.imaging.ranges import Levels, Span
from service.imaging.temporal import Sequence, Step, fit, is_cut

SIZE = (96, 128)


def scene(rng: np.random.Generator) -> np.ndarray:
    """A textured picture without noise, float (H, W, 3) in levels."""
    coarse = rng.uniform(40, 200, (12, 16, 3))
    return np.kron(coarse, np.ones((8, 8, 1)))


def photographed(light: np.ndarray, rng: np.random.Generator, noise: float = 3.0) -> np.ndarray:
    return np.clip(np.rint(light + rng.normal(0, noise, light.shape)), 0, 255).astype(np.uint8)


def depth_of_room() -> np.ndarray:
    rows, columns = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    return (2 + rows / SIZE[0] * 3 + (columns > 80) * 1.5).astype(np.float32)


def test_noise_and_a_scale_of_its_own_in_every_frame_leave_at_most_a_third_of_the_flicker() -> None:
    rng = np.random.default_rng(0)
    light, truth = scene(rng), depth_of_room()
    sequence, own, steady = Sequence("depth"), [], []
    for index in range(40):
        frame = photographed(light * (1 + 0.2 * np.sin(index / 5)), rng)
        noisy = truth + rng.normal(0, 0.05, SIZE)
        values = (noisy * rng.uniform(0.9, 1.1) + rng.uniform(-0.3, 0.3)).astype(np.float32)
        own.append(values)
        steady.append(sequence.step(frame, {"depth": values}).maps["depth"])

    def flicker(maps: list[np.ndarray]) -> float:
        return float(np.abs(np.diff(maps[10:], axis=0)).mean())

    assert flicker(steady) < flicker(own) / 3


def test_three_hundred_noisy_frames_do_not_shrink_the_range() -> None:
    rng = np.random.default_rng(1)
    light, truth = scene(rng), depth_of_room()
    sequence = Sequence("depth")
    for _ in range(300):
        values = (truth + rng.normal(0, 0.1, SIZE)).astype(np.float32)
        step = sequence.step(photographed(light, rng), {"depth": values})
    found = step.maps["depth"]
    assert np.ptp(found[:, 100]) == pytest.approx(np.ptp(truth[:, 100]), rel=0.06)
    assert found.mean() == pytest.approx(truth.mean(), abs=0.1)


def test_what_moves_is_where_it_is_and_not_where_it_was() -> None:
    rng = np.random.default_rng(2)
    light, truth = scene(rng), depth_of_room()
    sequence = Sequence("depth")
    for index in range(12):
        now, picture = truth.copy(), light.copy()
        left = 10 + 6 * index
        now[30:60, left : left + 20] = 8.0
        picture[30:60, left : left + 20] = (230, 30, 30)
        values = (now + rng.normal(0, 0.03, SIZE)).astype(np.float32)
        found = sequence.step(photographed(picture, rng), {"depth": values}).maps["depth"]
    assert np.median(np.abs(found[32:58, left + 2 : left + 18] - 8.0)) < 0.1
    uncovered = found[32:58, left - 5 : left - 1]
    assert np.median(np.abs(uncovered - truth[32:58, left - 5 : left - 1])) < 0.1


def test_a_slow_approach_within_the_noise_lags_less_than_a_frame() -> None:
    rng = np.random.default_rng(3)
    light, truth = scene(rng), depth_of_room()
    sequence, rate, late = Sequence(None), 0.04, []
    for index in range(40):
        now = truth.copy()
        now[30:70, 20:60] = 4 + rate * index  # the picture does not show it: only the map's own trend can
        values = (now + rng.normal(0, 0.05, SIZE)).astype(np.float32)
        found = sequence.step(photographed(light, rng), {"depth": values}).maps["depth"]
        late.append(float((now - found)[34:66, 24:56].mean()) / rate)
    assert np.mean(late[10:]) < 1


def test_a_cut_begins_anew_and_a_change_of_light_does_not() -> None:
    rng = np.random.default_rng(4)
    one, other, truth = scene(rng), scene(rng), depth_of_room()
    sequence = Sequence("depth")

    def step(light: np.ndarray, values: np.ndarray) -> Step:
        return sequence.step(photographed(light, rng), {"depth": values})

    assert step(one, truth).reset == "start"
    assert step(one * 0.5 + 20, truth).reset is None
    assert step(one * 1.2, truth).reset is None
    cut = step(other, truth * 3 + 1)
    assert (cut.reset, cut.scale, cut.shift) == ("cut", 1.0, 0.0)
    assert np.array_equal(cut.maps["depth"], truth * 3 + 1)
    assert sequence.step(photographed(other, rng)[:90], {"depth": truth[:90]}).reset == "size"
    assert sequence.step(photographed(other, rng)[:90], {"depth": truth[:90]}, source="new").reset == "model"


def test_frames_without_a_pattern_are_of_one_shot() -> None:
    black, pattern = np.zeros((32, 32), np.float32), np.float32(100) * np.eye(32, dtype=np.float32)
    assert not is_cut(black, black)
    assert is_cut(black, pattern)
    assert not is_cut(pattern, 0.3 * pattern + 50)
    assert is_cut(pattern, 100 - pattern)


def test_the_fit_is_not_led_astray_by_what_has_changed() -> None:
    rng = np.random.default_rng(5)
    values = rng.uniform(0, 1, (40, 50)).astype(np.float32)
    values = np.kron(values, np.ones((8, 8), np.float32))
    target = 2 * values + 3
    target[:120] = 9  # a third of the picture
    scale, shift = fit(values, target, np.ones_like(values))
    assert (scale, shift) == (pytest.approx(2, rel=0.02), pytest.approx(3, abs=0.03))
    flat = np.full((40, 50), 2.0, np.float32)
    assert fit(flat, flat + 1, np.ones_like(flat)) == (1.0, pytest.approx(1.0))


def test_metres_are_not_rescaled() -> None:
    rng = np.random.default_rng(6)
    light, truth = scene(rng), depth_of_room()
    sequence = Sequence(None)
    for factor in (1.0,) * 10 + (2.0,) * 4:
        values = (truth * factor + rng.normal(0, 0.02, SIZE)).astype(np.float32)
        step = sequence.step(photographed(light, rng), {"depth": values})
    assert (step.scale, step.shift) == (1.0, 0.0)
    assert np.median(step.maps["depth"] / truth) == pytest.approx(2.0, rel=0.02)


def test_stored_numbers_mean_the_same_from_frame_to_frame_until_they_no_longer_fit() -> None:
    levels = Levels()
    first = np.linspace(1, 3, 12, dtype=np.float32).reshape(3, 4)
    stored, scale, offset = levels.store(first)
    assert np.abs(stored * scale + offset - first).max() <= scale / 2 + 1e-6
    again = levels.store(first * np.float32(0.9) + np.float32(0.5))
    assert again[1:] == (scale, offset)
    far = np.full((3, 4), 40.0, np.float32)
    stored, wider, lower = levels.store(far)
    assert wider > scale
    assert np.abs(stored * wider + lower - far).max() <= wider / 2 + 1e-5
    assert Levels().store(np.zeros((2, 2), np.float32))[0].dtype == np.uint16


def test_the_colours_range_follows_slowly_and_jumps_at_a_cut() -> None:
    span = Span()
    assert span.follow(1, 3, anew=True) == (1, 3)
    assert span.follow(2, 3, anew=False) == (pytest.approx(1.02), 3)
    assert span.follow(7, 9, anew=True) == (7, 9)
