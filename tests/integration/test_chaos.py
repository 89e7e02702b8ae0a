"""The fast half of the fault matrix (`make chaos`): every row as it is, and without its protection."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.arena import Stage
from tests.chaos.endurance import Sample, judge
from tests.chaos.fault import Fault, Unmet, discover, run
from tests.chaos.unprotected import UNPROTECTED

ROWS = discover()
RELAXED = 10.0
"""Limits on the clock are judged by `make chaos`; here they only tell an answer from none."""

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    shared = Stage(tmp_path_factory.mktemp("chaos"))
    yield shared
    shared.close()


@pytest.mark.parametrize("control", [False, True], ids=["protected", "control"])
@pytest.mark.parametrize("row", [row for row in ROWS if row.fast], ids=lambda row: row.id)
def test_row(stage: Stage, row: Fault, control: bool) -> None:
    outcome = asyncio.run(run(row, stage, control=control, relaxed=RELAXED))
    if outcome.verdict == "skipped":
        pytest.skip(outcome.seen)
    said = f"{row.title}; expected: {row.expected}; seen: {outcome.seen}\n{outcome.logs}"
    assert outcome.verdict == ("unmet" if control else "met"), said


def test_every_control_exists() -> None:
    assert {row.without for row in ROWS} <= UNPROTECTED.keys()


def _samples(**grown_by: float) -> list[Sample]:
    """Forty samples of a gateway that fills its cache in the first quarter; after it these grow at each sample."""
    still = {"rss_mb": 400.0, "gateway_mb": 200.0, "fds": 30, "threads": 11, "tasks": 11, "shm_mb": 17.0}
    return [
        Sample(
            requests=100 * (number + 1),
            **{
                name: value + min(number, 10) * (name == "rss_mb") + grown_by.get(name, 0) * max(0, number - 10)
                for name, value in still.items()
            },
        )
        for number in range(40)
    ]


def test_the_judge_of_long_runs() -> None:
    assert "memory +0.0 MB" in judge(_samples(), 20.0)
    assert "memory +9" in judge(_samples(rss_mb=0.5), 20.0)
    for name, step in (("rss_mb", 1.2), ("fds", 1), ("threads", 1), ("tasks", 1), ("shm_mb", 0.5)):
        with pytest.raises(Unmet, match="memory" if name == "rss_mb" else name):
            judge(_samples(**{name: step}), 20.0)


def test_nothing_is_left_behind(stage: Stage) -> None:
    """Runs last: every run removes its directory and ends its processes."""
    left = [path.name for path in Path(stage.directory).glob("run-*")]
    assert not left
