import asyncio
import random
from collections import Counter
from collections.abc import Coroutine

import pytest

from service.admission import Admission
from service.context import Deadline, RequestContext
from service.errors import Overloaded, TooManyRequests
from service.metrics import Metrics


def context(timeout_s: float = 30.0, client: str = "one") -> RequestContext:
    return RequestContext(client=client, deadline=Deadline.after(timeout_s))


async def soon() -> None:
    """Let every task run until it waits for another."""
    for _ in range(20):
        await asyncio.sleep(0)


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


def run(test: Coroutine[None, None, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 10))


def test_places_are_bounded_and_the_queue_is_first_come() -> None:
    async def test() -> None:
        metrics = Metrics()
        admission = Admission(2, 20, 10, metrics)
        order: list[int] = []
        most = 0
        running = 0

        async def work(index: int) -> None:
            nonlocal most, running
            async with admission.place(context()):
                order.append(index)
                running += 1
                most = max(most, running)
                await asyncio.sleep(0)
                running -= 1

        await asyncio.gather(*(work(index) for index in range(8)))
        assert order == list(range(8))
        assert most == 2
        assert value(metrics, "depthlens_inflight") == 0
        assert value(metrics, "depthlens_waiting") == 0

    run(test())


def test_a_full_queue_refuses_at_once_with_retry_after() -> None:
    async def test() -> None:
        metrics = Metrics()
        admission = Admission(1, 1, 10, metrics)
        release = asyncio.Event()

        async def hold() -> None:
            async with admission.place(context()):
                await release.wait()

        tasks = [asyncio.create_task(hold()) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as caught:
            async with admission.place(context()):
                pass
        assert caught.value.retry_after_s is not None
        assert caught.value.retry_after_s >= 1
        assert value(metrics, "depthlens_rejected_total", reason="queue_full") == 1
        release.set()
        await asyncio.gather(*tasks)

    run(test())


def test_a_deadline_out_of_reach_is_refused() -> None:
    async def test() -> None:
        admission = Admission(1, 10, 10, Metrics())
        async with admission.place(context()):
            await asyncio.sleep(0.05)  # teaches it that a request takes 50 ms
        async with admission.place(context()):
            with pytest.raises(Overloaded, match="before work"):
                async with admission.place(context(timeout_s=0.01)):
                    pass

    run(test())


def test_one_that_gives_up_waiting_passes_its_turn_on() -> None:
    async def test() -> None:
        metrics = Metrics()
        admission = Admission(1, 10, 10, metrics)
        release = asyncio.Event()
        served: list[str] = []

        async def work(name: str) -> None:
            async with admission.place(context()):
                served.append(name)
                await release.wait()

        first, second, third = (asyncio.create_task(work(name)) for name in ("first", "second", "third"))
        await asyncio.sleep(0)
        second.cancel()
        release.set()
        await asyncio.gather(first, third)
        assert served == ["first", "third"]
        assert value(metrics, "depthlens_inflight") == 0
        assert value(metrics, "depthlens_waiting") == 0

    run(test())


def test_one_cancelled_in_the_moment_of_its_turn_does_not_lose_the_place() -> None:
    async def test() -> None:
        metrics = Metrics()
        admission = Admission(1, 10, 10, metrics)

        async def work() -> None:
            async with admission.place(context()):
                await asyncio.sleep(0)

        holder = admission.place(context())
        await holder.__aenter__()
        waiting = asyncio.create_task(work())
        await asyncio.sleep(0)
        await holder.__aexit__(None, None, None)  # hands the place to `waiting` ...
        waiting.cancel()  # ... which is cancelled before it runs
        await asyncio.gather(waiting, return_exceptions=True)
        assert value(metrics, "depthlens_inflight") == 0
        async with admission.place(context()):
            assert value(metrics, "depthlens_inflight") == 1

    run(test())


def test_nobody_waits_longer_than_the_longest_wait() -> None:
    async def test() -> None:
        metrics = Metrics()
        admission = Admission(1, 10, 0.02, metrics)
        async with admission.place(context()):
            with pytest.raises(Overloaded, match=r"within 0\.02 s"):
                async with admission.place(context(timeout_s=30)):
                    pass
            assert value(metrics, "depthlens_waiting") == 0
            assert value(metrics, "depthlens_rejected_total", reason="waited") == 1
        assert value(metrics, "depthlens_inflight") == 0

    run(test())


def test_a_longer_wait_is_foreseen_before_the_body_is_read() -> None:
    async def test() -> None:
        metrics = Metrics()
        admission = Admission(1, 10, 0.04, metrics)
        async with admission.place(context()):
            await asyncio.sleep(0.05)
        async with admission.place(context()):
            with pytest.raises(Overloaded) as caught:
                admission.check_room(context())
        assert caught.value.retry_after_s == 1
        assert value(metrics, "depthlens_rejected_total", reason="wait") == 1
        admission.check_room(context())  # room again

    run(test())


def test_a_model_that_became_slow_is_noticed_before_its_first_answer() -> None:
    async def test() -> None:
        admission = Admission(1, 10, 0.04, Metrics())
        async with admission.place(context()):
            pass  # teaches it that requests take no time
        async with admission.place(context()):
            admission.check_room(context())
            await asyncio.sleep(0.05)
            with pytest.raises(Overloaded):
                admission.check_room(context())

    run(test())


def test_one_request_that_hangs_says_nothing_about_the_rest() -> None:
    async def test() -> None:
        admission = Admission(2, 10, 0.04, Metrics())
        async with admission.place(context()):
            await asyncio.sleep(0.1)
            async with admission.place(context()):
                admission.check_room(context())

    run(test())


def test_a_greedy_client_delays_another_by_one_turn() -> None:
    async def test() -> None:
        admission = Admission(1, 40, 10, Metrics())
        served: list[str] = []
        release = asyncio.Event()

        async def work(client: str) -> None:
            async with admission.place(context(client=client)):
                await release.wait()
                served.append(client)

        tasks = [asyncio.create_task(work("greedy")) for _ in range(8)]
        await soon()
        tasks += [asyncio.create_task(work(client)) for client in ("modest", "modest", "third")]
        await soon()
        release.set()
        await asyncio.gather(*tasks)
        assert served[:6] == ["greedy", "greedy", "modest", "third", "greedy", "modest"]
        assert served[6:] == ["greedy"] * 5

    run(test())


def test_one_client_never_fills_the_queue() -> None:
    async def test() -> None:
        metrics = Metrics()
        admission = Admission(1, 10, 10, metrics)
        release = asyncio.Event()
        refused = 0

        async def work(client: str) -> None:
            nonlocal refused
            try:
                async with admission.place(context(client=client)):
                    await release.wait()
            except TooManyRequests:
                refused += 1

        tasks = [asyncio.create_task(work("greedy")) for _ in range(30)]
        await soon()
        assert value(metrics, "depthlens_waiting") == 5
        assert refused == 24
        tasks += [asyncio.create_task(work(str(index))) for index in range(5)]
        await soon()
        assert refused == 24
        assert value(metrics, "depthlens_waiting") == 10
        with pytest.raises(Overloaded):
            admission.check_room(context(client="late"))
        release.set()
        await asyncio.gather(*tasks)
        assert value(metrics, "depthlens_inflight") == 0
        assert value(metrics, "depthlens_waiting") == 0

    run(test())


def test_whatever_happens_places_are_kept_and_given_back() -> None:
    """400 requests of 6 clients that work, fail, leave or run out of time at any moment."""

    async def test() -> None:
        metrics = Metrics()
        admission = Admission(3, 12, 0.02, metrics)
        chance = random.Random(3)
        inside = 0
        ends: Counter[str] = Counter()

        async def work() -> None:
            nonlocal inside
            try:
                async with asyncio.timeout(chance.choice([0.005, 10])):
                    async with admission.place(context(client=chance.choice("abcdef"))):
                        inside += 1
                        try:
                            assert inside <= 3
                            await asyncio.sleep(chance.choice([0, 0.001, 0.01]))
                            if chance.random() < 0.1:
                                raise ValueError
                        finally:
                            inside -= 1
                ends["done"] += 1
            except Exception as error:
                ends[type(error).__name__] += 1
            except asyncio.CancelledError:
                ends["left"] += 1

        tasks = []
        for _ in range(400):
            tasks.append(asyncio.create_task(work()))
            if chance.random() < 0.3:
                chance.choice(tasks).cancel()
            if chance.random() < 0.5:
                await asyncio.sleep(chance.choice([0, 0.001, 0.004]))
        await asyncio.gather(*tasks, return_exceptions=True)
        assert set(ends) >= {"done", "ValueError"}, ends
        assert set(ends) & {"Overloaded", "TooManyRequests", "TimeoutError"}, (
            ends
        )  # which of them is for the machine to say
        assert ends["AssertionError"] == 0
        assert admission._inflight == inside == len(admission._started) == len(admission._queue) == 0
        assert not admission._queue._lines
        assert value(metrics, "depthlens_inflight") == value(metrics, "depthlens_waiting") == 0
        for _ in range(3):  # and there are still three
            await admission.place(context()).__aenter__()
        assert value(metrics, "depthlens_inflight") == 3

    run(test())
