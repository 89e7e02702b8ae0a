"""Triton's errors become this service's, by status and text, and none of the text comes through."""

import asyncio

import grpc
import numpy as np
import pytest

from service.errors import (
    ContractViolation,
    DeadlineExceeded,
    DepthlensError,
    ModelFailed,
    ModelUnavailable,
    Overloaded,
)
from service.inference import CHANNEL_ARGUMENTS, TritonClient
from service.triton_errors import DeadStub, VersionGone, translate

SECRET = "at /opt/models/1/model.py(17) triton_python_backend_shm_region_4"


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        ("UNAVAILABLE", "in ensemble 'focus', Exceeds maximum queue size", Overloaded),
        ("UNAVAILABLE", "Request timeout expired", DeadlineExceeded),
        ("UNAVAILABLE", "Server is stopping, scheduler for model has stopped accepting", ModelUnavailable),
        ("UNAVAILABLE", "failed to connect to all addresses", ModelUnavailable),
        ("UNAVAILABLE", "Stream removed", ModelUnavailable),
        ("UNAVAILABLE", "Socket closed", ModelUnavailable),
        ("UNAVAILABLE", "This protocol is restricted, expecting header 'x'", ContractViolation),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", DeadlineExceeded),
        ("UNAVAILABLE", "Request for unknown model: 'focus' version 1 is not at ready state", VersionGone),
        ("NOT_FOUND", "Request for unknown model: 'focus' is not found", VersionGone),
        ("NOT_FOUND", "'focus' has no available versions", VersionGone),
        ("INTERNAL", "Stub process 'focus_on_depth_0_0' is not healthy.", DeadStub),
        ("INTERNAL", "Failed to obtain the health mutex.", DeadStub),
        ("INTERNAL", "Failed to increase the shared memory pool size", ModelUnavailable),
        ("INTERNAL", "RuntimeError: no", ModelFailed),
        ("INVALID_ARGUMENT", "unexpected shape for input 'image'", ContractViolation),
        ("RESOURCE_EXHAUSTED", "Received message larger than max", ContractViolation),
        ("CANCELLED", "", ModelUnavailable),
        ("UNKNOWN", "", ModelFailed),
        ("", "", ModelFailed),
    ],
)
def test_translation(status: str, text: str, kind: type[DepthlensError]) -> None:
    error = translate(f"StatusCode.{status}" if status else "", f"{text} {SECRET}", "focus")
    assert type(error) is kind
    assert SECRET not in str(error)
    assert not text or text not in str(error)


@pytest.mark.parametrize("status", [code.name for code in grpc.StatusCode])
def test_every_status_of_grpc_has_an_answer(status: str) -> None:
    assert isinstance(translate(f"StatusCode.{status}", SECRET, "focus"), DepthlensError)


def test_a_dead_stub_is_an_unavailable_model_to_the_user() -> None:
    error = translate("StatusCode.INTERNAL", "Stub process is not healthy", "focus")
    assert isinstance(error, DepthlensError)
    assert (error.status, error.code) == (503, "model_unavailable")


def test_the_channel_keeps_large_messages() -> None:
    limits = {key: value for key, value in CHANNEL_ARGUMENTS if "message_length" in key}
    assert limits == {"grpc.max_send_message_length": 2**31 - 1, "grpc.max_receive_message_length": 2**31 - 1}


def test_nobody_listening_is_unavailable_at_once() -> None:
    async def scenario() -> None:
        client = TritonClient("127.0.0.1:1")
        image = np.zeros((64, 64, 3), np.uint8)
        async with asyncio.timeout(1):
            with pytest.raises(ModelUnavailable):
                await client.infer("focus", image, timeout_s=5.0)
            assert not await client.is_ready("focus")
        await client.close()

    asyncio.run(scenario())


def test_a_cancel_just_as_the_answer_comes_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """grpc.aio then gives the answer; a canary that never heard of its end once kept the service from stopping."""

    async def scenario() -> None:
        client, asked = TritonClient("127.0.0.1:1"), asyncio.Event()

        async def ready(*_: object, **__: object) -> bool:
            asked.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                return True
            return False

        monkeypatch.setattr(client._triton, "is_model_ready", ready)
        task = asyncio.create_task(client.is_ready("focus"))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await client.close()

    asyncio.run(scenario())
