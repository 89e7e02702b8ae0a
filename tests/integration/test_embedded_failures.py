"""A model that sleeps, raises and answers nonsense on demand: what the caller gets, and what it costs the others."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from embedded_triton import make_python_repository, processes

from service.embedded.settings import EmbeddedSettings
from service.embedded.supervisor import Supervisor
from service.errors import ContractViolation, DeadlineExceeded, ModelFailed, ModelUnavailable
from service.inference import TritonClient

pytestmark = pytest.mark.integration

MODEL = """
import time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            if request.is_cancelled():
                error = pb_utils.TritonError("nobody waits", pb_utils.TritonError.CANCELLED)
                answers.append(pb_utils.InferenceResponse(error=error))
                continue
            image = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()
            order, argument, mark = (int(value) for value in image[0, 0, 0])
            output = np.zeros(image.shape[:3], np.float32)
            if mark == 7:
                if order == 1:
                    time.sleep(argument / 10)
                elif order == 2:
                    raise RuntimeError("a secret at /root/weights")
                elif order == 3:
                    output[0, 0, 0] = np.nan
                elif order == 4:
                    output = output[..., np.newaxis]
                elif order == 5:
                    output = output.astype(np.float64)
            tensors = [pb_utils.Tensor(name, output) for name in ("inverse_depth", "person")]
            answers.append(pb_utils.InferenceResponse(tensors))
        return answers
"""
RAISE, NAN, WRONG_AXES, WRONG_TYPE = 2, 3, 4, 5


def order(number: int, argument: int = 0) -> np.ndarray:
    image = np.zeros((32, 32, 3), np.uint8)
    image[0, 0] = number, argument, 7
    return image


def sleep(seconds: float) -> np.ndarray:
    return order(1, round(seconds * 10))


@pytest.fixture(scope="module")
def odd_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_python_repository(tmp_path_factory.mktemp("odd"), MODEL)


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


def test_deadlines_and_cancels_free_the_queue(odd_repository: Path) -> None:
    """What is given up while it waits needs not be computed, although the config sets no queue timeout.

    Triton drops a part of it, the rest it hands on: the model is told that nobody waits any more, and the stand-in
    backend asks, as the model here does.
    """

    async def scenario() -> None:
        async with served(odd_repository) as (_, client):
            running = asyncio.create_task(client.infer("focus_on_depth", sleep(1.5), timeout_s=5.0))
            await asyncio.sleep(0.1)
            started = time.monotonic()
            late = [asyncio.create_task(client.infer("focus_on_depth", sleep(1), timeout_s=0.3)) for _ in range(3)]
            cancelled = [asyncio.create_task(client.infer("focus_on_depth", sleep(1), timeout_s=9)) for _ in range(3)]
            for outcome in await asyncio.gather(*late, return_exceptions=True):
                assert isinstance(outcome, DeadlineExceeded)
            assert 0.25 < time.monotonic() - started < 1.0
            for task in cancelled:
                task.cancel()
            for outcome in await asyncio.gather(*cancelled, return_exceptions=True):
                assert isinstance(outcome, asyncio.CancelledError)
            assert time.monotonic() - started < 1.2
            await running
            freed = time.monotonic()
            await client.infer("focus_on_depth", order(0), timeout_s=5.0)
            assert time.monotonic() - freed < 0.9  # one of the six computed would take a second

    asyncio.run(scenario())


def test_a_server_killed_in_the_middle_answers_at_once(odd_repository: Path) -> None:
    async def scenario() -> None:
        async with served(odd_repository) as (supervisor, client):
            assert supervisor.pid is not None
            running = asyncio.create_task(client.infer("focus_on_depth", sleep(3), timeout_s=5.0))
            await asyncio.sleep(0.2)
            [server] = processes(supervisor.pid, "tritonserver")
            started = time.monotonic()
            os.kill(server, signal.SIGKILL)
            with pytest.raises(ModelUnavailable):
                await running
            assert time.monotonic() - started < 1.0

    asyncio.run(scenario())


def test_a_closed_connection_is_no_cancelled_task(odd_repository: Path) -> None:
    async def scenario() -> None:
        async with served(odd_repository) as (_, client):
            running = asyncio.create_task(client.infer("focus_on_depth", sleep(0.5), timeout_s=5.0))
            await asyncio.sleep(0.1)
            await client.close()
            with pytest.raises(ModelUnavailable):
                await running

    asyncio.run(scenario())
