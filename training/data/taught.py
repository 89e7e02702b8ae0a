"""Depth that a teacher gave to photos without truth: what `label --depth` writes and training reads.

<labels>/photos/azure/street.inv16.png  16 bit: relative inverse depth, 65535 = nearest of the photo, 0 = none
<labels>/depth.json                     which teacher, and whether a stored 0 would be infinitely far
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.data.sample import BrokenSampleError, Sample, read_gray
from training.errors import TrainingError

SUFFIX = ".inv16.png"
ABOUT = "depth.json"
_LEVELS = 65535


def encode(inverse: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Inverse depth (H, W) as stored: the nearest pixel 65535, what is not above 0 at least 1: the teacher knows it.

    Raises:
        BrokenSampleError: A value is not finite, or none is above 0.
    """
    nearest = float(inverse.max())
    if not np.isfinite(inverse).all() or nearest <= 0:
        raise BrokenSampleError(f"inverse depth {inverse.min()} to {nearest}: expected finite values, some above 0")
    stored: npt.NDArray[np.uint16] = np.rint(inverse * (_LEVELS / nearest)).clip(1, _LEVELS).astype(np.uint16)
    return stored


def describe(labels: Path, teacher: str, shift_known: bool) -> None:
    """Notes the teacher of a folder; TrainingError when the folder is of another one."""
    about = {"teacher": teacher, "shift_known": shift_known}
    if (labels / ABOUT).is_file():
        found = _about(labels)
        if found != about:
            raise TrainingError(f"{labels / ABOUT} names the teacher {found.get('teacher')}; label into another --out")
        return
    labels.mkdir(parents=True, exist_ok=True)
    (labels / ABOUT).write_text(json.dumps(about, indent=2) + "\n")


def _about(labels: Path) -> dict[str, object]:
    path = labels / ABOUT
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path}: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("shift_known"), bool):
        raise TrainingError(f"{path}: expected a teacher and whether its shift is known; write it anew with `label`")
    return found


def attach_depth(sample: Sample, labels: Path | None) -> Sample:
    """`sample` with the teacher's depth from `labels`, found at its name; unchanged with truth of its own or without.

    Raises:
        BrokenSampleError: The label is unreadable, not 16 bit, or of another size than its photo.
        TrainingError: The folder does not say which teacher it is of.
    """
    path = labels / f"{sample.name}{SUFFIX}" if labels else None
    if labels is None or path is None or sample.inverse_depth is not None or not path.is_file():
        return sample
    stored = read_gray(path)
    if stored.shape != sample.image.shape[:2] or stored.dtype != np.uint16:
        raise BrokenSampleError(f"{path}: {stored.dtype} {stored.shape}, its photo {sample.image.shape[:2]}")
    inverse = (stored / np.float32(_LEVELS)).astype(np.float32)
    return replace(sample, inverse_depth=inverse, shift_known=bool(_about(labels)["shift_known"]))
