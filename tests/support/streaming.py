"""A client of `WS /frames`, as small as the protocol allows."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect


@dataclass(frozen=True)
class Heard:
    """A text message, and the binary one behind it."""

    words: dict[str, Any]
    body: bytes = b""

    @property
    def code(self) -> str:
        return self.words["problem"]["code"]


class Stream:
    """An open stream; `ready` is its first message."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.ready = self.hear().words

    def send(self, *frames: bytes) -> None:
        for frame in frames:
            self.socket.send(frame)

    def say(self, **words: Any) -> None:
        self.socket.send(json.dumps(words))

    def hear(self, timeout_s: float = 60.0) -> Heard:
        words = json.loads(self.socket.recv(timeout_s))
        if words["type"] != "result":
            return Heard(words)
        body = self.socket.recv(timeout_s)
        assert isinstance(body, bytes)
        assert len(body) == words["bytes"]
        return Heard(words, body)

    def rest(self) -> list[Heard]:
        """Everything until the server closes."""
        heard = []
        try:
            while True:
                heard.append(self.hear())
        except ConnectionClosed:
            return heard

    def ended(self) -> list[Heard]:
        """Say that there is no more, and hear the rest."""
        self.say(type="end")
        return self.rest()

    @property
    def closed(self) -> tuple[int | None, str | None]:
        return self.socket.close_code, self.socket.close_reason


def url(address: tuple[str, int], query: str) -> str:
    return f"ws://{address[0]}:{address[1]}/frames?{query}"


@contextmanager
def streaming(address: tuple[str, int], query: str, **options: Any) -> Iterator[Stream]:
    options = {"max_size": None, "compression": None, "ping_interval": None, "close_timeout": 2, **options}
    with connect(url(address, query), **options) as socket:
        yield Stream(socket)


def refused(address: tuple[str, int], query: str, path: str = "/frames", **options: Any) -> tuple[int, dict[str, Any]]:
    """Status and problem of a stream that is not let in."""
    with pytest.raises(InvalidStatus) as caught:
        connect(f"ws://{address[0]}:{address[1]}{path}?{query}", **options)
    response = caught.value.response
    assert response.headers["Content-Type"] == "application/problem+json"
    return response.status_code, json.loads(response.body or b"")


def ended(stream: Any) -> None:
    """Ends a stream of Starlette's test client and waits for it: leaving at once would cancel it half-way."""
    stream.send_json({"type": "end"})
    assert stream.receive_json()["type"] == "end"
    assert stream.receive()["type"] == "websocket.close"
