"""The edge's rules for connections that have become WebSockets (`service.edge` has those of HTTP).

uvicorn's protocol on the `websockets` library: no compression (frames are compressed pictures), messages bounded by
`max_frame_bytes`, one message read ahead and no more until it is taken. What it lacks:

- when the server stops, a stream closes itself after its last answer; uvicorn closes at once, and the answer is lost;
- a message that is too large is refused with 1009, and its rest read and dropped for a moment: closing with unread
  bytes resets the connection and takes the close frame away;
- a client that does not take the last bytes is cut: a transport waits for ever to be empty.
"""

import asyncio
from typing import Any, Final

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from service.connections import Connections

_LINGER_S: Final = 10.0
"""Longest time for which bytes are dropped behind a refusal, and for which the last ones may wait to be taken."""
_QUIET_S: Final = 2.0
"""Who sends nothing for so long is not on the way any more."""


class GuardedWebSocket(WebSocketsSansIOProtocol):
    """One WebSocket under the edge's rules."""

    def __init__(self, shared: Connections, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._shared = shared
        self._lingering = False
        self._heard_at = 0.0
        self._cut: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over, whoever ended it."""
        if self._cut is not None:
            self._cut.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of the client; dropped when it has been refused."""
        if self._lingering:
            self._heard_at = self.loop.time()
            return
        super().data_received(data)

    def handle_parser_exception(self) -> None:
        """What came is no message that is taken: say so, and close when the client has stopped sending."""
        assert self.conn.close_sent is not None
        code, reason = self.conn.close_sent.code, self.conn.close_sent.reason
        self._shared.closed("frame_too_large" if code == 1009 else "bad_frame")
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self._lingering = True
        self.stop_keepalive()
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self._heard_at = self.loop.time()
        self._linger(self._heard_at + _LINGER_S)

    def shutdown(self) -> None:
        """The server stops: a stream closes itself, see `service.streams`; what is none yet, or no more, closes."""
        if not self.handshake_complete or self.close_sent:
            super().shutdown()

    async def run_asgi(self) -> None:
        """Run the application, and see that the connection ends."""
        try:
            await super().run_asgi()
        finally:
            if not self._lingering and not self.disconnected:
                self._cut = self.loop.call_later(_LINGER_S, self._cut_off)

    def _linger(self, until: float) -> None:
        now = self.loop.time()
        close_at = min(until, self._heard_at + _QUIET_S)
        if now < close_at:
            self.close_timer = self.loop.call_later(close_at - now, self._linger, until)  # uvicorn closes later, too
        else:
            self.transport.abort()

    def _cut_off(self) -> None:
        self._shared.closed("slow_reader")
        self.transport.abort()
