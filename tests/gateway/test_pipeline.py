"""CPU work stays within its threads, also when callers give up."""

import asyncio
import threading

from fakes import FakeDepthClient

from service.cache import ByteCache
from service.context import RequestContext
from service.decoding.workers import DecodeWorkers
from service.imaging.codec import Limits
from service.metrics import Metrics
from service.pipeline import Pipeline


def test_callers_that_give_up_do_not_add_threads() -> None:
    running = most = done = 0
    lock = threading.Lock()
    release = threading.Event()

    def work() -> None:
        nonlocal running, most, done
        with lock:
            running += 1
            most = max(most, running)
        release.wait(10)
        with lock:
            running -= 1
            done += 1

    async def test() -> None:
        metrics = Metrics()
        decoders = DecodeWorkers(count=1, memory_bytes=2**30, cpu_s=10.0, metrics=metrics)
        cache = ByteCache(0, 1.0, metrics)
        pipeline = Pipeline(FakeDepthClient(), cache, limits=Limits(), worker_threads=2, decoders=decoders)
        callers = [asyncio.create_task(pipeline.in_worker(RequestContext(), "render", work)) for _ in range(8)]
        while running < 2:
            await asyncio.sleep(0.001)
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        late = asyncio.create_task(pipeline.in_worker(RequestContext(), "render", lambda: "served"))
        await asyncio.sleep(0)
        release.set()
        assert await asyncio.wait_for(late, 10) == "served"
        while running:  # the other worker may still be on its way out
            await asyncio.sleep(0.001)
        await pipeline.close()

    asyncio.run(test())
    assert most == 2
    assert done == 2, "what had not begun was dropped"
