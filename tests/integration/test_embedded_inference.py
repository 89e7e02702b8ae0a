"""Numbers, batches, shapes and errors through the real Triton and the committed configs."""

import asyncio
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from embedded_triton import ServedTriton, admin_file, expected_outputs, noise
from tritonclient.grpc.aio import InferenceServerClient

from service.app import create_app
from service.contract import CANARY_SIZE, MODELS, NETWORK_SIZES
from service.errors import ContractViolation, DeadlineExceeded, UnknownModel
from service.inference import Prediction, ServedModel, TritonClient
from service.settings import Settings

pytestmark = pytest.mark.integration

TIMEOUT_S = 20.0
BF16_STEP = 2**-8
"""Largest relative error of bf16, in which the networks run where the CPU has it."""


@asynccontextmanager
async def connected(triton: ServedTriton) -> AsyncIterator[TritonClient]:
    client = TritonClient(triton.grpc_url)
    try:
        yield client
    finally:
        await client.close()


def assert_right(prediction: Prediction, image: np.ndarray) -> None:
    expected = expected_outputs(image)
    np.testing.assert_allclose(
        prediction.outputs["inverse_depth"], expected["inverse_depth"], atol=2 * BF16_STEP, rtol=0
    )
    np.testing.assert_array_equal(prediction.outputs["person"], expected["person"])


@pytest.mark.parametrize("model", sorted(MODELS))
def test_right_numbers_at_every_size(triton: ServedTriton, model: str) -> None:
    async def scenario() -> None:
        async with connected(triton) as client:
            for seed, size in enumerate((*NETWORK_SIZES, CANARY_SIZE)):
                image = noise(size, seed)
                prediction = await client.infer(model, image, timeout_s=TIMEOUT_S)
                assert (prediction.model, prediction.version) == (model, "1")
                assert all(output.dtype == np.float32 for output in prediction.outputs.values())
                assert_right(prediction, image)

    asyncio.run(scenario())


def test_only_the_wanted_outputs_travel(triton: ServedTriton) -> None:
    async def scenario() -> None:
        async with connected(triton) as client:
            image = noise((64, 64))
            for model in MODELS:
                prediction = await client.infer(model, image, outputs=["person"], timeout_s=TIMEOUT_S)
                assert list(prediction.outputs) == ["person"]
            with pytest.raises(ContractViolation):
                await client.infer("focus", image, outputs=["normals"], timeout_s=TIMEOUT_S)

    asyncio.run(scenario())


def test_served_models(triton: ServedTriton) -> None:
    async def scenario() -> None:
        async with connected(triton) as client:
            assert await client.served_models() == [ServedModel(name, "1", True) for name in MODELS]
            assert await client.is_ready("focus")

    asyncio.run(scenario())


async def executions(triton: ServedTriton, model: str) -> tuple[int, int]:
    """(images, batches) that the model has computed."""
    async with InferenceServerClient(triton.grpc_url) as client:
        statistics = (await client.get_inference_statistics(model)).model_stats[0]
    return statistics.inference_count, statistics.execution_count


def test_concurrent_requests_are_joined(triton: ServedTriton) -> None:
    images = [noise((416, 224), seed) for seed in range(96)]

    async def scenario() -> None:
        images_before, batches_before = await executions(triton, "focus_on_depth")
        async with connected(triton) as client:
            calls = [client.infer("focus_on_depth", image, timeout_s=TIMEOUT_S) for image in images]
            for image, prediction in zip(images, await asyncio.gather(*calls), strict=True):
                assert_right(prediction, image)
        images_after, batches_after = await executions(triton, "focus_on_depth")
        assert images_after - images_before >= len(images)  # the supervisor's canary asks too
        assert batches_after - batches_before < (images_after - images_before) * 0.75

    asyncio.run(scenario())


