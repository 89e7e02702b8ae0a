"""Steps of the tests with containers: a line each, with its seconds; and an end by signal that still cleans up."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


def check(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


@contextmanager
def step(title: str) -> Iterator[list[str]]:
    """Prints the title with the seconds taken and what was added to the list; says which step failed."""
    details: list[str] = []
    started = time.monotonic()
    try:
        yield details
    except BaseException:
        print(f"{time.monotonic() - started:7.1f} s  FAILED: {title}", flush=True)
        raise
    print(f"{time.monotonic() - started:7.1f} s  {'; '.join([title, *details])}", flush=True)


def wait_for(condition: Callable[[], bool], timeout_s: float, what: str) -> float:
    """Seconds until `condition` held."""
    started = time.monotonic()
    while not condition():
        check(time.monotonic() - started < timeout_s, f"{what}: not within {timeout_s:g} s")
        time.sleep(0.1)
    return time.monotonic() - started


def end_by_signals(timeout_s: int) -> None:
    """From now on a signal, or the end of `timeout_s`, ends the program by an exception."""
    handle_signals(_interrupt)
    signal.alarm(timeout_s)


def handle_signals(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM, signal.SIGHUP):
        signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise SystemExit(f"ended by {signal.Signals(number).name}")
