"""KITTI (Geiger et al., IJRR 2013) with the depth of Uhrig et al. (3DV 2017), from files of the user's own.

Photos and depth lie in two folders, the pairs are named by a list (`training.data.pairs`): Eigen's 697 pictures to
judge on, of which 652 have such depth, or 23,158 to train on. Nothing is downloaded.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from service.contract import Size
from training.data.pairs import Pair, read_list, read_pair
from training.data.sample import BrokenSampleError, Sample

SOURCE = "kitti"
CROP_SIZE = (352, 1216)
"""(height, width) of the KITTI benchmark's crop: bottom and centre of a frame."""

_M_PER_STORED = 1 / 256


def benchmark_crop(size: Size) -> tuple[slice, slice]:
    """Rows and columns of the benchmark's crop in a frame of `size`.

    Raises:
        ValueError: The frame is smaller.
    """
    top, left = size[0] - CROP_SIZE[0], (size[1] - CROP_SIZE[1]) // 2
    if top < 0 or left < 0:
        raise ValueError(f"a frame of {size[0]} x {size[1]} has no crop of {CROP_SIZE[0]} x {CROP_SIZE[1]}")
    return slice(top, top + CROP_SIZE[0]), slice(left, left + CROP_SIZE[1])


def cropped(sample: Sample) -> Sample:
    """What of a sample lies in the benchmark's crop."""
    try:
        crop = benchmark_crop((sample.image.shape[0], sample.image.shape[1]))
    except ValueError as error:
        raise BrokenSampleError(f"{sample.name}: {error}") from error
    inverse = None if sample.inverse_depth is None else sample.inverse_depth[crop]
    return replace(sample, image=sample.image[crop], inverse_depth=inverse)


def in_benchmark_crop(
    predict: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]],
) -> Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]:
    """A predictor of whole frames from one that sees the benchmark's crop; not a number outside it.

    Both of the customary crops of truth lie inside it.
    """

    def whole(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        crop = benchmark_crop((image.shape[0], image.shape[1]))
        depth = np.full(image.shape[:2], np.nan, np.float32)
        depth[crop] = predict(np.ascontiguousarray(image[crop]))
        return depth

    return whole


def judged_readers(photos: Path, depths: Path, listed: Path) -> Iterator[Callable[[], Sample]]:
    """Readers of the listed frames that have truth, whole.

    Raises:
        TrainingError: See `training.data.pairs.read_list`.
    """
    for pair in read_list(listed, photos, depths):
        if pair.depth is not None:
            yield partial(_read, pair)


def train_readers(photos: Path, depths: Path, listed: Path) -> Iterator[Callable[[], Sample]]:
    """The same in the benchmark's crop, to train on; a scene is a drive."""
    for read in judged_readers(photos, depths, listed):
        yield partial(_cropped, read)


def _cropped(read: Callable[[], Sample]) -> Sample:
    return cropped(read())


def _read(pair: Pair) -> Sample:
    return read_pair(pair, SOURCE, f"{SOURCE}/{_drive(pair.photo)}", _M_PER_STORED)


def _drive(photo: Path) -> str:
    """`2011_09_26_drive_0002_sync` of a photo somewhere below a folder of that name, else its folder."""
    drives = [part for part in photo.parts if "_drive_" in part]
    return drives[0] if drives else photo.parent.name
