"""The door: who is not let in is told so on the head alone, as his route would have told him."""

import asyncio
import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import h11
import pytest
from fakes import FakeDepthClient, encoded, picture
from running import RunningGateway, Said, parsed, until

from service.clients import RateLimit
from service.heads import ordinary

PHOTO = encoded(picture())
Start = Callable[..., RunningGateway]


def post(*lines: bytes, length: int = len(PHOTO), target: bytes = b"/depth") -> bytes:
    head = [b"POST " + target + b" HTTP/1.1", b"Host: x", b"Content-Type: image/png", b"Content-Length: %d" % length]
    return b"\r\n".join([*head, *lines]) + b"\r\n\r\n"


def answer(connection: socket.socket) -> Said:
    """The next answer of a connection that stays open."""
    data = b""
    while not (head := data.partition(b"\r\n\r\n"))[1] or len(head[2]) < int(parsed(data).headers["content-length"]):
        piece = connection.recv(65536)
        assert piece, data
        data += piece
    return parsed(data)


@contextmanager
def full(start: Start, client: FakeDepthClient) -> Iterator[RunningGateway]:
    """A gateway whose only place is taken until the end of the block, and where nobody may wait."""
    release = asyncio.Event()

    async def hold() -> None:
        await release.wait()

    client.hook = hold
    gateway = start(max_inflight=1, max_waiting=0)
    with gateway.connect() as busy:
        busy.sendall(post() + PHOTO)
        until(lambda: gateway.metric("depthlens_inflight") == 1)
        yield gateway
        gateway.loop.call_soon_threadsafe(release.set)
        assert answer(busy).status == 200


def test_a_refused_request_costs_no_task_and_no_connection(start: Start, client_of_triton: FakeDepthClient) -> None:
    with full(start, client_of_triton) as gateway, gateway.connect() as connection:
        for number, length in enumerate((0, 10, 300_000, 1_000_000), 1):
            connection.sendall(post(length=length) + bytes(length))
            said = answer(connection)
            assert (said.status, said.problem["code"]) == (503, "overloaded")
            assert int(said.headers["retry-after"]) >= 1
            assert said.problem["request_id"] == said.headers["x-request-id"]
            assert "connection" not in said.headers
            labels = {"route": "/depth", "status": "503", "code": "overloaded"}
            until(lambda: gateway.metric("depthlens_requests_total", **labels) == number)  # noqa: B023
            assert gateway.metric("depthlens_rejected_total", reason="queue_full") == number
            until(lambda: gateway.metric("depthlens_request_seconds_count", route="/depth") == number)  # noqa: B023
            assert len(gateway.server.server_state.tasks) == 1, "of the one in work"
    until(lambda: gateway.metric("depthlens_inflight") == 0)


def test_the_kept_connection_is_answered_when_there_is_room(start: Start, client_of_triton: FakeDepthClient) -> None:
    with full(start, client_of_triton) as gateway:
        connection = gateway.connect()
        connection.sendall(post() + PHOTO)
        assert answer(connection).status == 503
    with connection:
        until(lambda: gateway.metric("depthlens_inflight") == 0)
        connection.sendall(post() + PHOTO)
        assert answer(connection).status == 200


def test_the_route_says_the_same(start: Start, client_of_triton: FakeDepthClient) -> None:
    """A head in two pieces does not come to the door."""
    head = post(b"X-Request-Id: mine")
    with full(start, client_of_triton) as gateway:
        said = []
        for pieces in ([head + PHOTO], [head[:30], head[30:] + PHOTO]):
            with gateway.connect() as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for piece in pieces:
                    connection.sendall(piece)
                    time.sleep(0.05)
                said.append(answer(connection))
        assert gateway.metric("depthlens_rejected_total", reason="queue_full") == 2
    door, route = said
    assert door.body == route.body
    assert door.headers["x-request-id"] == route.headers["x-request-id"] == "mine"
    assert set(route.headers) - {"connection"} == set(door.headers)


@pytest.mark.parametrize(
    ("lines", "length"),
    [
        ([b"Connection: close"], 1000),
        ([b"Expect: 100-continue"], 1000),
        ([], 3_000_000),
    ],
)
def test_where_the_connection_is_not_kept(
    start: Start, client_of_triton: FakeDepthClient, lines: list[bytes], length: int
) -> None:
    with full(start, client_of_triton) as gateway, gateway.connect() as connection:
        connection.sendall(post(*lines, length=length))
        said = answer(connection)
        assert (said.status, said.headers["connection"]) == (503, "close")
        assert connection.recv(10) == b""


