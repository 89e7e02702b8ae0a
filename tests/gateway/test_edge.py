"""The HTTP edge on real sockets: what is too slow, too large, too much or no HTTP at all ends, and soon."""

import asyncio
import logging
import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from tempfile import SpooledTemporaryFile
from typing import Any

import pytest
from fakes import FakeDepthClient, encoded, picture
from running import RunningGateway, heard, parsed, until
from starlette.requests import Request

from service.upload import UploadShare, read_image

HOST = b"Host: x\r\n"
CLOSE = b"Connection: close\r\n"
LIVE = b"GET /health/live HTTP/1.1\r\n" + HOST
PHOTO = encoded(picture())
Start = Callable[..., RunningGateway]


@pytest.fixture(scope="module")
def gateway() -> Iterator[RunningGateway]:
    """Ordinary settings, for what is refused at once."""
    running = RunningGateway(FakeDepthClient(), max_body_bytes=2_000_000)
    yield running
    running.close()


def post(*headers: bytes, length: int | None = None, kind: bytes = b"image/png", target: bytes = b"/depth") -> bytes:
    lines = [b"POST " + target + b" HTTP/1.1", b"Host: x", b"Connection: close", b"Content-Type: " + kind, *headers]
    if length is not None:
        lines.append(b"Content-Length: %d" % length)
    return b"\r\n".join(lines) + b"\r\n\r\n"


def all_is_over(gateway: RunningGateway) -> None:
    until(lambda: gateway.metric("depthlens_connections") == 0)
    until(lambda: gateway.app.state.gateway.uploads.used_bytes == 0)
    until(lambda: gateway.metric("depthlens_inflight") == 0)
    until(lambda: not gateway.server.server_state.tasks)


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


@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        (b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\n" + HOST, 414, "url_too_long"),
        (b"GET /" + b"a" * 2_000_000, 414, "url_too_long"),
        (LIVE + b"a: " + b"b" * 70_000, 431, "headers_too_large"),
        (LIVE + b"a: " + b"b" * 2_000_000, 431, "headers_too_large"),
        (LIVE + b"a:b\r\n" * 100, 431, "headers_too_large"),
        (LIVE + b"a:b\r\n" * 50_000, 431, "headers_too_large"),
        (LIVE.replace(b"\r", b"") + b"a:b\n" * 16_000 + b"\n", 431, "headers_too_large"),
        (LIVE + b"a: b\r\n" + b" c\r\n" * 1000, 431, "headers_too_large"),
        (b"GET / HTTP/1.1\r\n", 400, "malformed_request"),
        (b"GET / HTTP/9.x\r\n" + HOST, 400, "malformed_request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40), 400, "malformed_request"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"a\x00: b\r\n", 400, "malformed_request"),
        (post(b"Content-Length: -1")[:-2], 400, "malformed_request"),
        (post(b"Content-Length: 1e3")[:-2], 400, "malformed_request"),
        (post(b"Content-Length: 5", b"Content-Length: 6")[:-2], 400, "malformed_request"),
        (post(b"Content-Length: 5, 6")[:-2], 400, "malformed_request"),
        (post(b"Content-Length: 99999999999999999999999")[:-2], 400, "malformed_request"),
        (post(b"Content-Length: 5", b"Transfer-Encoding: chunked")[:-2], 400, "malformed_request"),
        (LIVE + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 200, None),
        (post(b"Transfer-Encoding: gzip")[:-2], 400, "malformed_request"),
        (post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked")[:-2], 400, "malformed_request"),
        (post(b"Content-Length: 8000000000")[:-2], 413, "body_too_large"),
    ],
)
def test_heads(gateway: RunningGateway, head: bytes, status: int, code: str | None) -> None:
    answer = gateway.say(head, b"\r\n")
    assert answer.status == status
    assert answer.headers["connection"] == "close", "nothing after it could be trusted"
    if code:
        assert answer.problem["code"] == code
        assert answer.problem["detail"].endswith(".")
        assert answer.problem["request_id"] == answer.headers["x-request-id"]
    assert gateway.say(LIVE + CLOSE + b"\r\n").status == 200


def test_a_flood_behind_a_sound_request_in_the_same_packet(gateway: RunningGateway) -> None:
    answer = gateway.say(LIVE + b"\r\n" + LIVE + b"a:b\r\n" * 40_000)
    assert answer.status == 200
    assert parsed(answer.rest).problem["code"] == "headers_too_large"


@pytest.mark.parametrize("size", [1, 700, 65_536])
def test_heads_and_bodies_in_pieces_of_any_size(gateway: RunningGateway, size: int) -> None:
    """The lines of a body are no headers, wherever the pieces are cut."""
    body = b"\n" * 300 + PHOTO
    request = post(*[b"a%d: b" % number for number in range(90)], length=len(body)) + body
    with gateway.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(request), size):
            connection.sendall(request[start : start + size])
        assert heard(connection).status == 415


