"""Options and fixtures for every test: golden pictures, and the same examples in every run."""

from collections.abc import Callable
from pathlib import Path

import cv2
import hypothesis
import numpy as np
import pytest
from numpy.typing import NDArray

TESTS = Path(__file__).parent
Check = Callable[..., None]

hypothesis.settings.register_profile("seeded", derandomize=True, deadline=None)
hypothesis.settings.load_profile("seeded")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden with what the code gives now")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether committed copies are to be rewritten."""
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Check:
    """`golden(pixels, name, mean=, largest=)`: compare a uint8 or uint16 picture with tests/golden/<name>.png.

    `mean` and `largest` bound the mean and the largest absolute difference in levels. A failure leaves the pair in
    tests/failures/ as <name>.actual.png and <name>.expected.png.
    """

    def check(pixels: NDArray[np.generic], name: str, mean: float, largest: float) -> None:
        path = TESTS / "golden" / f"{name}.png"
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(exist_ok=True)
            write(path, pixels)
            assert path.stat().st_size < 100_000, f"{name} is too large for a golden picture"
            return
        assert path.exists(), f"no golden picture {path.name}: make it with pytest --update-golden, and look at it"
        expected = read(path)
        same_kind = expected.shape == pixels.shape and expected.dtype == pixels.dtype
        difference = np.abs(expected.astype(int) - pixels.astype(int)) if same_kind else np.array([np.inf])
        if difference.mean() > mean or difference.max() > largest:
            failures = TESTS / "failures"
            failures.mkdir(exist_ok=True)
            write(failures / f"{name}.actual.png", pixels)
            write(failures / f"{name}.expected.png", expected)
            pytest.fail(
                f"{name}: mean difference {difference.mean():.3f} (allowed {mean}), largest {difference.max():.0f} "
                f"(allowed {largest}); see tests/failures/"
            )

    return check


def write(path: Path, pixels: NDArray[np.generic]) -> None:
    stored = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
    assert cv2.imwrite(str(path), stored, [cv2.IMWRITE_PNG_COMPRESSION, 9])


def read(path: Path) -> NDArray[np.generic]:
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    return cv2.cvtColor(stored, cv2.COLOR_BGR2RGB) if stored.ndim == 3 else stored
