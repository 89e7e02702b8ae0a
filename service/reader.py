"""Whether a client takes its answers: one that nobody reads is held in memory for ever otherwise."""

import asyncio
import fcntl
import sys
import termios
from contextlib import suppress

from uvicorn.protocols.http.flow_control import FlowControl

from service.connections import Connections, Pace


class Reader:
    """One client as the reader of what is written to it, cut when it is too slow.

    Args:
        rules: of all connections.
        transport: to the client.
        flow: whether writing is paused.
    """

    def __init__(self, rules: Connections, transport: asyncio.Transport, flow: FlowControl) -> None:
        self._rules = rules
        self._transport = transport
        self._flow = flow
        self._loop = asyncio.get_running_loop()
        self._written_bytes = 0
        self._pace: Pace | None = None
        self._check: asyncio.TimerHandle | None = None
        self._taken_bytes = 0

    def write(self, data: bytes) -> None:
        """Send it, at the client's pace."""
        self._written_bytes += len(data)
        self._transport.write(data)

    def watch(self) -> None:
        """Look now and then whether the client takes what waits for it."""
        if self._check is None and self._transport.get_write_buffer_size():
            self._pace = Pace(self._rules, self._loop.time())
            self._taken_bytes = self._acknowledged_bytes()
            self._check = self._loop.call_later(self._rules.grace_s / 4, self._look)

    def forget(self) -> None:
        """The connection is over."""
        if self._check is not None:
            self._check.cancel()
            self._check = None

    def _acknowledged_bytes(self) -> int:
        """Bytes that the client's side has acknowledged: the loop is told of room in large steps only."""
        unsent = bytearray(4)
        with suppress(OSError, AttributeError):  # the connection is over, or no TCP
            fcntl.ioctl(self._transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, unsent)
        waiting = int.from_bytes(unsent, sys.byteorder)
        return self._written_bytes - self._transport.get_write_buffer_size() - waiting

    def _look(self) -> None:
        assert self._pace
        self._check = None
        if not (self._flow.write_paused or self._transport.is_closing()):
            return
        now = self._loop.time()
        taken = self._acknowledged_bytes()
        self._pace.moved(taken - self._taken_bytes, now)
        self._taken_bytes = taken
        if now >= self._pace.until:
            self._rules.closed("slow_reader")
            self._transport.abort()
            return
        self._check = self._loop.call_later(self._rules.grace_s / 4, self._look)
