"""Stereo sequences (`data/stereo_seq`): left pictures with disparity that semi-global matching proposes.

Tonioni et al., "Unsupervised Domain Adaptation for Depth Prediction from Images", arXiv:1909.03943, train on such
proxy labels where no truth is; a left-right check is the confidence here, binary: what both views agree on stays.
"""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from training.data.sample import BrokenSampleError, Sample, read_gray, read_rgb
from training.proxies import disagreement, semi_global

STEREO_SETS = ("kitti_seq1", "kitti_seq2", "euroc_micro")
"""Folders of `stereo_seq/`."""

_MAX_DISPARITY = 112  # pixels; a multiple of 16
_AGREEMENT = 1.0  # pixels both directions may differ by
_SPECKLE = 120  # pixels; smaller islands of disparity are noise
SCALE = 256
"""Stored value of one pixel of disparity."""


def read_frames(root: Path, source: str) -> Iterator[tuple[Path, Path]]:
    """(left, right) pictures of one sequence under `root`/stereo_seq, in order."""
    folder = root / "stereo_seq" / source
    for left in sorted((folder / "left").glob("*.jpg")):
        yield left, folder / "right" / left.name


def read_pair(left: Path, right: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Both pictures in grey, uint8 (H, W) each.

    Raises:
        BrokenSampleError: One is unreadable, or they are not of one size and 8 bit.
    """
    pictures = read_gray(left), read_gray(right)
    if pictures[0].shape != pictures[1].shape or any(picture.dtype != np.uint8 for picture in pictures):
        found = " and ".join(f"{picture.dtype} {picture.shape}" for picture in pictures)
        raise BrokenSampleError(f"{left} and its right picture: {found}; expected 8 bit of one size")
    return pictures[0].astype(np.uint8, copy=False), pictures[1].astype(np.uint8, copy=False)


def proxy_disparity(left: npt.NDArray[np.uint8], right: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Disparity of a rectified pair by semi-global matching (Hirschmueller, TPAMI 2008; OpenCV's block variant).

    Args:
        left: (H, W) or (H, W, 3).
        right: The same.

    Returns:
        float32 (H, W) pixels, of the left picture; 0 where there is none or the two directions disagree.
    """
    match = semi_global(left, right, _MAX_DISPARITY, checked=True)
    agreed = disagreement(match) <= _AGREEMENT
    stored = np.where(agreed, match.disparity_px * 16, 0).astype(np.int16)
    cv2.filterSpeckles(stored, 0, _SPECKLE, 16)
    return (stored / np.float32(16)).astype(np.float32)


def read_sample(root: Path, left: Path, labels: Path) -> Sample:
    """A left picture with the disparity that `label` stored; the sequence is its scene.

    Raises:
        BrokenSampleError: Either file is unreadable, or their sizes differ.
    """
    image = read_rgb(left)
    relative = left.relative_to(root).with_suffix(".png")
    disparity = read_gray(labels / relative).astype(np.float32) / SCALE
    if disparity.shape != image.shape[:2]:
        raise BrokenSampleError(f"{labels / relative}: {disparity.shape}, its photo {image.shape[:2]}")
    source = left.parts[-3]
    return Sample(str(relative.with_suffix("")), source, source, image, inverse_depth=disparity, shift_known=True)
