"""What the meta-learner is shown of its base networks: folds of scenes, and base predictions kept on disk.

Seed 3 trains base networks and meta-learner on the same pictures, so the meta-learner sees base predictions that are
better than they will ever be again, and most of those of the base that fits its training data most closely. Wolpert,
"Stacked generalization", Neural Networks 1992, and scikit-learn's StackingRegressor show it out-of-fold predictions
instead: the scenes are dealt into K folds, each base network is trained K times, always without one of the folds, and
each picture is predicted by the network that has never seen its scene. Both ways end in the same folder:

<folder>/stack.json                 the base networks, by fold, with the SHA-256 of their checkpoints, and the size
<folder>/<name of the sample>.npz   `base_depths_m`, float16 (H, W, K), metres, in the order of `BASES`

Held-out scenes are in no fold: `final` networks, trained on all the others, predict them.
"""

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from training.data.bank import Bank
from training.data.sample import Sample
from training.errors import TrainingError
from training.models.meta_learner import BASES

ABOUT = "stack.json"
FINAL = "final"
"""The fold of base networks that are trained on every fold: they predict held-out scenes, and all others without K."""

_LARGEST_M = float(np.finfo(np.float16).max)

DepthPredictor = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
"""RGB uint8 (H, W, 3) -> depth in metres, float32 (H, W)."""


def fold_of(scene: str, folds: int) -> int:
    """The fold of a scene, by a checksum of its name: no scene is cut, and every run deals alike.

    Another part of the checksum than the one that holds scenes out (`training.data.bank.is_held_out`).
    """
    return int.from_bytes(hashlib.sha256(scene.encode()).digest()[:8], "big") % folds


def without_fold(bank: Bank, fold: int, folds: int) -> Bank:
    """The bank a base network of `fold` is trained on: all training scenes but those of the fold.

    Raises:
        TrainingError: No such fold, or nothing is left.
    """
    if not 0 <= fold < folds:
        raise TrainingError(f"fold {fold} of {folds}: folds are counted from 0 to {folds - 1}")
    left = bank.only(lambda sample: fold_of(sample.scene, folds) != fold)
    if not left.train:
        raise TrainingError(f"nothing is left without fold {fold} of {folds}: there are too few scenes")
    return replace(left, held_out=bank.held_out)


def folds_of(bank: Bank, folds: int) -> Iterator[tuple[str, Sample]]:
    """Every sample with the fold that predicts it, as a word: `0` to `folds - 1`, or `FINAL`.

    Args:
        bank: Samples.
        folds: How many; 1 = the faithful way, one set of networks for all.
    """
    for scenes in bank.train.values():
        for samples in scenes.values():
            for sample in samples:
                yield FINAL if folds == 1 else str(fold_of(sample.scene, folds)), sample
    for sample in bank.held_out:
        yield FINAL, sample


@dataclass(frozen=True)
class BaseSet:
    """The base networks of one fold.

    Attributes:
        predictors: By their names in `BASES`.
        checkpoints: SHA-256 of each one's checkpoint.
    """

    predictors: Mapping[str, DepthPredictor]
    checkpoints: Mapping[str, str]

    def predict(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16]:
        """RGB uint8 (H, W, 3) -> float16 (H, W, K), metres.

        Raises:
            TrainingError: A network gives something else than finite depths of the picture's size.
        """
        depths = []
        for name in BASES:
            depth = self.predictors[name](image)
            if depth.shape != image.shape[:2] or not np.isfinite(depth).all():
                raise TrainingError(f"base network {name}: expected finite depths of {image.shape[:2]}")
            depths.append(depth.clip(0, _LARGEST_M))
        stacked: npt.NDArray[np.float16] = np.stack(depths, axis=-1).astype(np.float16)
        return stacked


def write_predictions(bank: Bank, sets: Mapping[str, BaseSet], about: Mapping[str, Any], folder: Path) -> int:
    """Predicts every sample of a bank by the networks that have not seen its scene; what is there already stays.

    Args:
        bank: Samples, at the size they are trained at.
        sets: Base networks by fold: `0` to `K - 1` and `FINAL`, or `FINAL` alone.
        about: What else the predictions depend on, e.g. the size the networks look at.
        folder: Of the predictions.

    Returns:
        How many were made.

    Raises:
        TrainingError: A fold is missing, or the folder is of other networks.
    """
    folds = max(1, len(sets) - 1)
    wanted = {FINAL, *(map(str, range(folds)) if folds > 1 else ())}
    if set(sets) != wanted:
        raise TrainingError(f"base networks of the folds {', '.join(sets)}: expected {', '.join(sorted(wanted))}")
    described = {"folds": {fold: dict(sets[fold].checkpoints) for fold in sorted(sets)}, **about}
    _describe(folder, described)
    made = 0
    for fold, sample in tqdm(list(folds_of(bank, folds)), desc="base networks", unit="picture"):
        path = _path(folder, sample)
        if path.is_file():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".tmp")
        with partial.open("wb") as file:
            np.savez_compressed(file, base_depths_m=sets[fold].predict(sample.image))
        os.replace(partial, path)
        made += 1
    return made


def in_metres(sample: Sample) -> bool:
    """Whether base networks and meta-learner can learn from a sample."""
    return sample.metric and sample.inverse_depth is not None


def with_predictions(bank: Bank, folder: Path) -> Bank:
    """The samples in metres, each with what the base networks said of it.

    Raises:
        TrainingError: No predictions there, of one of them, or of another size.
    """
    if not (folder / ABOUT).is_file():
        raise TrainingError(f"no base predictions in {folder}: `python -m training stack` makes them")

    bank = bank.only(in_metres)

    def attached(samples: Sequence[Sample]) -> list[Sample]:
        return [replace(sample, base_depths_m=_read(folder, sample)) for sample in samples]

    train = {
        source: {scene: attached(samples) for scene, samples in scenes.items()} for source, scenes in bank.train.items()
    }
    return replace(bank, train=train, held_out=attached(bank.held_out))


def _path(folder: Path, sample: Sample) -> Path:
    return folder / f"{sample.name}.npz"


def _read(folder: Path, sample: Sample) -> npt.NDArray[np.float16]:
    path = _path(folder, sample)
    try:
        with path.open("rb") as file, np.load(file) as stored:
            found: npt.NDArray[np.float16] = stored["base_depths_m"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise TrainingError(f"base predictions {path}: {str(error).splitlines()[0]}") from error
    if found.shape != (*sample.image.shape[:2], len(BASES)) or found.dtype != np.float16:
        raise TrainingError(f"base predictions {path}: {found.dtype} {found.shape}, its photo {sample.image.shape[:2]}")
    return found


def _describe(folder: Path, about: Mapping[str, Any]) -> None:
    path = folder / ABOUT
    if path.is_file():
        try:
            found = json.loads(path.read_text())
        except ValueError as error:
            raise TrainingError(f"{path}: not JSON: {error}") from error
        if found != json.loads(json.dumps(about)):
            raise TrainingError(f"{folder} holds what other base networks said, see {ABOUT}: give another folder")
        return
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(about, indent=2) + "\n")
