import dataclasses

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from training.adaptation import AdaptationConfig, Adapter, GroupSampler, PairError, load_state, save_state
from training.errors import TrainingError
from training.models.dispnet import DispNetC
from training.models.madnet import MADNet

SIZE = (64, 64)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def base():
    torch.manual_seed(0)
    return MADNet().eval()


def pair(seed=0, shift=4):
    rng = np.random.default_rng(seed)
    wide = np.kron(rng.integers(0, 256, (16, 20, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    return np.ascontiguousarray(wide[:, :64]), np.ascontiguousarray(wide[:, shift : shift + 64])


def adapter(base, **changes):
    return Adapter(base, AdaptationConfig(**{"compare_every": 0} | changes))


def weights(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def changed(before, network):
    return {name for name, value in network.state_dict().items() if not torch.equal(before[name], value)}


def names_of(network, group):
    ids = {id(parameter) for parameter in group}
    return {name for name, parameter in network.named_parameters() if id(parameter) in ids}


def test_no_adaptation_predicts_what_the_base_does(base):
    stream = adapter(base, mode="none")
    left, right = pair()
    found = stream.step(left, right)
    with torch.no_grad():
        wanted = base(torch.from_numpy(left[None]), torch.from_numpy(right[None]))[0].numpy()
    np.testing.assert_array_equal(found.disparity_px, wanted)
    assert (found.loss, found.group, found.reset) == (None, None, None)
    assert stream.network is base
    assert stream.memory_bytes() == 0


@pytest.mark.parametrize("number", range(5))
def test_mad_changes_one_group_and_no_other(base, number):
    stream = adapter(base, policy="fixed", fixed_group=number, lr=1e-2)
    before = weights(stream.network)
    found = stream.step(*pair())
    own = names_of(stream.network, stream.network.groups()[number])
    assert found.group == number
    moved = changed(before, stream.network)
    assert moved <= own
    assert len(moved) > 0.8 * len(own)


def test_mad_trains_the_second_finest_group_unless_told_otherwise(base):
    stream = adapter(base, lr=1e-2)
    before = weights(stream.network)
    assert [stream.step(*pair(seed)).group for seed in range(3)] == [3, 3, 3]
    assert changed(before, stream.network) <= names_of(stream.network, stream.network.groups()[3])


def test_full_changes_all_and_the_base_nothing(base):
    kept = weights(base)
    stream = adapter(base, mode="full", lr=1e-2)
    before = weights(stream.network)
    stream.step(*pair())
    moved = changed(before, stream.network)
    assert all(moved & names_of(stream.network, group) for group in stream.network.groups())
    assert len(moved) > 0.8 * len(before)  # random weights leave some channels of 64 x 64 pixels silent
    assert changed(kept, base) == set()


def backward_convolutions(stream):
    left, right = pair()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        stream.step(left, right)
    return sum(event.count for event in seen.key_averages() if event.key == "aten::convolution_backward")


def test_mad_computes_the_gradients_of_its_group_alone(base):
    # 12 convolutions of the pyramid, 6 of each of five estimators, 7 of the context network
    assert backward_convolutions(adapter(base, mode="full")) == 12 + 5 * 6 + 7
    for number, count in enumerate((2 + 6, 2 + 6, 2 + 6, 2 + 6, 4 + 6 + 7)):
        assert backward_convolutions(adapter(base, policy="fixed", fixed_group=number)) == count


def test_scores_follow_the_hand_computed_trace():
    sampler = GroupSampler(AdaptationConfig(decay=0.99, reward_rate=0.01), 5)
    losses, groups = [0.5, 0.4, 0.45, 0.3], [2, 0, 2, 1]
    expected = np.zeros(5)
    sampler.observe(losses[0], groups[0])  # nothing was trained before
    np.testing.assert_allclose(sampler.scores, expected)
    sampler.observe(losses[1], groups[1])  # line through 0.5, 0.5 -> 0.5; 0.1 better, thanks to 2
    expected[2] += 0.01 * 0.1
    np.testing.assert_allclose(sampler.scores, expected)
    sampler.observe(losses[2], groups[2])  # 2 * 0.4 - 0.5 = 0.3; 0.15 worse, group 0's
    expected *= 0.99
    expected[0] += 0.01 * (0.3 - 0.45)
    np.testing.assert_allclose(sampler.scores, expected)
    sampler.observe(losses[3], groups[3])  # 2 * 0.45 - 0.4 = 0.5; 0.2 better, group 2's
    expected *= 0.99
    expected[2] += 0.01 * (0.5 - 0.3)
    np.testing.assert_allclose(sampler.scores, expected)


def test_policies_choose_as_they_say():
    def chosen(policy, scores=(0, 0, 0, 0, 0), count=5):
        sampler = GroupSampler(AdaptationConfig(policy=policy, fixed_group=3, seed=1), 5)
        sampler.scores[:] = scores
        return [sampler.choose() for _ in range(count)]

    assert chosen("fixed") == [3] * 5
    assert chosen("sequential", count=7) == [0, 1, 2, 3, 4, 0, 1]
    assert chosen("argmax", (0, 1, 5, 2, 0)) == [2] * 5
    drawn = np.bincount(chosen("random", (9, 0, 0, 0, 0), 2000), minlength=5) / 2000
    np.testing.assert_allclose(drawn, 0.2, atol=0.04)
    scores = np.array([2.0, 1, 0, 0, 0])
    drawn = np.bincount(chosen("reward", scores, 2000), minlength=5) / 2000
    np.testing.assert_allclose(drawn, np.exp(scores) / np.exp(scores).sum(), atol=0.04)
    with pytest.raises(TrainingError, match="fixed_group is 5"):
        GroupSampler(AdaptationConfig(fixed_group=5), 5)


def test_a_loss_above_the_limit_takes_the_first_weights_back(base):
    stream = adapter(base, reset_above=0.0)
    with torch.no_grad():
        next(stream.network.parameters()).add_(1)
    found = stream.step(*pair())
    assert found.reset == "loss"
    assert stream.resets == 1
    assert changed(weights(base), stream.network) == set()
    np.testing.assert_array_equal(found.disparity_px, adapter(base, mode="none").step(*pair()).disparity_px)
    assert (stream.sampler.scores == 0).all()


def test_weights_worse_than_the_first_ones_are_taken_back(base):
    stream = adapter(base, compare_every=2, worse_by=1.0, lr=0.0)
    with torch.no_grad():  # shows a disparity of 2000 pixels: black
        for estimator in stream.network.estimators.values():
            estimator[-1].bias.fill_(-100.0)
    assert stream.step(*pair()).reset is None  # not compared yet
    assert stream.step(*pair()).reset == "worse"
    assert changed(weights(base), stream.network) == set()
    assert stream.step(*pair()).reset is None


def test_an_adaptation_that_diverges_answers_with_the_base(base):
    stream = adapter(base, mode="full")
    with torch.no_grad():
        next(stream.network.parameters()).fill_(float("nan"))
    found = stream.step(*pair())
    assert found.reset == "not_finite"
    assert np.isfinite(found.disparity_px).all()
    again = stream.step(*pair())
    assert again.reset is None
    assert np.isfinite(again.disparity_px).all()


@pytest.mark.parametrize("mode", ["none", "full", "mad"])
def test_a_saved_stream_goes_on_to_the_bit(base, mode, tmp_path):
    config = AdaptationConfig(mode=mode, lr=1e-3, seed=3, compare_every=0)
    one = Adapter(base, config)
    for seed in range(3):
        one.step(*pair(seed))
    save_state(one, tmp_path / "stream.pt")
    two = Adapter(base, config)
    two.step(*pair(9))  # whatever it was before
    load_state(two, tmp_path / "stream.pt")
    for seed in range(3, 6):
        a, b = one.step(*pair(seed)), two.step(*pair(seed))
        assert a.disparity_px.tobytes() == b.disparity_px.tobytes()
        assert (a.loss, a.group) == (b.loss, b.group)
    assert two.frames == 6
    assert changed(weights(one.network), two.network) == set()


def test_a_state_does_not_change_with_the_stream(base):
    stream = adapter(base, mode="full", lr=1e-2)
    stream.step(*pair())
    state = stream.state()
    kept = {name: value.clone() for name, value in state["weights"].items()}
    stream.step(*pair(1))
    assert all(torch.equal(kept[name], value) for name, value in state["weights"].items())


def test_states_of_others_are_refused(base, tmp_path):
    save_state(adapter(base), tmp_path / "mad.pt")
    with pytest.raises(TrainingError, match="state of mode mad, this stream's is full"):
        load_state(adapter(base, mode="full"), tmp_path / "mad.pt")
    (tmp_path / "torn.pt").write_bytes((tmp_path / "mad.pt").read_bytes()[:1000])
    with pytest.raises(TrainingError, match="not readable"):
        load_state(adapter(base), tmp_path / "torn.pt")


def test_two_streams_share_nothing_but_the_base(base):
    one, two = adapter(base, mode="full", lr=1e-2), adapter(base, mode="full", lr=1e-2)
    one.step(*pair(0))
    assert changed(weights(base), two.network) == set()


def test_memory_does_not_grow(base):
    stream = adapter(base, mode="full")
    sizes = []
    for seed in range(3):
        stream.step(*pair(seed))
        sizes.append(stream.memory_bytes())
    assert len(set(sizes)) == 1
    assert sizes[0] == 2 * 4 * 3_826_070


def test_photometric_adaptation_improves_the_frame_it_sees(base):
    stream = adapter(base, mode="full", lr=1e-3)
    losses = [stream.step(*pair()).loss for _ in range(8)]
    assert losses[-1] < losses[0]


def test_proxies_come_in_from_outside(base):
    seen = []

    def proxies(left, right):
        seen.append(left.shape)
        return np.full(SIZE, 8.0, np.float32), np.full(SIZE, 0.5, np.float32)

    config = AdaptationConfig(mode="full", supervision="proxy", compare_every=0, lr=1e-3)
    stream = Adapter(base, config, proxies)
    found = stream.step(*pair())
    assert seen == [(64, 64, 3)]
    assert found.loss == pytest.approx(0.01 * 0.5 * np.abs(found.disparity_px - 8).mean(), rel=1e-4)
    semi_global = Adapter(base, dataclasses.replace(config, mode="mad"))
    assert semi_global.step(*pair()).loss > 0


def test_what_is_no_pair_is_refused(base):
    stream = adapter(base)
    left, right = pair()
    with pytest.raises(PairError, match=r"left is \(64, 64\), right \(60, 64\)"):
        stream.step(left, right[:60])
    with pytest.raises(PairError, match="float32"):
        stream.step(left.astype(np.float32), right)
    assert stream.frames == 0


def test_a_network_without_groups_adapts_whole_or_not_at_all():
    with pytest.raises(TrainingError, match="DispNetC has no modules"):
        Adapter(DispNetC(), AdaptationConfig(mode="mad"))
