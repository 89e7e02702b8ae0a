"""What is counted is there before it happens, and Triton's own metrics come with ours or not at all."""

import asyncio
from contextlib import suppress

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from service.embedded import exposition
from service.settings import Settings


def samples(text: str) -> dict[str, float]:
    """Value by name and labels, without those of histogram buckets."""
    return {
        sample.name + "".join(f" {key}={value}" for key, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith(("_bucket", "_created"))
    }


def test_counters_are_zero_before_anything_has_happened(gateway: TestClient) -> None:
    seen = samples(gateway.get("/metrics").text)
    assert seen["depthlens_rejected_total reason=queue_full"] == 0
    assert seen["depthlens_decoder_ends_total reason=killed"] == 0
    assert seen["depthlens_cancelled_total stage=infer"] == 0
    assert seen["depthlens_stage_seconds_count stage=render"] == 0
    for route in ("/depth", "/segmentation", "/focus"):
        assert seen[f"depthlens_request_seconds_count route={route}"] == 0
        assert seen[f"depthlens_requests_total code=ok route={route} status=200"] == 0


def test_gauges_come_with_what_they_may_reach(gateway: TestClient, settings: Settings) -> None:
    seen = samples(gateway.get("/metrics").text)
    assert seen["depthlens_waiting_limit"] == settings.max_waiting
    assert seen["depthlens_inflight_limit"] == settings.max_inflight
    assert seen["depthlens_upload_bytes_limit"] == settings.max_upload_bytes
    assert 1e6 < seen["process_resident_memory_bytes"] < 1e12
    assert any(name.startswith("depthlens_build_info version=") for name in seen)


def answered(answer: bytes | None) -> bytes:
    """What is read of a server that answers so; None: that answers nothing."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):  # who asks may hang up first
            await reader.readuntil(b"\r\n\r\n")
            if answer is None:
                await reader.read()
            else:
                writer.write(answer)
            writer.close()
            await writer.wait_closed()
        over.set()

    async def ask() -> bytes:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            read = await exposition.read("127.0.0.1", server.sockets[0].getsockname()[1])
            await over.wait()
            return read

    over = asyncio.Event()

    return asyncio.run(ask())


def test_tritons_metrics_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert answered(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\na 1\n\n") == b"a 1\n\n"
    assert answered(b"HTTP/1.1 503 Busy\r\n\r\nno") == b""
    assert answered(b"") == b""
    monkeypatch.setattr(exposition, "_TIMEOUT_S", 0.05)
    assert answered(None) == b""
    monkeypatch.setattr(exposition, "_LONGEST_BYTES", 10)
    assert answered(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100_000) == b""
    assert asyncio.run(exposition.read("127.0.0.1", 1)) == b""
