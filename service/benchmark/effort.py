"""How much is measured: the full run, or a glance that shows that everything works."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Effort:
    """Sizes and counts of a run.

    Attributes:
        rounds: of a comparison whose contenders take a second, at least seven where a ratio is stated.
        many: of one whose contenders take some milliseconds.
        seconds: of one measurement under load.
        photos: (height, width) of the photos by name, the small one first.
        gemm: sides of the matrices.
        copied_bytes: of a copy; beyond every cache.
        repository: the models that are served.
    """

    rounds: int
    many: int
    seconds: float
    photos: dict[str, Size]
    gemm: tuple[int, ...]
    copied_bytes: int
    repository: Path

    @property
    def small(self) -> Size:
        """The first of the photos."""
        return next(iter(self.photos.values()))

    @property
    def large(self) -> Size:
        """The last of the photos."""
        return list(self.photos.values())[-1]


FULL: Final = Effort(
    7, 31, 2.0, {"720p": (720, 1280), "12 Mpx": (3000, 4000)}, (1024, 2048), 2**28, Path("model_repository")
)
QUICK: Final = Effort(1, 2, 0.3, {"small": (96, 160), "larger": (240, 320)}, (64,), 2**22, Path("model_repository"))
"""For a test: what it prints means nothing."""