def test_requests_of_different_shapes_are_not_mixed_up_and_do_not_stall(triton: ServedTriton) -> None:
    """With a queue timeout in the config, Triton's batcher misses wake-ups between shapes: 30 to 100 times as slow.

    The peer in the same run: the same requests, one after the other.
    """
    images = [noise(NETWORK_SIZES[seed % 3], seed) for seed in range(96)]

    async def scenario() -> tuple[float, float]:
        async with connected(triton) as client:
            started = time.monotonic()
            for image in images:
                await client.infer("focus_on_depth", image, timeout_s=TIMEOUT_S)
            apart_s = time.monotonic() - started
            calls = [client.infer("focus_on_depth", image, timeout_s=TIMEOUT_S) for image in images]
            for image, prediction in zip(images, await asyncio.gather(*calls), strict=True):
                assert_right(prediction, image)
        return time.monotonic() - started - apart_s, apart_s

    together_s, apart_s = asyncio.run(scenario())
    assert together_s < 5 * apart_s


async def fails(call: Coroutine[Any, Any, Any], kind: type[Exception]) -> str:
    with pytest.raises(kind) as caught:
        await call
    return str(caught.value)


def test_refusals(triton: ServedTriton) -> None:
    async def scenario() -> None:
        async with connected(triton) as client:
            await fails(client.infer("../../etc/passwd", noise((64, 64)), timeout_s=TIMEOUT_S), UnknownModel)
            await fails(client.infer("x" * 10_000, noise((64, 64)), timeout_s=TIMEOUT_S), UnknownModel)
            await fails(client.infer("focus", np.zeros((64, 64), np.uint8), timeout_s=TIMEOUT_S), ContractViolation)
            await fails(client.infer("focus", np.zeros((64, 64, 3)), timeout_s=TIMEOUT_S), ContractViolation)
            await fails(client.infer("focus", noise((64, 64)), timeout_s=0.0), DeadlineExceeded)
            await fails(client.infer("focus", noise((2000, 2000)), timeout_s=0.001), DeadlineExceeded)
            assert_right(await client.infer("focus", noise((64, 64)), timeout_s=TIMEOUT_S), noise((64, 64)))

    asyncio.run(scenario())


def test_a_closed_client_says_unavailable(triton: ServedTriton) -> None:
    async def scenario() -> None:
        client = TritonClient("127.0.0.1:1")  # nobody listens there
        assert [entry.ready for entry in await client.served_models()] == [False] * len(MODELS)
        await client.close()

    asyncio.run(scenario())


def test_model_control_needs_the_secret(triton: ServedTriton) -> None:
    async def scenario() -> None:
        async with connected(triton) as client:
            text = await fails(client.unload("focus"), ContractViolation)
            assert "protocol" not in text  # Triton's own words stay inside
        wrong = TritonClient(triton.grpc_url, admin=("triton-grpc-protocol-depthlens", "guessed"))
        await fails(wrong.reload("focus"), ContractViolation)
        assert await wrong.is_ready("focus")
        await wrong.close()

    asyncio.run(scenario())


def test_the_admin_file_is_the_key(triton: ServedTriton) -> None:
    file = admin_file(triton.repository)
    assert file.stat().st_mode & 0o777 == 0o600
    app = create_app(Settings(triton_url=triton.grpc_url, triton_admin_file=file))

    async def scenario() -> None:
        replicas = app.state.gateway.client
        await replicas.served_models()
        await replicas.endpoints[0].client.reload("focus")
        assert await replicas.is_ready("focus")
        await replicas.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "v2/repository/index"),
        ("POST", "v2/repository/models/focus/unload"),
        ("GET", "v2/systemsharedmemory/status"),
        ("GET", "v2/trace/setting"),
        ("POST", "v2/logging"),
    ],
)
def test_http_control_needs_the_secret(triton: ServedTriton, method: str, path: str) -> None:
    request = urllib.request.Request(
        f"{triton.http_url}/{path}", method=method, data=b"{}" if method == "POST" else None
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=5)
    with caught.value as answer:
        assert answer.code == 403
