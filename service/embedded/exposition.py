"""Triton's own metrics, read from its HTTP port: there is no HTTP client among the dependencies."""

import asyncio
from contextlib import suppress
from typing import Final

_TIMEOUT_S: Final = 3.0
"""Less than a scraper's patience (10 s): Triton's metrics may be missing, the gateway's must not be late for them."""
_LONGEST_BYTES: Final = 8 * 2**20


async def read(host: str, port: int) -> bytes:
    """Triton's Prometheus text; empty when it does not answer within 3 s."""
    with suppress(OSError, TimeoutError, ValueError):
        async with asyncio.timeout(_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                answer = await _bounded(reader)
            finally:
                writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        if head.split(b" ", 2)[1:2] == [b"200"] and b"chunked" not in head.lower():
            return body
    return b""


async def _bounded(reader: asyncio.StreamReader) -> bytes:
    parts = bytearray()
    while part := await reader.read(2**16):
        parts += part
        if len(parts) > _LONGEST_BYTES:
            raise ValueError
    return bytes(parts)
