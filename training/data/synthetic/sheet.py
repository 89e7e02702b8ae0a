"""Contact sheets of rendered scenes: picture and depth side by side. Most faults are found by looking."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from training.data.sample import Sample
from training.data.synthetic.dataset import read_scene
from training.errors import TrainingError

COLUMNS, ROWS = 4, 8
TILE_PX = (120, 160)
_QUALITY = 80


def write_sheet(scenes: Sequence[Path], out: Path) -> None:
    """Draws the first 32 of `scenes` (JSON files) on one picture, JPEG or PNG by the name of `out`.

    Raises:
        TrainingError: No scenes, or `out` is no picture's name.
    """
    if not scenes:
        raise TrainingError("no scenes for a contact sheet")
    if out.suffix.lower() not in (".jpg", ".png"):
        raise TrainingError(f"--sheet {out}: expected a name ending in .jpg or .png")
    tiles = [draw_tile(read_scene(path)) for path in scenes[: COLUMNS * ROWS]]
    blank = np.zeros_like(tiles[0])
    tiles += [blank] * (-len(tiles) % COLUMNS)
    rows = [np.hstack(tiles[start : start + COLUMNS]) for start in range(0, len(tiles), COLUMNS)]
    _done, encoded = cv2.imencode(out.suffix.lower(), np.vstack(rows)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(encoded.tobytes())


def draw_tile(sample: Sample) -> npt.NDArray[np.uint8]:
    """Picture and inverse depth (bright = near, people green) side by side, uint8 RGB (120, 320, 3)."""
    assert sample.inverse_depth is not None, sample.name
    assert sample.person is not None, sample.name
    nearest = max(float(np.percentile(sample.inverse_depth, 99)), 1e-6)
    gray = (sample.inverse_depth / nearest).clip(0, 1) ** 0.7 * 255
    depth = cv2.cvtColor(cv2.applyColorMap(gray.astype(np.uint8), cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    people = sample.person > 127
    depth[people] = depth[people] // 2 + np.array([0, 127, 0], np.uint8)
    size = TILE_PX[::-1]
    both = [cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in (sample.image, depth)]
    return np.hstack(both).astype(np.uint8)
