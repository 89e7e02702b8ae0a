"""Rectified pairs and sequences of them, with whatever truth there is: drawn worlds, Middlebury, KITTI, own folders."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from service.contract import Size
from training.data.domains import STYLES, Domain, photographed
from training.data.layered import Kind, build_world, pose, render
from training.data.sample import BrokenSampleError, Sample, read_gray, read_rgb
from training.data.synthetic.dataset import read_scenes
from training.data.synthetic.stereo import disparity_px, occluded
from training.errors import TrainingError

SEQUENCE_SIZE: Size = (64, 128)
"""Height and width of drawn sequences."""

SOURCE = "layered"
"""Name of drawn pairs in recipes."""
RENDERED = "rendered"
"""Name of rendered pairs in recipes."""

_KITTI_UNIT = 1 / 256
_SPLITS = ("training", "testing", "")


@dataclass(frozen=True, slots=True)
class StereoFrame:
    """One rectified pair.

    Attributes:
        name: Of the frame.
        left: uint8 (H, W, 3) RGB.
        right: The same size.
        disparity_px: float32 (H, W), of the left picture, 0 = unknown; None without truth.
        occluded: bool (H, W), left pixels that the right camera does not see; None where that is unknown.
        focal_px: Focal length in pixels; None where unknown.
        baseline_m: Distance of the cameras; None where unknown.
    """

    name: str
    left: npt.NDArray[np.uint8]
    right: npt.NDArray[np.uint8]
    disparity_px: npt.NDArray[np.float32] | None = None
    occluded: npt.NDArray[np.bool_] | None = None
    focal_px: float | None = None
    baseline_m: float | None = None

    def sample(self, source: str, scene: str) -> Sample:
        """As the trainer's banks hold it."""
        return Sample(
            self.name, source, scene, self.left, shift_known=True, right=self.right, disparity_px=self.disparity_px
        )


def layered_sequence(
    domain: Domain, seed: int, frames: int, size: Size = SEQUENCE_SIZE, kind: Kind | None = None
) -> Iterator[StereoFrame]:
    """Consecutive frames of a camera that goes through the world of a seed; the same seed gives the same bytes."""
    world = build_world(seed, frames, kind, STYLES[domain])
    for frame in range(frames):
        left = pose(world, frame)
        views = [render(world, camera, size) for camera in (left, left.moved_right(world.baseline_m))]
        focal_px = world.field * size[1]
        inverse = [view.inverse_depth for view in views]
        pictures = [
            photographed(domain, view.image, view.inverse_depth, np.random.default_rng([seed, frame, side]))
            for side, view in enumerate(views)
        ]
        yield StereoFrame(
            f"{domain}_{seed}/{frame:04d}",
            pictures[0],
            pictures[1],
            disparity_px(inverse[0], focal_px * world.baseline_m),
            occluded(inverse[0], inverse[1], focal_px * world.baseline_m),
            focal_px,
            world.baseline_m,
        )


def stereo_readers(
    count: int, size: Size = SEQUENCE_SIZE, scenes: Path | None = None
) -> Iterator[tuple[str, Callable[[], Sample]]]:
    """Readers of what stereo networks learn from: `count` drawn worlds, a pair each, and rendered pairs in `scenes`."""
    for seed in range(count):
        yield SOURCE, partial(layered_sample, seed, size)
    for path in read_scenes(scenes) if scenes is not None else ():
        yield RENDERED, partial(read_rendered, path)


