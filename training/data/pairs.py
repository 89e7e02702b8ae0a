"""Pairs of a photo and its depth in metres, by lists of file names: the form in which NYU and KITTI splits circulate.

A line of such a list is `PHOTO DEPTH FOCAL`: two paths below their folders, with or without a leading slash, and the
focal length in pixels, which may be left out. DEPTH is `None` for photos without truth. The lists of BTS, AdaBins and
LapDepth have this form.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.data.sample import BrokenSampleError, Sample, read_gray, read_rgb
from training.errors import TrainingError


@dataclass(frozen=True)
class Pair:
    """A line of a list; `depth` is None where there is no truth."""

    photo: Path
    depth: Path | None


def read_list(listed: Path, photos: Path, depths: Path) -> list[Pair]:
    """The pairs of a list, in its order.

    Args:
        listed: The list.
        photos: Folder of its photos.
        depths: Folder of its depth files.

    Raises:
        TrainingError: A folder or the list is missing, a line is not one, or the folders hold nothing of the list.
    """
    for folder in (photos, depths):
        if not folder.is_dir():
            raise TrainingError(f"data folder not found: {folder}")
    try:
        lines = listed.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"list {listed}: {error}") from error
    pairs = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        if len(words) not in (2, 3):
            raise TrainingError(f"list {listed}, line {number}: expected PHOTO DEPTH [FOCAL], found {line[:80]!r}")
        photo, depth = (word.lstrip("/") for word in words[:2])
        pairs.append(Pair(photos / photo, None if depth == "None" else depths / depth))
    if not pairs:
        raise TrainingError(f"list {listed} is empty")
    if not any(pair.photo.is_file() for pair in pairs):
        raise TrainingError(
            f"{photos} holds none of the {len(pairs)} photos of {listed}, the first is {pairs[0].photo}"
        )
    return pairs


def read_depth_png(path: Path, m_per_stored: float) -> npt.NDArray[np.float32]:
    """Inverse depth in 1/m, float32 (H, W), 0 = none, of a 16-bit PNG of depth.

    Raises:
        BrokenSampleError: Unreadable, not 16 bit, or without any depth.
    """
    stored = read_gray(path)
    if stored.dtype != np.uint16:
        raise BrokenSampleError(f"{path}: depth must have 16 bit, found {stored.dtype}")
    return inverse_of(stored.astype(np.float32) * np.float32(m_per_stored), str(path))


def inverse_of(depth_m: npt.NDArray[np.float32], where: str) -> npt.NDArray[np.float32]:
    """Inverse depth in 1/m of depth, both float32 (H, W) with 0 = none.

    Raises:
        BrokenSampleError: Depth that is infinite, negative or not a number, or nowhere any; `where` is named.
    """
    if not np.isfinite(depth_m).all():
        raise BrokenSampleError(f"{where}: {int((~np.isfinite(depth_m)).sum())} depths are not finite")
    if depth_m.min() < 0:
        raise BrokenSampleError(f"{where}: negative depth {depth_m.min():g} m")
    if depth_m.max() == 0:
        raise BrokenSampleError(f"{where}: no pixel has depth")
    return np.divide(1, depth_m, out=np.zeros_like(depth_m), where=depth_m > 0)


def read_pair(pair: Pair, source: str, scene: str, m_per_stored: float) -> Sample:
    """The sample of a pair; one without depth has no `inverse_depth`.

    Raises:
        BrokenSampleError: A file is missing or unreadable, depth and photo differ in size, or no pixel has depth.
    """
    image = read_rgb(pair.photo)
    name = str(pair.photo.with_suffix(""))
    if pair.depth is None:
        return Sample(name, source, scene, image)
    inverse = read_depth_png(pair.depth, m_per_stored)
    if inverse.shape != image.shape[:2]:
        raise BrokenSampleError(f"{pair.depth}: depth {inverse.shape}, its photo {image.shape[:2]}")
    return Sample(name, source, scene, image, inverse_depth=inverse, shift_known=True, metric=True)
