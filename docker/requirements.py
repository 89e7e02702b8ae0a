"""Split pyproject.toml into requirement files, so that image layers with dependencies outlive changes of source.

    python requirements.py [EXTRA ...]

Reads `pyproject.toml` in the working directory; writes `requirements.txt` (the base dependencies and those of the
extras named) and `build-requirements.txt` (what builds the wheel) beside it.
"""

import sys
import tomllib
from pathlib import Path


def main(extras: list[str]) -> None:
    """Write both files."""
    settings = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    project = settings["project"]
    chosen = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    for name, lines in (("requirements", chosen), ("build-requirements", settings["build-system"]["requires"])):
        Path(f"{name}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
