"""What opens a breaker, and the one thing that closes it."""

import pytest

from service.breaker import FAILURES_TO_OPEN, Breaker
from service.errors import (
    ContractViolation,
    DeadlineExceeded,
    DepthlensError,
    ModelFailed,
    ModelUnavailable,
    Overloaded,
)
from service.triton_errors import DeadStub, VersionGone

GONE = ModelUnavailable("gone")


@pytest.mark.parametrize("error", [GONE, DeadStub("dead"), VersionGone("reloading")])
def test_failures_in_a_row_open_it_once(error: DepthlensError) -> None:
    opened: list[bool] = []
    breaker = Breaker(lambda: opened.append(True))
    for _ in range(FAILURES_TO_OPEN - 1):
        breaker.failed(error)
        assert not breaker.open
    for _ in range(3):
        breaker.failed(error)
        assert breaker.open
    assert opened == [True]


@pytest.mark.parametrize(
    "error", [DeadlineExceeded("late"), ModelFailed("NaN"), Overloaded("busy"), ContractViolation("shape")]
)
def test_what_says_nothing_about_the_server_does_not_count(error: DepthlensError) -> None:
    """A caller chooses his deadline and his picture: neither may take a server from the others."""
    breaker = Breaker()
    for _ in range(100):
        breaker.failed(error)
    assert not breaker.open


def test_an_answer_between_starts_the_count_anew() -> None:
    breaker = Breaker()
    for _ in range(20):
        for _ in range(FAILURES_TO_OPEN - 1):
            breaker.failed(GONE)
        breaker.answered()
    assert not breaker.open


def test_only_a_probe_closes_it() -> None:
    breaker = Breaker()
    for _ in range(FAILURES_TO_OPEN):
        breaker.failed(GONE)
    breaker.answered()  # one that was on its way when the others failed
    assert breaker.open
    breaker.probed(False)
    assert breaker.open
    breaker.probed(True)
    assert not breaker.open
    breaker.failed(GONE)
    assert not breaker.open, "the count began anew"


def test_a_probe_alone_opens_it() -> None:
    breaker = Breaker()
    breaker.probed(False)
    assert breaker.open
