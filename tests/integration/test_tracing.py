"""One photo, one trace: the gateway's spans and the real Triton's own, received in this process."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from collector import Collector, Span
from fakes import encoded, picture

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

CALLER = "b7ad6b7169203331"
KEPT = {f"traced-{n}": f"0af7651916cd43dd8448eb211c80319{n}" for n in range(6)}
"""Traces by request. Triton has no spans for about one call in twenty: its gRPC frontend (2.51) takes the caller's
`traceparent` for text that ends in a zero, which it need not, and one that seems to go on is none to it."""
NOT_KEPT = "1" * 32
GATEWAY, TRITON = "depthlens-gateway", "depthlens-triton"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture
def serving(collector: Collector, repository: Path, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a `depthlens serve` with its embedded Triton, both traced, and its log."""
    log = tmp_path / "log"
    environment = {
        **os.environ,
        "DEPTHLENS_MODEL_REPOSITORY": str(repository),
        "DEPTHLENS_LOG_FORMAT": "json",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "service", "serve", "--port", "0"],
            **{"stdout": out, "stderr": out, "stdin": subprocess.DEVNULL},
            env=environment,
        )
        try:
            deadline = time.monotonic() + 60
            while not (ready := re.search(r"ready: (http://\S+)", log.read_text())):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            yield ready[1], log
        finally:
            process.terminate()
            assert process.wait(30) == 0, log.read_text()


def post(url: str, width: int, headers: dict[str, str]) -> None:
    """Ask for a picture that is as wide: another for each request, since answers are remembered."""
    request = urllib.request.Request(url, encoded(picture(width)), {"Content-Type": "image/png", **headers})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200


def test_one_trace_from_the_request_into_triton(serving: tuple[str, Path], collector: Collector) -> None:
    url, log = serving
    post(f"{url}/segmentation", 96, {"traceparent": f"00-{NOT_KEPT}-{CALLER}-00"})  # its caller does not keep it
    for n, (request, trace) in enumerate(KEPT.items()):
        post(f"{url}/focus?x=10&y=10", 100 + n, {"traceparent": f"00-{trace}-{CALLER}-01", "X-Request-Id": request})

    def names(spans: list[Span], service: str) -> set[str]:
        return {span.name for span in spans if span.service == service}

    def whole(seen: list[Span]) -> list[str]:
        """Requests with all of their spans, as far as one can tell."""
        of = {request: [span for span in seen if span.trace == trace] for request, trace in KEPT.items()}
        return [
            request
            for request, spans in of.items()
            if "POST /focus" in names(spans, GATEWAY) and {"InferRequest", "compute"} <= names(spans, TRITON)
        ]

    everything = collector.until(lambda seen: bool(whole(seen)))
    assert {span.trace for span in everything} <= set(KEPT.values())  # nor any of canaries
    request = whole(everything)[0]
    spans = [span for span in everything if span.trace == KEPT[request]]
    by_id = {span.id: span for span in spans}

    def above(span: Span) -> list[str]:
        """Names from the span up to the caller."""
        return [span.name] + (above(by_id[span.parent]) if span.parent in by_id else [span.parent])

    [compute] = [span for span in spans if span.name == "compute"]
    assert above(compute) == [
        "compute",
        "focus_on_depth",
        "focus",
        "InferRequest",
        "inference.GRPCInferenceService/ModelInfer",
        "infer",
        "POST /focus",
        CALLER,
    ]
    [network] = [span for span in spans if span.name == "focus_on_depth"]
    assert (network.service, network.attributes["triton.request_id"]) == (TRITON, request)
    [call] = [span for span in spans if span.name.endswith("ModelInfer")]
    assert call.attributes["depthlens.model"] == "focus"
    assert names(spans, GATEWAY) >= {"receive", "decode", "queue", "infer", "render", "encode"}
    said = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    [access] = [line for line in said if line.get("request_id") == request]
    assert (access["route"], access["status"], access["trace_id"]) == ("/focus", 200, KEPT[request])
