"""Reader of rendered scenes for training."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from training.data.person import IGNORE, read_person
from training.data.sample import BrokenSampleError, Sample, read_gray, read_rgb
from training.errors import TrainingError

SKY_PER_M = 1 / 500
"""Inverse depth of the sky: infinitely far is knowledge, not missing data, so it is small and not 0."""
SOURCE_CC0, SOURCE_PHOTO = "synthetic_cc0", "synthetic_photo"


def read_scenes(root: Path) -> Iterator[Path]:
    """The JSON files of all complete scenes below `root`, sorted.

    Raises:
        TrainingError: `root` is no folder.
    """
    if not root.is_dir():
        raise TrainingError(f"rendered scenes not found: {root}; make them with `python -m training synth`")
    yield from sorted(root.rglob("s*.json"))


def read_scene(path: Path) -> Sample:
    """The sample of one JSON file.

    `inverse_depth` is float32 in 1/m, everywhere at least 1/500 (the sky's value), so every pixel has data. `person` is
    the share of the pixel that shows a person, soft at the edges: 0, 64, 128, 191 or 255, never the 127 that means
    "ignore" elsewhere.

    Raises:
        BrokenSampleError: A file is missing or damaged.
    """
    try:
        about = json.loads(path.read_text())
        scale, terms = float(about["inverse_depth_scale_per_m"]), str(about["terms"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokenSampleError(f"{path}: {error}") from error
    image = read_rgb(path.with_suffix(".jpg"))
    stored = read_gray(path.with_suffix(".inv.png"))
    if stored.shape != image.shape[:2]:
        raise BrokenSampleError(f"{path}: depth {stored.shape}, picture {image.shape[:2]}")
    person_path = path.with_suffix(".person.png")
    person = np.zeros(stored.shape, np.uint8)
    if person_path.is_file():
        person = read_person(person_path)
        if person.shape != stored.shape:
            raise BrokenSampleError(f"{person_path}: {person.shape}, picture {stored.shape}")
    return Sample(
        name=path.stem,
        source=SOURCE_CC0 if terms == "cc0" else SOURCE_PHOTO,
        scene=path.stem,
        image=image,
        inverse_depth=np.maximum(stored.astype(np.float32) * scale, SKY_PER_M).astype(np.float32),
        person=np.where(person == IGNORE, IGNORE + 1, person).astype(np.uint8),
        shift_known=True,
        metric=True,
    )
