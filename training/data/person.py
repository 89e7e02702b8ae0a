"""Pictures with person labels: truth masks, pseudo truth and teacher labels, and which photos stay unseen."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.data.sample import BrokenSampleError, Sample, read_gray, read_rgb
from training.errors import TrainingError

PERSON = 255
IGNORE = 127

PERMISSIVE_PHOTO_SETS = ("azure", "jetson", "rembg", "u2net")
"""Those of `TRAIN_PHOTO_SETS` whose repositories state MIT or Apache-2.0."""

TRAIN_PHOTO_SETS = (
    "adelai",
    "azure",
    "bgmat",
    "deoldify",
    "exifsamp",
    "imagenet",
    "jetson",
    "omnidata",
    "openpose",
    "openposed",
    "p3m",
    "rembg",
    "slam",
    "u2net",
)
"""Folders of `photos/` whose pictures may be trained on, with teacher labels."""

UNSEEN_PHOTO_SETS = (
    "bsd100",
    "bsds",
    "camera",
    "ccp",
    "dav2demo",
    "diego",
    "mmpose",
    "moge",
    "skimage",
    "urban100",
)
"""Folders of `photos/` that no training touches: the photos a network is looked at with. `ccp` overlaps with the
ccp truth."""

PERSON_TRAIN_SETS = ("humanseg", "p3m")
"""Sets of `truth_person/` with pseudo truth, for training."""

PERSON_TRUTH_SETS = ("pennfudan", "ccp", "camvid")
"""Sets of `truth_person/` for judging only."""

ONE_PERSON_SETS = ("ccp",)
"""Those of them whose masks show one person a picture and leave out whoever else is on it."""


def read_person(path: Path) -> npt.NDArray[np.uint8]:
    """Person label, uint8 (H, W): 255 person, 0 not, 127 ignore.

    Raises:
        BrokenSampleError: Unreadable, or not 8 bit.
    """
    label = read_gray(path)
    if label.dtype != np.uint8:
        raise BrokenSampleError(f"{path}: expected 8 bit, found {label.dtype}")
    return label.astype(np.uint8, copy=False)


def attach_label(sample: Sample, labels: Path | None) -> Sample:
    """`sample` with the teacher's label from `labels`, found at the sample's name; unchanged when there is none."""
    path = labels / f"{sample.name}.png" if labels else None
    if path is None or not path.is_file():
        return sample
    label = read_person(path)
    if label.shape != sample.image.shape[:2]:
        raise BrokenSampleError(f"{path}: {label.shape}, its photo {sample.image.shape[:2]}")
    return replace(sample, person=label)


def read_photo(root: Path, photo: Path) -> Sample:
    """A photo without truth; every one is a scene of its own."""
    name = str(photo.relative_to(root).with_suffix(""))
    return Sample(name, f"photos/{photo.parent.name}", name, read_rgb(photo))


def read_masks(root: Path, sets: tuple[str, ...]) -> Iterator[tuple[Path, Path, str]]:
    """(photo, mask, set) of every entry of `truth_person/index.json` that belongs to `sets`."""
    index = root / "truth_person" / "index.json"
    if not index.is_file():
        raise TrainingError(f"person truth not found: {index}; give the data folder with --data")
    for entry in json.loads(index.read_text()):
        if entry["set"] in sets:
            yield root / entry["rgb"], root / entry["mask"], entry["set"]


def read_masked(root: Path, photo: Path, mask: Path, source: str) -> Sample:
    """A photo with its person mask; every one is a scene of its own."""
    name = str(photo.relative_to(root).with_suffix(""))
    image, person = read_rgb(photo), read_person(mask)
    if person.shape != image.shape[:2]:
        raise BrokenSampleError(f"{mask}: {person.shape}, its photo {image.shape[:2]}")
    return Sample(name, source, name, image, person=person)
