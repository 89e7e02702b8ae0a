"""Ordinary heads, as nearly all clients send them, read at once and cheaply; and answers to them.

What is not ordinary is left to h11, which reads everything that HTTP/1.1 allows, at several times the cost. Whatever is
ordinary h11 reads in the same way.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

Headers = list[tuple[bytes, bytes]]

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_ORDINARY = re.compile(rb"(%b) (/[!-~]{0,4096}+) HTTP/1\.1\r\n((?:%b: [!-~][ -~]*+\r\n){1,50}+)\r\n" % (_TOKEN, _TOKEN))
"""No part of it can match in two ways, so that nothing is tried twice."""
_LENGTH = re.compile(rb"[0-9]{1,15}")
_PHRASES = {status.value: status.phrase for status in HTTPStatus}


@dataclass(frozen=True, slots=True)
class OrdinaryHead:
    """A request line of HTTP/1.1 and headers.

    Args:
        method: as sent.
        path: as sent, without the query.
        headers: names in lower case.
        size: bytes of all of it.
        keep: whether the connection may be kept once `body_bytes` more have come: not where the client closes it, and
            not where it may or may not send the body (`Expect: 100-continue`).
        body_bytes: what follows of this request.
    """

    method: bytes
    path: bytes
    headers: Headers
    size: int
    keep: bool
    body_bytes: int

    def value(self, name: bytes) -> bytes:
        """Of the first header of that name, empty when there is none."""
        for each, value in self.headers:
            if each == name:
                return value
        return b""


def ordinary(data: bytes) -> OrdinaryHead | None:
    """The head that `data` begins with, None when it is not complete or not ordinary."""
    found = _ORDINARY.match(data)
    if found is None:
        return None
    method, target, lines = found.groups()
    headers = []
    hosts, lengths, keep = 0, [], True
    for line in lines[:-2].split(b"\r\n"):
        name, _, value = line.partition(b": ")
        name, value = name.lower(), value.rstrip()
        headers.append((name, value))
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            lengths.append(value)
        elif name in (b"transfer-encoding", b"upgrade"):
            return None
        elif name == b"expect" or (name == b"connection" and value.lower() != b"keep-alive"):
            keep = False
    if hosts != 1 or len(lengths) > 1 or (lengths and not _LENGTH.fullmatch(lengths[0])):
        return None
    body_bytes = int(lengths[0]) if lengths else 0
    return OrdinaryHead(method, target.partition(b"?")[0], headers, found.end(), keep, body_bytes)


def complete_answer(status: int, headers: Mapping[str, str], more: Iterable[tuple[bytes, bytes]], body: bytes) -> bytes:
    """An answer of known length, as it is sent.

    Args:
        status: its code.
        headers: all but the length; none of them with a line end.
        more: headers, encoded.
        body: its bytes.
    """
    lines = [f"HTTP/1.1 {status} {_PHRASES[status]}", f"content-length: {len(body)}"]
    lines += [f"{name.lower()}: {value}" for name, value in headers.items()]
    lines += [f"{name.decode()}: {value.decode()}" for name, value in more]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
