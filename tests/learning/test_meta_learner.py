"""The meta-learner's arithmetic, and what stacking promises: no worse than the average where it was taught."""

import pytest
import torch
from torch import nn

from training.errors import TrainingError
from training.losses import silog
from training.models import stack
from training.models.frozen import freeze
from training.models.meta_learner import BASES, Average, Linear, MetaLearner, Stacked


@pytest.fixture(autouse=True)
def one_thread(two_threads):
    torch.set_num_threads(1)


def pictures(*shape):
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def depths(*shape, farthest=9.0):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(shape[0], 3, *shape[1:], generator=generator) * farthest + 0.5


class FromRed(nn.Module):
    """A base network that is right but for a factor where the photo is dark, another where it is bright."""

    def __init__(self, dark, bright):
        super().__init__()
        self.factors = nn.Parameter(torch.tensor([dark, bright]))

    def forward(self, image):
        red, bright = image[..., 0].float(), image[..., 1] > 127
        return (1 + red / 64) * torch.where(bright, self.factors[1], self.factors[0])


@pytest.mark.parametrize(("variant", "inputs"), [("d", 3), ("rgb", 3), ("rgbd", 6)])
def test_variants_see_what_they_are_called_after(variant, inputs):
    torch.manual_seed(0)
    network = stack.meta_learner_tiny(variant).eval()
    nn.init.normal_(network.last.weight)
    assert network.encoder.body["conv_stem"].in_channels == inputs
    image, other = pictures(1, 64, 64), 255 - pictures(1, 64, 64)
    base, others = depths(1, 64, 64), depths(1, 64, 64, farthest=2)
    with torch.no_grad():
        of_photo = not torch.equal(network.coefficients(image, base), network.coefficients(other, base))
        of_depth = not torch.equal(network.coefficients(image, base), network.coefficients(image, others))
    assert (of_photo, of_depth) == (variant != "d", variant != "rgb")


def test_shares_sum_to_one_and_the_depth_lies_between_the_bases():
    torch.manual_seed(0)
    network = stack.meta_learner_tiny("rgbd").eval()
    nn.init.normal_(network.last.weight, std=3)
    image, base = pictures(2, 64, 96), depths(2, 64, 96)
    with torch.no_grad():
        shares, depth = network.coefficients(image, base), network(image, base)
    assert shares.shape == (2, 3, 64, 96)
    assert shares.min() >= 0
    torch.testing.assert_close(shares.sum(1), torch.ones(2, 64, 96))
    assert shares.max() > 0.9
    assert depth.shape == (2, 64, 96)
    assert (depth >= base.amin(1) - 1e-5).all()
    assert (depth <= base.amax(1) + 1e-5).all()
    torch.testing.assert_close(depth, (shares * base).sum(1))


@pytest.mark.parametrize("bound", [stack.Shares, Linear])
def test_it_begins_as_the_average(bound):
    torch.manual_seed(0)
    network = stack.meta_learner_tiny("rgbd", bound).eval()
    image, base = pictures(1, 64, 64), depths(1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(image, base), Average()(image, base), atol=0.05, rtol=0)


def test_linear_coefficients_may_leave_the_bases_but_not_the_range():
    network = stack.meta_learner_tiny("d", Linear).eval()
    with torch.no_grad():
        network.last.weight.zero_()
        network.last.bias.copy_(torch.tensor([1.0, 0, 0]))
        base = torch.tensor([3.0, 6, 0.3]).view(1, 3, 1, 1).expand(1, 3, 64, 64)
        # 4/3 * 3 + 1/3 * 6 + 1/3 * 0.3
        assert network(pictures(1, 64, 64), base)[0, 5, 5].item() == pytest.approx(6.1)
        assert network(pictures(1, 64, 64), 3 * base)[0, 5, 5].item() == 10


def test_base_depths_are_held_to_the_range():
    network = stack.meta_learner_tiny("rgbd").eval()
    image = pictures(1, 64, 64)
    wild = torch.tensor([-3.0, float("inf"), 4]).view(1, 3, 1, 1).expand(1, 3, 64, 64)
    tame = torch.tensor([1e-3, 10, 4]).view(1, 3, 1, 1).expand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(image, wild), network(image, tame))


def test_the_average_is_the_mean():
    assert Average()(pictures(1, 2, 2), torch.tensor([1.0, 2, 6]).view(1, 3, 1, 1).expand(1, 3, 2, 2)).unique() == 3


def test_every_parameter_of_a_stack_learns_and_the_order_is_that_of_the_bases():
    torch.manual_seed(0)
    network = stack.NETWORKS["stacked_meta_rgbd_tiny"]().train()
    depth = network(pictures(2, 64, 64))
    assert depth.shape == (2, 64, 64)
    depth.log().square().mean().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    assert tuple(network.bases) == BASES
    with torch.no_grad():
        network.eval()
        found = network.base_depths(pictures(1, 64, 64))
        assert torch.equal(found[:, 1], network.bases["bts"](pictures(1, 64, 64)))
    with pytest.raises(TrainingError, match="stacked on bts: expected adabins, bts, lapdepth"):
        Stacked({"bts": nn.Identity()}, Average())


@pytest.mark.parametrize(("frozen", "changes"), [(("bases",), set()), ((), set(BASES))])
def test_frozen_bases_keep_every_bit_and_tuned_ones_change(frozen, changes):
    torch.manual_seed(0)
    network = stack.NETWORKS["stacked_meta_rgb_tiny"]()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    freeze(network, frozen)
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], 1e-3)
    silog(network(pictures(2, 64, 64)), depths(2, 64, 64)[:, 0]).backward()
    optimizer.step()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[1] for name in changed if name.startswith("bases.")} == changes
    assert any(name.startswith("meta.") for name in changed)


def rmse(depth, target):
    return (depth - target).square().mean().sqrt().item()


def test_a_taught_meta_learner_beats_the_average_where_it_was_taught_and_the_worst_base_elsewhere():
    torch.manual_seed(0)
    base = {"adabins": FromRed(1, 1.6), "bts": FromRed(0.5, 1), "lapdepth": FromRed(1.5, 1.5)}
    meta = stack.meta_learner_tiny("rgbd").train()
    assert isinstance(meta, MetaLearner)
    network = Stacked(base, meta)
    freeze(network, ("bases",))
    generator = torch.Generator().manual_seed(2)

    def scene(count):
        coarse = torch.randint(0, 256, (count, 4, 4, 3), generator=generator, dtype=torch.uint8)
        image = coarse.repeat_interleave(16, 1).repeat_interleave(16, 2)
        return image, 1 + image[..., 0].float() / 64

    image, target = scene(4)
    optimizer = torch.optim.AdamW(meta.parameters(), 3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        silog(network(image), target).backward()
        optimizer.step()
    with torch.no_grad():
        network.eval()
        said = network.base_depths(image)
        assert rmse(network(image), target) < 0.8 * rmse(said.mean(1), target)
        fresh, truth = scene(4)
        worst = max(rmse(depth, truth) for depth in network.base_depths(fresh).unbind(1))
        assert rmse(network(fresh), truth) < worst
