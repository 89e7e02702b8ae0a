"""NYU Depth V2 and KITTI in their official layouts, written here in miniature."""

from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import scipy.io

from training.__main__ import main
from training.checkpoint import Checkpoint, save_checkpoint
from training.data import kitti, nyu
from training.data.pairs import read_list
from training.data.sample import BrokenSampleError
from training.errors import TrainingError
from training.start import FirstWeights, make_network

H, W = 480, 640


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Three pictures as MATLAB stores them: columns first, picture by picture, names as arrays of letters."""
    images = np.zeros((3, 3, W, H), np.uint8)
    images[:, 0] = np.arange(H) // 2  # red grows downwards
    images[:, 1] = (np.arange(W) // 4)[:, None]  # green to the right
    raw = np.full((3, W, H), 2.0, np.float32)
    raw[:, 100, 50] = 0  # a hole at row 50, column 100
    raw[:, 300, 200] = 4
    with h5py.File(tmp_path / nyu.LABELLED, "w") as file:
        file["images"], file["rawDepths"] = images, raw
        file["depths"] = np.where(raw == 0, np.float32(2), raw)
        names = file.create_dataset("scenes", (1, 3), h5py.ref_dtype)
        for index, name in enumerate(("kitchen_0004", "office_0001", "office_0001")):
            letters = np.array([[ord(letter)] for letter in name], np.uint16)
            names[0, index] = file.create_dataset(f"#refs#/{index}", data=letters).ref
    scipy.io.savemat(tmp_path / nyu.SPLITS, {"trainNdxs": [[2], [3]], "testNdxs": [[1]]})
    return tmp_path


def change(folder: Path, key: str, index: int, value: float) -> None:
    with h5py.File(folder / nyu.LABELLED, "r+") as file:
        file[key][index] = value


def test_the_labelled_test_split(labelled):
    (sample,) = [read() for read in nyu.labelled_readers(labelled, "test")]
    assert (sample.name, sample.source, sample.scene) == ("nyu/0000", "nyu", "nyu/kitchen_0004")
    assert sample.image.shape == (H, W, 3)
    assert sample.image.dtype == np.uint8
    assert sample.image[200, 300].tolist() == [100, 75, 0]  # rows and columns are where they belong
    assert sample.metric
    assert sample.shift_known
    assert sample.inverse_depth.dtype == np.float32
    assert sample.inverse_depth[200, 300] == 0.25
    assert sample.inverse_depth[50, 100] == 0
    assert sample.inverse_depth[0, 0] == 0.5


def test_the_white_frame_is_black_when_judged_and_cut_off_when_trained_on(labelled):
    (whole,) = [read() for read in nyu.labelled_readers(labelled, "test")]
    assert not whole.image[:7].any()
    assert not whole.image[474:].any()
    assert not whole.image[:, :7].any()
    assert not whole.image[:, 632:].any()
    assert whole.image[473, 631, :2].all()
    train = [read() for read in nyu.labelled_readers(labelled, "train")]
    assert [sample.name for sample in train] == ["nyu/0001", "nyu/0002"]
    assert [sample.scene for sample in train] == ["nyu/office_0001"] * 2
    assert train[0].image.shape == (427, 565, 3)
    assert train[0].inverse_depth.shape == (427, 565)
    assert train[0].inverse_depth[50 - 45, 100 - 43] == 0


def test_filled_depth_has_no_holes(labelled):
    (sample,) = [read() for read in nyu.labelled_readers(labelled, "test", "filled")]
    assert sample.inverse_depth.all()


def test_a_file_without_scenes_takes_every_picture_for_one(labelled):
    with h5py.File(labelled / nyu.LABELLED, "r+") as file:
        del file["scenes"]
    assert [read().scene for read in nyu.labelled_readers(labelled, "train")] == ["nyu/0001", "nyu/0002"]


@pytest.mark.parametrize(
    ("value", "says"), [(np.nan, "not finite"), (np.inf, "not finite"), (0, "no pixel has depth"), (-1, "negative")]
)
def test_depth_that_is_none_is_one_broken_picture(labelled, value, says):
    change(labelled, "rawDepths", 1, value)
    broken, good = nyu.labelled_readers(labelled, "train")
    with pytest.raises(BrokenSampleError, match=f"{nyu.LABELLED}, picture 1: .*{says}"):
        broken()
    assert good().inverse_depth.any()


def test_a_wrong_folder(tmp_path):
    with pytest.raises(TrainingError, match=rf"NYU Depth V2 not found: .*{nyu.LABELLED}; the folder must hold"):
        list(nyu.labelled_readers(tmp_path, "test"))


@pytest.mark.parametrize("content", [b"", b"MATLAB 7.3 MAT-file, torn", b"\x00" * 600])
@pytest.mark.parametrize("name", [nyu.LABELLED, nyu.SPLITS])
def test_torn_files(labelled, name, content):
    (labelled / name).write_bytes(content)
    with pytest.raises(TrainingError, match=rf"{name}: not a readable") as error:
        list(nyu.labelled_readers(labelled, "test"))
    assert "\n" not in str(error.value)


def test_files_that_lack_something(labelled):
    scipy.io.savemat(labelled / nyu.SPLITS, {"trainNdxs": [[2]]})
    with pytest.raises(TrainingError, match="no testNdxs in it"):
        list(nyu.labelled_readers(labelled, "test"))
    scipy.io.savemat(labelled / nyu.SPLITS, {"testNdxs": [[4]]})
    with pytest.raises(TrainingError, match="testNdxs does not fit the 3 pictures"):
        list(nyu.labelled_readers(labelled, "test"))
    with h5py.File(labelled / nyu.LABELLED, "r+") as file:
        del file["rawDepths"]
    with pytest.raises(TrainingError, match="no rawDepths in it"):
        list(nyu.labelled_readers(labelled, "test"))


def test_pictures_and_depth_of_different_sizes(labelled):
    with h5py.File(labelled / nyu.LABELLED, "r+") as file:
        del file["rawDepths"]
        file["rawDepths"] = np.ones((3, H, W), np.float32)
    with pytest.raises(TrainingError, match=r"pictures \(3, 3, 640, 480\), depth \(3, 480, 640\)"):
        list(nyu.labelled_readers(labelled, "test"))


def write_pair(folder: Path, photo: str, depth: str, size: tuple[int, int], stored: int) -> None:
    for name, pixels in ((photo, np.full((*size, 3), 90, np.uint8)), (depth, np.full(size, stored, np.uint16))):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(folder / name), pixels)


@pytest.fixture
def extracted(tmp_path: Path) -> Path:
    """Two pairs in the folders of BTS, and their list."""
    for number in ("00045", "00046"):
        write_pair(tmp_path, f"kitchen_0028b/rgb_{number}.jpg", f"kitchen_0028b/sync_depth_{number}.png", (H, W), 2500)
    lines = [f"/kitchen_0028b/rgb_{n}.jpg /kitchen_0028b/sync_depth_{n}.png 518.8579" for n in ("00045", "00046")]
    (tmp_path / "list.txt").write_text("\n".join(lines) + "\n\n")
    return tmp_path


def test_extracted_pairs(extracted):
    samples = [read() for read in nyu.pair_readers(extracted, extracted / "list.txt")]
    assert [sample.scene for sample in samples] == ["nyu/kitchen_0028b"] * 2
    assert samples[0].image.shape == (427, 565, 3)
    assert samples[0].inverse_depth.shape == (427, 565)
    assert np.allclose(samples[0].inverse_depth, 0.4)
    assert samples[0].metric


def test_pairs_that_cannot_be_read(extracted):
    folder = extracted / "kitchen_0028b"
    (folder / "rgb_00045.jpg").unlink()
    write_pair(extracted, "kitchen_0028b/rgb_00046.jpg", "kitchen_0028b/sync_depth_00046.png", (H, W), 0)
    missing, empty = nyu.pair_readers(extracted, extracted / "list.txt")
    with pytest.raises(BrokenSampleError, match=r"rgb_00045\.jpg"):
        missing()
    with pytest.raises(BrokenSampleError, match=r"sync_depth_00046.png: no pixel has depth"):
        empty()
    cv2.imwrite(str(folder / "sync_depth_00046.png"), np.full((H, W // 2), 9, np.uint16))
    with pytest.raises(BrokenSampleError, match=r"sync_depth_00046.png: depth \(480, 320\), its photo \(480, 640\)"):
        empty()
    cv2.imwrite(str(folder / "sync_depth_00046.png"), np.full((H, W), 9, np.uint8))
    with pytest.raises(BrokenSampleError, match=r"sync_depth_00046.png: depth must have 16 bit"):
        empty()


def test_lists_that_cannot_be_used(extracted, tmp_path):
    listed = extracted / "list.txt"
    with pytest.raises(TrainingError, match=r"data folder not found: .*nowhere"):
        read_list(listed, extracted / "nowhere", extracted)
    with pytest.raises(TrainingError, match=r"list .*none\.txt: "):
        read_list(extracted / "none.txt", extracted, extracted)
    (extracted / "other").mkdir()
    with pytest.raises(TrainingError, match=r"other holds none of the 2 photos of .*list\.txt"):
        read_list(listed, extracted / "other", extracted)
    listed.write_text("a.jpg\n")
    with pytest.raises(TrainingError, match=r"list .*, line 1: expected PHOTO DEPTH \[FOCAL\], found 'a.jpg'"):
        read_list(listed, extracted, extracted)
    listed.write_text("\n")
    with pytest.raises(TrainingError, match="is empty"):
        read_list(listed, extracted, extracted)


DRIVE = "2011_09_26/2011_09_26_drive_0002_sync"


@pytest.fixture
def drives(tmp_path: Path) -> Path:
    """A frame with truth, and one without, as in 45 of Eigen's 697."""
    photo, depth = f"{DRIVE}/image_02/data/0000000069.png", f"{DRIVE}/proj_depth/groundtruth/image_02/0000000069.png"
    write_pair(tmp_path, photo, depth, (375, 1242), 2560)
    (tmp_path / "list.txt").write_text(
        f"{photo} {depth} 721.5377\n{DRIVE}/image_02/data/0000000054.png None 721.5377\n"
    )
    return tmp_path


