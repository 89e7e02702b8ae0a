import cv2
import numpy as np
import pytest

from training.metrics import STRICT, TOLERANT, BoundaryForm, align, boundary_f1, depth_metrics, iou, is_dense

ALL = np.ones((1, 4), bool)


def test_alignment_finds_scale_and_shift():
    target = np.array([1.0, 2.0, 3.0])
    assert align(10 * target - 4, target) == pytest.approx(target)


def test_alignment_never_turns_far_into_near():
    target = np.array([1.0, 2.0, 3.0])
    assert align(-target, target) == pytest.approx([2.0, 2.0, 2.0])


def test_depth_metrics_of_a_perfect_prediction():
    target = np.array([[0.1, 0.2, 0.5, 1.0]])
    found = depth_metrics(7 * target + 2, target, ALL)
    assert found.delta1 == 1
    assert found.abs_rel == pytest.approx(0, abs=1e-9)
    assert found.polarity == pytest.approx(1)


def test_depth_metrics_by_hand():
    # no correlation: aligned to the mean, 1.5; depths 2/3 against 1 and 1/2: ratios 1.5 and 1.333
    target = np.array([[1.0, 2.0, 1.0, 2.0]])
    found = depth_metrics(np.array([[1.0, 1.0, 2.0, 2.0]]), target, ALL)
    assert found.delta1 == 0
    assert found.abs_rel == pytest.approx((1 / 3 + 1 / 3) / 2)
    assert found.polarity == pytest.approx(0)


def test_wrong_polarity_is_seen():
    target = np.array([[1.0, 2.0, 3.0, 4.0]])
    found = depth_metrics(-target, target, ALL)
    assert found.polarity == pytest.approx(-1)
    assert found.delta1 < 1


def test_depth_metrics_look_at_valid_pixels_only():
    target = np.array([[1.0, 2.0, 3.0, 0.0]])
    valid = target > 0
    assert depth_metrics(np.array([[1.0, 2.0, 3.0, 99.0]]), target, valid).delta1 == 1


@pytest.mark.parametrize(("target", "valid"), [([[1.0, 2.0]], [[True, False]]), ([[0.0, 2.0]], [[True, True]])])
def test_depth_metrics_refuse_what_cannot_be_judged(target, valid):
    with pytest.raises(ValueError, match="valid pixel"):
        depth_metrics(np.ones((1, 2)), np.array(target), np.array(valid))


def test_iou_by_hand():
    prediction = np.array([True, True, False, True])
    truth = np.array([True, False, True, True])
    counted = np.array([True, True, True, False])
    assert iou(prediction, truth, counted) == pytest.approx(1 / 3)


def test_iou_of_nothing_with_nothing_is_one():
    nothing = np.zeros(4, bool)
    assert iou(nothing, nothing, ~nothing) == 1


BOTH = pytest.mark.parametrize("form", [TOLERANT, STRICT], ids=["tolerant", "strict"])


def box(left=20):
    """A near square of 60 pixels (inverse depth 2) before a far wall (1): 240 contour pixels, 60 of each kind."""
    depth = np.ones((96, 128))
    depth[18:78, left : left + 60] = 2
    return depth


EVERYWHERE = np.ones(box().shape, bool)


@BOTH
def test_boundaries_of_a_perfect_prediction(form):
    found = boundary_f1(5 * box() - 3, box(), EVERYWHERE, form)
    assert (found.f1, found.precision, found.recall) == pytest.approx((1, 1, 1))


@BOTH
@pytest.mark.parametrize("prediction", [np.ones_like(box()), -box()], ids=["constant", "swapped polarity"])
def test_no_boundaries_where_there_are_none_or_near_is_far(form, prediction):
    found = boundary_f1(prediction, box(), EVERYWHERE, form)
    assert (found.f1, found.precision, found.recall) == (0, 0, 0)


@BOTH
def test_the_softer_the_edge_the_lower(form):
    f1 = [boundary_f1(cv2.GaussianBlur(box(), (0, 0), sigma), box(), EVERYWHERE, form).f1 for sigma in (0.3, 1.5, 2, 4)]
    assert f1[0] == pytest.approx(1)
    assert f1[0] > f1[1] > f1[2] > f1[3]
    assert f1[3] < 0.2


def wall(*steps):
    """Near on the left, with these ratios of depth from the pixel pair 63, 64 on, to far (inverse depth 1) beyond."""
    rising = np.cumprod(steps[::-1])[::-1]
    return np.r_[np.full(64, rising[0]), rising[1:], np.ones(64)][:128] * np.ones((96, 1))


def test_a_ramp_drops_out_at_the_thresholds_above_its_ratio():
    found = boundary_f1(wall(1.15, 1.15), wall(1.15**2), EVERYWHERE)
    thresholds = np.linspace(1.05, 1.25, 10)
    assert found.f1 == pytest.approx(thresholds[:5].sum() / thresholds.sum())


def test_a_shifted_edge_is_forgiven_by_one_cell():
    def shifted(by, form):
        return boundary_f1(box(20 + by), box(), EVERYWHERE, form).f1

    assert shifted(1, TOLERANT) == 1
    # the upright sides are lost; of the level ones 59 of 60 pixels are shared, or near enough
    assert shifted(1, STRICT) == pytest.approx(59 / 120)
    assert shifted(2, TOLERANT) == pytest.approx(59 / 120)


def test_large_pictures_are_compared_by_cells():
    # 640 wide: cells of two pixels, so a shift of two is one cell
    large = np.kron(box(), np.ones((5, 5)))
    valid = np.ones(large.shape, bool)
    assert boundary_f1(np.roll(large, 2, axis=1), large, valid).f1 == 1
    assert boundary_f1(np.roll(large, 5, axis=1), large, valid).f1 < 0.6


def test_invented_contours_cost_precision_only():
    invented = box()
    invented[30:66, 90:126] = 2.0
    found = boundary_f1(invented, box(), EVERYWHERE)
    assert found.recall == 1
    assert found.precision == pytest.approx(240 / (240 + 4 * 36))


def test_a_thick_contour_gains_nothing_by_the_tolerance():
    # steep enough at every of seven pixels, steepest at the last: that one is too far from the truth
    ramp, truth = wall(*[1.3] * 6, 1.5), wall(1.3**6 * 1.5)
    assert boundary_f1(ramp, truth, EVERYWHERE, BoundaryForm(None, 1, thin=False)).recall == 1
    assert boundary_f1(ramp, truth, EVERYWHERE, BoundaryForm(None, 1, thin=True)).f1 == 0


@pytest.mark.parametrize(("hole", "bridged"), [(1, True), (2, False)])
def test_a_cell_closes_a_small_hole_along_an_edge(hole, bridged):
    truth = np.kron(wall(2.0), np.ones((5, 5)))
    valid = np.ones(truth.shape, bool)
    valid[:, 320 : 320 + hole] = False
    found = boundary_f1(truth, np.where(valid, truth, 0), valid)
    assert (found is not None) is bridged
    assert found is None or found.f1 == 1


def test_boundaries_need_dense_truth_with_contours():
    points = np.zeros_like(EVERYWHERE)
    points[::2, ::3] = True
    assert not is_dense(points)
    assert is_dense(EVERYWHERE)
    assert not is_dense(np.zeros_like(EVERYWHERE))
    assert boundary_f1(box(), np.where(points, box(), 0), points) is None
    assert boundary_f1(box(), np.ones_like(box()), EVERYWHERE) is None
    few = np.ones_like(box())
    few[:12, :12] = 2
    assert boundary_f1(box(), few, EVERYWHERE) is None
