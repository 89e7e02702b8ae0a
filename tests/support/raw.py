"""Requests byte by byte, as no client library would send them all."""

from fakes import encoded, picture

HOST = b"Host: x\r\n"
CLOSE = b"Connection: close\r\n"
LIVE = b"GET /health/live HTTP/1.1\r\n" + HOST
"""Without the empty line at its end: more headers can follow."""
PHOTO = encoded(picture())


def post(*headers: bytes, length: int | None = None, kind: bytes = b"image/png", target: bytes = b"/depth") -> bytes:
    """The head of a request for `target`; the connection is closed after it."""
    lines = [b"POST " + target + b" HTTP/1.1", b"Host: x", b"Connection: close", b"Content-Type: " + kind, *headers]
    if length is not None:
        lines.append(b"Content-Length: %d" % length)
    return b"\r\n".join(lines) + b"\r\n\r\n"


def form(*parts: bytes) -> bytes:
    """A multipart body with the boundary `b`."""
    return b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b--\r\n"


def part(name: bytes, content: bytes = PHOTO, kind: bytes = b"image/png") -> bytes:
    """A file of a form: its headers and content."""
    return b'Content-Disposition: form-data; name="%b"; filename="p"\r\nContent-Type: %b\r\n\r\n%b' % (
        name,
        kind,
        content,
    )