def test_kitti_frames(drives):
    (sample,) = [read() for read in kitti.judged_readers(drives, drives, drives / "list.txt")]
    assert sample.scene == "kitti/2011_09_26_drive_0002_sync"
    assert sample.image.shape == (375, 1242, 3)
    assert sample.inverse_depth.shape == (375, 1242)
    assert np.allclose(sample.inverse_depth, 0.1)
    assert sample.metric


def test_kitti_frames_to_train_on_are_cropped(drives):
    (sample,) = [read() for read in kitti.train_readers(drives, drives, drives / "list.txt")]
    assert sample.image.shape == (352, 1216, 3)
    assert sample.inverse_depth.shape == (352, 1216)


def test_the_benchmark_crop_is_at_the_bottom_and_in_the_middle():
    assert kitti.benchmark_crop((375, 1242)) == (slice(23, 375), slice(13, 1229))
    assert kitti.benchmark_crop((352, 1216)) == (slice(0, 352), slice(0, 1216))
    with pytest.raises(ValueError, match="a frame of 351 x 1242"):
        kitti.benchmark_crop((351, 1242))


def test_a_small_frame_is_broken_and_not_the_end(drives):
    photo, depth = f"{DRIVE}/image_02/data/0000000069.png", f"{DRIVE}/proj_depth/groundtruth/image_02/0000000069.png"
    write_pair(drives, photo, depth, (300, 1242), 2560)
    (read,) = kitti.train_readers(drives, drives, drives / "list.txt")
    with pytest.raises(BrokenSampleError, match=r"0000000069: a frame of 300 x 1242 has no crop"):
        read()


