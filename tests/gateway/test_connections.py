"""How many connections there may be, and who goes when there are too many."""

import asyncio
from collections.abc import Callable
from functools import partial

from fakes import FakeDepthClient
from raw import CLOSE, LIVE, PHOTO, post
from running import RunningGateway, all_is_over, until

Start = Callable[..., RunningGateway]


def test_beyond_the_bound_the_connection_that_waited_longest_gives_way(start: Start) -> None:
    gateway = start(max_connections=3)
    resting = gateway.connect()
    resting.sendall(LIVE + b"\r\n")
    assert resting.recv(10)
    silent = [gateway.connect() for _ in range(2)]
    until(lambda: gateway.metric("depthlens_connections") == 3)
    assert gateway.say(LIVE + CLOSE + b"\r\n").status == 200
    with silent[0]:
        assert silent[0].recv(10) == b""
    for connection in (resting, silent[1]):  # who has had an answer is kept before who has said nothing
        with connection:
            connection.sendall(LIVE + CLOSE + b"\r\n")
            assert b'"live"' in b"".join(iter(partial(connection.recv, 65536), b""))
    assert gateway.metric("depthlens_connections_closed_total", reason="gave_way") == 1
    all_is_over(gateway)


def test_when_all_connections_are_busy_a_new_one_is_told_so(start: Start, client_of_triton: FakeDepthClient) -> None:
    async def forever() -> None:
        await asyncio.Event().wait()

    gateway = start(max_connections=2)
    client_of_triton.hook = forever
    busy = [gateway.connect() for _ in range(2)]
    for connection in busy:
        connection.sendall(post(length=len(PHOTO)) + PHOTO)
    until(lambda: gateway.metric("depthlens_inflight") == 2)
    for _ in range(100):  # more than may be told at the same time
        answer = gateway.say(LIVE + b"\r\n")
        assert (answer.status, answer.problem["code"]) == (503, "overloaded")
        assert answer.headers["retry-after"] == "1"
    waiting = [gateway.connect() for _ in range(5)]  # those that do not go make no room either
    assert [connection.recv(65536)[:12] for connection in waiting] == [b"HTTP/1.1 503"] * 5
    for connection in (*busy, *waiting):
        connection.close()
    all_is_over(gateway)
    assert gateway.say(LIVE + CLOSE + b"\r\n").status == 200
