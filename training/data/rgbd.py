"""Photos with inverse depth (`data/rgbd`): LiDAR, depth cameras, renderings and published results of teachers.

Truth beside `name.jpg` is `name.inv8.png` (8 bit, relative inverse depth, 0 = none) or `name.depth.png` (16 bit
depth in mm, 0 = none). `name.dep8.png` is depth of unknown offset: inverting it would be wrong, so these pairs are
left out.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from training.data.sample import BrokenSampleError, Sample, read_gray, read_rgb

RGBD_SETS = (
    "aims_lab",
    "arkit_desk",
    "da1_gallery",
    "da3_page",
    "depthcrafter_page",
    "dynvideodepth_page",
    "planehec",
    "synth_room",
    "wildrgbd_page",
)
"""Folders of `rgbd/` with inverse depth or metric depth."""

_M_PER_STORED = 1e-3  # stated for aims_lab and planehec; arkit_desk and synth_room state no unit, their numbers fit mm

_ONE_SCENE = {"aims_lab", "arkit_desk", "planehec", "synth_room"}


def scene_of(source: str, stem: str) -> str:
    """Name of the scene a frame belongs to: its name without the frame number at the end."""
    if source in _ONE_SCENE:
        return source
    return f"{source}/{re.sub(r'_?[0-9]+$', '', stem)}"


def read_inverse_depth(path: Path) -> npt.NDArray[np.float32]:
    """Inverse depth, float32 (H, W), 0 = none, of an `.inv8.png` (0..1) or a `.depth.png` (in 1/m).

    Raises:
        BrokenSampleError: Unreadable, or neither kind.
    """
    stored = read_gray(path)
    if path.name.endswith(".inv8.png"):
        return (stored / np.float32(255)).astype(np.float32)
    if path.name.endswith(".depth.png"):
        depth = stored.astype(np.float32) * np.float32(_M_PER_STORED)
        return np.divide(1, depth, out=np.zeros_like(depth), where=depth > 0)
    raise BrokenSampleError(f"{path}: neither .inv8.png nor .depth.png")


def read_pairs(root: Path, source: str) -> Iterator[Path]:
    """Photos of one set under `root`/rgbd that have inverse or metric depth, in order."""
    for photo in sorted((root / "rgbd" / source).glob("*.jpg")):
        if any(photo.with_suffix(end).is_file() for end in (".inv8.png", ".depth.png")):
            yield photo


def read_sample(root: Path, photo: Path) -> Sample:
    """The pair of one photo, without person labels.

    Raises:
        BrokenSampleError: Either file is unreadable.
    """
    image = read_rgb(photo)
    inverse8 = photo.with_suffix(".inv8.png")
    measured = not inverse8.is_file()
    inverse = read_inverse_depth(photo.with_suffix(".depth.png") if measured else inverse8)
    if inverse.shape != image.shape[:2]:
        size = (image.shape[1], image.shape[0])
        inverse = cv2.resize(inverse, size, interpolation=cv2.INTER_NEAREST).astype(np.float32, copy=False)
    source = photo.parent.name
    name = str(photo.relative_to(root).with_suffix(""))
    scene = scene_of(source, photo.stem)
    return Sample(name, source, scene, image, inverse_depth=inverse, shift_known=measured, metric=measured)
