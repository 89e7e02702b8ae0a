"""The fast half of the fault matrix (`make chaos`): every row as it is, and without its protection."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.arena import Stage
from tests.chaos.fault import Fault, discover, run
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


def test_nothing_is_left_behind(stage: Stage) -> None:
    """Runs last: every run removes its directory and ends its processes."""
    left = [path.name for path in Path(stage.directory).glob("run-*")]
    assert not left
