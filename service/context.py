"""What travels with one request: its id, its deadline, and the time each stage took."""

import re
import secrets
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal

from service import tracing
from service.errors import DeadlineExceeded

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)

Stage = Literal["decode", "queue", "infer", "render", "encode"]


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point on the monotonic clock, so that a clock jump moves no deadline."""

    timeout_s: float
    expires_at: float

    @classmethod
    def after(cls, timeout_s: float) -> "Deadline":
        """The deadline `timeout_s` seconds from now."""
        return cls(timeout_s, time.monotonic() + timeout_s)

    def remaining_s(self) -> float:
        """Seconds left, at least 0."""
        return max(0.0, self.expires_at - time.monotonic())

    def exceeded(self, stage: str) -> DeadlineExceeded:
        """The 504 that says where the time went."""
        return DeadlineExceeded(
            f"The request's deadline of {self.timeout_s:g} s passed during: {stage}. "
            "Send a smaller photo or a larger X-Request-Timeout.",
            field="X-Request-Timeout",
            limit=self.timeout_s,
            extra={"stage": stage},
        )


@dataclass(slots=True)
class RequestContext:
    """State of one request, made at the door or by the middleware, and passed to whatever works for it.

    `client` names who asks, for fair shares; it is neither logged nor shown. `let_in` says that the door has asked.
    `trace_id` is empty where the request is not traced.
    """

    request_id: str = field(default_factory=lambda: secrets.token_hex(8))
    client: str = ""
    deadline: Deadline = field(default_factory=lambda: Deadline.after(30.0))
    stage: str = "receive"
    stage_s: dict[str, float] = field(default_factory=dict)
    problem_code: str = "ok"
    let_in: bool = False
    trace_id: str = ""

    @classmethod
    def named(cls, request_id: str) -> "RequestContext":
        """A new one with the id that the request has, if that is one: it goes into headers and the log."""
        return cls(request_id=request_id) if _REQUEST_ID.fullmatch(request_id) else cls()

    def timed(self, stage: Stage) -> "_Timed":
        """Count the time of the block under `stage`; a stage entered twice adds up."""
        return _Timed(self, stage)

    def server_timing(self) -> str:
        """The `Server-Timing` header: milliseconds by stage."""
        return ", ".join(f"{stage};dur={seconds * 1000:.1f}" for stage, seconds in self.stage_s.items())


class _Timed:
    """One block of `RequestContext.timed`. A class: there are several in a request, and generators cost more."""

    __slots__ = ("_context", "_span", "_stage", "_start")

    def __init__(self, context: RequestContext, stage: Stage) -> None:
        self._context, self._stage = context, stage
        self._span = tracing.span(stage)

    def __enter__(self) -> None:
        self._context.stage = self._stage
        self._start = time.perf_counter()
        self._span.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._span.__exit__(kind, error, where)
        stage_s, seconds = self._context.stage_s, time.perf_counter() - self._start
        stage_s[self._stage] = stage_s.get(self._stage, 0.0) + seconds


current: ContextVar[RequestContext | None] = ContextVar("depthlens_request", default=None)
"""The request that is being worked on, for the log."""
