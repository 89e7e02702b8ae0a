"""F9: clients that go away before they have their answer."""

import asyncio
import random
import time

import numpy as np
from tritonclient.grpc import InferInput, InferRequestedOutput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from .arena import Arena, until
from .fault import Unmet, fault
from .pictures import PHOTO
from .wire import head

_CALLS = 16_000
_CALLERS = 8
_LEAVE = 0.7
"""Share of the calls whose caller is ready to go before the answer."""
_ANSWER_WITHIN_S = 0.006


@fault(
    "F9a",
    "client leaves during the inference",
    expected="the model hears of it within 100 ms, gauges back to 0, counted as 499",
    without="cancellation",
    fast=True,
)
async def leaves_during_inference(arena: Arena) -> str:
    triton, puppet = await arena.puppet()
    gateway = await arena.gateway(triton)
    puppet.tell(holds=True)
    try:
        wire = await gateway.connect()
        await wire.send(head("POST", "/depth", len(PHOTO)) + PHOTO)
        await until(lambda: bool(puppet.notes("begun")), 5.0, "the request at the model")
        if await gateway.metric("depthlens_inflight") != 1:
            raise Unmet("the gauge does not show the request")
        left = time.monotonic()
        wire.leave()
        await until(lambda: bool(puppet.notes("cancelled")), arena.limit(0.5), "a cancelled inference")
        heard_s = puppet.notes("cancelled")[0] - left
    finally:
        puppet.tell()

    async def gone() -> bool:
        return await gateway.metric("depthlens_inflight") == 0 and await gateway.metric("depthlens_waiting") == 0

    await until(gone, 2.0, "gauges at 0")
    counted = await gateway.metric("depthlens_requests_total", code="client_left")
    if heard_s > arena.limit(0.1) or counted != 1:
        raise Unmet(f"heard after {heard_s * 1000:.0f} ms, counted {counted:g} times")
    return f"model heard after {heard_s * 1000:.0f} ms, gauges 0"


@fault(
    "F9b",
    "20 clients leave during the upload, each with 1 MB of the 4 MB that uploads may hold",
    expected="their memory is given back: the next photo is answered, gauges 0",
    without="upload-accounts",
    fast=True,
)
async def leaves_during_upload(arena: Arena) -> str:
    gateway = await arena.gateway(max_upload_bytes=4_000_000)
    for _ in range(20):
        wire = await gateway.connect()
        await wire.send(head("POST", "/depth", 3_000_000) + bytes(1_000_000))
        wire.leave()

        async def counted(number: int = _ + 1) -> bool:
            return await gateway.metric("depthlens_requests_total", route="/depth") == number

        await until(counted, arena.limit(1.0), "the leaver noticed")
    answer = await gateway.ask("POST", "/depth", PHOTO)
    answer.expect(200)
    left = await gateway.metric("depthlens_cancelled_total", stage="receive")
    if left != 20 or await gateway.metric("depthlens_inflight"):
        raise Unmet(f"{left:g} counted as left")
    return f"{left:g} left, the next answered in {answer.seconds * 1000:.0f} ms"


@fault(
    "F9d",
    f"{_CALLS:,} inferences by eight callers, most cancelled at some moment until their answer: a few just as it comes",
    expected="Triton lives on, the next is answered",
    without="amended-server",
    timeout_s=120.0,
)
async def leaves_as_the_model_answers(arena: Arena) -> str:
    server = await arena.triton(own=True, control=arena.control, log_verbose=2)  # which makes such moments longer
    image = InferInput("image", [1, 64, 64, 3], "UINT8")
    image.set_data_from_numpy(np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8))
    outputs = [InferRequestedOutput("inverse_depth")]
    cancelled = 0

    async def caller(seed: int) -> None:
        nonlocal cancelled
        draw = random.Random(seed)
        async with InferenceServerClient(server.url) as triton:
            for number in range(_CALLS // _CALLERS):
                call = asyncio.ensure_future(triton.infer("focus_on_depth", [image], outputs=outputs))
                if draw.random() < _LEAVE:
                    await asyncio.sleep(draw.uniform(0, _ANSWER_WITHIN_S))
                    cancelled += call.cancel()
                try:
                    await call
                except asyncio.CancelledError:
                    pass
                except InferenceServerException:
                    raise Unmet(f"after {cancelled} cancelled of {number * _CALLERS} Triton is gone") from None

    await asyncio.gather(*(caller(seed) for seed in range(_CALLERS)))
    async with InferenceServerClient(server.url) as triton:
        await triton.infer("focus_on_depth", [image])
    if cancelled < _CALLS / 5:
        raise Unmet(f"{cancelled} of {_CALLS} cancelled: that shows nothing")
    return f"{cancelled} of {_CALLS} cancelled, Triton lives"
