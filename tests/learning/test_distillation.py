import math

import pytest
import torch

from training.distillation import (
    align_teacher,
    attention_transfer,
    fill_unknown,
    pair_wise,
    tapped,
    two_terms,
    unaligned,
)
from training.losses import masked_error, silog
from training.models.resnet import ResNetEncoder


@pytest.fixture(autouse=True)
def one_thread(two_threads):
    torch.set_num_threads(1)  # work this small only waits for a second one


def noise(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def scene(pictures=2):
    """Depth of 0.5 to 5 m with holes, and a teacher that sees it in other units, with a shift and some noise."""
    depth_m = 0.5 + 4.5 * noise(pictures, 24, 32)
    inverse = 700 / depth_m + 90 + 2 * noise(pictures, 24, 32, seed=1)
    holes = noise(pictures, 24, 32, seed=2) < 0.3
    return depth_m, torch.where(holes, 0, depth_m), inverse


def abs_rel(prediction, truth):
    valid = truth > 0
    return float(((prediction - truth).abs()[valid] / truth[valid]).mean())


def test_alignment_by_hand():
    # truth 1 m, 2 m and 4 m: 1, 1/2, 1/4; the teacher says 8 y + 3
    truth = torch.tensor([1.0, 2.0, 4.0]).repeat(30).reshape(1, 9, 10)
    teacher = 8 / truth + 3
    assert torch.allclose(align_teacher(teacher, truth), truth)
    # with holes in the truth, the teacher still speaks there
    holed = truth.clone()
    holed[:, :2] = 0
    assert torch.allclose(align_teacher(teacher, holed), truth)


def test_an_aligned_teacher_is_nearer_the_truth_than_an_unaligned_one():
    whole, truth, teacher = scene()
    aligned, raw = align_teacher(teacher, truth), unaligned(teacher)
    assert abs_rel(aligned, truth) < 0.05
    assert abs_rel(raw, truth) > 0.5
    # and that holds where the alignment has not looked
    hidden = torch.where(truth > 0, 0, whole)
    assert abs_rel(aligned, hidden) < 0.05


def test_each_picture_has_its_own_scale_and_shift():
    _, truth, teacher = scene(2)
    other = torch.stack((teacher[0], 0.01 * teacher[1] - 5))
    assert torch.allclose(align_teacher(other, truth), align_teacher(teacher, truth), rtol=1e-3)


def test_aligned_depth_stays_within_its_range():
    truth = torch.linspace(1, 3, 100).reshape(1, 10, 10)
    teacher = 1 / truth
    truth[:, :2] = 0
    teacher[:, 0] = 1e6  # in front of the lens
    teacher[:, 1] = -1e6  # behind infinity
    aligned = align_teacher(teacher, truth)
    assert aligned[0, 0].tolist() == pytest.approx([0.001] * 10)
    assert aligned[0, 1].tolist() == pytest.approx([10.0] * 10)
    assert unaligned(torch.tensor([[[0.0, 0.5, 1e9, -3]]])).flatten().tolist() == pytest.approx([10, 2, 0.001, 10])


@pytest.mark.parametrize("case", ["few", "flat", "swapped"])
def test_a_teacher_that_cannot_be_aligned_teaches_nothing_and_spoils_nothing(case):
    _, truth, teacher = scene(2)
    before = align_teacher(teacher, truth)[1]
    if case == "few":
        truth[0] = 0
        truth[0, 0, :5] = 1
    elif case == "flat":
        teacher[0] = 3
    else:
        teacher[0] = -teacher[0]
    aligned = align_teacher(teacher, truth)
    assert not aligned[0].any()
    assert torch.equal(aligned[1], before)


def test_filled_truth_is_the_truth_where_there_is_any_and_the_teacher_elsewhere():
    _, truth, teacher = scene()
    aligned = align_teacher(teacher, truth)
    filled = fill_unknown(truth, aligned)
    valid = truth > 0
    assert torch.equal(filled[valid], truth[valid])
    assert torch.equal(filled[~valid], aligned[~valid])
    assert (filled > 0).all()


def test_two_terms_are_silog_against_truth_and_against_the_teacher():
    prediction = torch.full((1, 10, 10), 2.0)
    truth, teacher = torch.full((1, 10, 10), 4.0), torch.full((1, 10, 10), 1.0)
    terms = two_terms(prediction, truth, teacher)
    # a constant ratio r leaves 10 * sqrt(0.15) * |log r|
    assert float(terms.truth) == pytest.approx(10 * math.sqrt(0.15) * math.log(2), rel=1e-4)
    assert float(terms.teacher) == pytest.approx(float(terms.truth))
    assert float(two_terms(prediction, truth, torch.zeros_like(teacher)).teacher) == 0


def test_pair_wise_knows_neither_width_nor_scale_nor_rotation_of_channels():
    feature = noise(2, 6, 8, 8) - 0.5
    rotation = torch.linalg.qr(torch.randn(9, 6, generator=torch.Generator().manual_seed(1))).Q
    other = 5 * torch.einsum("ij,bjhw->bihw", rotation, feature)
    assert float(pair_wise(other, feature)) == pytest.approx(0, abs=1e-10)
    assert float(pair_wise(noise(2, 9, 8, 8, seed=3) - 0.5, feature)) > 0.05


def test_pair_wise_by_hand():
    # two cells: alike for the student (1), at right angles for the teacher (0); of four pairs two differ, by 1
    student = torch.tensor([[1.0, 1.0]]).reshape(1, 1, 1, 2)
    teacher = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).reshape(1, 2, 1, 2)
    assert float(pair_wise(student, teacher)) == pytest.approx(0.5)


