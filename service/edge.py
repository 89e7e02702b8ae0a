"""The HTTP edge: how long, how much and how many a connection may be before it costs others anything.

uvicorn's h11 protocol, with the rules it lacks:

- a request's line and headers have `header_timeout_s` to arrive, and are few and short (408, 414, 431);
- a body or an answer that stalls, or moves slower than `min_body_bytes_per_s`, is given up after `body_grace_s`, as
  Kestrel does with its minimum data rates (408; an answer nobody reads is cut);
- connections are bounded: beyond `max_connections` the one that has waited longest without a request goes, as nginx
  does with its keep-alive connections, and when all are busy the new one gets 503;
- who is answered before the whole body is read gets that answer: the rest is read and dropped for a moment, since
  closing with unread bytes resets the connection and takes the answer away (nginx calls it a lingering close).

A request that fails while its handler reads the body fails there, so that its work ends and the answer is counted like
any other. Before that there is no handler, and the problem is written from here.
"""

import asyncio
import logging
import re
import resource
import sys
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import h11
import orjson
from uvicorn._types import ASGIReceiveCallable, ASGIReceiveEvent, ASGISendCallable, ASGISendEvent, Scope
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import H11Protocol

from service.context import RequestContext
from service.errors import (
    PROBLEM_MEDIA_TYPE,
    BadRequest,
    DepthlensError,
    HeadersTooLarge,
    Overloaded,
    RequestTimeout,
    UrlTooLong,
)
from service.metrics import Metrics
from service.settings import Settings

logger = logging.getLogger("depthlens.access")

HEAD_BYTES = 64 * 1024
"""Largest request line with its headers: room for a thousand points in the query."""
_URL_BYTES = 48 * 1024
_HEADER_LINES = 100
"""Kestrel's limit; 50,000 of them cost h11 a tenth of a second."""
_SMALL_CHUNKS = 1000
"""Chunks of a body before their mean size counts."""
_CHUNK_BYTES = 256
"""Smallest mean size of chunks: each costs h11 some 10 us, so that 400 kB/s of 1-byte chunks would keep a core busy."""
_LINGER_S = 2.0
_RESERVED_DESCRIPTORS = 256
"""For everything that is no connection: listeners, gRPC, workers, files."""
_TURNED_AWAY_AT_ONCE = 64
"""Connections told at the same time that there are too many; more are closed without a word."""

_BLANK_LINE = re.compile(rb"\n\r?\n")


def raise_descriptor_limit(connections: int) -> int:
    """Let this process open descriptors for so many connections; returns for how many there is room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _RESERVED_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    room = connections if soft == resource.RLIM_INFINITY else min(connections, soft - _RESERVED_DESCRIPTORS)
    return max(1, room)


class Edge:
    """What all connections of one server share: the rules, and who waits without a request.

    Args:
        settings: the rules.
        metrics: where refusals are counted.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.header_timeout_s = settings.header_timeout_s
        self.grace_s = settings.body_grace_s
        self.min_bytes_per_s = settings.min_body_bytes_per_s
        self.max_connections = raise_descriptor_limit(settings.max_connections)
        self.metrics = metrics
        self.turned_away = 0
        self._fresh: dict[GuardedProtocol, None] = {}
        self._resting: dict[GuardedProtocol, None] = {}

    def protocol(self, **arguments: Any) -> "GuardedProtocol":
        """The protocol of a new connection, for `uvicorn.Config(http=...)`."""
        return GuardedProtocol(self, **arguments)

    def enter(self, protocol: "GuardedProtocol", others: int) -> None:
        """A new connection beside `others`: makes room for it, or raises Overloaded when all of them are busy."""
        if others >= self.max_connections:
            longest = next(iter(self._fresh), None) or next(iter(self._resting), None)
            if longest is None:
                raise Overloaded(f"{self.max_connections} connections are open and busy. Try again later.")
            longest.give_way()
        self._fresh[protocol] = None

    def rest(self, protocol: "GuardedProtocol") -> None:
        """The connection waits for its next request."""
        self._resting[protocol] = None

    def work(self, protocol: "GuardedProtocol") -> None:
        """The connection has a request, or is over."""
        self._fresh.pop(protocol, None)
        self._resting.pop(protocol, None)

    def closed(self, reason: str) -> None:
        """Count a connection closed by a rule."""
        self.metrics.connections_closed.labels(reason).inc()


