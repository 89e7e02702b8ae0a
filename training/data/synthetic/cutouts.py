"""Photographed people cut out along their masks, for flat figures in the scenes."""

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from training.data.sample import BrokenSampleError, read_gray, read_rgb
from training.errors import TrainingError

CUTOUT_PX = 256
ALLOWED_SETS = ("humanseg", "p3m")
"""Sets whose people may enter; all others are kept for judging."""
_MIN_SHARE, _MIN_HEIGHT_PX = 0.04, 110


@dataclass(frozen=True, slots=True)
class Cutout:
    """A person with alpha, stretched to a square layer.

    Attributes:
        layer: Layer of the atlas.
        aspect: Width over height of the person's box.
        whole: Whether the feet are in the photograph too.
    """

    layer: int
    aspect: float
    whole: bool

    def at_layer(self, layer: int) -> "Cutout":
        """The same person on another layer."""
        return replace(self, layer=layer)


def read_cutouts(folders: tuple[Path, ...]) -> tuple[list[Cutout], list[npt.NDArray[np.uint8]], list[str]]:
    """People of `folders` (NAME.jpg with NAME_mask.png), their RGBA squares uint8 (256, 256, 4), and the set of each.

    Raises:
        TrainingError: A folder is missing, empty, or of a set that is kept for judging.
    """
    cutouts: list[Cutout] = []
    squares: list[npt.NDArray[np.uint8]] = []
    sets: list[str] = []
    for folder in folders:
        if folder.name not in ALLOWED_SETS:
            raise TrainingError(f"people of {folder.name} are not for training; allowed: {', '.join(ALLOWED_SETS)}")
        for path in sorted(folder.glob("*_mask.png")):
            photo = path.with_name(path.name.replace("_mask.png", ".jpg"))
            try:
                found = cut_out(read_rgb(photo), read_gray(path))
            except BrokenSampleError:
                continue
            if found is not None:
                cutouts.append(found[0])
                squares.append(found[1])
                sets.append(folder.name)
    if folders and not cutouts:
        raise TrainingError(f"no people (NAME.jpg and NAME_mask.png) in {', '.join(map(str, folders))}")
    return cutouts, squares, sets


def cut_out(
    image: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
) -> tuple[Cutout, npt.NDArray[np.uint8]] | None:
    """The largest person of a photo (H, W, 3) with mask (H, W); None when small, torn, or cut by the photo's sides."""
    if mask.shape != image.shape[:2]:
        return None
    height, width = mask.shape
    count, labels, boxes, _ = cv2.connectedComponentsWithStats((mask > 127).astype(np.uint8))
    if count < 2:
        return None
    largest = 1 + int(boxes[1:, cv2.CC_STAT_AREA].argmax())
    x, y, wide, high, area = (int(value) for value in boxes[largest])
    cut_by_side = x <= 1 or x + wide >= width - 1 or y <= 1
    if cut_by_side or area < _MIN_SHARE * height * width or high < _MIN_HEIGHT_PX or area < 0.25 * wide * high:
        return None
    alpha = (labels[y : y + high, x : x + wide] == largest).astype(np.uint8)
    inner = cv2.erode(alpha, np.ones((3, 3), np.uint8))
    rim = cv2.dilate(alpha, np.ones((13, 13), np.uint8)) - inner  # the photo's background must not shine through
    colour = cv2.inpaint(np.ascontiguousarray(image[y : y + high, x : x + wide]), rim, 3, cv2.INPAINT_TELEA)
    square = np.dstack([colour, alpha * 255]).astype(np.float32)
    resized = cv2.resize(square, (CUTOUT_PX, CUTOUT_PX), interpolation=cv2.INTER_AREA)
    whole = y + high < height - 2 and high > 1.9 * wide
    return Cutout(0, wide / high, whole), np.rint(resized).clip(0, 255).astype(np.uint8)