def test_a_thousand_points_are_possible(gateway: RunningGateway) -> None:
    points = "%3B".join("12.345678901%2C23.456789012" for _ in range(1000)).encode()
    request = post(length=len(PHOTO), target=b"/depth?format=json&points=" + points)
    answer = gateway.say(request + PHOTO)
    assert answer.status == 200, answer.body[:300]


def test_who_is_answered_early_gets_the_answer(gateway: RunningGateway) -> None:
    """Were the connection closed with unread bytes, it would be reset while the client still sends."""
    for request in (post(length=8_000_000_000), b"GET" + post(length=8_000_000_000)[4:], LIVE + b"a: "):
        with gateway.connect() as connection:
            connection.sendall(request)
            for _ in range(40):
                connection.sendall(bytes(100_000))
            connection.shutdown(socket.SHUT_WR)
            answer = heard(connection)
        assert answer.status in (405, 413, 431)
        assert answer.problem
    all_is_over(gateway)


def test_a_client_that_never_stops_sending_is_left_in_the_end(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.edge._LINGER_S", 0.5)
    with gateway.connect() as connection:
        connection.sendall(post(length=8_000_000_000))
        assert trickle(connection, b"x", 0.02)
        all_is_over(gateway)
    monkeypatch.undo()
    monkeypatch.setattr("service.edge._QUIET_S", 0.2)
    with gateway.connect() as connection:
        connection.sendall(post(length=8_000_000_000))
        for _ in range(30):  # as long as it sends it is heard out
            connection.sendall(bytes(1000))
            time.sleep(0.02)
        assert gateway.metric("depthlens_connections") == 1
        all_is_over(gateway)


def test_bytes_behind_the_last_request_do_not_take_its_answer(gateway: RunningGateway) -> None:
    assert gateway.say(post(length=len(PHOTO)) + PHOTO + b"\r\n\r\n").status == 200


def test_expect_100_continue(gateway: RunningGateway) -> None:
    def ask(length: int, *headers: bytes) -> tuple[bytes, socket.socket]:
        connection = gateway.connect()
        connection.sendall(post(b"Expect: 100-continue", *headers, length=length))
        return connection.recv(65536), connection

    first, connection = ask(len(PHOTO))
    with connection:
        assert first.startswith(b"HTTP/1.1 100 ")
        connection.sendall(PHOTO)
        assert heard(connection).status == 200
    memory = gateway.app.state.gateway.uploads
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


def test_small_chunks(gateway: RunningGateway) -> None:
    """Each costs the parser as much as a large one."""
    chunked = post(b"Transfer-Encoding: chunked")
    answer = gateway.say(chunked + b"1\r\nx\r\n" * 30_000)
    assert answer.status == 400
    assert answer.problem["field"] == "body"
    pieces = [PHOTO[start : start + 50] for start in range(0, len(PHOTO), 50)]
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    assert gateway.say(chunked + body + b"0\r\n\r\n").status == 200, "a few may be small"
    assert gateway.say(chunked + b"zz\r\n").problem["field"] == "body"
    assert gateway.say(chunked + b"1;" + b"x" * 100_000).problem["field"] == "body"
    assert gateway.say(chunked + (b"8000\r\n" + bytes(0x8000) + b"\r\n") * 70).status == 413, "there is no end"


def form(*parts: bytes) -> bytes:
    return b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b--\r\n"


def part(name: bytes, content: bytes = PHOTO, kind: bytes = b"image/png") -> bytes:
    return b'Content-Disposition: form-data; name="%b"; filename="p"\r\nContent-Type: %b\r\n\r\n%b' % (
        name,
        kind,
        content,
    )


NESTED = form(part(b"image")).replace(b"--b", b"--c")


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (form(part(b"image")), b"multipart/form-data; boundary=b", 200),
        (form(part(b"image")), b"multipart/form-data", 400),
        (form(part(b"image")), b'multipart/form-data; boundary=""', 400),
        (form(part(b"image")), b"multipart/form-data; boundary=" + b"b" * 5000, 400),
        (form(part(b"image")), b"multipart/form-data; boundary=\xff\xfe", 400),
        (form(part(b"image"))[:-10], b"multipart/form-data; boundary=b", 400),
        (form(*[part(b"%d" % number, b"x") for number in range(1001)]), b"multipart/form-data; boundary=b", 400),
        (form(part(b"image"), part(b"image")), b"multipart/form-data; boundary=b", 400),
        (form(part(b"image", NESTED, b"multipart/mixed; boundary=c")), b"multipart/form-data; boundary=b", 415),
        (form(b"A: " + b"x" * 1_500_000), b"multipart/form-data; boundary=b", 400),
        (form(b"A: b\r\n" * 100_000), b"multipart/form-data; boundary=b", 400),
        (form(b"no header"), b"multipart/form-data; boundary=b", 400),
        (form(b"Content-Disposition: form-data\r\n\r\nx"), b"multipart/form-data; boundary=b", 400),
        (form(part(b"image", b"\r\n--" * 300_000)), b"multipart/form-data; boundary=b", 415),
        (form(part(b"image", bytes(2_000_000))), b"multipart/form-data; boundary=b", 413),
        (form(part(b"image")) + b"more" * 1000, b"multipart/form-data; boundary=b", 200),
    ],
)
def test_multipart(gateway: RunningGateway, body: bytes, kind: bytes, status: int) -> None:
    answer = gateway.say(post(length=len(body), kind=kind), body)
    assert answer.status == status
    if status != 200:
        assert answer.problem["detail"]
    all_is_over(gateway)


