"""A circuit breaker: after a few failures of the kind `gone`, a server's model is not asked again until it is proved.

Users' requests open it and never close it: what tries a lost server again is the canary, once a period, so its return
costs nobody a failed request and a lost server no storm of retries (74,000 refused calls within 10 s were measured
from eight callers without one).
"""

from collections.abc import Callable

from service.errors import DepthlensError, ModelUnavailable

FAILURES_TO_OPEN = 3
"""In a row: one or two can be the requests that were in flight when a connection broke."""


class Breaker:
    """Closed while requests may pass; for one model of one server.

    Args:
        on_open: called each time users' requests open it, so that a probe can decide at once.
        failures_to_open: how many failures in a row open it.
    """

    def __init__(self, on_open: Callable[[], None] = lambda: None, *, failures_to_open: int = FAILURES_TO_OPEN) -> None:
        self._on_open = on_open
        self._failures_to_open = failures_to_open
        self._failures = 0
        self.open = False

    def answered(self) -> None:
        """A request was answered: failures are no longer in a row. An open breaker stays open."""
        self._failures = 0

    def failed(self, error: DepthlensError) -> None:
        """A request failed. Only a server or model that is gone counts: deadlines are the callers' own choice."""
        if not isinstance(error, ModelUnavailable):
            return
        self._failures += 1
        if self._failures >= self._failures_to_open and not self.open:
            self.open = True
            self._on_open()

    def probed(self, passed: bool) -> None:
        """The canary's verdict, the only way back."""
        self.open = not passed
        if passed:
            self._failures = 0
