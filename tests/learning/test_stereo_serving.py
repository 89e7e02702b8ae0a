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
