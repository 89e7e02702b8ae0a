"""The HTTP edge on real sockets: what is too slow, or no HTTP at all, ends, and soon."""

import asyncio
import logging
import random
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from fakes import encoded, picture
from raw import CLOSE, LIVE, PHOTO, form, part, post
from running import RunningGateway, all_is_over, heard, parsed, until
from starlette.requests import Request

from service.upload import UploadShare, read_image

Start = Callable[..., RunningGateway]


def trickle(connection: socket.socket, line: bytes, every_s: float) -> bool:
    """Send on and on; whether the gateway closed within 10 s."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            connection.sendall(line)
        except ConnectionError:
            return True
        connection.settimeout(every_s)
        try:
            connection.recv(1, socket.MSG_PEEK)
            return True
        except TimeoutError:
            continue
        finally:
            connection.settimeout(10)
    return False


def test_headers_have_a_deadline_that_no_further_line_moves(start: Start) -> None:
    gateway = start(header_timeout_s=0.3)
    with gateway.connect() as connection:
        connection.sendall(LIVE)
        assert trickle(connection, b"a: b\r\n", 0.02)
        answer = heard(connection)
    assert (answer.status, answer.problem["code"]) == (408, "request_timeout")
    assert answer.problem["limit"] == 0.3
    assert answer.problem["request_id"] == answer.headers["x-request-id"]
    assert gateway.metric("depthlens_requests_total", route="unmatched", status="408", code="request_timeout") == 1
    all_is_over(gateway)


def test_a_connection_that_says_nothing_is_closed_without_a_word(start: Start) -> None:
    gateway = start(header_timeout_s=0.1)
    with gateway.connect() as connection:
        assert connection.recv(10) == b""
    assert gateway.metric("depthlens_connections_closed_total", reason="idle") == 1


def test_a_second_request_has_the_same_deadline_from_its_first_byte(start: Start) -> None:
    gateway = start(header_timeout_s=0.3)
    with gateway.connect() as connection:
        connection.sendall(LIVE + b"\r\n")
        until(lambda: b'"live"}' in connection.recv(65536, socket.MSG_PEEK))
        time.sleep(0.5)  # waiting for the next request is no offence
        connection.sendall(LIVE + b"\r\n" + LIVE)
        answer = heard(connection)
    second = parsed(answer.rest)
    assert (answer.status, second.status) == (200, 200)
    assert parsed(second.rest).problem["code"] == "request_timeout"


@pytest.mark.parametrize("kind", [b"image/png", b"multipart/form-data; boundary=b"])
def test_a_body_that_stalls_fails_its_request(start: Start, kind: bytes) -> None:
    gateway = start(body_grace_s=0.2)
    answer = gateway.say(post(length=1000, kind=kind), b"--b\r\n")
    assert (answer.status, answer.problem["code"]) == (408, "request_timeout")
    assert answer.headers["connection"] == "close"
    assert gateway.metric("depthlens_requests_total", route="/depth", status="408", code="request_timeout") == 1
    all_is_over(gateway)


def test_a_body_must_come_at_the_least_rate(start: Start) -> None:
    gateway = start(body_grace_s=0.3, min_body_bytes_per_s=10_000)
    with gateway.connect() as connection:
        connection.sendall(post(b"Transfer-Encoding: chunked"))
        assert trickle(connection, b"1\r\nx\r\n", 0.02)
        assert heard(connection).status == 408
    with gateway.connect() as connection:  # faster, but for three times as long as it may stall
        connection.sendall(post(length=len(PHOTO) + 90_000))
        for part in (PHOTO, *[bytes(3000)] * 30):
            connection.sendall(part)
            time.sleep(0.03)
        assert heard(connection).status == 200
    all_is_over(gateway)


def big_answer(gateway: RunningGateway) -> socket.socket:
    """A connection on which 8 MB wait, and that can take little of it."""
    connection = gateway.connect(receive_buffer=4096)
    body = encoded(picture(1600, 1250))
    connection.sendall(post(length=len(body), target=b"/depth?format=npy") + body)
    connection.recv(1, socket.MSG_PEEK)
    return connection


def test_an_answer_that_nobody_reads_is_cut(start: Start) -> None:
    gateway = start(body_grace_s=0.2)
    with big_answer(gateway):
        until(lambda: gateway.metric("depthlens_connections") == 0)
    assert gateway.metric("depthlens_connections_closed_total", reason="slow_reader") == 1


def test_an_answer_that_is_read_slowly_is_not(start: Start) -> None:
    gateway = start(body_grace_s=0.3)
    received = 0
    with big_answer(gateway) as connection:
        for _ in range(60):
            received += len(connection.recv(8192))
            time.sleep(0.02)
        while data := connection.recv(2**20):
            received += len(data)
    assert received > 1600 * 1250 * 4
    assert gateway.metric("depthlens_connections_closed_total", reason="slow_reader") == 0


def test_who_is_answered_early_gets_the_answer(edge: RunningGateway) -> None:
    """Were the connection closed with unread bytes, it would be reset while the client still sends."""
    for request in (post(length=8_000_000_000), b"GET" + post(length=8_000_000_000)[4:], LIVE + b"a: "):
        with edge.connect() as connection:
            connection.sendall(request)
            for _ in range(40):
                connection.sendall(bytes(100_000))
            connection.shutdown(socket.SHUT_WR)
            answer = heard(connection)
        assert answer.status in (405, 413, 431)
        assert answer.problem
    all_is_over(edge)


def test_a_client_that_never_stops_sending_is_left_in_the_end(
    edge: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.edge._LINGER_S", 0.5)
    with edge.connect() as connection:
        connection.sendall(post(length=8_000_000_000))
        assert trickle(connection, b"x", 0.02)
        all_is_over(edge)
    monkeypatch.undo()
    monkeypatch.setattr("service.edge._QUIET_S", 0.2)
    with edge.connect() as connection:
        connection.sendall(post(length=8_000_000_000))
        for _ in range(30):  # as long as it sends it is heard out
            connection.sendall(bytes(1000))
            time.sleep(0.02)
        assert edge.metric("depthlens_connections") == 1
        all_is_over(edge)


def test_bytes_behind_the_last_request_do_not_take_its_answer(edge: RunningGateway) -> None:
    assert edge.say(post(length=len(PHOTO)) + PHOTO + b"\r\n\r\n").status == 200


def test_expect_100_continue(edge: RunningGateway) -> None:
    def ask(length: int, *headers: bytes) -> tuple[bytes, socket.socket]:
        connection = edge.connect()
        connection.sendall(post(b"Expect: 100-continue", *headers, length=length))
        return connection.recv(65536), connection

    first, connection = ask(len(PHOTO))
    with connection:
        assert first.startswith(b"HTTP/1.1 100 ")
        connection.sendall(PHOTO)
        assert heard(connection).status == 200
    memory = edge.app.state.gateway.uploads
    with memory.share("another client") as other:
        other.take(memory._max_bytes - 10)
        refusals = [ask(1000), ask(8_000_000_000), ask(1000, b"Content-Encoding: gzip")]
    for (first, connection), status in zip(refusals, (b"503", b"413", b"415"), strict=True):
        connection.close()
        assert first.startswith(b"HTTP/1.1 " + status), "not invited to send what is refused"


def test_a_client_that_the_gateway_keeps_waiting_is_not_too_slow(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    async def late(request: Request, max_bytes: int, share: UploadShare) -> bytes:
        await asyncio.sleep(0.6)
        return await read_image(request, max_bytes, share)

    monkeypatch.setattr("service.gateway.read_image", late)
    gateway = start(body_grace_s=0.2)
    with gateway.connect() as connection:
        connection.sendall(post(b"Expect: 100-continue", length=len(PHOTO)))
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
        connection.sendall(PHOTO)
        assert heard(connection).status == 200
    with gateway.connect() as connection:  # more than the gateway takes before its handler reads
        connection.sendall(post(length=len(PHOTO) + 300_000) + PHOTO + bytes(200_000))
        time.sleep(0.7)
        connection.sendall(bytes(100_000))
        assert heard(connection).status == 200


def test_a_stop_does_not_wait_for_who_does_not_read(start: Start) -> None:
    gateway = start(body_grace_s=0.2)
    with big_answer(gateway):
        gateway.close()


class Echo(asyncio.Protocol):
    """Stands for uvicorn's WebSocket protocols: made with the same arguments, given the request's head first."""

    def __init__(self, **_: object) -> None:
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(b"echo " + data)


def test_an_upgraded_connection_is_under_no_rule_of_these(start: Start) -> None:
    gateway = start(header_timeout_s=0.1, body_grace_s=0.1, max_connections=1)
    gateway.server.config.ws_protocol_class = Echo
    with gateway.connect() as connection:
        connection.sendall(LIVE + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert connection.recv(65536).startswith(b"echo GET /health/live HTTP/1.1")
        time.sleep(0.5)
        assert gateway.say(LIVE + CLOSE + b"\r\n").status == 200
        connection.sendall(b"still here")
        assert connection.recv(65536) == b"echo still here"


def test_nonsense_of_every_kind(edge: RunningGateway, caplog: pytest.LogCaptureFixture) -> None:
    """Requests with bytes changed, cut out and doubled, in pieces: answered or closed, and nothing breaks or stays."""
    rng = random.Random(5)
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (PHOTO[:100], PHOTO[100:]))
    sound = [
        post(length=len(PHOTO)) + PHOTO,
        post(b"Transfer-Encoding: chunked") + body + b"0\r\n\r\n",
        post(length=len(form(part(b"image"))), kind=b"multipart/form-data; boundary=b") + form(part(b"image")),
        LIVE + b"\r\n" + LIVE + CLOSE + b"\r\n",
    ]
    statuses: Counter[int] = Counter()
    for _ in range(300):
        data = bytearray(rng.choice(sound))
        for _ in range(rng.randint(1, 4)):
            start = rng.randrange(min(len(data), 400))
            end = start + rng.choice([1, 1, 2, 8, 64])
            data[start:end] = rng.choice(
                [b"", rng.randbytes(end - start), bytes(data[start:end]) * 2, b"\r\n", b"\x00", b":", b"9" * 30]
            )
        with edge.connect() as connection, suppress(ConnectionError):
            cut = rng.randrange(len(data))
            connection.sendall(data[:cut])
            connection.sendall(data[cut:])
            with suppress(OSError):  # it may have hung up before
                connection.shutdown(socket.SHUT_WR)
            received = bytearray()
            while piece := connection.recv(65536):
                received += piece
            if received:
                statuses[parsed(bytes(received)).status] += 1
    all_is_over(edge)
    assert statuses[200]
    assert statuses[400]
    assert not [status for status in statuses if status >= 500]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
