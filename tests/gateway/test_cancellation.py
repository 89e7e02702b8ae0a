"""A client that leaves, on a real socket: its work is cancelled down to the model, and the gauges return to zero."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import uvicorn
from crowds import PHOTO
from fakes import FakeDepthClient, encoded, picture

from service.app import create_app
from service.settings import Settings


class Running:
    def __init__(self, client: FakeDepthClient) -> None:
        self.app = create_app(Settings(canary_period_s=60), client)
        config = uvicorn.Config(self.app, http="h11", ws="none", log_config=None)
        self.server = uvicorn.Server(config)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        self.thread = threading.Thread(target=asyncio.run, args=(self.server._serve([self.listener]),))
        self.thread.start()

    def metric(self, name: str, **labels: str) -> float:
        registry = self.app.state.gateway.metrics.registry
        return registry.get_sample_value(name, labels) or 0.0

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)
        self.listener.close()


@pytest.fixture
def running(client_of_triton: FakeDepthClient) -> Iterator[Running]:
    server = Running(client_of_triton)
    yield server
    server.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within 10 s"
        time.sleep(0.005)


def head(length: int) -> bytes:
    return f"POST /depth HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {length}\r\n\r\n".encode()


def test_leaving_during_inference_cancels_it(running: Running, client_of_triton: FakeDepthClient) -> None:
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


def test_leaving_during_the_upload_frees_it(running: Running, client_of_triton: FakeDepthClient) -> None:
    with socket.create_connection(running.address) as connection:
        connection.sendall(head(1_000_000) + bytes(1000))
        time.sleep(0.05)
    until(lambda: running.metric("depthlens_cancelled_total", stage="receive") == 1)
    assert running.metric("depthlens_inflight") == 0
    assert all(shape == (64, 64, 3) for _, shape in client_of_triton.calls)


def test_waiting_requests_pass_when_one_ahead_leaves(running: Running, client_of_triton: FakeDepthClient) -> None:
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


def test_leaving_a_focus_pull_stops_it(running: Running) -> None:
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
