"""What a call is, and when it is tried again: the rules of both clients, without any input or output.

A call is a generator that says what to do next, `Send` or `Pause`, and is told how it went. `service.client.transports`
does it, waiting or awaiting. RFC 9110 section 10.2.3 for Retry-After.
"""

import random
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, TypeVar

from service.client.errors import (
    ClientError,
    ConnectionFailed,
    Problem,
    TimedOut,
    TooManyRequests,
    Unavailable,
    UnexpectedAnswer,
    problem_of,
)

T = TypeVar("T")

_FIRST_PAUSE_S: Final = 0.25
_LONGEST_PAUSE_S: Final = 8.0
_JITTER: Final = 0.25
_LEAST_JITTER_S: Final = 0.1
_LONGEST_RETRY_AFTER_S: Final = 3600.0
_REQUEST_ID: Final = "x-request-id"  # in every answer of Depthlens; a portal's log-in page has none
_REPEATABLE: Final = frozenset({"/depth", "/segmentation", "/focus", "/analyze", "/batch"})


@dataclass(frozen=True, slots=True)
class Call:
    """One request as the caller means it.

    Args:
        method: GET or POST.
        path: from the service's root.
        query: parameters as text.
        content: the photo's bytes as the body.
        parts: files of a form instead, by field.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""
    parts: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def repeatable(self) -> bool:
        """Whether it may be sent again after it may have been worked on: the same call gives the same answer."""
        return self.method == "GET" or self.path in _REPEATABLE


@dataclass(frozen=True, slots=True)
class Send:
    """Send the call, and be done within so many seconds."""

    call: Call
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; names of headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Failure:
    """Nothing, or not all, came back.

    Args:
        error: what the HTTP library said.
        begun: whether the service may have seen the request.
        timed_out: whether time was the reason.
    """

    error: Exception
    begun: bool
    timed_out: bool


Steps = Generator[Send | Pause, Answer | Failure | None, T]
"""A call in progress, and what it comes to."""


@dataclass
class Policy:
    """How long and how often; what one client's parallel calls share.

    Args:
        timeout_s: for a whole call, its retries and pauses included.
        retries: further attempts after the first.
        clock: monotonic seconds.
        jitter: a number from 0 to 1 for each pause, so that clients refused together do not return together.
    """

    timeout_s: float
    retries: int
    clock: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = random.random  # nosec B311  # spreads load, keeps no secret
    quiet_until: float = 0.0
    """Until then the service has asked this client to stay away, whichever of its calls it said so to."""

    def pause_s(self, attempt: int, retry_after_s: float | None) -> float:
        """Before the attempt after this one: never less than was asked for; without that, doubled each time."""
        if retry_after_s is not None:
            return retry_after_s + self.jitter() * max(_LEAST_JITTER_S, _JITTER * retry_after_s)
        longest = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(attempt - 1, 16))
        return longest * (1 + self.jitter()) / 2


def exchange(call: Call, policy: Policy) -> Steps[Answer]:
    """The answer to a call, tried again where that is safe and makes sense.

    Raises:
        Problem: refused for good, or still when attempts or time were over.
        ConnectionFailed: nobody answers.
        TimedOut: the time is over.
        UnexpectedAnswer: somebody else answers.
    """
    deadline = policy.clock() + policy.timeout_s
    last: ClientError | None = None
    attempt = 0
    while True:
        attempt += 1
        yield from _respect_quiet(policy, deadline, last)
        remaining_s = deadline - policy.clock()
        if remaining_s <= 0:
            raise TimedOut(f"no answer within {policy.timeout_s:g} s") from last
        reply = yield Send(call, remaining_s)
        assert reply is not None  # only a pause has none
        if isinstance(reply, Answer) and 200 <= reply.status < 300:
            if _REQUEST_ID not in reply.headers:
                raise UnexpectedAnswer(
                    f"answered {reply.status}, but not as Depthlens does: no {_REQUEST_ID} in its head"
                )
            return reply
        error, again = _judge(call, policy, reply)
        if isinstance(reply, Failure) and reply.timed_out and policy.clock() >= deadline:
            raise TimedOut(f"no answer within {policy.timeout_s:g} s") from (last or reply.error)
        retry_after_s = error.retry_after_s if isinstance(error, Problem) else None
        pause_s = policy.pause_s(attempt, retry_after_s)
        if not again or attempt > policy.retries or policy.clock() + pause_s >= deadline:
            raise error
        if retry_after_s is not None:
            policy.quiet_until = max(policy.quiet_until, policy.clock() + retry_after_s)
        last = error
        yield Pause(pause_s)


def _respect_quiet(policy: Policy, deadline: float, last: ClientError | None) -> Steps[None]:
    """Wait while the service wants to be left alone, as another call of this client was told."""
    while (quiet_s := policy.quiet_until - policy.clock()) > 0:
        pause_s = policy.pause_s(1, quiet_s)
        if policy.clock() + pause_s >= deadline:
            raise last or TimedOut(f"the service asks for {quiet_s:.1f} s of rest, longer than this call has")
        yield Pause(pause_s)


def _judge(call: Call, policy: Policy, reply: Answer | Failure) -> tuple[ClientError, bool]:
    """The error, and whether another attempt is safe and may help."""
    if isinstance(reply, Failure):
        said = str(reply.error).splitlines()[0] if str(reply.error) else type(reply.error).__name__
        error: ClientError = ConnectionFailed(said)
        error.__cause__ = reply.error
        return error, call.repeatable or not reply.begun
    retry_after_s = parse_retry_after(reply.headers.get("retry-after"))
    error = problem_of(reply.status, reply.headers, reply.body, retry_after_s)
    refused = isinstance(error, Unavailable | TooManyRequests)
    # With Retry-After the service says that it has not begun, so that even a call with effects may come again.
    return error, refused and (call.repeatable or retry_after_s is not None)


def parse_retry_after(text: str | None, now: datetime | None = None) -> float | None:
    """Seconds of a Retry-After header, written as a number or as a date; None without a usable one."""
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:10]), _LONGEST_RETRY_AFTER_S)
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    seconds = (when - (now or datetime.now(UTC))).total_seconds()
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER_S)
