"""A model that holds on, raises and answers nonsense on demand: what the caller gets, and what it costs the others."""

import asyncio
import os
import re
import signal
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from embedded_triton import eventually, make_python_repository, processes

from service.embedded.settings import EmbeddedSettings
from service.embedded.supervisor import Supervisor
from service.errors import ContractViolation, DeadlineExceeded, ModelFailed, ModelUnavailable
from service.inference import TritonClient

pytestmark = pytest.mark.integration

MODEL = """
import pathlib
import time
import numpy as np
import triton_python_backend_utils as pb_utils

NOTES = pathlib.Path("NOTES_DIRECTORY")


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        image = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()
        order, argument, mark = (int(value) for value in image[0, 0, 0])
        output = np.zeros(image.shape[:3], np.float32)
        if mark == 7:
            if order == 1:
                (NOTES / f"begun-{argument}").touch()
                while not request.is_cancelled() and not (NOTES / f"released-{argument}").exists():
                    time.sleep(0.01)
            elif order == 2:
                raise RuntimeError("a secret at /root/weights")
            elif order == 3:
                output[0, 0, 0] = np.nan
            elif order == 4:
                output = output[..., np.newaxis]
            elif order == 5:
                output = output.astype(np.float64)
        if request.is_cancelled():
            error = pb_utils.TritonError("nobody waits", pb_utils.TritonError.CANCELLED)
            return pb_utils.InferenceResponse(error=error)
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, output) for name in ("inverse_depth", "person")])
"""
HOLD, RAISE, NAN, WRONG_AXES, WRONG_TYPE = 1, 2, 3, 4, 5
HANG_S = 60.0
"""Longer than anything here takes: against a hang, never the point of a test."""


def order(number: int, argument: int = 0) -> np.ndarray:
    image = np.zeros((32, 32, 3), np.uint8)
    image[0, 0] = number, argument, 7
    return image


@dataclass(frozen=True)
class Notes:
    """What the model says that it does, and is told to do, through files."""

    directory: Path

    async def begun(self, number: int) -> None:
        """Wait until the model holds the request of this number."""
        await eventually((self.directory / f"begun-{number}").exists, HANG_S)

    def release(self, number: int) -> None:
        (self.directory / f"released-{number}").touch()


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    (tmp_path / "notes").mkdir()
    return Notes(tmp_path / "notes")


@pytest.fixture
def odd_repository(tmp_path: Path, notes: Notes) -> Path:
    model = MODEL.replace("NOTES_DIRECTORY", str(notes.directory))
    return make_python_repository(tmp_path / "odd", model)


async def pending_requests(supervisor: Supervisor) -> int:
    """How many requests wait in Triton's queue, by its own metric."""
    url = f"http://127.0.0.1:{supervisor.ports.metrics}/metrics"
    with await asyncio.to_thread(urllib.request.urlopen, url, timeout=HANG_S) as answer:
        metrics = answer.read().decode()
    found = re.search(r'^nv_inference_pending_request_count\{model="focus_on_depth".*\} (\d+)', metrics, re.MULTILINE)
    assert found
    return int(found[1])


@asynccontextmanager
async def served(repository: Path) -> AsyncIterator[tuple[Supervisor, TritonClient]]:
    settings = EmbeddedSettings(repository, models=("focus_on_depth",), canary_period_s=60, exit_timeout_s=0)
    async with Supervisor(settings) as supervisor:
        client = TritonClient(supervisor.grpc_url)
        try:
            yield supervisor, client
        finally:
            await client.close()


def test_failures_keep_their_details_inside(odd_repository: Path) -> None:
    async def scenario() -> None:
        async with served(odd_repository) as (_, client):
            for number, kind in (
                (RAISE, ModelFailed),
                (NAN, ModelFailed),
                (WRONG_AXES, ContractViolation),
                (WRONG_TYPE, ContractViolation),
            ):
                with pytest.raises(kind) as caught:
                    await client.infer("focus_on_depth", order(number), timeout_s=5.0)
                for secret in ("/", "Traceback", "secret", "model.py"):
                    assert secret not in str(caught.value)
            await client.infer("focus_on_depth", order(0), timeout_s=5.0)

    asyncio.run(scenario())


def test_deadlines_and_cancels_free_the_queue(odd_repository: Path, notes: Notes) -> None:
    """What is given up while it waits needs not be computed, although the config sets no queue timeout.

    Triton drops a part of it, the rest it hands on: the model is told that nobody waits any more, and the stand-in
    backend asks, as the model here does.
    """

    async def scenario() -> None:
        async with served(odd_repository) as (supervisor, client):
            running = asyncio.create_task(client.infer("focus_on_depth", order(HOLD, 1), timeout_s=HANG_S))
            await notes.begun(1)
            cancelled = [
                asyncio.create_task(client.infer("focus_on_depth", order(HOLD, 2), timeout_s=HANG_S)) for _ in range(3)
            ]
            async with asyncio.timeout(HANG_S):
                while await pending_requests(supervisor) < len(cancelled):
                    await asyncio.sleep(0.02)
            late = [client.infer("focus_on_depth", order(HOLD, 3), timeout_s=0.3) for _ in range(3)]
            for outcome in await asyncio.gather(*late, return_exceptions=True):
                assert isinstance(outcome, DeadlineExceeded)
            assert not any(task.done() for task in (running, *cancelled))
            for task in cancelled:
                task.cancel()
            for outcome in await asyncio.gather(*cancelled, return_exceptions=True):
                assert isinstance(outcome, asyncio.CancelledError)
            assert not running.done()
            notes.release(1)
            await running
            # Nothing releases 2 and 3: were one of the six still computed, nothing after it would be.
            await client.infer("focus_on_depth", order(0), timeout_s=HANG_S)

    asyncio.run(scenario())


def test_a_killed_servers_callers_do_not_wait_for_their_deadline(odd_repository: Path, notes: Notes) -> None:
    async def scenario() -> None:
        async with served(odd_repository) as (supervisor, client):
            assert supervisor.pid is not None
            running = asyncio.create_task(client.infer("focus_on_depth", order(HOLD, 1), timeout_s=60 * HANG_S))
            await notes.begun(1)
            [server] = processes(supervisor.pid, "tritonserver")
            os.kill(server, signal.SIGKILL)
            async with asyncio.timeout(HANG_S):
                with pytest.raises(ModelUnavailable):
                    await running

    asyncio.run(scenario())


def test_a_closed_connection_is_no_cancelled_task(odd_repository: Path, notes: Notes) -> None:
    async def scenario() -> None:
        async with served(odd_repository) as (_, client):
            running = asyncio.create_task(client.infer("focus_on_depth", order(HOLD, 1), timeout_s=HANG_S))
            await notes.begun(1)
            await client.close()
            with pytest.raises(ModelUnavailable):
                await running

    asyncio.run(scenario())