@pytest.mark.parametrize(
    "encoding", [[b"gzip"], [b"deflate"], [b"br"], [b"zstd"], [b"GZIP"], [b"identity, gzip"], [b"identity", b"gzip"]]
)
def test_compressed_bodies_are_refused_unread(gateway: RunningGateway, encoding: list[bytes]) -> None:
    headers = [b"Content-Encoding: " + name for name in encoding]
    answer = gateway.say(post(*headers, length=1_000_000))
    assert (answer.status, answer.problem["code"]) == (415, "unsupported_encoding")
    assert "without Content-Encoding" in answer.problem["detail"]


def test_nothing_is_written_to_disk(gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise AssertionError("a part went to disk")

    monkeypatch.setattr(SpooledTemporaryFile, "rollover", refuse)
    body = form(part(b"image", PHOTO + bytes(1_900_000)))
    assert gateway.say(post(length=len(body), kind=b"multipart/form-data; boundary=b"), body).status == 200


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
            assert b'"live"' in connection.recv(65536, socket.MSG_WAITALL)
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


def test_nonsense_of_every_kind(gateway: RunningGateway, caplog: pytest.LogCaptureFixture) -> None:
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
        with gateway.connect() as connection, suppress(ConnectionError):
            cut = rng.randrange(len(data))
            connection.sendall(data[:cut])
            connection.sendall(data[cut:])
            connection.shutdown(socket.SHUT_WR)
            received = bytearray()
            while piece := connection.recv(65536):
                received += piece
            if received:
                statuses[parsed(bytes(received)).status] += 1
    all_is_over(gateway)
    assert statuses[200]
    assert statuses[400]
    assert not [status for status in statuses if status >= 500]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
