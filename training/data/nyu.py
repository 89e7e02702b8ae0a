"""NYU Depth V2 (Silberman et al., ECCV 2012) from files of the user's own; nothing is downloaded.

Two forms: the labelled part as its authors publish it, `nyu_depth_v2_labeled.mat` and `splits.mat` in one folder, 795
pictures to train on and 654 to judge on; and pairs of the raw part that others have extracted (`training.data.pairs`,
depth in millimetres), for example the 24,231 of BTS.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import numpy.typing as npt
import scipy.io

from training.data.pairs import Pair, inverse_of, read_list, read_pair
from training.data.sample import BrokenSampleError, Sample
from training.errors import TrainingError

LABELLED, SPLITS = "nyu_depth_v2_labeled.mat", "splits.mat"
SOURCE = "nyu"

Split = Literal["train", "test"]
Holes = Literal["raw", "filled"]

_INDEX_OF: dict[Split, str] = {"train": "trainNdxs", "test": "testNdxs"}
_DEPTH_OF: dict[Holes, str] = {"raw": "rawDepths", "filled": "depths"}
_M_PER_STORED = 1e-3  # of the extracted pairs
# the photos have a white frame; judging leaves it black as BTS does, training cuts it off
_SEEN = (slice(7, 474), slice(7, 632))
_INSIDE = (slice(45, 472), slice(43, 608))


@dataclass(frozen=True)
class Labelled:
    """The two files, opened for each picture anew.

    Attributes:
        folder: Where they are.
        holes: `raw` is what the camera measured, the depth networks are judged by; `filled` has its holes inpainted.
    """

    folder: Path
    holes: Holes = "raw"

    def __post_init__(self) -> None:
        """Refuses a folder without the files."""
        for path in (self.file, self.folder / SPLITS):
            if not path.is_file():
                raise TrainingError(f"NYU Depth V2 not found: {path}; the folder must hold {LABELLED} and {SPLITS}")

    @property
    def file(self) -> Path:
        """The pictures."""
        return self.folder / LABELLED

    def indices(self, split: Split) -> list[int]:
        """Positions of a split's pictures in the file, from 0.

        Raises:
            TrainingError: A file is not what it should be, or they do not belong together.
        """
        path = self.folder / SPLITS
        try:
            stored: dict[str, Any] = scipy.io.loadmat(path)
        except Exception as error:  # torn bytes lead SciPy's reader to errors of any class
            raise TrainingError(f"{path}: not a readable MATLAB file: {error!r}") from error
        if _INDEX_OF[split] not in stored:
            raise TrainingError(f"{path}: no {_INDEX_OF[split]} in it")
        found = [int(index) - 1 for index in np.ravel(stored[_INDEX_OF[split]])]
        with self._opened() as file:
            images, depths = (self._array(file, key) for key in ("images", _DEPTH_OF[self.holes]))
            count = images.shape[0]
            if images.ndim != 4 or images.shape[1] != 3 or depths.shape != (count, *images.shape[2:]):
                raise TrainingError(f"{self.file}: pictures {images.shape}, depth {depths.shape}")
        if not found or min(found) < 0 or max(found) >= count:
            raise TrainingError(f"{path}: {_INDEX_OF[split]} does not fit the {count} pictures of {self.file}")
        return found

    def read(self, index: int) -> Sample:
        """One picture, 480 x 640, its white frame made black.

        Raises:
            BrokenSampleError: It cannot be read, or its depth holds nothing, or what is no depth.
        """
        where = f"{self.file}, picture {index}"
        try:
            with self._opened() as file:
                # MATLAB stores columns first: (3, width, height)
                stored: npt.NDArray[np.uint8] = self._array(file, "images")[index]
                depth: npt.NDArray[np.float32] = self._array(file, _DEPTH_OF[self.holes])[index]
                scene = self._scene(file, index)
        except (OSError, TrainingError) as error:
            raise BrokenSampleError(f"{where}: {error}") from error
        image = np.zeros((stored.shape[2], stored.shape[1], 3), np.uint8)
        image[_SEEN] = stored.transpose(2, 1, 0)[_SEEN]
        inverse = inverse_of(np.ascontiguousarray(depth.T, dtype=np.float32), where)
        return Sample(f"{SOURCE}/{index:04d}", SOURCE, scene, image, inverse, shift_known=True, metric=True)

    def _opened(self) -> Any:
        try:
            return h5py.File(self.file, "r")
        except OSError as error:
            raise TrainingError(f"{self.file}: not a readable HDF5 file: {str(error).splitlines()[0]}") from error

    def _array(self, file: Any, key: str) -> Any:
        if key not in file:
            raise TrainingError(f"{self.file}: no {key} in it")
        return file[key]

    def _scene(self, file: Any, index: int) -> str:
        """Name of the room, as the file says it; pictures of a room share it."""
        if "scenes" not in file:
            return f"{SOURCE}/{index:04d}"
        letters = np.ravel(file[file["scenes"][0, index]][()])
        return f"{SOURCE}/{''.join(chr(letter) for letter in letters)}"


def without_frame(sample: Sample) -> Sample:
    """A 480 x 640 sample less its white frame, 427 x 565: what BTS and AdaBins train on."""
    inverse = sample.inverse_depth
    if inverse is None or inverse.shape != (480, 640):
        raise BrokenSampleError(f"{sample.name}: NYU pictures are 480 x 640, this is {sample.image.shape[:2]}")
    return replace(sample, image=sample.image[_INSIDE], inverse_depth=inverse[_INSIDE])


def labelled_readers(folder: Path, split: Split, holes: Holes = "raw") -> Iterator[Callable[[], Sample]]:
    """Readers of a split of the labelled part: whole pictures of `test`, those of `train` without their frame.

    Raises:
        TrainingError: The files are not there, or not what they should be.
    """
    labelled = Labelled(folder, holes)
    for index in labelled.indices(split):
        yield partial(_framed, labelled, index) if split == "train" else partial(labelled.read, index)


def _framed(labelled: Labelled, index: int) -> Sample:
    return without_frame(labelled.read(index))


def pair_readers(folder: Path, listed: Path) -> Iterator[Callable[[], Sample]]:
    """Readers of extracted pairs to train on, without their frame; a scene is a folder.

    Raises:
        TrainingError: See `training.data.pairs.read_list`.
    """
    for pair in read_list(listed, folder, folder):
        if pair.depth is not None:
            yield partial(_extracted, pair)


def _extracted(pair: Pair) -> Sample:
    return without_frame(read_pair(pair, SOURCE, f"{SOURCE}/{pair.photo.parent.name}", _M_PER_STORED))