def read_rendered(path: Path) -> Sample:
    """A pair that `synth --stereo` wrote, by its JSON; the sky's disparity of 0 is unknown here.

    Raises:
        BrokenSampleError: A file is missing or damaged, or the scene is no pair.
    """
    try:
        scale = float(json.loads(path.read_text())["disparity_scale_px"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokenSampleError(f"{path}: no rendered pair: {error}") from error
    disparity = (read_gray(path.with_suffix(".disp.png")) * np.float32(scale)).astype(np.float32)
    frame = _frame(path.stem, path.with_suffix(".jpg"), path.with_suffix(".right.jpg"), disparity)
    return frame.sample(RENDERED, path.stem)


def layered_sample(seed: int, size: Size) -> Sample:
    """One pair of a clean world of its own, to train on."""
    return next(layered_sequence("clean", seed, 1, size)).sample(SOURCE, f"{SOURCE}/{seed}")


def stereo_truth(root: Path) -> Iterator[tuple[str, StereoFrame]]:
    """Set and pair of each entry with a right view in `root`/truth_depth/index.json.

    Raises:
        TrainingError: No index there.
        BrokenSampleError: A file is unreadable.
    """
    index = root / "truth_depth" / "index.json"
    if not index.is_file():
        raise TrainingError(f"stereo truth not found: {index}; give the data folder with --data")
    for entry in json.loads(index.read_text()):
        if entry.get("right"):
            stored = read_gray(root / entry["gt"]).astype(np.float32) * np.float32(entry["unit"])
            paths = root / entry["rgb"], root / entry["right"]
            yield entry["set"], _frame(Path(entry["rgb"]).stem, *paths, stored)


def read_middlebury(folder: Path) -> StereoFrame:
    """A scene of Middlebury: `im0.png`, `im1.png`, `disp0.pfm`, `calib.txt` (2014), or `im2`, `im6`, `disp2` (2003).

    The disparities of 2003 are stored four times as large at quarter size, the one that is handed out.

    Raises:
        BrokenSampleError: A file is missing or unreadable.
    """
    if (folder / "im0.png").is_file():
        disparity = read_pfm(folder / "disp0.pfm")
        disparity = np.where(np.isfinite(disparity), disparity, 0).astype(np.float32)
        calibration = _read_calibration(folder / "calib.txt")
        return _frame(folder.name, folder / "im0.png", folder / "im1.png", disparity, *calibration)
    for ending in (".png", ".ppm"):
        if (left := folder / f"im2{ending}").is_file():
            path = next((folder / name for name in ("disp2.png", "disp2.pgm") if (folder / name).is_file()), None)
            stored = None if path is None else (read_gray(path) / np.float32(4)).astype(np.float32)
            return _frame(folder.name, left, folder / f"im6{ending}", stored)
    raise BrokenSampleError(f"{folder}: no scene of Middlebury: neither im0.png nor im2.png")


def read_pfm(path: Path) -> npt.NDArray[np.float32]:
    """A one-channel portable float map, float32 (H, W), top row first; BrokenSampleError when it is none."""
    try:
        header, size, scale, body = path.read_bytes().split(b"\n", 3)
        width, height = (int(side) for side in size.split())
        order = "<f4" if float(scale) < 0 else ">f4"
        values = np.frombuffer(body, order, width * height).reshape(height, width)
    except (OSError, ValueError) as error:
        raise BrokenSampleError(f"{path}: {error}") from error
    if header.strip() != b"Pf":
        raise BrokenSampleError(f"{path}: not a portable float map of one channel")
    return values[::-1].astype(np.float32)


def _read_calibration(path: Path) -> tuple[float | None, float | None]:
    """Focal length in pixels and baseline in metres of a Middlebury `calib.txt`; None where it does not say."""
    if not path.is_file():
        return None, None
    values = dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)
    focal = values.get("cam0", "").strip("[ ").split(" ", 1)[0]
    baseline = values.get("baseline")
    return float(focal) if focal else None, float(baseline) / 1000 if baseline else None


_LAYOUTS = (
    ("image_2", "image_3", ("disp_occ_0", "disp_noc_0")),  # KITTI 2015
    ("colored_0", "colored_1", ("disp_occ", "disp_noc")),  # KITTI 2012
    ("image_02/data", "image_03/data", ()),  # KITTI raw
    ("left", "right", ("disparity",)),  # own, and the sequences of `stereo_seq`
)


def read_folder(folder: Path) -> Iterator[StereoFrame]:
    """Frames of a folder in order: KITTI 2015, 2012 or raw, a scene of Middlebury, or `left`, `right` (, `disparity`).

    Truth is 16-bit PNG, 256 = one pixel. Grey pictures become RGB.

    Raises:
        TrainingError: It is no such folder.
        BrokenSampleError: A file is unreadable, or a pair not of one size.
    """
    for split in _SPLITS:
        for left_name, right_name, truth_names in _LAYOUTS:
            lefts = sorted(path for path in (folder / split / left_name).glob("*.*") if _is_picture(path))
            for left in lefts:
                truths = (folder / split / name / f"{left.stem}.png" for name in truth_names)
                truth = next((path for path in truths if path.is_file()), None)
                stored = None if truth is None else (read_gray(truth) * np.float32(_KITTI_UNIT)).astype(np.float32)
                yield _frame(left.stem, left, folder / split / right_name / left.name, stored)
            if lefts:
                return
    try:
        scene = read_middlebury(folder)
    except BrokenSampleError as error:
        raise TrainingError(
            f"{folder}: no stereo pairs; expected left/ and right/, a layout of KITTI, or a scene of Middlebury"
        ) from error
    yield scene


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in (".png", ".jpg", ".jpeg", ".ppm")


def _frame(
    name: str,
    left: Path,
    right: Path,
    disparity: npt.NDArray[np.float32] | None,
    focal_px: float | None = None,
    baseline_m: float | None = None,
) -> StereoFrame:
    pictures = read_rgb(left), read_rgb(right)
    sizes = {picture.shape[:2] for picture in pictures} | ({disparity.shape} if disparity is not None else set())
    if len(sizes) > 1:
        found = " and ".join(str(size) for size in sorted(sizes))
        raise BrokenSampleError(f"{left}, its right picture and its truth are of {found}; expected one size")
    return StereoFrame(name, *pictures, disparity, None, focal_px, baseline_m)


def reduced(frame: StereoFrame, width: int) -> StereoFrame:
    """The frame at most `width` pixels wide, its proportions kept; disparity in pixels of the new size."""
    height, old = frame.left.shape[:2]
    if old <= width:
        return frame
    size = (width, round(height * width / old))
    left, right = (
        cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
        for picture in (frame.left, frame.right)
    )
    disparity, hidden, scale = frame.disparity_px, frame.occluded, width / old
    if disparity is not None:
        disparity = (cv2.resize(disparity, size, interpolation=cv2.INTER_NEAREST) * scale).astype(np.float32)
    if hidden is not None:
        hidden = cv2.resize(hidden.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)
    focal_px = None if frame.focal_px is None else frame.focal_px * scale
    return StereoFrame(frame.name, left, right, disparity, hidden, focal_px, frame.baseline_m)
