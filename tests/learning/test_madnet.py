import pytest
import torch

from training.models import create_model
from training.models.dispnet import DispNetC
from training.models.madnet import LEVELS, MADNet, NormalisedMADNet
from training.models.matching import correlation, in_view, padded_pair, warped


def pictures(count, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return MADNet().eval()


def size_of(parameters):
    return sum(parameter.numel() for parameter in parameters)


def test_it_has_the_papers_size():
    assert size_of(create_model("madnet").parameters()) == 3_826_070


def test_normalised_it_has_the_same_weights_and_sees_past_brightness_and_contrast(network):
    normalised = NormalisedMADNet().eval()
    normalised.load_state_dict(network.state_dict())
    left, right = torch.randn(1, 16, 8, 24), torch.randn(1, 16, 8, 24)
    costs = normalised._costs(left, right)
    torch.testing.assert_close(normalised._costs(left * 7 + 3, right * 0.2 - 5), costs, rtol=1e-3, atol=1e-4)
    spread, mean = torch.std_mean(left)
    torch.testing.assert_close(normalised._costs(left, left)[:, 2].mean(), ((left - mean) / spread).square().mean())
    assert create_model("madnet_normalised").state_dict().keys() == network.state_dict().keys()


def test_groups_share_all_weights_among_them(network):
    groups = network.groups()
    assert [round(100 * size_of(group) / 3_826_070) for group in groups] == [29, 19, 15, 12, 24]
    ids = [id(parameter) for group in groups for parameter in group]
    assert sorted(ids) == sorted(id(parameter) for parameter in network.parameters())


@pytest.mark.parametrize("size", [(64, 128), (70, 100), (20, 30)])
def test_six_maps_of_the_pictures_size(network, size):
    left, right = pictures(2, *size), pictures(2, *size, seed=1)
    with torch.no_grad():
        scales = network.scales(left, right)
        assert torch.equal(network(left, right), scales[-1])
    assert len(scales) == 6
    for scale in scales:
        assert scale.shape == (2, *size)
        assert scale.dtype == torch.float32
        assert scale.min() >= 0
        assert torch.isfinite(scale).all()


def test_pairs_of_a_batch_do_not_see_each_other(network):
    left, right = pictures(2, 64, 64), pictures(2, 64, 64, seed=1)
    with torch.no_grad():
        both, one = network(left, right), network(left[1:], right[1:])
    torch.testing.assert_close(both[1:], one, atol=1e-3, rtol=1e-4)


def test_correlation_by_hand():
    left = torch.tensor([[[[1.0, 2.0, 3.0]], [[1.0, 0.0, 1.0]]]])  # two channels, one row
    right = torch.tensor([[[[4.0, 5.0, 6.0]], [[2.0, 2.0, 2.0]]]])
    found = correlation(left, right, 1)
    # shift -1: (1*0 + 1*0)/2, (2*4 + 0*2)/2, (3*5 + 1*2)/2; shift 0: (4+2)/2, 10/2, (18+2)/2; shift 1: (5+2)/2, 12/2, 0
    assert found[0, :, 0].tolist() == [[0, 4, 8.5], [3, 5, 10], [3.5, 6, 0]]


@pytest.mark.parametrize("shift", [-2, -1, 0, 1, 2])
def test_the_correlation_of_a_shifted_row_peaks_at_the_shift(shift):
    left = torch.randn(1, 32, 4, 40, generator=torch.Generator().manual_seed(0))
    right = torch.roll(left, shift, 3)
    inner = correlation(left, right, 2)[..., 4:-4]
    assert (inner.argmax(1) == shift + 2).all()
    # the same at every column that moves along: what is correlated is what lies there, not where
    moved = correlation(torch.roll(left, 5, 3), torch.roll(right, 5, 3), 2)
    torch.testing.assert_close(torch.roll(moved, -5, 3)[..., 4:-8], correlation(left, right, 2)[..., 4:-8])


def test_warping_moves_right_pixels_to_their_left_place():
    right = torch.tensor([[[[10.0, 20.0, 40.0, 80.0]]]])
    disparity = torch.tensor([[[0.0, 1.0, 0.5, 4.0]]])
    # x - d = 0, 0, 1.5, -1
    assert warped(right, disparity).flatten().tolist() == pytest.approx([10, 10, 30, 0], abs=1e-4)
    assert in_view(disparity).flatten().tolist() == [True, True, True, False]


def test_warping_differentiates_twice():
    torch.manual_seed(0)
    right = torch.randn(1, 2, 3, 6, dtype=torch.float64, requires_grad=True)
    disparity = (torch.rand(1, 3, 6, dtype=torch.float64) * 0.4 + 0.3).requires_grad_()  # away from whole columns
    assert torch.autograd.gradcheck(warped, (right, disparity))
    assert torch.autograd.gradgradcheck(warped, (right, disparity))


def test_borders_are_reflected_on_both_sides():
    left = torch.arange(60 * 62).reshape(1, 60, 62, 1).expand(-1, -1, -1, 3).to(torch.float32)
    pair = padded_pair(left, left)
    assert pair.shape == (2, 3, 64, 64)
    assert torch.equal(pair[0, :, 2:62, 1:63], left[0].permute(2, 0, 1))
    assert torch.equal(pair[0, 0, 0, 1:63], left[0, 2, :, 0])
    assert torch.equal(pair[0, 0, 2:62, 0], left[0, :, 1, 0])


def test_stride_two_pads_right_and_below_only():
    pyramid = MADNet().pyramid
    torch.nn.init.ones_(pyramid.down[0].weight)
    torch.nn.init.zeros_(pyramid.down[0].bias)
    seen = []
    pyramid.down[0].register_forward_hook(lambda module, inputs, output: seen.append(output))
    pyramid(torch.ones(1, 3, 64, 64))
    first = seen[0][0, 0]
    assert first.shape == (32, 32)
    assert (first[0, 0].item(), first[-1, 0].item(), first[-1, -1].item()) == pytest.approx((27, 18, 12))


@pytest.mark.parametrize("number", range(len(LEVELS)))
def test_a_modules_error_stays_in_its_group(network, number):
    network.zero_grad(set_to_none=True)
    left, right = pictures(1, 64, 64), pictures(1, 64, 64, seed=1)
    with torch.enable_grad():
        own = network.groups()[number]
        scales = network.scales(left, right, modular=True)
        given = torch.autograd.grad(scales[number].sum(), own, allow_unused=True, retain_graph=True)
        assert all(gradient is not None for gradient in given)
        coarser = [p for group in network.groups()[:number] for p in group]
        # estimators of coarser levels hear nothing; of the pyramid, coarser levels do not feed finer ones
        if coarser:
            heard = torch.autograd.grad(scales[number].sum(), coarser, allow_unused=True)
            assert all(gradient is None for gradient in heard)


def test_whole_training_reaches_every_weight(network):
    network.zero_grad(set_to_none=True)
    network.scales(pictures(1, 64, 128), pictures(1, 64, 128, seed=1))[-1].sum().backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    network.zero_grad(set_to_none=True)
    assert without == []


def test_dispnetc_is_the_slow_peer():
    torch.manual_seed(0)
    network = DispNetC().eval()
    assert size_of(network.parameters()) == 42_430_107
    with torch.no_grad():
        scales = network.scales(pictures(1, 64, 70), pictures(1, 64, 70, seed=1))
    assert [tuple(scale.shape) for scale in scales] == [(1, 64, 70)] * 6
    assert all(scale.min() >= 0 for scale in scales)
    assert network.groups() == []
    with pytest.raises(ValueError, match="no modules"):
        network.scales(pictures(1, 64, 64), pictures(1, 64, 64), modular=True)
