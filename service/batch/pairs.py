"""Which pictures are a pair, and where their result goes."""

from dataclasses import dataclass
from pathlib import Path

from service.batch.names import PHOTO_SUFFIXES
from service.batch.plan import WrongUse


@dataclass(frozen=True, slots=True)
class PairFile:
    """Two files, and that of their result."""

    left: Path
    right: Path
    target: Path


def pair_files(left: Path, right: Path, out: Path, suffix: str) -> list[PairFile]:
    """The pairs of two files or of two folders, in the order of their names.

    Args:
        left: a file or a folder.
        right: the same.
        out: a file for files, a folder for folders; a result has the left picture's name there.
        suffix: of results in a folder.

    Raises:
        WrongUse: they cannot be paired, or a result would replace a picture.
    """
    for path in (left, right):
        if not path.exists():
            raise WrongUse(f"{path}: no such file or folder")
    if left.is_dir() != right.is_dir():
        raise WrongUse("left and right are both files, or both folders")
    if not left.is_dir():
        pairs = [PairFile(left, right, out / f"{left.stem}{suffix}" if out.is_dir() else out)]
    else:
        lefts, rights = (_pictures(folder) for folder in (left, right))
        if len(lefts) != len(rights):
            raise WrongUse(f"{left} has {len(lefts)} pictures, {right} has {len(rights)}")
        pairs = [
            PairFile(ours, theirs, out / f"{ours.stem}{suffix}") for ours, theirs in zip(lefts, rights, strict=True)
        ]
    sources = {path.resolve() for pair in pairs for path in (pair.left, pair.right)}
    targets = [pair.target.resolve() for pair in pairs]
    if clash := sources.intersection(targets):
        raise WrongUse(f"{min(clash)}: the result would replace a picture; choose another -o")
    if len(set(targets)) < len(targets):
        raise WrongUse(f"two pictures in {left} have the same name but for their suffix")
    return pairs


def _pictures(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in PHOTO_SUFFIXES)
    if not found:
        raise WrongUse(f"{folder}: no pictures in it")
    return found
