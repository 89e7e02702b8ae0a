"""An OTLP receiver in this process: protobuf as the gateway sends it, JSON as Triton does."""

import gzip
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Span:
    """One span; ids in hex, times in nanoseconds."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    kind: int
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    failed: bool


class Collector:
    """Listens from its construction to `close`; a context manager."""

    def __init__(self) -> None:
        spans = self.spans = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                read = _of_json if "json" in self.headers["Content-Type"] else _of_protobuf
                assert self.path == "/v1/traces"
                spans.extend(read(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return None

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def __enter__(self) -> "Collector":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def until(self, enough: Callable[[list[Span]], bool], within_s: float = 30.0) -> list[Span]:
        """The spans so far, once there are enough of them."""
        start = time.monotonic()
        while not enough(list(self.spans)):
            assert time.monotonic() - start < within_s, [(span.service, span.name) for span in self.spans]
            time.sleep(0.02)
        return list(self.spans)


def _of_protobuf(body: bytes) -> list[Span]:
    return [
        Span(
            service=_attributes_of_protobuf(batch.resource.attributes)["service.name"],
            name=span.name,
            trace=span.trace_id.hex(),
            id=span.span_id.hex(),
            parent=span.parent_span_id.hex(),
            kind=span.kind,
            start_ns=span.start_time_unix_nano,
            end_ns=span.end_time_unix_nano,
            attributes=_attributes_of_protobuf(span.attributes),
            failed=span.status.code == 2,
        )
        for batch in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in batch.scope_spans
        for span in scope.spans
    ]


def _attributes_of_protobuf(given: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in given}


def _of_json(body: bytes) -> list[Span]:
    return [
        Span(
            service=_attributes_of_json(batch["resource"])["service.name"],
            name=span["name"],
            trace=span["traceId"],
            id=span["spanId"],
            parent=span.get("parentSpanId", ""),
            kind=span["kind"],
            start_ns=int(span["startTimeUnixNano"]),
            end_ns=int(span["endTimeUnixNano"]),
            attributes=_attributes_of_json(span),
            failed=span.get("status", {}).get("code") == 2,
        )
        for batch in json.loads(body)["resourceSpans"]
        for scope in batch["scopeSpans"]
        for span in scope["spans"]
    ]


def _attributes_of_json(holder: dict[str, Any]) -> dict[str, Any]:
    return {each["key"]: next(iter(each["value"].values())) for each in holder.get("attributes", [])}
