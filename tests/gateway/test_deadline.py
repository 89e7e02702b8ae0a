"""One deadline over the upload, the wait, decoding, the model and encoding; and nothing is left behind."""

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest
from fakes import FakeDepthClient
from starlette.testclient import TestClient
from starlette.types import Message

from service.app import create_app
from service.settings import Settings

SHORT = {"X-Request-Timeout": "0.4", "Content-Type": "image/png"}
LONG_S = 10.0


class Blocked:
    """Worker threads that are busy until `release`."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self.release = threading.Event()

    def block(self, gateway: TestClient) -> None:
        for _ in range(self._threads):
            gateway.app.state.gateway.pipeline._workers.submit(self.release.wait, LONG_S)


@pytest.fixture
def blocked(settings: Settings) -> Iterator[Blocked]:
    blocked = Blocked(settings.worker_threads)
    yield blocked
    blocked.release.set()


def late(gateway: TestClient, path: str, photo: bytes, stage: str) -> None:
    """The answer is a 504 that says where the time went, and the gauges are back."""
    answer = gateway.post(path, content=photo, headers=SHORT)
    assert answer.status_code == 504, answer.text
    assert answer.json()["code"] == "deadline_exceeded"
    assert answer.json()["stage"] == stage
    everything_is_given_back(gateway)


def everything_is_given_back(gateway: TestClient) -> None:
    sample: Callable[[str], float | None] = gateway.app.state.gateway.metrics.registry.get_sample_value
    for name in ("depthlens_inflight", "depthlens_waiting", "depthlens_upload_bytes"):
        assert sample(name) == 0, name


def test_in_the_queue(gateway: TestClient, settings: Settings, photo: bytes) -> None:
    admission = gateway.app.state.gateway.admission
    admission._inflight = settings.max_inflight
    answer = gateway.post("/depth", content=photo, headers=SHORT)
    admission._inflight = 0
    assert answer.json()["stage"] == "queue"
    everything_is_given_back(gateway)
    assert gateway.post("/depth", content=photo).status_code == 200


def test_in_decoding(gateway: TestClient, blocked: Blocked, photo: bytes) -> None:
    assert gateway.post("/depth", content=photo).status_code == 200
    blocked.block(gateway)
    late(gateway, "/depth", photo, "decode")
    blocked.release.set()
    assert gateway.post("/depth", content=photo).status_code == 200


def test_at_the_model(gateway: TestClient, client_of_triton: FakeDepthClient, photo: bytes) -> None:
    async def forever() -> None:
        await asyncio.Event().wait()

    client_of_triton.hook = forever
    before = client_of_triton.cancelled
    late(gateway, "/depth", photo, "infer")
    assert client_of_triton.cancelled > before


def test_in_encoding(gateway: TestClient, client_of_triton: FakeDepthClient, blocked: Blocked, photo: bytes) -> None:
    async def block() -> None:
        if client_of_triton.calls[-1][1] != (64, 64, 3):  # not the canary's
            blocked.block(gateway)

    client_of_triton.hook = block
    late(gateway, "/depth?size=native", photo, "encode")


@pytest.mark.parametrize("sent", [b"", b"half of a photo"])
def test_during_the_upload(client_of_triton: FakeDepthClient, sent: bytes) -> None:
    """The client sends a part and then nothing more."""

    async def test() -> None:
        app = create_app(Settings(canary_period_s=60), client_of_triton)
        waiting: list[Message] = [{"type": "http.request", "body": sent, "more_body": True}] if sent else []
        answers: list[Message] = []

        async def receive() -> Message:
            return waiting.pop() if waiting else await asyncio.Event().wait()  # type: ignore[return-value]

        async def send(message: Message) -> None:
            answers.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/depth",
            "query_string": b"",
            "headers": [(name.lower().encode(), value.encode()) for name, value in SHORT.items()],
        }
        await asyncio.wait_for(app(scope, receive, send), LONG_S)
        assert answers[0]["status"] == 504
        assert b'"stage":"receive"' in answers[1]["body"]
        assert app.state.gateway.uploads.used_bytes == 0

    asyncio.run(test())
