import cv2
import numpy as np
import pytest

from training.data.bank import fill, readers
from training.data.sample import BrokenSampleError
from training.data.stereo import SCALE, proxy_disparity, read_frames, read_pair, read_sample
from training.labelling import label_stereo

WALL_PX, BOX_PX = 8, 24
BOX = slice(40, 120), slice(140, 220)


def rendered_pair(height=160, width=320):
    """A textured wall at a disparity of 8 with a box before it at 24: left, right and the left picture's disparity."""
    rng = np.random.default_rng(0)
    wall, box = (cv2.GaussianBlur(rng.integers(0, 256, (height, width + 64), np.uint8), (0, 0), 1.2) for _ in range(2))
    left, right = wall[:, :width].copy(), wall[:, WALL_PX : WALL_PX + width].copy()
    rows, columns = BOX
    left[BOX] = box[BOX]
    right[rows, columns.start - BOX_PX : columns.stop - BOX_PX] = box[BOX]
    disparity = np.full((height, width), WALL_PX, np.float32)
    disparity[BOX] = BOX_PX
    return left, right, disparity


@pytest.fixture(scope="module")
def pair():
    return rendered_pair()


@pytest.fixture(scope="module")
def found(pair):
    return proxy_disparity(pair[0], pair[1])


def test_disparity_of_a_rendered_pair_is_found(pair, found):
    wanted = pair[2]
    assert found.shape == wanted.shape
    assert found.dtype == np.float32
    there = found > 0
    assert there.mean() > 0.8
    assert np.median(np.abs(found - wanted)[there]) < 0.1
    assert (np.abs(found - wanted)[there] < 1).mean() > 0.97


def test_what_the_right_picture_does_not_show_has_no_disparity(found):
    # left of the box lies what it hides from the right camera: 24 - 8 columns of the wall
    rows, columns = BOX
    hidden = found[rows, columns.start - (BOX_PX - WALL_PX) + 2 : columns.start - 2]
    beside = found[rows, columns.stop + 4 : columns.stop + 20]
    assert (hidden > 0).mean() < 0.1
    assert (beside > 0).mean() > 0.9


def test_the_left_border_is_matched_as_far_as_the_right_picture_shows_it(found):
    # without a border of its own the matcher leaves the columns up to its largest disparity empty
    assert (found[:, WALL_PX + 4 : 100] > 0).mean() > 0.9


def test_colours_match_like_grey(pair, found):
    left, right = (np.repeat(image[..., None], 3, axis=2) for image in pair[:2])
    coloured = proxy_disparity(left, right)
    both = (coloured > 0) & (found > 0)
    assert both.mean() > 0.8
    assert (np.abs(coloured - found)[both] < 1).mean() > 0.97


@pytest.fixture
def sequence(tmp_path, pair):
    """A data folder with two frames of one sequence, one of them torn."""
    root = tmp_path / "data"
    folder = root / "stereo_seq" / "kitti_seq1"
    for side, image in zip(("left", "right"), pair[:2], strict=True):
        (folder / side).mkdir(parents=True)
        cv2.imwrite(str(folder / side / "000.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 98])
        cv2.imwrite(str(folder / side / "001.jpg"), image)
    (folder / "right" / "001.jpg").write_bytes(b"torn")
    (root / "truth_person").mkdir()
    (root / "truth_person" / "index.json").write_text("[]")
    return root


def test_labels_come_back_as_they_were_written(sequence, tmp_path, found):
    labels = tmp_path / "labels"
    frames = list(read_frames(sequence, "kitti_seq1"))
    assert [left.name for left, _ in frames] == ["000.jpg", "001.jpg"]
    assert label_stereo(frames, sequence, labels) == {"labelled": 1, "kept": 0, "broken": 1}
    assert label_stereo(frames, sequence, labels) == {"labelled": 0, "kept": 1, "broken": 1}

    sample = read_sample(sequence, frames[0][0], labels)
    assert sample.image.shape == (160, 320, 3)
    assert (sample.source, sample.scene) == ("kitti_seq1", "kitti_seq1")
    assert sample.shift_known
    both = (sample.inverse_depth > 0) & (found > 0)
    assert both.mean() > 0.75
    # JPEG moves the matches a little; the file itself keeps 1 / 256 of a pixel
    assert np.median(np.abs(sample.inverse_depth - found)[both]) < 0.1
    assert np.array_equal(sample.inverse_depth * SCALE, np.rint(sample.inverse_depth * SCALE))


@pytest.mark.parametrize("right", [np.zeros((160, 300), np.uint8), np.zeros((160, 320), np.uint16)])
def test_a_pair_that_does_not_match_is_broken_and_not_fatal(sequence, tmp_path, right):
    frame = next(read_frames(sequence, "kitti_seq1"))
    cv2.imwrite(str(frame[1].with_suffix(".png")), right)
    frame[1].with_suffix(".png").rename(frame[1])
    with pytest.raises(BrokenSampleError, match="and its right picture: uint8"):
        read_pair(*frame)
    assert label_stereo([frame], sequence, tmp_path / "labels")["broken"] == 1


def test_only_labelled_frames_are_read_and_their_sequence_is_one_scene(sequence, tmp_path):
    labels = tmp_path / "labels"
    label_stereo(read_frames(sequence, "kitti_seq1"), sequence, labels)
    bank = fill(readers(sequence, labels), progress=False)
    kept = [s.name for scenes in bank.train.values() for samples in scenes.values() for s in samples]
    assert kept + [s.name for s in bank.held_out] == ["stereo_seq/kitti_seq1/left/000"]


def test_a_label_of_another_size_is_broken(sequence, tmp_path):
    path = tmp_path / "labels" / "stereo_seq" / "kitti_seq1" / "left" / "000.png"
    path.parent.mkdir(parents=True)
    cv2.imwrite(str(path), np.zeros((3, 3), np.uint16))
    with pytest.raises(BrokenSampleError, match=r"000\.png: \(3, 3\), its photo \(160, 320\)"):
        read_sample(sequence, next(read_frames(sequence, "kitti_seq1"))[0], tmp_path / "labels")
