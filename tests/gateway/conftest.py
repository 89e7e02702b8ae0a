"""A gateway on a fake client: the same application, without a Triton behind it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fakes import FakeDepthClient, encoded, picture
from running import RunningGateway
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings


@pytest.fixture
def client_of_triton() -> FakeDepthClient:
    return FakeDepthClient()


@pytest.fixture
def settings() -> Settings:
    return Settings(max_body_bytes=2_000_000, max_pixels=1_000_000, canary_period_s=0.02)


@pytest.fixture
def gateway(settings: Settings, client_of_triton: FakeDepthClient) -> Iterator[TestClient]:
    with TestClient(create_app(settings, client_of_triton), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def photo() -> bytes:
    return encoded(picture())


@pytest.fixture
def start(client_of_triton: FakeDepthClient) -> Iterator[Callable[..., RunningGateway]]:
    """Starts gateways on the fake client, behind the real edge; they end with the test."""
    running = []

    def begin(**settings: Any) -> RunningGateway:
        running.append(RunningGateway(client_of_triton, **settings))
        return running[-1]

    yield begin
    for gateway in running:
        gateway.close()


@pytest.fixture(scope="module")
def edge() -> Iterator[RunningGateway]:
    """A gateway with ordinary settings behind the real edge, for what is refused at once."""
    running = RunningGateway(FakeDepthClient(), max_body_bytes=2_000_000)
    yield running
    running.close()