def test_requests_behind_a_refused_one_are_left_to_another_connection(
    start: Start, client_of_triton: FakeDepthClient
) -> None:
    with full(start, client_of_triton) as gateway, gateway.connect() as connection:
        connection.sendall((post() + PHOTO) * 50)
        data = b""
        while piece := connection.recv(65536):
            data += piece
        first = parsed(data)
        assert (first.status, first.rest) == (503, b"")


def test_who_does_not_send_his_refused_body_is_left(
    start: Start, client_of_triton: FakeDepthClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.edge._QUIET_S", 0.2)
    with full(start, client_of_triton) as gateway, gateway.connect() as connection:
        connection.sendall(post() + PHOTO[:10])
        assert answer(connection).status == 503
        assert connection.recv(10) == b""


def test_a_request_is_asked_once(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[str] = []
    monkeypatch.setattr(RateLimit, "take", lambda self, client, now: counted.append(client))
    gateway = start(rate_limit_per_s=1)
    with gateway.connect() as connection:
        for _ in range(3):
            connection.sendall(post() + PHOTO)
            assert answer(connection).status == 200
    assert counted == ["127.0.0.1"] * 3


def test_every_request_is_asked_though_it_came_behind_another(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[str] = []
    monkeypatch.setattr(RateLimit, "take", lambda self, client, now: counted.append(client))
    gateway = start(rate_limit_per_s=1)
    with gateway.connect() as connection:
        connection.sendall((post() + PHOTO) * 3)
        data = b""
        while data.count(b"HTTP/1.1 200") < 3:
            data += connection.recv(65536)
    assert len(counted) == 3


def test_a_rate_is_kept_at_the_door(start: Start) -> None:
    gateway = start(rate_limit_per_s=0.1)
    with gateway.connect() as connection:
        statuses = []
        for _ in range(4):
            connection.sendall(post() + PHOTO)
            statuses.append(answer(connection).status)
    assert statuses == [200, 429, 429, 429]


SOUND = (
    post(b"Accept: */*", b"X-API-Key: k", b"Connection: keep-alive"),
    b"GET /focus?scene=abc HTTP/1.1\r\nHost: a.b:80\r\nAccept:  two spaces \r\nX: \xe4\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\na: b\r\n\r\n",
)


def test_what_is_ordinary_h11_reads_alike() -> None:
    """Heads with bytes changed, cut out and doubled."""
    rng = random.Random(11)
    alike = 0
    for _ in range(6000):
        data = bytearray(rng.choice(SOUND))
        for _ in range(rng.randint(0, 3)):
            start = rng.randrange(len(data))
            end = start + rng.choice([0, 1, 1, 2, 8])
            data[start:end] = rng.choice(
                [b"", rng.randbytes(1), bytes(data[start:end]) * 2, b"\r\n", b"\n", b" ", b":", b"9", b"\t", b"\x00"]
            )
        head = ordinary(bytes(data))
        if head is None:
            continue
        parser = h11.Connection(h11.SERVER)
        parser.receive_data(bytes(data))
        request = parser.next_event()
        assert type(request) is h11.Request, bytes(data)
        assert (request.method, request.target.partition(b"?")[0]) == (head.method, head.path)
        assert list(request.headers) == head.headers
        assert len(parser.trailing_data[0]) == len(data) - head.size
        alike += 1
    assert alike > 1000


@pytest.mark.parametrize(
    "line",
    [
        b"Transfer-Encoding: chunked",
        b"Content-Length: 5",
        b"Host: y",
        b"Upgrade: websocket",
        b"a: b\r\n c",
        b"a:b",
        b"a : b",
        b"a: \x00",
    ],
)
def test_what_is_not_ordinary_is_left_to_h11(line: bytes) -> None:
    assert ordinary(post()) is not None
    assert ordinary(post(line)) is None


def test_no_head_is_read_twice() -> None:
    """However long it is: a pattern that tries parts of it again would take minutes for these."""
    for data in (
        b"POST /" + b"a" * 300_000,
        post(b"a: " + b" b" * 150_000)[:-3],
        b"a" * 300_000,
        post(*[b"a: b"] * 60_000),
    ):
        start = time.process_time()
        assert ordinary(data) is None
        assert time.process_time() - start < 1.0