def test_pair_wise_teaches_the_student_only():
    student, teacher = noise(1, 4, 6, 6).requires_grad_(), noise(1, 4, 12, 12, seed=1).requires_grad_()
    pair_wise(student, teacher).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


def test_attention_knows_where_and_not_how_much_nor_in_which_channel():
    student = noise(2, 4, 8, 8) - 0.5
    teacher = 30 * torch.cat((student.flip(1), student), dim=1)
    assert float(attention_transfer([student], [teacher])) == pytest.approx(0, abs=1e-10)
    assert float(attention_transfer([student], [noise(2, 4, 8, 8, seed=5) - 0.5])) > 0.05


def test_attention_by_hand():
    # the student looks left, the teacher right: two vectors of length 1 at right angles; then both look left
    left = torch.tensor([[[[3.0, 0.0]]]], requires_grad=True)
    right = torch.tensor([[[[0.0, 5.0], [0.0, 5.0]], [[0.0, 1.0], [0.0, 1.0]]]]).repeat_interleave(2, dim=3)
    loss = attention_transfer([left, left], [right, right.flip(3)])
    assert loss.item() == pytest.approx((2 + 0) / 2)
    with pytest.raises(ValueError, match="1 features of the student, 2 of the teacher"):
        attention_transfer([left], [right, right])


def test_attention_of_a_coarser_teacher_is_interpolated_and_teaches_the_student_only():
    student, teacher = noise(1, 4, 8, 8).requires_grad_(), noise(1, 6, 4, 4, seed=1).requires_grad_()
    attention_transfer([student], [teacher]).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


def test_features_are_tapped_while_the_network_runs_and_no_longer():
    encoder = ResNetEncoder("resnet10t").eval()
    with tapped(encoder) as features, torch.no_grad():
        result = encoder(noise(1, 3, 64, 64))
    encoder(noise(1, 3, 64, 64))
    assert len(features) == 4
    assert all(a is b for a, b in zip(features, result, strict=True))


@pytest.mark.parametrize(("form", "expected"), [("mse", (1 + 9) / 2), ("l1", (1 + 3) / 2)])
def test_error_counts_where_there_is_truth_and_each_picture_alike(form, expected):
    target = torch.tensor([[[2.0, 0.0]], [[1.0, 1.0]], [[0.0, 0.0]]])
    prediction = torch.tensor([[[3.0, math.nan]], [[4.0, -2.0]], [[7.0, 7.0]]], requires_grad=True)
    loss = masked_error(prediction, target, form)
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    assert torch.equal(prediction.grad != 0, target > 0)
    nothing = masked_error(prediction, torch.zeros_like(target), form)
    assert nothing.item() == 0


def test_a_student_of_an_aligned_teacher_ends_where_the_truth_is():
    _, truth, teacher = scene()
    hidden = torch.where(truth > 0, 0, scene()[0])
    errors = {}
    for name, target in (("aligned", align_teacher(teacher, truth)), ("unaligned", unaligned(teacher))):
        student = torch.zeros_like(truth, requires_grad=True)
        optimizer = torch.optim.Adam([student], lr=0.05)
        for _ in range(100):
            optimizer.zero_grad()
            terms = two_terms(student.exp(), truth, target)
            (terms.truth + 0.5 * terms.teacher).backward()
            optimizer.step()
        errors[name] = abs_rel(student.detach().exp(), hidden)
    assert errors["aligned"] < 0.1
    assert errors["aligned"] < 0.5 * errors["unaligned"]
    assert float(silog(align_teacher(teacher, truth), truth)) < 0.5
