"""Request lines and headers on real sockets: too long, too many, or no HTTP."""

import socket

import pytest
from raw import CLOSE, HOST, LIVE, PHOTO, post
from running import RunningGateway, heard, parsed


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
def test_heads(edge: RunningGateway, head: bytes, status: int, code: str | None) -> None:
    answer = edge.say(head, b"\r\n")
    assert answer.status == status
    assert answer.headers["connection"] == "close", "nothing after it could be trusted"
    if code:
        assert answer.problem["code"] == code
        assert answer.problem["detail"].endswith(".")
        assert answer.problem["request_id"] == answer.headers["x-request-id"]
    assert edge.say(LIVE + CLOSE + b"\r\n").status == 200


def test_a_flood_behind_a_sound_request_in_the_same_packet(edge: RunningGateway) -> None:
    answer = edge.say(LIVE + b"\r\n" + LIVE + b"a:b\r\n" * 40_000)
    assert answer.status == 200
    assert parsed(answer.rest).problem["code"] == "headers_too_large"


@pytest.mark.parametrize("size", [1, 700, 65_536])
def test_heads_and_bodies_in_pieces_of_any_size(edge: RunningGateway, size: int) -> None:
    """The lines of a body are no headers, wherever the pieces are cut."""
    body = b"\n" * 300 + PHOTO
    request = post(*[b"a%d: b" % number for number in range(90)], length=len(body)) + body
    with edge.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(request), size):
            connection.sendall(request[start : start + size])
        assert heard(connection).status == 415


def test_a_thousand_points_are_possible(edge: RunningGateway) -> None:
    points = "%3B".join("12.345678901%2C23.456789012" for _ in range(1000)).encode()
    request = post(length=len(PHOTO), target=b"/depth?format=json&points=" + points)
    answer = edge.say(request + PHOTO)
    assert answer.status == 200, answer.body[:300]
