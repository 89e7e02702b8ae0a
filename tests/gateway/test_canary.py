"""The canary on a fake client: when a model counts as ready, and who is told."""

import asyncio
from dataclasses import replace

import pytest
from fakes import FakeDepthClient

from service.canary import Canary, Reason
from service.contract import CANARY_SIZE, MODELS, ModelSpec
from service.errors import (
    ContractViolation,
    DeadlineExceeded,
    DepthlensError,
    ModelFailed,
    ModelUnavailable,
    Overloaded,
)


class Troubled(FakeDepthClient):
    """Raises what `trouble` holds, if anything."""

    def __init__(self, trouble: DepthlensError | None = None) -> None:
        super().__init__()
        self.trouble = trouble
        self.hook = self._raise

    async def _raise(self) -> None:
        if self.trouble is not None:
            raise self.trouble


def test_not_ready_before_the_first_answer() -> None:
    canary = Canary(FakeDepthClient(), "focus")
    assert (canary.state.ready, canary.state.reason) == (False, Reason.STARTING)


def test_a_real_inference_at_the_canary_size_makes_ready() -> None:
    client = FakeDepthClient()
    state = asyncio.run(Canary(client, "focus").probe())
    assert (state.ready, state.reason, state.failures) == (True, Reason.OK, 0)
    assert client.calls == [("focus", (*CANARY_SIZE, 3))]


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (ModelUnavailable("gone"), Reason.UNAVAILABLE),
        (ModelFailed("NaN"), Reason.FAILED),
        (ContractViolation("shape"), Reason.FAILED),
    ],
)
def test_one_definite_failure_is_enough(trouble: DepthlensError, reason: Reason) -> None:
    async def scenario() -> None:
        client = Troubled()
        canary = Canary(client, "focus")
        before = (await canary.probe()).since
        client.trouble = trouble
        state = await canary.probe()
        assert (state.ready, state.reason, state.failures) == (False, reason, 1)
        assert state.since >= before
        client.trouble = None
        assert (await canary.probe()).ready

    asyncio.run(scenario())


def test_one_late_answer_is_forgiven_two_are_not() -> None:
    async def scenario() -> None:
        client = Troubled()
        canary = Canary(client, "focus")
        await canary.probe()
        client.trouble = DeadlineExceeded("late")
        assert (await canary.probe()).ready
        state = await canary.probe()
        assert (state.ready, state.reason, state.failures) == (False, Reason.TIMEOUT, 2)

    asyncio.run(scenario())


def test_a_full_queue_changes_nothing() -> None:
    async def scenario() -> None:
        client = Troubled()
        canary = Canary(client, "focus")
        ready = await canary.probe()
        client.trouble = Overloaded("busy")
        assert await canary.probe() == ready

    asyncio.run(scenario())


def test_failures_are_handed_on_and_the_return_is_seen_soon() -> None:
    async def scenario() -> None:
        client = Troubled(ModelUnavailable("gone"))
        told: list[DepthlensError] = []
        answered = asyncio.Event()

        async def answer() -> None:
            await client._raise()
            answered.set()

        async def heal(error: DepthlensError) -> None:
            told.append(error)
            client.trouble = None

        client.hook = answer
        canary = Canary(client, "focus", period_s=3600.0, on_failure=heal)
        watch = asyncio.create_task(canary.run())
        async with asyncio.timeout(60):  # against a hang; the usual period is an hour
            await answered.wait()
        assert canary.state.ready
        assert len(told) == 1
        assert len(client.calls) == 2
        watch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watch

    asyncio.run(scenario())


class Slow(FakeDepthClient):
    """Another model than the contract's, which takes 30 ms."""

    async def spec(self, model: str) -> ModelSpec:
        return replace(MODELS["focus_on_depth"], name=model, canary_size=(96, 128))

    async def infer(self, model, image, *, outputs=None, timeout_s, request_id=None):  # type: ignore[no-untyped-def]
        await asyncio.sleep(0.03)
        self.timeout_s = timeout_s
        return await super().infer(model, image, timeout_s=timeout_s)


def test_a_slow_model_of_the_users_own_is_probed_at_its_size_rarely_and_with_patience() -> None:
    async def scenario() -> None:
        client = Slow()
        canary = Canary(client, "depth_large", period_s=0.01)
        watch = asyncio.create_task(canary.run())
        await asyncio.sleep(0.4)
        watch.cancel()
        assert client.calls == [("depth_large", (96, 128, 3))]  # the next one 0.6 s after the first and not 0.01
        assert client.timeout_s == 10

    asyncio.run(scenario())
