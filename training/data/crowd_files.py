"""Crowds as files and as samples: one compressed `.npz` each, at the size the network sees."""

import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from service.imaging.geometry import resize
from training.data.crowds import PHOTO_SIZE, Crowd, NetworksView, draw_crowd, networks_view
from training.data.pasting import Cutout
from training.data.sample import BrokenSampleError, Sample
from training.errors import TrainingError

LONG_SIDE_PX = 320
"""Longer side of a stored crowd, that of the network's input."""
SOURCE = "crowds"
"""Name in recipes of crowds whose files lie right in the folder that is given."""
PLAIN_SOURCE = "plain_crowds"
"""Name in recipes of crowds drawn without files."""

_PATTERN = "c*.npz"


def crowd_name(seed: int) -> str:
    """Name of the file of a seed."""
    return f"c{seed:08d}.npz"


def write_crowd(
    path: Path,
    photo: npt.NDArray[np.uint8],
    person: npt.NDArray[np.uint8],
    inverse_depth: npt.NDArray[np.float32],
    owner: npt.NDArray[np.uint8],
    people: npt.NDArray[np.float32],
) -> None:
    """Writes one crowd, whole or not at all.

    Args:
        path: File `c*.npz`; its folder must be there.
        photo: uint8 (h, w, 3) RGB.
        person: Matte as the service has it, uint8 (h, w), 255 = person.
        inverse_depth: Relative, as the service has it, (h, w), 0..1, 1 = nearest; kept in float16.
        owner: uint8 (h, w), 0 = nobody, else place in `people` plus 1.
        people: (N, 3): chest x, chest y, height, in pixels of `photo`.

    Raises:
        TrainingError: Arrays that do not fit together, or a file that cannot be written.
    """
    sizes = {array.shape[:2] for array in (photo, person, inverse_depth, owner)}
    if len(sizes) != 1 or people.ndim != 2 or people.shape[1] != 3 or int(owner.max()) > len(people):
        raise TrainingError(f"{path}: maps of {sorted(sizes)}, people {people.shape}, owners up to {owner.max()}")
    partial_path = path.with_name(path.name + ".tmp")
    try:
        with partial_path.open("wb") as file:
            np.savez_compressed(
                file,
                photo=photo,
                person=person,
                inverse_depth=inverse_depth.astype(np.float16),
                owner=owner,
                people=people.astype(np.float32),
            )
        partial_path.replace(path)
    except OSError as error:
        raise TrainingError(f"cannot write {path}: {error.strerror}") from error


def read_crowd(path: Path, source: str = SOURCE) -> Sample:
    """A crowd that `write_crowd` wrote; every one is a scene of its own.

    Raises:
        BrokenSampleError: The file is missing, damaged, or not a crowd.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            photo, person, owner, people = (stored[key] for key in ("photo", "person", "owner", "people"))
            inverse = np.clip(stored["inverse_depth"].astype(np.float32), 0, None)
        if people.ndim != 2 or people.shape[1] != 3 or int(owner.max()) > len(people) or photo.shape[2:] != (3,):
            raise ValueError(f"people {people.shape}, owners up to {owner.max()}, photo {photo.shape}")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BrokenSampleError(f"{path}: no crowd: {error}") from error
    name = f"{source}/{path.stem}"
    return Sample(name, source, name, photo, inverse, person, votes=votes_of(owner, people))


def votes_of(owner: npt.NDArray[np.uint8], people: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Votes as in `Sample`, float32 (H, W, 4), of owners (H, W) and people (N, 3)."""
    y, x = np.mgrid[: owner.shape[0], : owner.shape[1]]
    # nobody comes first
    known = np.vstack([np.zeros((1, 3)), people])[owner]
    votes = np.dstack([known[..., 0] - x, known[..., 1] - y, known[..., 2], owner])
    return np.where(owner[..., None] > 0, votes, 0).astype(np.float32)


def stored_arrays(
    crowd: Crowd, seen: NetworksView, long_side: int = LONG_SIDE_PX
) -> tuple[
    npt.NDArray[np.uint8],
    npt.NDArray[np.uint8],
    npt.NDArray[np.float32],
    npt.NDArray[np.uint8],
    npt.NDArray[np.float32],
]:
    """Photo, person, inverse depth, owner and people for `write_crowd`, at the stored size."""
    height, width = crowd.photo.shape[:2]
    scale = long_side / max(height, width)
    size = round(height * scale), round(width * scale)
    owner = cv2.resize(crowd.owner, size[::-1], interpolation=cv2.INTER_NEAREST).astype(np.uint8, copy=False)
    factors = np.array([size[1] / width, size[0] / height, size[0] / height])
    # the middle of the first pixel is 0 at both sizes
    people = crowd.people * factors + (factors - 1) / 2 * np.array([1, 1, 0])
    person = np.rint(resize(seen.person, size) * 255).astype(np.uint8)
    return resize(crowd.photo, size), person, resize(seen.inverse_depth, size), owner, people.astype(np.float32)


def crowd_readers(plain: int, scenes: Path | None) -> Iterator[tuple[str, Callable[[], Sample]]]:
    """Readers of what `person_votes` learns from.

    Args:
        plain: How many crowds of plain figures to draw, as the source `plain_crowds`.
        scenes: Folder of crowds: the source of a file is the folder it lies in, `DIR/crowds/c00000001.npz` is of
            `crowds`; of files right in DIR it is `crowds` too. None for drawn ones alone.

    Raises:
        TrainingError: `scenes` is no folder.
    """
    for seed in range(plain):
        yield PLAIN_SOURCE, partial(plain_crowd, seed)
    if scenes is None:
        return
    if not scenes.is_dir():
        raise TrainingError(f"crowds not found: {scenes}; make them with `python -m training crowds`")
    for path in sorted(scenes.rglob(_PATTERN)):
        source = SOURCE if path.parent == scenes else path.parent.name
        yield source, partial(read_crowd, path, source)


def plain_crowd(seed: int, long_side: int = LONG_SIDE_PX // 2) -> Sample:
    """A crowd of plain figures as a sample: no photographs needed, for trials and tests."""
    crowd = draw_crowd(seed, [plain_people()], [partial(_plain_background, seed)])
    arrays = stored_arrays(crowd, networks_view(crowd, np.random.default_rng((seed, 6))), long_side)
    photo, person, inverse, owner, people = arrays
    name = f"{PLAIN_SOURCE}/{Path(crowd_name(seed)).stem}"
    return Sample(name, PLAIN_SOURCE, name, photo, inverse, person, votes=votes_of(owner, people))


def plain_people(count: int = 6, seed: int = 0) -> list[Cutout]:
    """Figures of two ellipses, a head on a body, each in its own colours."""
    rng = np.random.default_rng((seed, 7))
    found = []
    for _ in range(count):
        alpha, image = np.zeros((200, 80), np.uint8), np.zeros((200, 80, 3), np.uint8)
        image[:] = rng.integers(0, 256, 3)
        for centre, axes in (((40, 18), (13, 17)), ((40, 116), (int(rng.integers(22, 38)), 83))):
            cv2.ellipse(alpha, centre, axes, 0, 0, 360, (255,), -1, cv2.LINE_AA)
        image[:36] = rng.integers(0, 256, 3)
        found.append(Cutout(image, alpha.astype(np.float32) / 255))
    return found


def _plain_background(seed: int) -> npt.NDArray[np.uint8]:
    coarse = np.random.default_rng((seed, 8)).integers(0, 256, (6, 9, 3), np.uint8)
    return cv2.resize(coarse, PHOTO_SIZE[::-1], interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)
