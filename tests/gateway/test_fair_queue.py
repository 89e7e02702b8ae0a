import asyncio
import random
from collections.abc import Iterator

import pytest

from service.fair_queue import FairQueue, Turn

NOW = 1000.0


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
    popped = [names[turn] for turn in iter(lambda: queue.pop(NOW), None)]
    assert popped == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert len(queue) == 0


def test_what_comes_before_a_new_turn_is_never_told_too_small(loop: asyncio.AbstractEventLoop) -> None:
    """Against what really comes before it: as told, or one less for each client ahead of it in the ring."""
    chance = random.Random(7)
    for _ in range(200):
        queue = FairQueue()
        for client in "abcd":
            queue.charge(client, chance.choice([0.0, 0.5, 1.5, 2.5]), NOW)
        for _ in range(chance.randrange(30)):
            queue.push(chance.choice("abcd"), loop.create_future())
        for _ in range(chance.randrange(5)):
            queue.pop(NOW)
        others = len({client for client in "abcd" if queue.of(client)} - {"a"})
        told = queue.ahead_of("a", NOW)
        mine = loop.create_future()
        queue.push("a", mine)
        real = 0
        while queue.pop(NOW) is not mine:
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
            assert queue.pop(NOW) is turn
    assert len(queue) == 0
    assert not queue._lines


def test_who_has_had_much_work_done_waits_for_those_who_have_not(loop: asyncio.AbstractEventLoop) -> None:
    queue = FairQueue()
    heavy = loop.create_future()
    light = [loop.create_future() for _ in range(3)]
    queue.charge("heavy", 60.0, NOW)
    queue.charge("light", 0.9, NOW)
    queue.push("heavy", heavy)
    for turn in light:
        queue.push("light", turn)
    assert queue.ahead_of("heavy", NOW) == 1 + 3
    assert [queue.pop(NOW) for _ in range(4)] == [*light, heavy]


def test_an_account_is_paid_off_within_ten_seconds(loop: asyncio.AbstractEventLoop) -> None:
    queue = FairQueue()
    queue.charge("heavy", 3600.0, NOW)
    first, second = loop.create_future(), loop.create_future()
    queue.push("heavy", first)
    queue.push("light", second)
    assert queue.ahead_of("new", NOW + 5) == 1
    assert queue.ahead_of("new", NOW + 10) == 2
    assert queue.pop(NOW + 10) is first


def test_accounts_are_forgotten_when_they_are_paid_off() -> None:
    queue = FairQueue()
    for index in range(1000):
        queue.charge(str(index), 0.1, NOW + index * 0.025)  # four places' worth of work
    assert len(queue._paid_at) <= 5
