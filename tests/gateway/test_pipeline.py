"""CPU work stays within its threads, also when callers give up."""

import asyncio
import threading

import pytest
from fakes import FakeDepthClient, encoded, picture

from service.cache import ByteCache
from service.context import RequestContext
from service.contract import MODELS
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


@pytest.mark.parametrize("cache_bytes", [0, 2**24])
def test_a_networks_input_is_made_while_the_photo_is_looked_at(cache_bytes: int) -> None:
    spec, data = MODELS["focus_on_depth"], encoded(picture())

    async def test() -> None:
        metrics, client = Metrics(), FakeDepthClient()
        decoders = DecodeWorkers(count=1, memory_bytes=2**30, cpu_s=10.0, metrics=metrics)
        cache = ByteCache(cache_bytes, 60.0, metrics)
        pipeline = Pipeline(client, cache, limits=Limits(), worker_threads=1, decoders=decoders)
        context = RequestContext()
        assert (await pipeline.open(context, data)).fitted is None, "nobody is going to ask the model"
        upload = await pipeline.open(context, data, spec)
        assert upload.fitted is not None
        first = await pipeline.analyse(context, upload, spec)
        assert client.calls == [("focus_on_depth", upload.fitted[1].shape)]
        again = await pipeline.open(context, data, spec)
        assert (again.fitted is None) == bool(cache_bytes), "what the model has said is not asked anew"
        second = await pipeline.analyse(context, again, spec)
        assert len(client.calls) == (1 if cache_bytes else 2)
        assert (second.native("inverse_depth") == first.native("inverse_depth")).all()
        pipeline.forget()
        late = await pipeline.analyse(context, again, spec)
        assert late.letterbox == first.letterbox, "an answer that the cache has lost meanwhile is asked for after all"
        await pipeline.close()

    asyncio.run(test())


def test_what_was_asked_in_part_is_never_kept_as_the_whole_answer() -> None:
    """Not even where the whole answer is in the cache still, but has grown old."""
    spec, data, now = MODELS["focus_on_depth"], encoded(picture()), 0.0

    async def test() -> None:
        nonlocal now
        metrics, client = Metrics(), FakeDepthClient()
        decoders = DecodeWorkers(count=1, memory_bytes=2**30, cpu_s=10.0, metrics=metrics)
        cache = ByteCache(2**24, 60.0, metrics, clock=lambda: now)
        pipeline = Pipeline(client, cache, limits=Limits(), worker_threads=1, decoders=decoders)
        context, part = RequestContext(), spec.only(spec.depth_output)
        upload = await pipeline.open(context, data)
        await pipeline.analyse(context, upload, spec)
        shared = await pipeline.analyse(context, upload, spec, outputs=part)
        assert len(client.calls) == 1
        assert shared.prediction.outputs.keys() == {"inverse_depth", "person"}
        now = 61.0
        partial = await pipeline.analyse(context, upload, spec, outputs=part)
        assert partial.prediction.outputs.keys() == {"inverse_depth"}
        whole = await pipeline.analyse(context, upload, spec)
        assert whole.prediction.outputs.keys() == {"inverse_depth", "person"}
        await pipeline.close()

    asyncio.run(test())
