import cv2
import numpy as np
import pytest

from training.data.bank import Batch, fill, reduce
from training.data.sample import BrokenSampleError
from training.data.stereo_pairs import (
    layered_sample,
    layered_sequence,
    read_folder,
    read_middlebury,
    read_rendered,
    reduced,
    stereo_readers,
    stereo_truth,
)
from training.data.transforms import Augmentation, jittered, view, warp, whole_map
from training.errors import TrainingError

SIZE = (64, 96)


@pytest.fixture(scope="module")
def frame():
    return next(layered_sequence("clean", 3, 1, SIZE))


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array[..., ::-1] if array.ndim == 3 else array)


@pytest.mark.parametrize(
    ("left", "right", "truth"),
    [
        ("training/image_2", "training/image_3", "training/disp_occ_0"),
        ("colored_0", "colored_1", "disp_noc"),
        ("left", "right", "disparity"),
    ],
)
def test_layouts_are_read_with_their_truth(tmp_path, frame, left, right, truth):
    for name in ("000001_10", "000000_10"):
        write(tmp_path / left / f"{name}.png", frame.left)
        write(tmp_path / right / f"{name}.png", frame.right)
    stored = np.full(SIZE, 640, np.uint16)
    stored[0] = 0
    write(tmp_path / truth / "000000_10.png", stored)
    found = list(read_folder(tmp_path))
    assert [one.name for one in found] == ["000000_10", "000001_10"]
    np.testing.assert_array_equal(found[0].left, frame.left)
    np.testing.assert_array_equal(found[0].right, frame.right)
    assert found[0].disparity_px[1, 1] == 2.5
    assert found[0].disparity_px[0, 0] == 0
    assert found[1].disparity_px is None


def test_kitti_raw_and_grey_pictures(tmp_path, frame):
    write(tmp_path / "image_02" / "data" / "0.png", frame.left[..., 0])
    write(tmp_path / "image_03" / "data" / "0.png", frame.right[..., 0])
    (found,) = read_folder(tmp_path)
    assert found.left.shape == (*SIZE, 3)
    assert found.disparity_px is None


def test_middlebury_2014(tmp_path, frame):
    write(tmp_path / "im0.png", frame.left)
    write(tmp_path / "im1.png", frame.right)
    values = frame.disparity_px.copy()
    values[0, 0] = np.inf
    body = values[::-1].astype("<f4").tobytes()
    (tmp_path / "disp0.pfm").write_bytes(b"Pf\n96 64\n-1.0\n" + body)
    (tmp_path / "calib.txt").write_text("cam0=[100.5 0 48; 0 100.5 32; 0 0 1]\nbaseline=193.001\nwidth=96\n")
    found = read_middlebury(tmp_path)
    assert found.disparity_px[0, 0] == 0
    np.testing.assert_array_equal(found.disparity_px[1:], frame.disparity_px[1:])
    assert (found.focal_px, found.baseline_m) == (100.5, 0.193001)
    assert next(read_folder(tmp_path)).name == tmp_path.name


def test_middlebury_2003_stores_quarters_of_pixels(tmp_path, frame):
    write(tmp_path / "im2.png", frame.left)
    write(tmp_path / "im6.png", frame.right)
    write(tmp_path / "disp2.png", np.full(SIZE, 50, np.uint8))
    assert (read_middlebury(tmp_path).disparity_px == 12.5).all()


def test_what_is_no_pair_is_said(tmp_path, frame):
    with pytest.raises(TrainingError, match="expected left/ and right/"):
        list(read_folder(tmp_path))
    write(tmp_path / "left" / "0.png", frame.left)
    write(tmp_path / "right" / "0.png", frame.right[:-2])
    with pytest.raises(BrokenSampleError, match="expected one size"):
        list(read_folder(tmp_path))
    (tmp_path / "disp0.pfm").write_bytes(b"PF\n1 1\n-1\n")
    write(tmp_path / "im0.png", frame.left)
    with pytest.raises(BrokenSampleError, match="disp0"):
        read_middlebury(tmp_path)


def test_a_rendered_pair_is_read_as_the_writer_wrote_it(tmp_path):
    from training.data.synthetic.generator import Order, generate

    pytest.importorskip("embreex")
    list(generate(Order(tmp_path, (48, 64), stereo=True), range(1)))
    sample = read_rendered(next(tmp_path.rglob("s*.json")))
    assert sample.right.shape == sample.image.shape == (48, 64, 3)
    assert sample.disparity_px.max() > 0.5
    (tmp_path / "s.json").write_text("{}")
    with pytest.raises(BrokenSampleError, match="no rendered pair"):
        read_rendered(tmp_path / "s.json")


def test_a_smaller_frame_has_smaller_disparity(frame):
    small = reduced(frame, 48)
    assert small.left.shape == (32, 48, 3)
    assert small.disparity_px.max() == pytest.approx(frame.disparity_px.max() / 2, rel=0.1)
    assert small.focal_px == frame.focal_px / 2
    assert reduced(frame, 96) is frame


def test_views_of_a_pair_stay_rectified():
    sample = layered_sample(2, SIZE)
    half = warp(sample, whole_map(SIZE, (64, 48)), (64, 48))
    assert half.disparity_px.max() == pytest.approx(sample.disparity_px.max() / 2, rel=0.05)
    strength = Augmentation(0.5, 1.0, 1.2, 10.0, 0.5, "stereo", rotation_share=1.0)
    for seed in range(5):
        item = view(np.random.default_rng(seed), sample, SIZE, strength)
        row = 32
        # what was at x is at x - d in the right picture, in pixels of the view
        columns = np.arange(96) - item.disparity_px[row]
        inside = (columns > 1) & (columns < 94)
        there = item.right[row, np.rint(columns).astype(int).clip(0, 95)].astype(float)
        error = np.abs(there - item.image[row])[inside].mean(1)
        assert np.median(error) < 25


def test_both_pictures_change_colours_alike():
    item = warp(layered_sample(2, SIZE), whole_map(SIZE, SIZE), SIZE)
    flat = type(item)(
        item.image, item.inverse_depth, item.person, right=item.image.copy(), disparity_px=item.disparity_px
    )
    changed = [jittered(np.random.default_rng(seed), flat) for seed in (1, 2, 5)]
    assert any((one.image != flat.image).any() for one in changed)
    assert all(np.median(np.abs(one.image.astype(int) - one.right)) <= 12 for one in changed)


def test_drawn_worlds_fill_a_bank_and_a_batch():
    bank = fill(stereo_readers(6, SIZE), progress=False)
    samples = [s for scenes in bank.train["layered"].values() for s in scenes]
    assert len(samples) + len(bank.held_out) == 6
    batch = Batch.of([warp(s, whole_map(SIZE, SIZE), SIZE) for s in samples[:2]])
    assert batch.right.shape == (2, *SIZE, 3)
    assert batch.disparity_px.shape == (2, *SIZE)
    assert batch.to("cpu").right is not None


def test_large_pairs_are_reduced_with_their_truth():
    sample = layered_sample(1, (96, 192))
    small = reduce(sample, 96)
    assert small.right.shape == (48, 96, 3)
    assert small.disparity_px.max() == pytest.approx(sample.disparity_px.max() / 2, rel=0.1)


def test_real_pairs_with_truth(shared):
    sets = [name for name, pair in stereo_truth(shared / "data") if (pair.disparity_px > 0).mean() > 0.1]
    assert {"middlebury", "kitti2015"} <= set(sets)
