"""HTTP/1.1 on a plain socket: what a client library would refuse to send can be sent, and left half-way."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson

from .fault import Unmet

_HEADER_LIMIT = 2**20


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Args:
        status: its code.
        headers: by name in lower case.
        body: all of it.
        seconds: from the first byte sent by `ask` (or the call of `Wire.answer`) to the last received.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    @property
    def problem(self) -> dict[str, Any]:
        """The problem document; Unmet when the body is none."""
        if self.headers.get("content-type", "").partition(";")[0] != "application/problem+json":
            raise Unmet(f"{self.status} with {self.headers.get('content-type')}, not a problem: {self.body[:80]!r}")
        body: dict[str, Any] = orjson.loads(self.body)
        return body

    def expect(self, *statuses: int, code: str | None = None, field: str | None = None) -> "Answer":
        """Itself; Unmet when the status is none of these, an error is no problem, or its code or field another."""
        said = self.problem if self.status >= 400 else {}
        wrong = self.status not in statuses
        wrong |= code is not None and said.get("code") != code
        wrong |= field is not None and said.get("field") != field
        if wrong:
            raise Unmet(f"{self.status} {said.get('code', '')} {said.get('field') or ''}".strip())
        return self


class Wire:
    """One connection to a gateway; made by `Gateway.connect`, closed at the end of the run.

    Args:
        reader: of the connection.
        writer: of the connection.
        record: called with every answer.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, record: Callable[[Answer], None]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._record = record
        self.reusable = True

    @classmethod
    async def open(cls, port: int, record: Callable[[Answer], None]) -> "Wire":
        """Connect; Unmet when nobody listens."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=_HEADER_LIMIT)
        except OSError as error:
            raise Unmet(f"no connection: {error.strerror}") from None
        return cls(reader, writer, record)

    async def send(self, data: bytes) -> None:
        """Send bytes as they are; Unmet when the other side has closed."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except ConnectionError:
            raise Unmet("connection closed by the gateway while sending") from None

    async def ask(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        timeout_s: float = 30.0,
    ) -> Answer:
        """A whole request and its answer."""
        await self.send(head(method, target, len(body), headers) + body)
        return await self.answer(timeout_s)

    async def answer(self, timeout_s: float = 30.0) -> Answer:
        """The next answer; Unmet when none comes in time or the connection closes before its end."""
        start = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                status, headers, body = await self._read()
        except TimeoutError:
            raise Unmet(f"no answer within {timeout_s:g} s") from None
        except (ConnectionError, asyncio.IncompleteReadError):
            raise Unmet("connection closed without an answer") from None
        found = Answer(status, headers, body, time.monotonic() - start)
        self.reusable = headers.get("connection", "").lower() != "close"
        self._record(found)
        return found

    async def _read(self) -> tuple[int, dict[str, str], bytes]:
        first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = int(first.split(" ")[1])
        if status == 100:
            return await self._read()
        if "chunked" in headers.get("transfer-encoding", ""):
            return status, headers, await self._chunks()
        if "content-length" in headers:
            return status, headers, await self._reader.readexactly(int(headers["content-length"]))
        return status, headers, b"" if status in (204, 304) else await self._reader.read()

    async def _chunks(self) -> bytes:
        body = bytearray()
        while size := int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readuntil(b"\r\n")
        return bytes(body)

    async def closed(self, within_s: float) -> float:
        """Seconds until the gateway closes the connection, whatever it says before; Unmet when it does not."""
        start = time.monotonic()
        try:
            async with asyncio.timeout(within_s):
                with suppress(ConnectionError):
                    while await self._reader.read(2**16):
                        pass
        except TimeoutError:
            raise Unmet(f"connection still open after {within_s:g} s") from None
        return time.monotonic() - start

    def leave(self, *, reset: bool = False) -> None:
        """Close the connection without another word; `reset` throws away what is on its way (TCP RST)."""
        if reset:
            self._writer.transport.abort()
        else:
            self._writer.close()

    async def close(self) -> None:
        """Close, and wait for it."""
        self._writer.close()
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(1.0):
                await self._writer.wait_closed()


def head(method: str, target: str, length: int | None, headers: Mapping[str, str] | None = None) -> bytes:
    """Request line and headers up to the empty line; `length` None leaves Content-Length out."""
    given = {"Host": "127.0.0.1", "Content-Type": "image/png"} | dict(headers or {})
    if length is not None:
        given = {"Content-Length": str(length)} | given
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
