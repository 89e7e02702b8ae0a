"""Spans of a request: which there are, whose child each is, and what they do not tell."""

import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest
from collector import Collector, Span
from fakes import FakeDepthClient
from starlette.testclient import TestClient
from streaming import ended

from service.app import create_app
from service.errors import ModelFailed
from service.settings import Settings
from service.tracing import Tracer

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-"
SERVER, INTERNAL = 2, 1
FRAMES = "/frames?task=depth&size=native&drop=none"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture
def traced(collector: Collector, settings: Settings, client_of_triton: FakeDepthClient) -> Iterator[TestClient]:
    """A gateway that sends spans; leaving it sends the last of them."""
    app = create_app(settings, client_of_triton, tracer=Tracer.to(collector.endpoint))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def spans(traced: TestClient, collector: Collector) -> list[Span]:
    """All spans: the application's end sends them."""
    traced.__exit__()
    traced.__enter__()  # for the fixture, which leaves it again
    return list(collector.spans)


def test_a_request_is_a_span_and_its_stages_are_below(traced: TestClient, collector: Collector, photo: bytes) -> None:
    answer = traced.post("/focus?x=72&y=32&person=0", content=photo, headers={"X-Request-Id": "asked-7"})
    assert answer.status_code == 200
    seen = spans(traced, collector)
    [request] = [span for span in seen if span.kind == SERVER]
    assert request.name == "POST /focus"
    assert request.service == "depthlens-gateway"
    assert request.parent == ""
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/focus",
        "http.response.status_code": 200,
        "depthlens.code": "ok",
        "depthlens.request_id": "asked-7",
    }
    stages = [span for span in seen if span.kind == INTERNAL]
    assert {span.name for span in stages} >= {"receive", "decode", "queue", "infer", "render", "encode"}
    for span in stages:
        assert (span.trace, span.parent) == (request.trace, request.id)
        assert request.start_ns <= span.start_ns <= span.end_ns <= request.end_ns
    assert not any(span.failed for span in seen)


def test_a_caller_s_trace_goes_on_and_one_that_is_not_kept_is_not(
    traced: TestClient, collector: Collector, photo: bytes
) -> None:
    traced.post("/depth", content=photo, headers={"traceparent": CALLER + "01"})
    traced.post("/segmentation", content=photo, headers={"traceparent": CALLER + "00"})
    requests = [span for span in spans(traced, collector) if span.kind == SERVER]
    assert [(span.name, span.trace, span.parent) for span in requests] == [("POST /depth", CALLER[3:35], CALLER[36:52])]


def test_failures_say_what_but_not_more(
    traced: TestClient, collector: Collector, client_of_triton: FakeDepthClient, photo: bytes
) -> None:
    async def fails() -> None:
        raise ModelFailed("a secret of the model")

    client_of_triton.hook = fails
    assert traced.post("/depth?format=json&points=12,34", content=photo).status_code == 502
    assert traced.post("/depth?near=nan", content=photo).status_code == 422
    assert traced.get("/private/path?with=query").status_code == 404
    seen = spans(traced, collector)
    by_name = {span.name: span for span in seen if span.failed}
    assert set(by_name) == {"POST /depth", "infer"}
    assert by_name["POST /depth"].attributes["error.type"] == "model_failed"
    assert by_name["infer"].attributes["error.type"] == "ModelFailed"
    assert {span.attributes["http.response.status_code"] for span in seen if span.kind == SERVER} == {502, 422, 404}
    for secret in ("secret", "private", "query", "points", "12,34", "testclient"):
        assert secret not in str(seen)


def test_each_frame_of_a_stream_is_a_trace(traced: TestClient, collector: Collector, photo: bytes) -> None:
    with traced.websocket_connect(FRAMES, headers={"X-Request-Id": "film"}) as stream:
        stream.receive_json()
        for frame in (photo, b"no picture"):
            stream.send_bytes(frame)
            if stream.receive_json()["type"] == "result":
                stream.receive_bytes()
        ended(stream)
    seen = spans(traced, collector)
    good, bad = sorted((span for span in seen if span.kind == SERVER), key=lambda span: span.start_ns)
    assert (good.name, good.attributes, good.failed) == ("frame", {"depthlens.request_id": "film-0"}, False)
    assert (bad.name, bad.attributes["depthlens.request_id"], bad.failed) == ("frame", "film-1", True)
    stages = {span.name for span in seen if (span.trace, span.parent) == (good.trace, good.id)}
    assert stages >= {"decode", "queue", "infer", "encode"}
    assert good.trace != bad.trace


def test_probes_and_scrapes_leave_no_trace(traced: TestClient, collector: Collector) -> None:
    for path in ("/health/live", "/health/ready", "/metrics"):
        traced.get(path)
    assert spans(traced, collector) == []


def test_a_collector_that_is_not_there_costs_nothing(
    settings: Settings, client_of_triton: FakeDepthClient, photo: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "opentelemetry")  # it says that nobody answers, and it may
    app = create_app(settings, client_of_triton, tracer=Tracer.to("http://127.0.0.1:9"))
    with TestClient(app) as client:
        assert all(client.post("/depth", content=photo).status_code == 200 for _ in range(5))


def test_nothing_of_it_is_loaded_unless_it_is_asked_for() -> None:
    code = "import service.server, sys; assert not any('opentelemetry.sdk' in m or 'otlp' in m for m in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_where_the_collector_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    assert Settings().otlp_endpoint is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    assert Settings().otlp_endpoint == "http://collector:4318"
    monkeypatch.setenv("DEPTHLENS_OTLP_ENDPOINT", "https://other:4318/")
    assert Settings().otlp_endpoint == "https://other:4318/"
    with pytest.raises(ValueError, match="pattern"):
        Settings(otlp_endpoint="collector:4317")
