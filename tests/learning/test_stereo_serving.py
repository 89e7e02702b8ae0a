"""The sequences of the served stereo network: kept apart, bounded, saved and restored; the base never changes."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from training.adaptation import AdaptationConfig, Adapter
from training.errors import TrainingError
from training.models.madnet import MADNet
from training.stereo_serving import StereoStreams

Frames = list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]


@pytest.fixture(scope="module")
def base() -> MADNet:
    torch.manual_seed(0)
    return MADNet().eval()


def frames(count: int, seed: int = 0) -> Frames:
    rng = np.random.default_rng(seed)
    wide = rng.integers(0, 256, (count, 64, 72, 3), dtype=np.uint8)
    return [(each[:, :64], each[:, 4:68]) for each in np.ascontiguousarray(wide)]


def test_a_sequence_is_the_offline_run(base: MADNet) -> None:
    streams, alone = StereoStreams(base), Adapter(base, AdaptationConfig(mode="mad"))
    other = frames(3, seed=1)
    for number, (left, right) in enumerate(frames(3)):
        streams.adapt(2, "mad", *other[number])  # a neighbour that learns something else
        answer, expected = streams.adapt(1, "mad", left, right), alone.step(left, right)
        np.testing.assert_array_equal(answer.adapted.disparity_px, expected.disparity_px)
        assert (answer.adapted.loss, answer.adapted.group) == (expected.loss, expected.group)
        assert (answer.frames, answer.origin) == (number + 1, "kept" if number else "new")


def test_the_base_never_changes_and_answers_who_does_not_adapt(base: MADNet) -> None:
    before = copy.deepcopy(base.state_dict())
    streams, [(left, right)] = StereoStreams(base), frames(1)
    first = streams.predict(left, right)
    for _ in range(2):
        streams.adapt(1, "full", left, right)
    again = streams.predict(left, right)
    np.testing.assert_array_equal(first.adapted.disparity_px, again.adapted.disparity_px)
    assert (again.frames, again.adapted.loss) == (0, None)
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())


def test_the_least_recently_used_is_evicted_and_told_so(base: MADNet) -> None:
    streams, [(left, right)] = StereoStreams(base, max_streams=2), frames(1)
    one = streams.memory_bytes()
    assert one == 0
    for sequence in (1, 2, 1, 3):  # 2 has to go
        streams.adapt(sequence, "full", left, right)
    weights = sum(parameter.numel() * 4 for parameter in base.parameters())
    assert streams.memory_bytes() == 2 * 2 * weights  # two sequences, each with weights and their momentum
    assert streams.adapt(1, "full", left, right).frames == 3
    back = streams.adapt(2, "full", left, right)
    assert (back.frames, back.origin) == (1, "evicted")
    assert streams.adapt(2, "full", left, right).origin == "kept"


def test_a_sequence_that_ends_or_changes_its_mode_begins_anew(base: MADNet) -> None:
    streams, [(left, right)] = StereoStreams(base), frames(1)
    streams.adapt(1, "mad", left, right)
    assert streams.adapt(1, "mad", left, right, end=True).frames == 2
    assert streams.memory_bytes() == 0
    assert (streams.adapt(1, "mad", left, right).frames, streams.adapt(1, "full", left, right).frames) == (1, 1)


def test_a_sequence_that_is_forgotten_learns_nothing_more_and_takes_no_room(base: MADNet) -> None:
    streams, [(left, right)] = StereoStreams(base, max_streams=1), frames(1)
    streams.adapt(1, "mad", left, right)
    answer = streams.forget(1, left)
    assert streams.memory_bytes() == 0
    assert (answer.adapted.disparity_px.shape, answer.frames) == (left.shape[:2], 0)
    streams.adapt(2, "mad", left, right)
    streams.forget(1, left)  # again, or never known: others keep theirs
    assert streams.adapt(2, "mad", left, right).frames == 2
    assert streams.adapt(1, "mad", left, right).origin == "new"


def test_weights_that_go_astray_are_taken_back_and_spoil_nobody(base: MADNet) -> None:
    """Steps beyond all measure: what they lead to is noticed with the next pair, and before that is learned from."""
    before = copy.deepcopy(base.state_dict())
    streams = StereoStreams(base, config=AdaptationConfig(lr=1e30))
    neighbour, alone = StereoStreams(base), Adapter(base, AdaptationConfig(mode="full"))
    answers = [streams.adapt(1, "full", left, right) for left, right in frames(4)]
    assert [answer.adapted.reset is not None for answer in answers] == [False, True, False, True]
    assert answers[-1].resets == 2
    assert all(np.isfinite(answer.adapted.disparity_px).all() for answer in answers)
    assert all(np.isfinite(answer.numbers()).all() for answer in answers)
    for left, right in frames(2):
        found, expected = neighbour.adapt(1, "full", left, right), alone.step(left, right)
        np.testing.assert_array_equal(found.adapted.disparity_px, expected.disparity_px)
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())


def test_a_damaged_state_is_noticed_with_its_first_frame(base: MADNet, tmp_path: Path) -> None:
    """Saved weights that are not numbers: the pair is answered by the first ones."""
    streams, [(left, right)] = StereoStreams(base, folder=tmp_path), frames(1)
    streams.adapt(1, "mad", left, right, checkpoint="save")
    [path] = tmp_path.glob("*.pt")
    state = torch.load(path, weights_only=True)
    for value in state["weights"].values():
        value.fill_(float("nan"))
    torch.save(state, path)
    answer = streams.adapt(1, "mad", left, right, checkpoint="restore")
    assert (answer.adapted.reset, answer.origin, answer.resets) == ("not_finite", "restored", 1)
    np.testing.assert_array_equal(answer.adapted.disparity_px, streams.predict(left, right).adapted.disparity_px)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(TrainingError, match="not readable"):
        streams.adapt(1, "mad", left, right, checkpoint="restore")


def test_memory_stays_within_its_bound_however_many_come(base: MADNet, tmp_path: Path) -> None:
    streams, [(left, right)] = StereoStreams(base, max_streams=2, folder=tmp_path), frames(1)
    bound = 2 * 2 * sum(parameter.numel() * 4 for parameter in base.parameters())
    for sequence in range(1, 8):
        streams.adapt(sequence, "full", left, right, checkpoint="save")
        assert streams.memory_bytes() <= bound
        assert len(list(tmp_path.iterdir())) <= 2


def test_a_saved_state_goes_on_to_the_bit(base: MADNet, tmp_path: Path) -> None:
    streams, pairs = StereoStreams(base, max_streams=2, folder=tmp_path), frames(5)
    for left, right in pairs[:2]:
        streams.adapt(1, "mad", left, right)
    streams.adapt(1, "mad", *pairs[2], checkpoint="save")
    expected = streams.adapt(1, "mad", *pairs[3])
    restarted = StereoStreams(base, max_streams=2, folder=tmp_path)
    found = restarted.adapt(1, "mad", *pairs[3], checkpoint="restore")
    np.testing.assert_array_equal(found.adapted.disparity_px, expected.adapted.disparity_px)
    assert (found.frames, found.origin, found.adapted.group) == (4, "restored", expected.adapted.group)
    for sequence in (2, 3):
        streams.adapt(sequence, "mad", *pairs[0], checkpoint="save")
    assert len(list(tmp_path.glob("*.pt"))) == 2, "as many as sequences are kept"


def test_a_state_that_cannot_be_had(base: MADNet, tmp_path: Path) -> None:
    [(left, right)] = frames(1)
    with pytest.raises(TrainingError, match="no folder"):
        StereoStreams(base).adapt(1, "mad", left, right, checkpoint="save")
    streams = StereoStreams(base, folder=tmp_path)
    with pytest.raises(TrainingError, match="not readable"):
        streams.adapt(1, "mad", left, right, checkpoint="restore")
    streams.adapt(1, "mad", left, right, checkpoint="save")
    with pytest.raises(TrainingError, match="of mode mad"):
        streams.adapt(1, "full", left, right, checkpoint="restore")
