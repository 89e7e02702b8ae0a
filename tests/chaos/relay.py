"""A TCP relay between a gateway and its Triton: counts what passes; can delay it, cut it off or let it vanish."""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Literal

_CHUNK_BYTES = 2**16


class Relay:
    """Listens on a free port of the loopback; a context manager.

    Attributes:
        sent_bytes: passed on to Triton so far.
        received_bytes: passed back so far.
        mode: `open`; `swallow`: connections stay, nothing passes, as in a network that drops packets.
        delay_s: added to every piece in both directions.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._lost: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.sent_bytes = 0
        self.received_bytes = 0
        self.mode: Literal["open", "swallow"] = "open"
        self.delay_s = 0.0

    @classmethod
    async def open(cls, port: int, host: str = "127.0.0.1", at: int = 0) -> "Relay":
        """A relay to `port` that listens on `host`, port `at` if that is given."""
        relay = cls(port)
        relay._server = await asyncio.start_server(relay._connected, host, at)
        relay.port = relay._server.sockets[0].getsockname()[1]
        return relay

    @property
    def url(self) -> str:
        """`host:port` for `DEPTHLENS_TRITON_URL`."""
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> "Relay":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Reset every connection; new ones are taken."""
        for writer in self._writers:
            writer.transport.abort()

    def lose(self) -> None:
        """Let nothing pass on the connections there are, and leave them open; new ones are good."""
        self._lost |= self._writers

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        for source, sink, onward in ((reader, far_writer, True), (far_reader, writer, False)):
            task = asyncio.create_task(self._pass(source, sink, onward))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, onward: bool) -> None:
        with suppress(ConnectionError):
            while data := await source.read(_CHUNK_BYTES):
                if self.mode == "swallow" or sink in self._lost:
                    continue
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if onward:
                    self.sent_bytes += len(data)
                else:
                    self.received_bytes += len(data)
                sink.write(data)
                await sink.drain()
        self._writers.discard(sink)
        sink.close()
