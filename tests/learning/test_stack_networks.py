"""The base networks of seed 3: what they are made of, and the geometry and arithmetic inside."""

import math

import pytest
import torch
from torch import nn

from training.errors import TrainingError
from training.models import stack
from training.models.adabins import MiniVit
from training.models.bts import Planes, local_planes, whole
from training.models.lapdepth import StandardisedConv2d, double, laplacian_levels, restored
from training.models.separable import separable

TINY = (stack.adabins_ghost_tiny, stack.bts_ghost_tiny, stack.lapdepth_ghost_tiny)


@pytest.fixture(autouse=True)
def one_thread(two_threads):
    torch.set_num_threads(1)


def pictures(*shape):
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def parameters(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("builder", "millions"),
    [
        (stack.adabins_ghost, 17.22),
        (stack.adabins_ghost_served, 17.22),
        (stack.bts_ghost, 8.90),
        (stack.lapdepth_ghost, 14.89),
        (lambda: stack.meta_learner("d"), 4.27),
        (lambda: stack.meta_learner("rgb"), 4.27),
        (lambda: stack.meta_learner("rgbd"), 4.27),
    ],
)
def test_parameters_are_those_of_the_slides_within_a_tenth(builder, millions):
    assert parameters(builder()) / 1e6 == pytest.approx(millions, rel=0.1)


def test_the_transformer_is_the_papers_but_for_its_separable_convolution():
    # 5,890,048 with 3x3 convolutions of 128 x 128 channels
    assert parameters(MiniVit()) == 5_890_048 - 128 * 128 * 9 + 128 * 9 + 128 * 128


def test_separable_keeps_the_variance():
    torch.manual_seed(0)
    found = separable(256, 256)(torch.randn(4, 256, 34, 34))[:, :, 1:-1, 1:-1]
    assert found.var().item() == pytest.approx(1, rel=0.3)
    assert parameters(separable(64, 32)) == 64 * (9 + 32)


@pytest.mark.parametrize("builder", TINY)
def test_depth_in_metres_of_the_photos_size_and_every_parameter_learns(builder):
    torch.manual_seed(0)
    network = builder().train()
    assert network.output == "depth_m"
    assert network.stride == 32
    depth = network(pictures(2, 64, 96))
    assert depth.shape == (2, 64, 96)
    assert depth.dtype == torch.float32
    assert depth.min() > 0
    assert depth.max() < 10
    depth.log().square().mean().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    assert {id(p) for p in network.encoder_parameters()} == {id(p) for p in network.encoder.parameters()}


@pytest.mark.parametrize("builder", TINY)
def test_sizes_that_are_no_multiples_of_32_are_refused(builder):
    with pytest.raises(TrainingError, match=r"80x96: both must be multiples of 32"):
        builder()(pictures(1, 80, 96))


def test_bins_ascend_from_the_nearest_to_the_farthest_and_depth_lies_inside():
    torch.manual_seed(0)
    with torch.no_grad():
        bins = stack.adabins_ghost_tiny().eval().bins(pictures(2, 64, 96))
    assert bins.edges_m.shape == (2, 17)
    assert (bins.edges_m.diff(dim=1) > 0).all()
    assert bins.edges_m[:, 0].tolist() == pytest.approx([1e-3, 1e-3])
    assert bins.edges_m[:, -1].tolist() == pytest.approx([10, 10])
    centres = bins.centres_m
    torch.testing.assert_close(centres[:, 0], (bins.edges_m[:, 0] + bins.edges_m[:, 1]) / 2)
    assert (bins.depth_m >= centres[:, 0, None, None]).all()
    assert (bins.depth_m <= centres[:, -1, None, None]).all()
    # they are each picture's own
    assert not torch.equal(bins.edges_m[0], bins.edges_m[1])


def test_adabins_says_which_sizes_it_can_take():
    network = stack.adabins_ghost()
    network.check_size(352, 384)  # 132 tokens
    network.check_size(480, 640)
    with pytest.raises(TrainingError, match="224x224 gives AdaBins 49 tokens of 32x32 pixels; it takes 129 to 500"):
        network(pictures(1, 224, 224))
    with pytest.raises(TrainingError, match="704x768 gives AdaBins 528 tokens"):
        network(pictures(1, 704, 768))
    from service.contract import NETWORK_SIZES

    for size in NETWORK_SIZES:
        stack.adabins_ghost_served().check_size(*size)


def test_adabins_as_the_paper_has_it_runs_at_352x384():
    with torch.no_grad():
        assert stack.adabins_ghost().eval()(pictures(1, 352, 384)).shape == (1, 352, 384)


