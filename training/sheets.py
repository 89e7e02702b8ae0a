"""Contact sheets: photo, depth and person side by side, for looking at."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from training.data.sample import read_rgb
from training.errors import TrainingError
from training.evaluation import Predictor

CELL = (132, 176)
"""(height, width) in pixels of one picture on a sheet; photos keep their aspect inside."""

_QUALITY = 82  # JPEG


def panel(predict: Predictor, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Photo, inverse depth (bright = near) and the photo darkened where nobody is, uint8 (h, 3 w, 3) RGB."""
    inverse, person = predict(image)
    people = (image * (0.2 + 0.8 * person[..., None])).astype(np.uint8)
    return np.hstack([depth_panel(image, inverse), _cell(people)])


def depth_panel(image: npt.NDArray[np.uint8], inverse: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Photo and inverse depth (bright = near) of the same size, uint8 (h, 2 w, 3) RGB."""
    low, high = np.percentile(inverse, (0.5, 99.5))
    scaled = (np.clip((inverse - low) / max(high - low, 1e-9), 0, 1) * 255).astype(np.uint8)
    depth = cv2.cvtColor(cv2.applyColorMap(scaled, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    return np.hstack([_cell(image), _cell(depth.astype(np.uint8, copy=False))])


def _cell(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    height, width = picture.shape[:2]
    scale = min(CELL[0] / height, CELL[1] / width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    cell = np.full((*CELL, 3), 24, np.uint8)
    y, x = (CELL[0] - size[1]) // 2, (CELL[1] - size[0]) // 2
    cell[y : y + size[1], x : x + size[0]] = small
    return cell


def write_sheet(predict: Predictor, photos: Sequence[Path], columns: int, path: Path) -> None:
    """One JPEG with a panel of each photo, `columns` panels a row.

    Raises:
        TrainingError: No photos, or the file cannot be written.
    """
    if not photos:
        raise TrainingError("no photos for a sheet")
    panels = [panel(predict, read_rgb(photo)) for photo in photos]
    blank = np.full_like(panels[0], 24)
    rows = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    sheet = np.vstack([np.hstack(row + [blank] * (columns - len(row))) for row in rows])
    if not cv2.imwrite(str(path), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]):
        raise TrainingError(f"cannot write {path}")