class _Pace:
    """The moment until which a transfer may go on: every byte moves it, to `grace_s` from now at most."""

    def __init__(self, edge: Edge, now: float) -> None:
        self._edge = edge
        self.until = now + edge.grace_s

    def moved(self, count: int, now: float) -> None:
        """`count` bytes more have come through."""
        self.until = min(now + self._edge.grace_s, self.until + count / self._edge.min_bytes_per_s)

    def held(self, now: float) -> None:
        """It was us who kept the client waiting: the grace begins anew."""
        self.until = now + self._edge.grace_s


class _Connection(h11.Connection):
    """h11's, refusing bodies in senselessly many chunks."""

    _chunks = 0
    _chunked_bytes = 0

    def next_event(self) -> Any:
        """As h11's; RemoteProtocolError when the chunks are too small."""
        event = super().next_event()
        if type(event) is h11.Data:
            if event.chunk_end:
                self._chunks += 1
                self._chunked_bytes += len(event.data)
                if self._chunks > _SMALL_CHUNKS and self._chunked_bytes < self._chunks * _CHUNK_BYTES:
                    raise h11.RemoteProtocolError("chunks too small")
        elif type(event) is h11.Request:
            self._chunks = self._chunked_bytes = 0
        return event


class _AnswerTransport:
    """The transport as one request's cycle sees it: closing waits for a client that is still sending."""

    def __init__(self, protocol: "GuardedProtocol") -> None:
        self._protocol = protocol

    def write(self, data: bytes) -> None:
        """Send part of the answer."""
        self._protocol.written_bytes += len(data)
        self._protocol.transport.write(data)

    def is_closing(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._protocol.transport.is_closing()

    def close(self) -> None:
        """The answer is over, and so is the connection."""
        self._protocol.finish()


class GuardedProtocol(H11Protocol):
    """One connection under the edge's rules."""

    def __init__(self, edge: Edge, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._edge = edge
        self._served_app = self.app
        self.app = self._guarded_app
        self.conn = _Connection(h11.SERVER, HEAD_BYTES)
        self.written_bytes = 0
        self._head_bytes = 0
        self._head_lines = 0
        self._waiting: asyncio.TimerHandle | None = None  # for a head, a body, or the end of a linger
        self._upload: _Pace | None = None
        self._failure: DepthlensError | None = None
        self._lingering = False
        self._turned_away = False
        self._answer: _Pace | None = None
        self._answer_check: asyncio.TimerHandle | None = None
        self._answer_sent = 0

    # What the transport calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        others = len(self.connections)
        super().connection_made(transport)
        try:
            self._edge.enter(self, others)
        except Overloaded as error:
            self._turn_away(error)
            return
        self._wait(self._edge.header_timeout_s, self._head_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over, whoever ended it."""
        self._edge.work(self)
        self._edge.turned_away -= self._turned_away
        self._stop_waiting()
        if self._answer_check is not None:
            self._answer_check.cancel()
            self._answer_check = None
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        """Bytes of the client; dropped when it has had its last answer."""
        if self._lingering or self._failure is not None:
            return
        if self._upload is not None:
            self._upload.moved(len(data), self.loop.time())
        super().data_received(data)

    def pause_writing(self) -> None:
        """The client reads slower than the answer comes."""
        super().pause_writing()
        self._watch_answer()

    # What uvicorn calls

    def handle_events(self) -> None:
        """Parse what has been received, as far as it keeps to the rules."""
        if self.conn.their_state is h11.IDLE and (error := self._head_error()) is not None:
            self._refuse(error)
            return
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._edge.work(self)
            self._stop_waiting()
            self._head_bytes = self._head_lines = 0
        if self._lingering or self._failure is not None or self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            if self._head_bytes and self._waiting is None:
                self._wait(self._edge.header_timeout_s, self._head_late)
        elif not self.cycle.more_body:
            self._upload = None
            self._stop_waiting()
        elif self._upload is None:
            self._upload = _Pace(self._edge, self.loop.time())
            self._wait(self._edge.grace_s, self._upload_late)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """The connection is another protocol's from here on."""
        self._edge.work(self)
        self._stop_waiting()
        super().handle_websocket_upgrade(event)

    def on_response_complete(self) -> None:
        """The answer is written, though perhaps not sent."""
        if self._lingering:
            self.server_state.total_requests += 1
            return
        self._upload = None
        self._stop_waiting()
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self._edge.rest(self)

    def send_400_response(self, msg: str) -> None:
        """Called while h11's error is handled: what came is no HTTP."""
        error = _unreadable(sys.exception())
        if self.cycle is None or self.cycle.response_complete:
            self._refuse(error)
        elif self.cycle.more_body:
            self._fail(error)
        # else: bytes after the last request of this connection, whose answer is on its way

    def shutdown(self) -> None:
        """The server stops: a connection without a request closes."""
        if self._lingering:
            self.transport.close()
        else:
            super().shutdown()
        self._watch_answer()

    def timeout_keep_alive_handler(self) -> None:
        """No further request came."""
        super().timeout_keep_alive_handler()
        self._watch_answer()

    async def _guarded_app(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        self.cycle.transport = _AnswerTransport(self)  # type: ignore[assignment]

        async def receive_in_time() -> ASGIReceiveEvent:
            if self._upload is not None and (self.flow.read_paused or self.cycle.waiting_for_100_continue):
                self._upload.held(self.loop.time())
            message = await receive()
            if self._failure is not None:
                raise self._failure
            return message

        async def send_and_close(message: ASGISendEvent) -> None:
            if message["type"] == "http.response.start" and (self._unread() or self._failure is not None):
                message["headers"] = [*message.get("headers", ()), CLOSE_HEADER]
            await send(message)

        if _two_lengths(self.headers):
            self._fail(BadRequest("Send Content-Length or Transfer-Encoding, not both.", field="Content-Length"))
        await self._served_app(scope, receive_in_time, send_and_close)

    # The rules

    def give_way(self) -> None:
        """Close for the sake of a new connection; only called while there is no request."""
        self._edge.closed("gave_way")
        self._edge.work(self)
        self.connections.discard(self)
        self.transport.abort()

    def _turn_away(self, error: Overloaded) -> None:
        self.connections.discard(self)
        self._turned_away = True
        self._edge.turned_away += 1
        if self._edge.turned_away > _TURNED_AWAY_AT_ONCE:
            self._edge.closed(error.code)
            self.transport.abort()
        else:
            self._refuse(error)

    def finish(self) -> None:
        """Close after the answer: at once, or when the client has stopped sending."""
        if self._unread():
            self._linger()
        else:
            self.transport.close()
            self._watch_answer()

    def _unread(self) -> bool:
        return self.conn.their_state in (h11.SEND_BODY, h11.ERROR)

    def _head_error(self) -> DepthlensError | None:
        """What is wrong with the size of the request line and headers received so far."""
        received = self.conn.trailing_data[0]
        if not received:
            return None
        end_of_head = _BLANK_LINE.search(received, max(0, self._head_bytes - 3))
        end = end_of_head.end() if end_of_head else len(received)
        self._head_lines += received.count(b"\n", self._head_bytes, end)
        self._head_bytes = len(received)
        if end > _URL_BYTES and received.find(b"\n", 0, _URL_BYTES) < 0:
            return UrlTooLong(
                f"The URL has more than {_URL_BYTES} bytes. Send fewer points.", field="url", limit=_URL_BYTES
            )
        if end > HEAD_BYTES:
            return HeadersTooLarge(
                f"The headers have more than {HEAD_BYTES} bytes. Send smaller ones.", field="headers", limit=HEAD_BYTES
            )
        if self._head_lines > _HEADER_LINES + 2:  # the request line and the empty one
            return HeadersTooLarge(
                f"There are more than {_HEADER_LINES} headers. Send fewer.", field="headers", limit=_HEADER_LINES
            )
        return None

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        self._stop_waiting()
        self._waiting = self.loop.call_later(seconds, then)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _head_late(self) -> None:
        if self._head_bytes:
            limit_s = self._edge.header_timeout_s
            self._refuse(RequestTimeout(f"The request's headers took longer than {limit_s:g} s.", limit=limit_s))
        else:  # a client may connect before it has anything to say: nothing to complain about
            self._edge.closed("idle")
            self.transport.close()

    def _upload_late(self) -> None:
        assert self._upload
        now = self.loop.time()
        if self.flow.read_paused or self.cycle.waiting_for_100_continue:
            self._upload.held(now)
        if now < self._upload.until:
            self._wait(self._upload.until - now, self._upload_late)
            return
        self._fail(
            RequestTimeout(
                f"The body stalled for {self._edge.grace_s:g} s, or came slower than {self._edge.min_bytes_per_s} "
                "bytes a second. Send it faster.",
                field="body",
                limit=self._edge.min_bytes_per_s,
            )
        )

    def _fail(self, error: DepthlensError) -> None:
        """Let the handler's next read of the body raise `error`."""
        self._failure = error
        self._upload = None
        self._stop_waiting()
        self.cycle.keep_alive = False
        self.cycle.message_event.set()

    def _refuse(self, error: DepthlensError) -> None:
        """Answer where there is no handler, and close."""
        self._edge.closed(error.code)
        context = RequestContext()
        body = orjson.dumps(error.problem(context.request_id))
        lines = [
            f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}",
            f"content-type: {PROBLEM_MEDIA_TYPE}",
            f"content-length: {len(body)}",
            f"x-request-id: {context.request_id}",
            "connection: close",
        ]
        if error.retry_after_s is not None:
            lines.append(f"retry-after: {error.retry_after_s:.0f}")
        self.transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        self._edge.metrics.requests.labels("unmatched", str(error.status), error.code).inc()
        logger.info("- unmatched %s %s id=%s", error.status, error.code, context.request_id)
        self._linger()

    def _linger(self) -> None:
        """Say no more, and close when the client does, or after a moment."""
        self._lingering = True
        self._edge.work(self)
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._wait(_LINGER_S, self._linger_over)

    def _linger_over(self) -> None:
        self.transport.close()
        self._watch_answer()

    def _watch_answer(self) -> None:
        """Look now and then whether the client takes what waits for it."""
        if self._answer_check is None and self.transport.get_write_buffer_size():
            self._answer = _Pace(self._edge, self.loop.time())
            self._answer_sent = self.written_bytes - self.transport.get_write_buffer_size()
            self._answer_check = self.loop.call_later(self._edge.grace_s / 4, self._check_answer)

    def _check_answer(self) -> None:
        assert self._answer
        self._answer_check = None
        if not (self.flow.write_paused or self.transport.is_closing()):
            return
        now = self.loop.time()
        sent = self.written_bytes - self.transport.get_write_buffer_size()
        self._answer.moved(sent - self._answer_sent, now)
        self._answer_sent = sent
        if now >= self._answer.until:
            self._edge.closed("slow_reader")
            self.transport.abort()
            return
        self._answer_check = self.loop.call_later(self._edge.grace_s / 4, self._check_answer)


def _two_lengths(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether two parties could disagree where the body ends (request smuggling, RFC 9112 section 6.3)."""
    names = [name for name, _ in headers]
    return b"content-length" in names and b"transfer-encoding" in names


def _unreadable(error: BaseException | None) -> DepthlensError:
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
