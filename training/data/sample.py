"""One training sample and the file readers that all datasets share."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from training.errors import TrainingError


class BrokenSampleError(TrainingError):
    """A file of one sample cannot be read: a training set counts it and goes on, elsewhere it is an error."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture with whatever truth there is; arrays share (H, W).

    Attributes:
        name: Path relative to the data root, without suffix.
        source: Name of the set it comes from.
        scene: Frames of one scene share it; splits never cut a scene.
        image: uint8 (H, W, 3) RGB.
        inverse_depth: float32 (H, W), relative inverse depth, larger = nearer, 0 = no data; None without truth.
        person: uint8 (H, W), how much of the pixel shows a person, 255 all, 0 nothing; 127 ignore; None without truth.
        shift_known: Whether `inverse_depth` 0 is infinitely far; a stored colour map has lost its shift.
        metric: Whether `inverse_depth` is in 1/m, so that 1 / `inverse_depth` is depth in metres.
        base_depths_m: float16 (H, W, K), what K base networks said of it (`training.stacking`), metres; None = nothing.
        right: uint8 (H, W, 3) RGB, what the right camera of a rectified pair sees; None without.
        disparity_px: float32 (H, W), pixels of `image` that the match in `right` lies further left, 0 = unknown; None
            without truth.
        proxy_px: float32 (H, W), the same as a matcher says it (`training.proxies`), 0 = nothing; None without.
        confidence: float32 (H, W), 0..1, how far `proxy_px` can be trusted; None without.
        votes: float32 (H, W, 4), per pixel of a person: dx and dy to the person's chest in pixels, the person's height
            in pixels, the person's number from 1 on; all 0 = nobody; None without. `inverse_depth` and `person` are
            then no truth, but maps as a network of the service gives them.
    """

    name: str
    source: str
    scene: str
    image: npt.NDArray[np.uint8]
    inverse_depth: npt.NDArray[np.float32] | None = None
    person: npt.NDArray[np.uint8] | None = None
    shift_known: bool = False
    metric: bool = False
    base_depths_m: npt.NDArray[np.float16] | None = None
    right: npt.NDArray[np.uint8] | None = None
    disparity_px: npt.NDArray[np.float32] | None = None
    proxy_px: npt.NDArray[np.float32] | None = None
    confidence: npt.NDArray[np.float32] | None = None
    votes: npt.NDArray[np.float32] | None = None


def checked(sample: Sample) -> Sample:
    """`sample`, if its arrays fit together and say something.

    Raises:
        BrokenSampleError: Truth of another size than the picture, depth that is not a number or below 0, no truth.
    """
    size, depth, person = sample.image.shape[:2], sample.inverse_depth, sample.person
    disparities = sample.disparity_px, sample.proxy_px
    for truth in (depth, person, sample.confidence, *disparities):
        if truth is not None and truth.shape != size:
            raise BrokenSampleError(f"{sample.name}: truth of {truth.shape}, its picture {size}")
    for values, what in ((depth, "depth"), *((disparity, "disparity") for disparity in disparities)):
        if values is not None and not (np.isfinite(values).all() and values.min() >= 0):
            raise BrokenSampleError(f"{sample.name}: {what} that is infinite, not a number or below 0")
    if sample.votes is not None and (sample.votes.shape != (*size, 4) or not np.isfinite(sample.votes).all()):
        raise BrokenSampleError(f"{sample.name}: votes of {sample.votes.shape} or infinite, its picture {size}")
    known = any(values is not None and values.any() for values in (depth, *disparities))
    if person is None and not known:
        raise BrokenSampleError(f"{sample.name}: no pixel has truth")
    return sample


def read_rgb(path: Path) -> npt.NDArray[np.uint8]:
    """RGB uint8 (H, W, 3) of a picture file, EXIF orientation applied; BrokenSampleError when unreadable."""
    image = _imread(path, cv2.IMREAD_COLOR)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def read_gray(path: Path) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """One-channel picture (H, W), 8 or 16 bit as stored; BrokenSampleError when unreadable."""
    image = _imread(path, cv2.IMREAD_UNCHANGED)
    if image.ndim != 2 or image.dtype not in (np.uint8, np.uint16):
        raise BrokenSampleError(f"{path}: expected one channel of 8 or 16 bit, found {image.dtype} {image.shape}")
    return image


def _imread(path: Path, flags: int) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    try:
        raw = np.fromfile(path, np.uint8)
        image = cv2.imdecode(raw, flags) if raw.size else None
    except (OSError, cv2.error) as error:
        raise BrokenSampleError(f"{path}: {error}") from error
    if image is None:
        raise BrokenSampleError(f"{path}: not a readable picture")
    return image  # type: ignore[return-value]  # OpenCV types every picture as a float or integer array
