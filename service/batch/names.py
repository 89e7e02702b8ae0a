"""How the files of results are called."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from service.batch.plan import WrongUse

PHOTO_SUFFIXES: Final = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".gif", ".heic", ".heif"}
)
"""What is taken for a photo in a folder, in lower case; a file that is named is always taken."""

_WRITTEN: Final = PHOTO_SUFFIXES - {".heic", ".heif"}
_SUFFIXES: Final = {"png16": ".png", "preview": ".png", "cutout": ".png", "jpeg": ".jpg"}
_FIRST_FORMAT: Final = {
    "image": "same",
    "alpha": "png",
    "coc": "png16",
    "depth": "png16",
    "people": "json",
    "labels": "png",
    "all": "zip",
}
_SPELLINGS: Final = {"jpg": "jpeg", "tif": "tiff"}


def result_format(command: str, parameters: Mapping[str, str]) -> str:
    """The format that the service answers in; `same` is the photo's own."""
    if command == "focus":
        if any(name in parameters for name in ("rack_x", "rack_rx", "rack_person")):
            return "webp"
        return parameters.get("format", _FIRST_FORMAT[parameters.get("output", "image")])
    return parameters.get("format", "png16" if command == "depth" else "png")


def result_suffix(format: str, source: Path) -> str:
    """The suffix of a photo's result; what Depthlens reads and does not write (HEIC) comes back as JPEG."""
    if format == "same":
        return source.suffix if source.suffix.lower() in _WRITTEN else ".jpg"
    return _SUFFIXES.get(format, f".{format}")


def format_of(out: Path, formats: tuple[str, ...], default: str) -> str | None:
    """The format that the name of a result asks for; None when that is the default's.

    Raises:
        WrongUse: there is none of that name.
    """
    word = out.suffix.lower().removeprefix(".")
    word = _SPELLINGS.get(word, word)
    if not word or out.suffix.lower() == _SUFFIXES.get(default, f".{default}"):
        return None
    if word in formats:
        return word
    raise WrongUse(f"{out}: there is no result in {word}; choose a --format of {', '.join(formats)}")