def test_a_plane_that_faces_the_camera_is_one_depth():
    normal = torch.tensor([0.0, 0, 1]).view(1, 3, 1, 1).expand(1, 3, 2, 3)
    distance = torch.tensor([[[1.0, 2, 3], [4, 5, 6]]])
    depth = whole(local_planes(normal, distance, 4))[0, 0]
    assert depth.shape == (8, 12)
    torch.testing.assert_close(depth, distance[0].repeat_interleave(4, 0).repeat_interleave(4, 1))


def test_a_tilted_plane_follows_the_formula():
    tilt, turn, cell = math.radians(40), math.radians(30), 4
    n = (math.sin(tilt) * math.cos(turn), math.sin(tilt) * math.sin(turn), math.cos(tilt))
    depth = whole(local_planes(torch.tensor(n).view(1, 3, 1, 1), torch.full((1, 1, 1), 2.0), cell))[0, 0]
    places = [-0.375, -0.125, 0.125, 0.375]  # (0..3 - 1.5) / 4
    for row, v in enumerate(places):
        for column, u in enumerate(places):
            assert depth[row, column].item() == pytest.approx(2 / (n[0] * u + n[1] * v + n[2]))


def test_the_steepest_plane_stays_in_front_of_the_camera():
    planes = Planes(8, 8)
    with torch.no_grad():
        for layer in planes.reduce:
            layer.weight.zero_()
            layer.bias.copy_(torch.tensor([50.0, math.log(1 / 7), 0]))  # 60 degrees, turned by 45
        found = planes(torch.zeros(1, 8, 1, 1))
    assert torch.isfinite(found).all()
    assert found.min() > 0


def test_every_other_pixel_of_the_cells():
    cells = torch.arange(2 * 4 * 3 * 4.0).view(1, 2, 4, 3, 4)
    torch.testing.assert_close(whole(cells, 2), whole(cells)[:, :, ::2, ::2])
    assert whole(cells)[0, 0, 5, 7] == cells[0, 1, 1, 1, 3]


def test_bts_gives_five_maps_of_the_photos_size():
    with torch.no_grad():
        network = stack.bts_ghost_tiny().eval()
        maps = network.maps(pictures(2, 64, 96))
        assert torch.equal(maps[-1], network(pictures(2, 64, 96)))
    assert [tuple(m.shape) for m in maps] == [(2, 64, 96)] * 5


def test_the_laplacian_levels_of_a_photo_sum_to_it():
    photo = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    levels = laplacian_levels(photo, 5)
    assert [tuple(level.shape[2:]) for level in levels] == [(64, 96), (32, 48), (16, 24), (8, 12), (4, 6)]
    coarsest = nn.functional.interpolate(photo, scale_factor=1 / 32, mode="area")
    torch.testing.assert_close(restored([coarsest, *reversed(levels)]), photo, atol=1e-5, rtol=0)


def test_the_residuals_of_lapdepth_sum_to_the_depths_logit():
    with torch.no_grad():
        network = stack.lapdepth_ghost_tiny().eval()
        residuals = network.residuals(pictures(1, 64, 96))
        depth = network(pictures(1, 64, 96))
    assert [tuple(r.shape[2:]) for r in residuals] == [(2, 3), (4, 6), (8, 12), (16, 24), (32, 48), (64, 96)]
    total = torch.zeros(1, 1, 64, 96)
    for index, residual in enumerate(residuals):
        for _ in range(len(residuals) - 1 - index):
            residual = double(residual)
        total += residual
    torch.testing.assert_close(total[:, 0], torch.logit(depth / 10), atol=1e-4, rtol=1e-4)
    assert all(residual.abs().max() <= 1 for residual in residuals)


def test_standardised_filters_have_mean_0_and_deviation_1():
    torch.manual_seed(0)
    convolutions = [m for m in stack.lapdepth_ghost_tiny().modules() if isinstance(m, StandardisedConv2d)]
    assert len(convolutions) > 10
    for convolution in convolutions:
        rows = convolution.standardised().flatten(1)
        assert rows.mean(1).abs().max() < 1e-5
        assert (rows.std(1, correction=0) - 1).abs().max() < 2e-3
        # not the depthwise ones, which would pass edges and nothing else
        assert convolution.groups == 1


def test_lapdepth_trains_with_its_encoders_norm_frozen():
    network = stack.lapdepth_ghost().train()
    frozen = [m for m in network.encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not any(m.training or m.weight.requires_grad for m in frozen)
    assert network.decoder.atrous.join[0].training
    assert stack.lapdepth_ghost_scratch().train().encoder.body["bn1"].training
