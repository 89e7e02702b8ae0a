"""What a run leaves for people and programs to read: TensorBoard events, CSV tables, pictures and a summary."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from torch.utils.tensorboard import SummaryWriter

TRAIN, VALIDATION, SUMMARY, PICTURES = "train.csv", "validation.csv", "summary.json", "pictures"

_QUALITY = 85  # JPEG


class Table:
    """A CSV file with one row a step. Rows of a stopped run beyond the step it goes on from are dropped."""

    def __init__(self, path: Path, step: int) -> None:
        self._path = path
        rows = _rows(path) if step else []
        self._columns = list(rows[0]) if rows else []
        if path.is_file():
            path.unlink()
        for row in rows:
            if int(row["step"]) <= step:
                self.add(row)

    def add(self, row: Mapping[str, object]) -> None:
        """Writes a row; the first one names the columns."""
        fresh = not self._path.is_file()
        self._columns = self._columns or list(row)
        with self._path.open("a", newline="") as file:
            writer = csv.DictWriter(file, self._columns, extrasaction="ignore", lineterminator="\n")
            if fresh:
                writer.writeheader()
            writer.writerow(row)


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class RunLog:
    """All logs of one run.

    Args:
        folder: Of the run.
        step: It goes on from; 0 begins anew.
    """

    def __init__(self, folder: Path, step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._events = SummaryWriter(str(folder))
        self._train, self._validation = Table(folder / TRAIN, step), Table(folder / VALIDATION, step)

    def trained(self, step: int, values: Mapping[str, float]) -> None:
        """Parts of the loss, rate and gradient after a step."""
        self._train.add({"step": step} | {name: f"{value:.6g}" for name, value in values.items()})
        for name, value in values.items():
            self._events.add_scalar(f"train/{name}", value, step)

    def validated(self, step: int, values: Mapping[str, float]) -> None:
        """Metrics of a validation."""
        self._validation.add({"step": step} | {name: f"{value:.6g}" for name, value in values.items()})
        for name, value in values.items():
            self._events.add_scalar(f"held_out/{name}", value, step)

    def picture(self, step: int, index: int, picture: npt.NDArray[np.uint8]) -> None:
        """An example of a validation, uint8 (H, W, 3) RGB, as an event and as a file of its own."""
        self._events.add_image(f"held_out/{index}", picture, step, dataformats="HWC")
        folder = self._folder / PICTURES
        folder.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / f"{index}_{step:07d}.jpg"), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])

    def finished(self, summary: Mapping[str, Any]) -> None:
        """The summary of the whole run, as JSON."""
        (self._folder / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n")

    def close(self) -> None:
        """Writes what is still held back."""
        self._events.close()
