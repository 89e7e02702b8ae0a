"""Spans of a request, sent over OTLP to the collector that is named; nothing of it is loaded where none is.

A request has a span of its own, below it one for each of its stages, below `infer` one for each call of a Triton, and
Triton's own spans below that: the call carries W3C's `traceparent`. Attributes are from closed sets: no query, no
header and no name of a client's goes out, since a query may hold the token of somebody's scene.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Self

from service import __version__

_CLOSE_TIMEOUT_S = 2.0
"""A collector that does not answer must not keep the service from ending."""

_tracer: ContextVar["Tracer | None"] = ContextVar("depthlens_tracer", default=None)


class TracingMissing(RuntimeError):
    """The extra `otel` is not installed; the message says what to install."""


class Tracer:
    """Makes spans and sends them, in batches, from a thread of its own.

    Args:
        provider: of OpenTelemetry's SDK; shut down by `close`.
    """

    def __init__(self, provider: Any) -> None:
        from opentelemetry.trace import SpanKind, get_current_span
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("depthlens", __version__)
        self._w3c = TraceContextTextMapPropagator()  # no baggage: what clients put there is nobody's business
        self._kinds = SpanKind
        self._current_span = get_current_span

    @classmethod
    def to(cls, endpoint: str) -> Self:
        """Spans go to the collector at `http(s)://host:port`, OTLP over HTTP; `OTEL_*` variables say the rest.

        Raises:
            TracingMissing: the extra is not installed.
        """
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import OTELResourceDetector, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError:
            raise TracingMissing("tracing needs the extra: pip install 'depthlens[otel]'") from None
        ours = Resource.create({"service.name": "depthlens-gateway", "service.version": __version__})
        provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(traces_url(endpoint))))
        return cls(provider)

    @contextmanager
    def request(self, name: str, request_id: str, headers: Mapping[str, str]) -> Iterator[str]:
        """The span of a request, below that of its caller where `headers` name one; yields the trace's id in hex."""
        caller = self._w3c.extract(headers)
        token = _tracer.set(self)
        try:
            with self._span(name, self._kinds.SERVER, {"depthlens.request_id": request_id}, caller) as span:
                yield format(span.get_span_context().trace_id, "032x")
        finally:
            _tracer.reset(token)

    @contextmanager
    def _span(self, name: str, kind: Any, attributes: Mapping[str, str | int], parent: Any = None) -> Iterator[Any]:
        # Neither the text nor the traceback of an error goes out: the log has them, under the same ids.
        with self._tracer.start_as_current_span(
            name, parent, kind, attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except BaseException as error:
                _fail(span, type(error).__name__)
                raise

    def headers(self) -> dict[str, str]:
        """What a call carries so that the callee's spans join the one that is current; nothing of a trace not kept."""
        carried: dict[str, str] = {}
        if self._current_span().is_recording():
            self._w3c.inject(carried)
        return carried

    def describe(self, name: str, attributes: Mapping[str, str | int], failure: str | None) -> None:
        """Name the current span anew and say more about it."""
        span = self._current_span()
        span.update_name(name)
        span.set_attributes(attributes)
        if failure is not None:
            _fail(span, failure)

    def close(self) -> None:
        """Send what has not been sent, and no more; takes 2 s at most where the collector does not answer."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(_CLOSE_TIMEOUT_S)


def traces_url(endpoint: str) -> str:
    """Where a collector takes traces."""
    return f"{endpoint.rstrip('/')}/v1/traces"


def _fail(span: Any, failure: str) -> None:
    from opentelemetry.trace import StatusCode

    span.set_attribute("error.type", failure)
    span.set_status(StatusCode.ERROR)


@contextmanager
def request(tracer: Tracer | None, name: str, request_id: str, headers: Mapping[str, str]) -> Iterator[str]:
    """As `Tracer.request`; yields nothing where there is no tracer."""
    if tracer is None:
        yield ""
        return
    with tracer.request(name, request_id, headers) as trace_id:
        yield trace_id


_NOTHING: AbstractContextManager[None] = nullcontext()


def span(name: str) -> AbstractContextManager[Any]:
    """A part of the request that is being worked on; nothing where that is not traced."""
    tracer = _tracer.get()
    return _NOTHING if tracer is None else tracer._span(name, tracer._kinds.INTERNAL, {})


@contextmanager
def call(name: str, attributes: Mapping[str, str | int]) -> Iterator[dict[str, str]]:
    """A call of another service; yields the headers that it carries."""
    tracer = _tracer.get()
    if tracer is None:
        yield {}
        return
    with tracer._span(name, tracer._kinds.CLIENT, attributes):
        yield tracer.headers()


def answered(method: str, route: str, status: int, code: str) -> None:
    """Say on the request's span how it was answered; nothing where it is not traced."""
    tracer = _tracer.get()
    if tracer is None:
        return
    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "http.route": route,
        "http.response.status_code": status,
        "depthlens.code": code,
    }
    tracer.describe(f"{method} {route}", attributes, code if status >= 500 else None)
