import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.models import create_model
from training.models.focus_on_depth import Crisp


def crisp(window=7, rounds=2):
    return Crisp(window, steepness=12.0, rounds=rounds, flat=0.03, step=0.1).eval()


def rows(values):
    """The values as a map: every row alike."""
    return torch.tensor(values)[None, None].repeat(1, 5, 1)


def test_one_round_by_hand():
    found = crisp(window=3, rounds=1)(rows([0.0, 0.0, 0.25, 1.0, 1.0, 1.0, 1.05, 1.05]))[0, 2]
    # the third lies a quarter up from 0 to 1, the second at the bottom of 0 to 0.25, the fourth at the top of 0.25 to 1
    share = [1 / (1 + math.exp(-12 * (place - 0.5))) for place in (0.0, 0.25, 1.0)]
    assert found[1:4].tolist() == pytest.approx([0.25 * share[0], share[1], 0.25 + 0.75 * share[2]], abs=1e-6)
    # round the sixth, values span 0.05 of 1.05: drawn to the lowest with (0.05 / 1.05 - 0.03) / 0.07 of the force
    force = (0.05 / 1.05 - 0.03) / 0.07
    assert float(found[5]) == pytest.approx(1 + 0.05 * share[0] * force, abs=1e-5)


def test_a_ramp_between_two_surfaces_becomes_a_step_between_two_pixels():
    smooth = [1 / (1 + math.exp(-(i - 9.5) / 1.5)) for i in range(20)]
    found = crisp()(rows(smooth))[0, 2]
    assert max(b - a for a, b in pairwise(smooth)) < 0.17
    assert float(found[10] - found[9]) > 0.7
    assert found[:7].max() < 0.03
    assert found[13:].min() > 0.97


def test_a_slope_and_its_texture_stay_as_they_are():
    slope = torch.arange(80.0).mul(0.005).repeat(1, 60, 1) + torch.arange(60.0).mul(0.01)[:, None]
    slope = slope + 0.002 * torch.rand(slope.shape, generator=torch.Generator().manual_seed(0))
    # with steps elsewhere in the picture: 7 pixels of it span 0.08 of a range of 4
    slope[:, :, 70:] += 3
    assert torch.equal(crisp()(slope)[:, :, :60], slope[:, :, :60])


def test_a_steep_even_slope_stays_too():
    steep = torch.arange(30.0).repeat(1, 12, 1)
    assert torch.allclose(crisp()(steep)[:, :, 6:-6], steep[:, :, 6:-6], atol=1e-4)


@given(st.integers(0, 99), st.floats(0.1, 50), st.floats(-5, 5))
def test_nothing_leaves_its_surroundings_and_scale_and_shift_do_not_matter(seed, scale, shift):
    sharpen = crisp(window=5, rounds=1)
    values = torch.rand(1, 9, 11, generator=torch.Generator().manual_seed(seed))
    found = sharpen(values)
    windows = torch.nn.functional.pad(values, (2, 2, 2, 2), mode="replicate").unfold(1, 5, 1).unfold(2, 5, 1).flatten(3)
    assert (found >= windows.amin(3) - 1e-6).all()
    assert (found <= windows.amax(3) + 1e-6).all()
    assert torch.allclose(sharpen(scale * values + shift), scale * found + shift, atol=1e-4 * (scale + abs(shift)))
    assert torch.allclose(sharpen(values.flip(2)).flip(2), found, atol=1e-6)


def test_every_picture_of_a_batch_has_a_range_of_its_own():
    one, other = (torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    both = crisp()(torch.cat([one, 100 * other]))
    assert torch.equal(both[:1], crisp()(one))


@pytest.mark.parametrize("level", [0.0, 0.7])
def test_a_flat_map_stays_flat(level):
    assert torch.equal(crisp()(torch.full((1, 8, 8), level)), torch.full((1, 8, 8), level))


def test_the_network_answers_crisp_and_learns_without():
    torch.manual_seed(0)
    plain, sharp = create_model("focus_on_depth_context"), create_model("focus_on_depth_crisp")
    sharp.load_state_dict(plain.state_dict())
    image = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(plain.train()(image)[0], sharp.train()(image)[0])
        before, after = plain.eval()(image), sharp.eval()(image)
    assert torch.equal(before[1], after[1])
    assert torch.equal(sharp.finish(before[0]), after[0])
    assert not torch.equal(before[0], after[0])