def test_what_a_network_saw_in_the_crop_is_put_back():
    seen = []

    def predict(image):
        seen.append(image.shape)
        return np.full(image.shape[:2], 7, np.float32)

    depth = kitti.in_benchmark_crop(predict)(np.zeros((375, 1242, 3), np.uint8))
    assert seen == [(352, 1216, 3)]
    assert depth.shape == (375, 1242)
    assert np.isnan(depth[:23]).all()
    assert (depth[23:, 13:1229] == 7).all()
    assert np.isnan(depth).sum() == 375 * 1242 - 352 * 1216


@pytest.fixture
def checkpoint(tiny, tmp_path) -> Path:
    state = make_network(tiny, FirstWeights()).state_dict()
    path = tmp_path / "run" / "last.pt"
    save_checkpoint(path, Checkpoint(0, state, state, {}, tiny, "abc", {}))
    return path


def test_benchmark_on_nyu(checkpoint, labelled, capsys):
    told = ["benchmark", "--checkpoint", str(checkpoint), "--nyu", str(labelled), "--size", "96x128", "--threads", "1"]
    assert main([*told, "--protocol", "nyu_zero_shot", "--flip"]) == 0
    found = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert found["pictures"] == "1.0000"
    assert float(found["delta1"]) > 0.9  # the truth is all but constant, and so is what fits it best
    assert main([*told, "--protocol", "nyu_eigen"]) == 1
    assert "the network gives relative inverse depth" in capsys.readouterr().err


def test_benchmark_counts_broken_pictures(checkpoint, labelled, capsys):
    change(labelled, "rawDepths", 0, 0)
    told = ["benchmark", "--checkpoint", str(checkpoint), "--nyu", str(labelled), "--size", "96x128"]
    assert main([*told, "--protocol", "nyu_zero_shot"]) == 1
    errors = capsys.readouterr().err
    assert "1 broken pictures left out, first: " in errors
    assert errors.endswith("error: none of 1 pictures can be judged by nyu_zero_shot\n")


def test_benchmark_on_kitti(checkpoint, drives, capsys):
    told = ["benchmark", "--checkpoint", str(checkpoint), "--protocol", "kitti_zero_shot", "--size", "32x64"]
    assert main(told) == 1
    assert capsys.readouterr().err.endswith("needs KITTI: give --kitti and --kitti-list\n")
    assert main([*told, "--kitti", str(drives), "--kitti-list", str(drives / "list.txt")]) == 0
    assert "pictures     1.0000" in capsys.readouterr().out
