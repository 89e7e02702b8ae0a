"""What travels with one request: its id, its deadline, and the time each stage took."""

import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
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

    @contextmanager
    def timed(self, stage: Stage) -> Iterator[None]:
        """Count the time of the block under `stage`; a stage entered twice adds up."""
        self.stage = stage
        start = time.perf_counter()
        try:
            with tracing.span(stage):
                yield
        finally:
            self.stage_s[stage] = self.stage_s.get(stage, 0.0) + time.perf_counter() - start

    def server_timing(self) -> str:
        """The `Server-Timing` header: milliseconds by stage."""
        return ", ".join(f"{stage};dur={seconds * 1000:.1f}" for stage, seconds in self.stage_s.items())


current: ContextVar[RequestContext | None] = ContextVar("depthlens_request", default=None)
"""The request that is being worked on, for the log."""
