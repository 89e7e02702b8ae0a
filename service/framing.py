"""How HTTP/1.1 may be written: bounds for heads and chunks, and what to say when it is not HTTP at all.

h11 bounds incomplete heads only: one read of uvloop, 256 kB, can hold a whole head of 50,000 headers.
"""

import re
from typing import Any

import h11

from service.errors import BadRequest, DepthlensError, HeadersTooLarge, UrlTooLong

HEAD_BYTES = 64 * 1024
"""Largest request line with its headers: room for a thousand points in the query."""
_URL_BYTES = 48 * 1024
_HEADER_LINES = 100
"""Kestrel's limit; 50,000 of them cost h11 a tenth of a second."""
_SMALL_CHUNKS = 1000
"""Chunks of a body before their mean size counts."""
_CHUNK_BYTES = 1024
"""Smallest mean size of chunks: each costs h11 some 30 us, and 200 kB/s of 1-byte chunks would keep a core busy."""

_BLANK_LINE = re.compile(rb"\n\r?\n")


class Head:
    """The request line and headers that are being received, and how large they have become."""

    def __init__(self) -> None:
        self.received_bytes = 0
        self._lines = 0

    def clear(self) -> None:
        """The head is complete: the next one begins."""
        self.received_bytes = self._lines = 0

    def error(self, received: bytes) -> DepthlensError | None:
        """What is wrong with it, given everything received since the last request, perhaps with part of a body."""
        if not received:
            return None
        end_of_head = _BLANK_LINE.search(received, max(0, self.received_bytes - 3))
        end = end_of_head.end() if end_of_head else len(received)
        self._lines += received.count(b"\n", self.received_bytes, end)
        self.received_bytes = len(received)
        if end > _URL_BYTES and received.find(b"\n", 0, _URL_BYTES) < 0:
            return UrlTooLong(
                f"The URL has more than {_URL_BYTES} bytes. Send fewer points.", field="url", limit=_URL_BYTES
            )
        if end > HEAD_BYTES:
            return HeadersTooLarge(
                f"The headers have more than {HEAD_BYTES} bytes. Send smaller ones.", field="headers", limit=HEAD_BYTES
            )
        if self._lines > _HEADER_LINES + 2:  # the request line and the empty one
            return HeadersTooLarge(
                f"There are more than {_HEADER_LINES} headers. Send fewer.", field="headers", limit=_HEADER_LINES
            )
        return None


class BoundedConnection(h11.Connection):
    """h11's, refusing bodies in senselessly many chunks."""

    _chunks = 0
    _chunked_bytes = 0

    def next_event(self) -> Any:
        """As h11's; RemoteProtocolError when the chunks are too small."""
        event = super().next_event()
        if type(event) is h11.Data:
            self._chunked_bytes += len(event.data)
            if event.chunk_end:
                self._chunks += 1
                if self._chunks > _SMALL_CHUNKS and self._chunked_bytes < self._chunks * _CHUNK_BYTES:
                    raise h11.RemoteProtocolError("chunks too small")
        elif type(event) is h11.Request:
            self._chunks = self._chunked_bytes = 0
        return event


def has_two_lengths(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether two parties could disagree where the body ends (request smuggling, RFC 9112 section 6.3)."""
    names = [name for name, _ in headers]
    return b"content-length" in names and b"transfer-encoding" in names


def unreadable(error: BaseException | None) -> DepthlensError:
    """What to tell a client about h11's error; its own text may repeat what was sent."""
    text = str(error)
    if "Content-Length" in text:
        return BadRequest("Content-Length must be one whole number, 0 or more.", field="Content-Length")
    if "Transfer-Encoding" in text:
        return BadRequest("Of the transfer encodings only chunked is read, once.", field="Transfer-Encoding")
    if "chunk" in text or getattr(error, "error_status_hint", 0) == 431:
        return BadRequest(
            f"The chunked body cannot be read: send chunks of {_CHUNK_BYTES} bytes or more, or Content-Length.",
            field="body",
        )
    return BadRequest("This is not a request in HTTP/1.1.", field="request")
