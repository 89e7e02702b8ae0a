"""The outermost layer: request id, timing headers, metrics and the access log of every request."""

import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import access, tracing
from service.context import RequestContext, current
from service.metrics import Metrics
from service.problems import problem_response
from service.tracing import Tracer

_UNTRACED = ("/health/", "/metrics")
"""Beginnings of paths whose requests say nothing and come every few seconds."""


class RequestMiddleware:
    """Gives every request its context, and lets no exception out without a problem answer."""

    def __init__(self, app: ASGIApp, metrics: Metrics, tracer: Tracer | None = None) -> None:
        self._app = app
        self._metrics = metrics
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        headers = Headers(scope=scope)
        context = state.get("context") or RequestContext.named(headers.get("x-request-id", ""))
        state["context"] = context
        token = current.set(context)
        tracer = None if scope["path"].startswith(_UNTRACED) else self._tracer
        try:
            with tracing.request(tracer, "request", context.request_id, headers) as context.trace_id:
                await self._serve(scope, receive, send, context)
        finally:
            current.reset(token)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, context: RequestContext) -> None:
        start = time.perf_counter()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = context.request_id
                if context.stage_s:
                    headers["Server-Timing"] = context.server_timing()
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:
            if status:
                raise  # the answer is on its way already: the server closes the connection
            await problem_response(error, Request(scope))(scope, receive, send_with_headers)
        finally:
            self._record(scope, context, status, time.perf_counter() - start)

    def _record(self, scope: Scope, context: RequestContext, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        tracing.answered(scope["method"], route, status, context.problem_code)
        access.record(self._metrics, context, scope["method"], route, status, seconds)
