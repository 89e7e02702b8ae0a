"""The gateway as `depthlens serve` runs it, on the fake client, in a thread of this process; and raw sockets to it."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import uvloop
from fakes import FakeDepthClient

from service.app import create_app
from service.server import bind, make_server
from service.settings import Settings


class RunningGateway:
    """Listening from its construction to `close`."""

    def __init__(self, client: FakeDepthClient, **settings: Any) -> None:
        self.app = create_app(Settings(**{"canary_period_s": 60, **settings}), client)
        self.listener = bind("127.0.0.1", 0)
        self.address = self.listener.getsockname()
        self._listening = threading.Event()
        self.thread = threading.Thread(target=uvloop.run, args=(self._serve(),))
        self.thread.start()
        assert self._listening.wait(10)

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.server = make_server(self.app)
        self.server.config.callback_notify = self._notify
        self.server.config.timeout_notify = 0
        await self.server.serve([self.listener])

    async def _notify(self) -> None:
        self._listening.set()

    def metric(self, name: str, **labels: str) -> float:
        return self.app.state.gateway.metrics.registry.get_sample_value(name, labels) or 0.0

    def connect(self, receive_buffer: int | None = None) -> socket.socket:
        """A connection; a small receive buffer makes the server wait for a client that does not read."""
        connection = socket.socket()
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(10)
        connection.connect(self.address)
        return connection

    def say(self, *parts: bytes) -> "Said":
        """Send the parts on a new connection, and read until the gateway closes or 10 s are over."""
        with self.connect() as connection:
            try:
                for part in parts:
                    connection.sendall(part)
            except ConnectionError:
                pass  # it has been answered meanwhile
            return heard(connection)

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)
        assert not self.thread.is_alive()
        self.listener.close()


@dataclass(frozen=True)
class Said:
    """One answer: `after_s` from the call that reads it; `rest` is what came behind it."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    rest: bytes
    after_s: float

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/problem+json", self
        return json.loads(self.body)


def heard(connection: socket.socket) -> Said:
    """The first answer, once the gateway has closed the connection."""
    start = time.monotonic()
    data = bytearray()
    try:
        while part := connection.recv(65536):
            data += part
    except ConnectionResetError:
        pass
    assert data, "closed without an answer"
    return parsed(bytes(data), time.monotonic() - start)


def parsed(data: bytes, after_s: float = 0.0) -> Said:
    """The first of the answers in `data`."""
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = int(headers["content-length"])
    return Said(int(first.split()[1]), headers, rest[:length], rest[length:], after_s)


def until(condition: Callable[[], bool], within_s: float = 10.0) -> float:
    """Seconds until it holds."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < within_s, f"it did not happen within {within_s} s"
        time.sleep(0.005)
    return time.monotonic() - start


def all_is_over(gateway: RunningGateway) -> None:
    """Nothing of any request is left."""
    until(lambda: gateway.metric("depthlens_connections") == 0)
    until(lambda: gateway.app.state.gateway.uploads.used_bytes == 0)
    until(lambda: gateway.metric("depthlens_inflight") == 0)
    until(lambda: not gateway.server.server_state.tasks)
