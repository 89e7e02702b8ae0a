"""Truth for judging: measured or rendered depth and hand-made person masks. Nothing here is ever trained on."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from training.data import person
from training.data.sample import BrokenSampleError, Sample, read_gray, read_rgb
from training.errors import TrainingError


def depth_truth(root: Path) -> Iterator[Sample]:
    """Pictures of `root`/truth_depth with inverse depth: 1 / depth, or the disparity itself; 0 = no data.

    They are `metric` where depth was stored, unless the index calls it `relative`.

    Raises:
        TrainingError: No index there.
        BrokenSampleError: A file is unreadable; truth must be whole.
    """
    index = root / "truth_depth" / "index.json"
    if not index.is_file():
        raise TrainingError(f"depth truth not found: {index}; give the data folder with --data")
    for entry in json.loads(index.read_text()):
        photo = root / entry["rgb"]
        image = read_rgb(photo)
        value = read_gray(root / entry["gt"]).astype(np.float32) * np.float32(entry["unit"])
        metric = entry["kind"] == "depth" and not entry.get("relative", False)
        if value.shape != image.shape[:2]:
            raise BrokenSampleError(f"{entry['gt']}: {value.shape}, its photo {image.shape[:2]}")
        if entry["kind"] == "depth":
            value = np.divide(1, value, out=np.zeros_like(value), where=value > 0)
        name = str(photo.relative_to(root).with_suffix(""))
        yield Sample(name, entry["set"], name, image, inverse_depth=value, metric=metric)


def person_truth(root: Path) -> Iterator[Sample]:
    """Pictures of the truth sets of `root`/truth_person with their masks."""
    for photo, mask, source in person.read_masks(root, person.PERSON_TRUTH_SETS):
        yield person.read_masked(root, photo, mask, source)
