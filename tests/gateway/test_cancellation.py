"""A client that leaves, on a real socket: its work is cancelled down to the model, and the gauges return to zero."""

import asyncio
import socket
from collections.abc import Iterator

import pytest
from crowds import PHOTO
from fakes import FakeDepthClient, encoded, picture
from running import RunningGateway, until

from service.settings import Settings


@pytest.fixture
def running(client_of_triton: FakeDepthClient) -> Iterator[RunningGateway]:
    server = RunningGateway(client_of_triton)
    yield server
    server.close()


def head(length: int) -> bytes:
    return f"POST /depth HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {length}\r\n\r\n".encode()


def test_leaving_during_inference_cancels_it(running: RunningGateway, client_of_triton: FakeDepthClient) -> None:
    async def forever() -> None:
        await asyncio.Event().wait()

    client_of_triton.hook = forever
    body = encoded(picture())
    with socket.create_connection(running.address) as connection:
        connection.sendall(head(len(body)) + body)
        until(lambda: running.metric("depthlens_inflight") == 1)
        until(lambda: any(shape != (64, 64, 3) for _, shape in client_of_triton.calls))
    before = client_of_triton.cancelled
    until(lambda: client_of_triton.cancelled > before or client_of_triton.cancelled >= 1)
    until(lambda: running.metric("depthlens_inflight") == 0)
    until(lambda: running.metric("depthlens_cancelled_total", stage="infer") == 1)
    until(lambda: running.metric("depthlens_requests_total", route="/depth", status="499", code="client_left") == 1)


def test_leaving_during_the_upload_frees_it(running: RunningGateway, client_of_triton: FakeDepthClient) -> None:
    with socket.create_connection(running.address) as connection:
        connection.sendall(head(1_000_000) + bytes(1000))
        until(lambda: running.app.state.gateway.uploads.used_bytes == 1000)
    until(lambda: running.metric("depthlens_cancelled_total", stage="receive") == 1)
    assert running.metric("depthlens_inflight") == 0
    assert all(shape == (64, 64, 3) for _, shape in client_of_triton.calls)


def test_waiting_requests_pass_when_one_ahead_leaves(
    running: RunningGateway, client_of_triton: FakeDepthClient
) -> None:
    release = asyncio.Event()
    client_of_triton.hook = release.wait
    body = encoded(picture())
    connections = []
    places = Settings().max_inflight
    for index in range(places + 1):
        connections.append(socket.create_connection(running.address))
        connections[-1].sendall(head(len(body)) + body)
        until(lambda count=index + 1: running.metric("depthlens_inflight") == min(places, count))
    until(lambda: running.metric("depthlens_waiting") == 1)
    connections[0].close()
    until(lambda: running.metric("depthlens_waiting") == 0)
    assert running.metric("depthlens_inflight") == places
    for connection in connections[1:]:
        connection.close()
    until(lambda: running.metric("depthlens_inflight") == 0)


def test_leaving_a_focus_pull_stops_it(running: RunningGateway) -> None:
    """Between two frames: those that were not begun never are."""
    body = PHOTO
    query = "rx=0.2&ry=0.7&rack_rx=0.7&rack_ry=0.2&rack_frames=48&blur=1"
    lines = (
        f"POST /focus?{query} HTTP/1.1",
        "Host: x",
        "Content-Type: image/png",
        f"Content-Length: {len(body)}",
    )
    with socket.create_connection(running.address) as connection:
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        until(lambda: running.metric("depthlens_inflight") == 1)
        until(lambda: running.metric("depthlens_cache_total", kind="scene", result="miss") == 1)
    until(lambda: running.metric("depthlens_inflight") == 0)
    until(lambda: running.metric("depthlens_requests_total", route="/focus", status="499", code="client_left") == 1)
    workers = running.app.state.gateway.pipeline._workers
    workers.submit(int).result(30)
    assert workers._work_queue.qsize() == 0
