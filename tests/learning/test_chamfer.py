import pytest
import torch

from training.chamfer import bin_chamfer, chamfer, squared_to_nearest


def brute_force(a, b):
    distances = (a[:, None] - b[None, :]).square()
    return distances.min(1).values.mean() + distances.min(0).values.mean()


def test_by_hand():
    a, b = torch.tensor([1.0, 4.0]), torch.tensor([2.0, 8.0, 0.0])
    assert squared_to_nearest(a, b).tolist() == [1, 4]
    # from b: 2 is 1 from 1, 8 is 4 from 4, 0 is 1 from 1
    assert chamfer(a, b).item() == pytest.approx((1 + 4) / 2 + (1 + 16 + 1) / 3)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 50), (256, 3000), (40, 7)])
def test_bisection_finds_what_all_distances_give_gradients_included(n, m):
    generator = torch.Generator().manual_seed(n * m)
    a = (torch.rand(n, generator=generator, dtype=torch.float64) * 10).requires_grad_()
    b = (torch.randn(m, generator=generator, dtype=torch.float64) * 3).requires_grad_()
    gradients = [torch.autograd.grad(function(a, b), (a, b)) for function in (chamfer, brute_force)]
    torch.testing.assert_close(chamfer(a, b), brute_force(a, b))
    for found, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(found, wanted)


def test_points_that_lie_on_each_other():
    a = torch.tensor([2.0, 2, 2, 5])
    assert chamfer(a, a).item() == 0
    torch.testing.assert_close(chamfer(a, torch.tensor([2.0, 5, 5])), torch.tensor(0.0))


def test_only_pixels_with_data_count_and_each_picture_alike():
    centres = torch.tensor([[1.0, 3], [1, 3], [7, 9]], requires_grad=True)
    target = torch.zeros(3, 2, 2)
    target[0, 0] = torch.tensor([1.0, 4])
    target[1, 1, 1] = 3
    target[2, 0, 0] = 5e-4  # below a millimetre: no data
    # 0: centres 0, 1; depths 0, 1. 1: centres 4, 0; depth 0. The third has no data
    value = bin_chamfer(centres, target)
    assert value.item() == pytest.approx(((0 + 1) / 2 + (0 + 1) / 2 + (4 + 0) / 2 + 0) / 2)
    value.backward()
    assert centres.grad[2].tolist() == [0, 0]
    assert centres.grad[1].tolist() == [-1, 0]  # -2 * (3 - 1) / 2 centres / 2 pictures


def test_without_any_data_there_is_nothing_to_learn():
    centres = torch.ones(2, 4, requires_grad=True)
    value = bin_chamfer(centres, torch.zeros(2, 8, 8))
    value.backward()
    assert value.item() == 0
    assert centres.grad.abs().sum() == 0
