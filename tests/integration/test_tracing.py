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

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
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


def post(url: str, headers: dict[str, str]) -> None:
    request = urllib.request.Request(url, encoded(picture()), {"Content-Type": "image/png", **headers})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200


def test_one_trace_from_the_request_into_triton(serving: tuple[str, Path], collector: Collector) -> None:
    url, log = serving
    headers = {"traceparent": f"00-{TRACE}-{CALLER}-01", "X-Request-Id": "traced-1"}
    post(f"{url}/focus?x=10&y=10", headers)
    post(f"{url}/segmentation", {"traceparent": f"00-{'1' * 32}-{CALLER}-00"})  # a trace that its caller does not keep

    def names(spans: list[Span], service: str) -> set[str]:
        return {span.name for span in spans if span.service == service}

    spans = collector.until(
        lambda seen: "POST /focus" in names(seen, GATEWAY) and {"InferRequest", "compute"} <= names(seen, TRITON)
    )
    assert {span.trace for span in spans} == {TRACE}  # nor any of canaries
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
    assert (network.service, network.attributes["triton.request_id"]) == (TRITON, "traced-1")
    [call] = [span for span in spans if span.name.endswith("ModelInfer")]
    assert call.attributes["depthlens.model"] == "focus"
    assert names(spans, GATEWAY) >= {"receive", "decode", "queue", "infer", "render", "encode"}
    said = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    [access] = [line for line in said if line.get("request_id") == "traced-1"]
    assert (access["route"], access["status"], access["trace_id"]) == ("/focus", 200, TRACE)
