"""The HTTP edge: how long, how much and how many a connection may be before it costs others anything.

uvicorn's h11 protocol, with the rules it lacks:

- a request's line and headers have `header_timeout_s` to arrive, and are few and short (408, 414, 431);
- a body or an answer that stalls, or moves slower than `min_body_bytes_per_s`, is given up after `body_grace_s`, as
  Kestrel does with its minimum data rates (408; an answer nobody reads is cut);
- connections are bounded: beyond `max_connections` the one that has waited longest without a request goes, as nginx
  does with its keep-alive connections, and when all are busy the new one gets 503;
- who is not let in (`service.door`) is answered when the head is read, with nothing made for the request; its body is
  dropped as it comes when it is not large, and the connection kept;
- who is answered before the whole body is read gets that answer: the rest is read and dropped for a moment, since
  closing with unread bytes resets the connection and takes the answer away (nginx calls it a lingering close).

A request that fails while its handler reads the body fails there, so that its work ends and the answer is counted like
any other. Before that there is no handler, and the problem is written from here.
"""

import asyncio
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import h11
from uvicorn._types import ASGIReceiveCallable, ASGIReceiveEvent, ASGISendCallable, ASGISendEvent, Scope
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import H11Protocol

from service import access
from service.connections import Connections, Pace
from service.context import RequestContext
from service.door import Visit
from service.errors import BadRequest, DepthlensError, Overloaded, RequestTimeout
from service.framing import HEAD_BYTES, BoundedConnection, Head, has_two_lengths, unreadable
from service.heads import OrdinaryHead, complete_answer, ordinary
from service.problems import written
from service.reader import Reader

_LINGER_S = 30.0
"""Longest time for which the rest of a body is dropped after its answer: nginx's. A browser reads the answer only when
it has sent everything."""
_QUIET_S = 2.0
"""Who sends nothing for so long is not on the way any more."""
_KEPT_BODY_BYTES = 2**20
"""Largest body that is read for nothing to keep a connection. A megabyte costs as much as the next connection would."""
_TURNED_AWAY_AT_ONCE = 64
"""Connections told at the same time that there are too many; more are closed without a word."""


