"""Which photos a job takes, and where each result goes.

Results lie under the output folder as the photos lie on disk; the part of the path that all inputs share is left out.
"""

import glob
import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

STREAM: Final = "-"
"""In the place of a file: standard input or output."""


class WrongUse(Exception):
    """The command line cannot be done as it is; one line."""


@dataclass(frozen=True, slots=True)
class Item:
    """One photo, and where its result goes; None is standard input or output."""

    source: Path | None
    target: Path | None

    @property
    def name(self) -> str:
        """The photo as the user knows it."""
        return STREAM if self.source is None else str(self.source)


@dataclass(frozen=True, slots=True)
class _Found:
    files: list[Path]
    root: Path


def plan(
    inputs: Sequence[str], out: str, suffix_of: Callable[[Path], str], photo_suffixes: Collection[str]
) -> list[Item]:
    """The job's items, each photo once, in the order given; of a folder by name.

    Args:
        inputs: files, folders, patterns, or `-`.
        out: folder; or a file for the result of a single photo; or `-`.
        suffix_of: the suffix of a photo's result.
        photo_suffixes: what is taken from folders, lower case.

    Raises:
        WrongUse: nothing to do, or results that would lie in one file, or on a photo.
    """
    if STREAM in inputs:
        if len(inputs) > 1:
            raise WrongUse("- is standard input, and goes with no other photo")
        if out != STREAM and _is_folder(out):
            raise WrongUse(f"{out} is a folder; a photo from standard input needs a file, or - for standard output")
        return [Item(None, None if out == STREAM else Path(out))]
    found = [_find(word, photo_suffixes, None if out == STREAM else Path(out)) for word in inputs]
    files = list({os.path.abspath(path): path for group in found for path in group.files}.values())
    if not files:
        raise WrongUse(f"no photos in {', '.join(inputs)}")
    single = len(inputs) == 1 and not Path(inputs[0]).is_dir() and len(files) == 1
    if out == STREAM:
        if not single:
            raise WrongUse("standard output takes the result of one photo; give a folder with -o")
        return [Item(files[0], None)]
    if single and not _is_folder(out):
        items = [Item(files[0], Path(out))]
    else:
        common = Path(os.path.commonpath([os.path.abspath(group.root) for group in found]))
        items = _mirrored(files, common, Path(out), suffix_of)
    _check(items)
    return items


def existing(items: Sequence[Item]) -> list[Item]:
    """Those whose result is there already."""
    return [item for item in items if item.target is not None and os.path.lexists(item.target)]


def _is_folder(out: str) -> bool:
    return out.endswith(os.sep) or Path(out).is_dir()


def _find(word: str, photo_suffixes: Collection[str], out: Path | None) -> _Found:
    path = Path(word)
    if path.is_dir():
        return _Found(_walk(path, photo_suffixes, out), path)
    if not os.path.lexists(path) and glob.has_magic(word):
        matched = [Path(name) for name in sorted(glob.glob(word, recursive=True)) if Path(name).is_file()]
        if not matched:
            raise WrongUse(f"nothing matches {word}")
        return _Found(matched, _plain_part(path))
    return _Found([path], path.parent)  # one that is not there fails later, by name, and the others go on


def _plain_part(pattern: Path) -> Path:
    """The folder before the first part of a pattern that is one."""
    plain = Path()
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        plain /= part
    return plain


def _walk(folder: Path, photo_suffixes: Collection[str], out: Path | None) -> list[Path]:
    """Photos below a folder; nothing hidden, and no earlier results."""
    skipped = None if out is None else os.path.abspath(out)
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and os.path.abspath(os.path.join(parent, name)) != skipped
        )
        found += [
            Path(parent, name)
            for name in sorted(names)
            if not name.startswith(".") and Path(name).suffix.lower() in photo_suffixes
        ]
    return found


def _mirrored(files: Sequence[Path], common: Path, out: Path, suffix_of: Callable[[Path], str]) -> list[Item]:
    def placed(path: Path) -> Path:
        return out / os.path.relpath(os.path.abspath(path), common)

    short = [placed(path).with_suffix(suffix_of(path)) for path in files]
    often = Counter(short)
    return [
        # a.jpg and a.png beside each other would both become a.png
        Item(path, target if often[target] == 1 else placed(path).with_name(path.name + suffix_of(path)))
        for path, target in zip(files, short, strict=True)
    ]


def _check(items: Sequence[Item]) -> None:
    sources = {os.path.realpath(item.source) for item in items if item.source is not None}
    targets: dict[str, Item] = {}
    for item in items:
        assert item.target is not None  # of a job with an output folder or file
        real = os.path.realpath(item.target)
        if real in sources:
            raise WrongUse(f"{item.target}: the result would replace a photo of this job; choose another -o")
        if real in targets:
            raise WrongUse(
                f"{item.target}: the results of {targets[real].name} and {item.name} would both be this file"
            )
        targets[real] = item
