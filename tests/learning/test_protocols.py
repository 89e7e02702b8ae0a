import numpy as np
import pytest

from training.data.sample import Sample
from training.errors import TrainingError
from training.metric_depth import mean_over_pictures
from training.protocols import PROTOCOLS, depth_m_of, flip_averaged, judge

RNG = np.random.default_rng(5)
NYU = RNG.uniform(1, 9, (480, 640))
SMALL = RNG.uniform(1, 9, (40, 50))


def area(protocol: str, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of what counts in a picture that is valid everywhere."""
    valid = PROTOCOLS[protocol].valid(np.full(size, 5.0))
    rows, columns = np.flatnonzero(valid.any(axis=1)), np.flatnonzero(valid.any(axis=0))
    assert valid.sum() == rows.size * columns.size
    return rows.size, columns.size


def test_the_crops():
    assert area("nyu_eigen", (480, 640)) == (426, 560)
    valid = PROTOCOLS["nyu_eigen"].valid(NYU)
    assert valid[45, 41]
    assert valid[470, 600]
    assert not (valid[44].any())
    assert not (valid[471].any())
    assert not (valid[:, 40].any())
    assert not valid[:, 601].any()
    # 375 x 1242: rows 153..370 and 124..341, columns 44..1196
    assert area("kitti_garg", (375, 1242)) == (371 - 153, 1197 - 44)
    assert area("kitti_eigen", (375, 1242)) == (342 - 124, 1197 - 44)
    assert PROTOCOLS["kitti_garg"].valid(np.full((375, 1242), 5.0))[153, 44]
    assert PROTOCOLS["kitti_eigen"].valid(np.full((375, 1242), 5.0))[124, 44]
    assert area("indoor", (40, 50)) == (40, 50)


def test_another_size_than_nyus_is_refused():
    with pytest.raises(TrainingError, match="nyu_eigen is for pictures of 480 x 640, this one has 40 x 50"):
        PROTOCOLS["nyu_eigen"].errors(SMALL, SMALL, "depth_m")


def test_truth_outside_the_limits_does_not_count():
    truth = SMALL.copy()
    truth[0], truth[1], truth[2], truth[3], truth[4] = 0, 1e-3, 10, np.nan, np.inf
    assert PROTOCOLS["indoor"].valid(truth).sum() == 35 * 50
    assert PROTOCOLS["kitti_garg"].valid(np.full((100, 100), 79.9)).any()
    assert not PROTOCOLS["kitti_garg"].valid(np.full((100, 100), 80.0)).any()


def test_predictions_are_held_to_the_limits():
    wild = SMALL.copy()
    wild[0], wild[1], wild[2] = np.inf, np.nan, -5
    depth = PROTOCOLS["indoor"].depth_m(wild, SMALL, np.ones(SMALL.shape, bool), "depth_m")
    assert (depth[0] == 10).all()
    assert (depth[1:3] == 1e-3).all()
    assert (depth[3:] == SMALL[3:]).all()


def test_nothing_outside_the_crop_matters():
    prediction = NYU.copy()
    prediction[:45], prediction[471:], prediction[:, :41], prediction[:, 601:] = np.nan, 1e9, -1, 0
    found = PROTOCOLS["nyu_eigen"].errors(prediction, NYU, "depth_m")
    assert found["rmse"] == 0
    assert found["ssim"] == pytest.approx(1)


def test_median_scaling_undoes_a_scale_and_nothing_else():
    assert PROTOCOLS["indoor_median"].errors(SMALL / 3, SMALL, "depth_m")["rmse"] == pytest.approx(0, abs=1e-12)
    assert PROTOCOLS["indoor"].errors(SMALL / 3, SMALL, "depth_m")["delta1"] == 0
    assert PROTOCOLS["indoor_median"].errors(SMALL + 3, SMALL, "depth_m")["rmse"] > 0.5


def test_zero_shot_undoes_scale_and_shift_of_inverse_depth():
    found = PROTOCOLS["zero_shot"].errors(30 / SMALL - 7, SMALL, "inverse_depth")
    assert found["rmse"] == pytest.approx(0, abs=1e-9)
    assert found["delta1"] == 1


def test_zero_shot_takes_depth_in_metres_too():
    assert PROTOCOLS["zero_shot"].errors(SMALL, SMALL, "depth_m")["rmse"] == pytest.approx(0, abs=1e-9)


def test_zero_shot_never_turns_far_into_near():
    found = PROTOCOLS["zero_shot"].errors(-1 / SMALL, SMALL, "inverse_depth")
    # scale 0: everything at the mean inverse depth
    assert found["mae"] == pytest.approx(np.abs(1 / (1 / SMALL).mean() - SMALL).mean())


def test_zero_shot_by_hand():
    truth = np.array([[1.0, 2.0], [4.0, 5.0]]).repeat(10, axis=0).repeat(10, axis=1)
    seen = np.array([[3.0, 1.0], [1.0, 3.0]]).repeat(10, axis=0).repeat(10, axis=1)
    # inverse truth 1, .5, .25, .2: those seen as 3 have mean .6, those as 1 .375; depths 1/.6 and 1/.375
    found = PROTOCOLS["zero_shot"].errors(seen, truth, "inverse_depth")
    near, far = 1 / 0.6, 1 / 0.375
    assert found["mae"] == pytest.approx((near - 1 + far - 2 + 4 - far + 5 - near) / 4)


def test_values_that_are_none_are_farthest_after_alignment():
    inverse = 1 / SMALL
    inverse[0, :5] = [np.nan, np.inf, -np.inf, np.nan, np.nan]
    found = PROTOCOLS["zero_shot"].errors(inverse, SMALL, "inverse_depth")
    assert np.isfinite(list(found.values())).all()
    assert found["delta1"] > 0.9


def test_relative_depth_is_not_judged_in_metres():
    with pytest.raises(TrainingError, match="gives relative inverse depth: choose the alignment scale_shift"):
        PROTOCOLS["indoor"].errors(SMALL, SMALL, "inverse_depth")


def test_flip_average_by_hand():
    image = np.arange(4, dtype=np.uint8).reshape(1, 4, 1).repeat(3, axis=2)

    def predict(picture):  # a network that adds 10 in the left column, and else sees the picture's value
        depth = picture[..., 0].astype(np.float32)
        depth[:, 0] += 10
        return depth

    assert flip_averaged(predict)(image).tolist() == [[5, 1, 2, 8]]


def sample_of(depth_m, **more) -> Sample:
    inverse = np.divide(1, depth_m, out=np.zeros_like(depth_m), where=depth_m > 0).astype(np.float32)
    return Sample("a", "rooms", "a", np.zeros((*depth_m.shape, 3), np.uint8), inverse, **({"metric": True} | more))


def test_judging_leaves_out_pictures_without_truth():
    empty = np.zeros((40, 50))
    found = judge(
        PROTOCOLS["indoor"],
        lambda image: np.full(image.shape[:2], 5, np.float32),
        "depth_m",
        [sample_of(np.full((40, 50), 4.0)), Sample(**{**_fields(sample_of(empty)), "name": "empty"})],
    )
    assert list(found) == ["a"]
    assert mean_over_pictures(found.values())["mae"] == pytest.approx(1)


def _fields(sample: Sample) -> dict:
    return {name: getattr(sample, name) for name in Sample.__dataclass_fields__}


def test_depth_of_a_sample():
    assert depth_m_of(sample_of(np.array([[0.0, 4.0]]))).tolist() == [[0, 4]]
    with pytest.raises(TrainingError, match="a: no depth in metres"):
        depth_m_of(sample_of(np.array([[0.0, 4.0]]), metric=False))