class _AnswerTransport:
    """The transport as one request's cycle sees it: closing waits for a client that is still sending."""

    def __init__(self, protocol: "GuardedProtocol") -> None:
        self._protocol = protocol

    def write(self, data: bytes) -> None:
        """Send part of the answer."""
        self._protocol.reader.write(data)

    def is_closing(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._protocol.transport.is_closing()

    def close(self) -> None:
        """The answer is over, and so is the connection."""
        self._protocol.finish()


class GuardedProtocol(H11Protocol):
    """One connection under the edge's rules."""

    def __init__(self, shared: Connections, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._shared = shared
        self._served_app = self.app
        self.app = self._guarded_app
        self.conn = BoundedConnection(h11.SERVER, HEAD_BYTES)
        self._visit: Visit | None = None
        self._to_drop_bytes = 0  # of the body of a request that was turned back
        self._head = Head()
        self._waiting: asyncio.TimerHandle | None = None  # for a head, a body, or the end of a linger
        self._upload: Pace | None = None
        self._failure: DepthlensError | None = None
        self._lingering = False
        self._heard_at = 0.0
        self._turned_away = False

    # What the transport calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's has it, too
        """A client has connected."""
        others = len(self.connections)
        super().connection_made(transport)
        self.reader = Reader(self._shared, transport, self.flow)
        try:
            self._shared.enter(self, others)
        except Overloaded as error:
            self._turn_away(error)
            return
        self._wait(self._shared.header_timeout_s, self._head_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over, whoever ended it."""
        self._shared.work(self)
        self._shared.turned_away -= self._turned_away
        self._stop_waiting()
        self.reader.forget()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        """Bytes of the client; dropped when it has had its answer."""
        if self._lingering or self._failure is not None:
            self._heard_at = self.loop.time()
            return
        if self._to_drop_bytes:
            dropped = min(len(data), self._to_drop_bytes)
            self._drop(dropped)
            data = data[dropped:]  # who has had his answer may have sent the next request behind
            if not data:
                return
        if self.conn.their_state is h11.IDLE and not self._head.received_bytes:
            self._visit = None
            head = ordinary(data)
            if head is not None and self._turned_back(head, len(data) - head.size):
                return
        if self._upload is not None:
            self._upload.moved(len(data), self.loop.time())
        super().data_received(data)

    def pause_writing(self) -> None:
        """The client reads slower than the answer comes."""
        super().pause_writing()
        self.reader.watch()

    # What uvicorn calls

    def handle_events(self) -> None:
        """Parse what has been received, as far as it keeps to the rules."""
        if self.conn.their_state is h11.IDLE and (error := self._head.error(self.conn.trailing_data[0])):
            self._refuse(error)
            return
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._shared.work(self)
            self._stop_waiting()
            self._head.clear()
        if self._lingering or self._failure is not None or self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            if self._head.received_bytes and self._waiting is None:
                self._wait(self._shared.header_timeout_s, self._head_late)
        elif not self.cycle.more_body:
            self._upload = None
            self._stop_waiting()
        elif self._upload is None:
            self._upload = Pace(self._shared, self.loop.time())
            self._wait(self._shared.grace_s, self._upload_late)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """The connection is another protocol's from here on."""
        self._shared.work(self)
        self._stop_waiting()
        self._head.clear()
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
            self._shared.rest(self)

    def send_400_response(self, msg: str) -> None:
        """Called while h11's error is handled: what came is no HTTP."""
        error = unreadable(sys.exception())
        if self.cycle is None or self.cycle.response_complete:
            self._refuse(error)
        elif self.cycle.more_body:
            self._fail(error)
        # else: bytes after the last request of this connection, whose answer is on its way

    def shutdown(self) -> None:
        """The server stops: a connection without a request closes."""
        if self._lingering:
            self.transport.close()
        elif self._to_drop_bytes:
            self._close_later()
        else:
            super().shutdown()
        self.reader.watch()

    def timeout_keep_alive_handler(self) -> None:
        """No further request came."""
        super().timeout_keep_alive_handler()
        self.reader.watch()

    async def _guarded_app(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        self.cycle.transport = _AnswerTransport(self)  # type: ignore[assignment]  # what a cycle uses of one
        if self._visit is not None:
            scope["state"]["context"] = self._visit.context
            self._visit = None  # the next request of this connection may come without being asked

        async def receive_in_time() -> ASGIReceiveEvent:
            if self._upload is not None and (self.flow.read_paused or self.cycle.waiting_for_100_continue):
                self._upload.held(self.loop.time())
            message = await receive()
            if self._failure is not None:
                raise self._failure
            return message

        async def send_and_close(message: ASGISendEvent) -> None:
            last = self._unread() or self._failure is not None or self._shared.ending
            if last and message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), CLOSE_HEADER]
            await send(message)

        if has_two_lengths(self.headers):
            self._fail(BadRequest("Send Content-Length or Transfer-Encoding, not both.", field="Content-Length"))
        await self._served_app(scope, receive_in_time, send_and_close)

    # The rules

    def give_way(self) -> None:
        """Close for the sake of a new connection; only called while there is no request."""
        self._shared.closed("gave_way")
        self._shared.work(self)
        self.connections.discard(self)
        self.transport.abort()

    def _turn_away(self, error: Overloaded) -> None:
        self.connections.discard(self)
        self._turned_away = True
        self._shared.turned_away += 1
        if self._shared.turned_away > _TURNED_AWAY_AT_ONCE:
            self._shared.closed(error.code)
            self.transport.abort()
        else:
            self._refuse(error)
            self._shared.work(self)  # it has no place that it could give up

    def finish(self) -> None:
        """Close after the answer: at once, or when the client has stopped sending."""
        if self._unread():
            self._close_later()
        else:
            self.transport.close()
            self.reader.watch()

    def _unread(self) -> bool:
        return self.conn.their_state in (h11.SEND_BODY, h11.ERROR)

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        self._stop_waiting()
        self._waiting = self.loop.call_later(seconds, then)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _head_late(self) -> None:
        if self._head.received_bytes:
            limit_s = self._shared.header_timeout_s
            self._refuse(RequestTimeout(f"The request's headers took longer than {limit_s:g} s.", limit=limit_s))
        else:  # a client may connect before it has anything to say: nothing to complain about
            self._shared.closed("idle")
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
                f"The body stalled for {self._shared.grace_s:g} s, or came slower than {self._shared.min_bytes_per_s} "
                "bytes a second. Send it faster.",
                field="body",
                limit=self._shared.min_bytes_per_s,
            )
        )

    def _fail(self, error: DepthlensError) -> None:
        """Let the handler's next read of the body raise `error`."""
        self._failure = error
        self._upload = None
        self._stop_waiting()
        self.cycle.keep_alive = False
        self.cycle.message_event.set()

    def _turned_back(self, head: OrdinaryHead, received: int) -> bool:
        """Whether the request is not let in, and has been told so; `received` bytes have come behind its head."""
        start = time.perf_counter()
        self._visit = visit = self._shared.door.ask(head, self.client)
        if visit is None or visit.error is None:
            return False
        self._unset_keepalive_if_required()
        close = (
            not head.keep
            or self._shared.ending
            or head.body_bytes > _KEPT_BODY_BYTES
            or received > head.body_bytes  # who does not wait for answers may have sent thousands, all to be refused
        )
        self._write(visit.error, visit.context, close=close)
        seconds = time.perf_counter() - start
        method = head.method.decode()
        access.record(self._shared.metrics, visit.context, method, visit.route, visit.error.status, seconds)
        if close:
            self._close_later()
            return True
        self._stop_waiting()
        self._to_drop_bytes = head.body_bytes
        self._drop(received)
        if self._to_drop_bytes:
            self._shared.leave(self)
            self._linger(self._heard_at + _LINGER_S)
        return True

    def _drop(self, received: int) -> None:
        """So many bytes have come behind the head of a request that was turned back."""
        self._heard_at = self.loop.time()
        self._to_drop_bytes -= received
        if not self._to_drop_bytes:
            self._stop_waiting()
            self._shared.work(self)
            self._shared.rest(self)
            super().on_response_complete()

    def _refuse(self, error: DepthlensError) -> None:
        """Answer where there is not even a request, and close."""
        self._shared.closed(error.code)
        context = RequestContext(problem_code=error.code)
        self._write(error, context, close=True)
        access.record(self._shared.metrics, context, "-", "unmatched", error.status, 0.0)
        self._close_later()

    def _write(self, error: DepthlensError, context: RequestContext, *, close: bool) -> None:
        headers, body = written(error, context.request_id)
        headers["X-Request-Id"] = context.request_id
        if close:
            headers["Connection"] = "close"
        answer = complete_answer(error.status, headers, self.server_state.default_headers, body)
        self.reader.write(answer)

    def _close_later(self) -> None:
        """Say no more, and close when the client does, or after a moment."""
        self._lingering = True
        self._shared.leave(self)
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._heard_at = self.loop.time()
        self._linger(self._heard_at + _LINGER_S)

    def _linger(self, until: float) -> None:
        now = self.loop.time()
        close_at = min(until, self._heard_at + _QUIET_S)
        if now < close_at:
            self._wait(close_at - now, partial(self._linger, until))
        else:
            self.transport.close()
            self.reader.watch()
