import asyncio
import random
from collections.abc import Iterator

import pytest

from service.fair_queue import FairQueue, Turn


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def test_clients_are_served_in_turn_and_each_in_order(loop: asyncio.AbstractEventLoop) -> None:
    queue = FairQueue()
    names: dict[Turn, str] = {}
    for name in ("a1", "a2", "a3", "b1", "c1", "b2"):
        turn = loop.create_future()
        names[turn] = name
        queue.push(name[0], turn)
    popped = [names[turn] for turn in iter(queue.pop, None)]
    assert popped == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert len(queue) == 0


def test_what_comes_before_a_new_turn_is_never_told_too_small(loop: asyncio.AbstractEventLoop) -> None:
    """Against what really comes before it: as told, or one less for each client ahead of it in the ring."""
    chance = random.Random(7)
    for _ in range(200):
        queue = FairQueue()
        for _ in range(chance.randrange(30)):
            queue.push(chance.choice("abcd"), loop.create_future())
        for _ in range(chance.randrange(5)):
            queue.pop()
        others = len({client for client in "abcd" if queue.of(client)} - {"a"})
        told = queue.ahead_of("a")
        mine = loop.create_future()
        queue.push("a", mine)
        real = 0
        while queue.pop() is not mine:
            real += 1
        assert real <= told <= real + others


def test_nothing_is_kept_of_clients_that_wait_for_nothing(loop: asyncio.AbstractEventLoop) -> None:
    queue = FairQueue()
    for index in range(1000):
        turn = loop.create_future()
        queue.push(str(index), turn)
        if index % 2:
            queue.remove(str(index), turn)
            queue.remove(str(index), turn)
        else:
            assert queue.pop() is turn
    assert len(queue) == 0
    assert not queue._lines
