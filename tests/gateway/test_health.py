import time

import pytest
from fakes import FakeDepthClient
from starlette.testclient import TestClient

from service.app import create_app
from service.errors import ModelUnavailable
from service.settings import Settings


def poll(client: TestClient, status: int) -> dict[str, object]:
    deadline = time.monotonic() + 5
    while True:
        answer = client.get("/health/ready")
        if answer.status_code == status or time.monotonic() > deadline:
            assert answer.status_code == status, answer.text
            return answer.json()
        time.sleep(0.01)


async def absent() -> None:
    raise ModelUnavailable("The model server cannot be reached.")


def test_readiness_follows_a_real_inference(gateway: TestClient, client_of_triton: FakeDepthClient) -> None:
    assert poll(gateway, 200)["status"] == "ready"
    client_of_triton.hook = absent
    assert poll(gateway, 503)["code"] == "model_unavailable"
    assert gateway.get("/health/live").status_code == 200
    assert "depthlens_triton_up 0.0" in gateway.get("/metrics").text
    client_of_triton.hook = FakeDepthClient().hook
    poll(gateway, 200)


def test_the_canary_runs_the_model_behind_focus(gateway: TestClient, client_of_triton: FakeDepthClient) -> None:
    poll(gateway, 200)
    assert ("focus", (64, 64, 3)) in client_of_triton.calls


def test_starting_without_triton_is_live_but_not_ready(settings: Settings, client_of_triton: FakeDepthClient) -> None:
    client_of_triton.hook = absent
    with TestClient(create_app(settings, client_of_triton)) as client:
        assert client.get("/health/live").json() == {"status": "live"}
        answer = client.get("/health/ready")
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"


def test_a_draining_gateway_is_not_ready_but_answers(gateway: TestClient, photo: bytes) -> None:
    poll(gateway, 200)
    gateway.app.state.gateway.draining = True
    assert poll(gateway, 503)["code"] == "draining"
    assert gateway.post("/depth", content=photo).status_code == 200


def test_the_client_is_closed_with_the_app(settings: Settings, client_of_triton: FakeDepthClient) -> None:
    with TestClient(create_app(settings, client_of_triton)):
        assert not client_of_triton.closed
    assert client_of_triton.closed


def test_an_app_needs_a_triton() -> None:
    with pytest.raises(ValueError, match="DEPTHLENS_TRITON_URL"):
        create_app(Settings(triton_url=None))


class HealingServer:
    """An embedded Triton whose supervisor found a dead model before the gateway's own canary did."""

    ready = False
    restarts = 2
    reloads = 3

    async def exposition(self) -> bytes:
        return b"# TYPE nv_inference_count counter\nnv_inference_count 5\n"


def test_readiness_knows_what_the_supervisor_knows(settings: Settings, client_of_triton: FakeDepthClient) -> None:
    embedded = HealingServer()
    with TestClient(create_app(settings, client_of_triton, embedded)) as client:
        assert "healing" in poll(client, 503)["detail"]
        embedded.ready = True
        poll(client, 200)
        text = client.get("/metrics").text
    assert 'depthlens_triton_restarts_total{kind="restart"} 2.0' in text
    assert 'depthlens_triton_restarts_total{kind="reload"} 3.0' in text
    assert text.endswith("\n# TYPE nv_inference_count counter\nnv_inference_count 5\n")
