"""One stream of frames: what comes in, in which order it is worked on, and what is said of it.

One task reads, one works. Between them is a short queue: with `drop=oldest` a frame that finds it full takes the place
of the one that has waited longest; with `drop=none` the reader stops reading until there is room, and so does the
client, whose bytes nobody takes. A frame is worked on alone, in a place of the gateway's admission like any photo, and
its answer is sent before the next one begins: so answers keep the order of the frames.

What is known of earlier frames lives here, with the connection, and not in a sequence of Triton's. A sequence binds
all its frames to one server, is forgotten by it after a second of silence by default and at every restart, keeps its
requests out of the batches that photos are answered in, and does not know of frames that were dropped before they came
to it. What has to be remembered is a picture's worth of bytes that the gateway has in hand anyway; a connection ends at
one gateway, so there is nothing to find again. A network that changes its own weights along a sequence is another
matter.
"""

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Final, NoReturn, Protocol

import orjson
from starlette.websockets import WebSocketDisconnect

from service import tracing
from service.context import Deadline, RequestContext, current
from service.contract import Size
from service.errors import BadRequest, DeadlineExceeded, DepthlensError, Overloaded, TooManyRequests
from service.gateway import Gateway
from service.problems import of_work
from service.stream_query import StreamQuery, changed
from service.upload import UploadShare

logger = logging.getLogger("depthlens.stream")

_BAD_MESSAGES: Final = 10  # in a row, after which nobody is taken to be at the other end who means frames
_MAX_TEXT: Final = 16_384
_PAUSE_S: Final = 1.0  # longest between two tries for a place


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one frame.

    Attributes:
        body: the binary message.
        media_type: of the body.
        size: (height, width) of what it shows.
        said: further members of the result.
    """

    body: bytes
    media_type: str
    size: Size
    said: dict[str, Any]


class Work(Protocol):
    """What is done with the frames of one stream, one after the other; remembers what it needs of earlier ones."""

    async def answer(self, context: RequestContext, data: bytes, query: StreamQuery) -> Answer:
        """The answer for the next frame."""
        ...

    async def close(self) -> None:
        """The stream is over; never raises."""
        ...


class Socket(Protocol):
    """The connection, as Starlette's `WebSocket` has it."""

    async def receive(self) -> Any:
        """The next ASGI message."""
        ...

    async def send(self, message: Any) -> None:
        """Send an ASGI message."""
        ...


class StreamEnd(Exception):
    """The stream is over: with a close code and a reason, or without a word when the client has gone (code None)."""

    def __init__(self, code: int | None, reason: str = "") -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(slots=True)
class _Frame:
    number: int
    data: bytes
    query: StreamQuery
    timestamp: float | None
    received_at: float
    refusal: DepthlensError | None = None
    """Why its bytes are not held."""


class FrameStream:
    """One accepted stream, from its first message to its last.

    Args:
        gateway: whose places and limits are used.
        socket: accepted already.
        query: the address's parameters.
        work: what is done with the frames.
        context: of the handshake; its client is the frames', and its id begins theirs.
        share: holds the bytes of frames that wait.
        about: what `ready` says of model and format.
    """

    def __init__(
        self,
        gateway: Gateway,
        socket: Socket,
        query: StreamQuery,
        work: Work,
        context: RequestContext,
        share: UploadShare,
        about: dict[str, Any],
    ) -> None:
        settings = gateway.settings
        self._gateway = gateway
        self._socket = socket
        self._query = query
        self._work = work
        self._context = context
        self._share = share
        self._about = about
        self._timeout_s = min(query.timeout or settings.request_timeout_s, settings.max_request_timeout_s)
        self._idle_s = settings.stream_idle_s
        self._started_at = time.monotonic()
        self._inbox: deque[_Frame] = deque()
        self._changed = asyncio.Event()
        """Something has come into the inbox, or gone out of it, or nothing more will come."""
        self._complete = False
        self._busy = False
        self._speaking = asyncio.Lock()
        self._timestamp: float | None = None
        self._bad_messages = 0
        self._last_code = "ok"
        self.counts = {"frames": 0, "results": 0, "errors": 0, "dropped": 0}

    async def run(self) -> StreamEnd:
        """Serve until it is over; says how to close."""
        tasks = [asyncio.ensure_future(each) for each in (self._answer_all(), self._read(), self._drain())]
        worker, reader, drain = tasks
        try:
            await self._say(
                {
                    "type": "ready",
                    **self._about,
                    "drop": self._query.drop,
                    "window": self._query.waiting + 1,
                    "max_frame_bytes": self._gateway.settings.max_frame_bytes,
                    "idle_s": self._idle_s,
                    "timeout_s": self._timeout_s,
                    "request_id": self._context.request_id,
                }
            )
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not worker.done() and not reader.done() and drain.done():
                reader.cancel()
                self._end_input()
                await worker
                return StreamEnd(1001, "the server stops; what it had taken has been answered; connect again")
            await (worker if worker.done() else reader)
            return StreamEnd(1000, "all frames are answered")
        except StreamEnd as end:
            return end
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._forget()

    async def _drain(self) -> None:
        await self._gateway.streams.ending()

    def _forget(self) -> None:
        self._count("left", len(self._inbox))
        self._inbox.clear()

    def _count(self, result: str, number: int = 1) -> None:
        if number:
            self._gateway.metrics.frames.labels(result).inc(number)

    # What comes in

    async def _read(self) -> NoReturn:
        while True:
            message = await self._receive()
            if (data := message.get("bytes")) is not None:
                await self._take(data)
            elif (text := message.get("text")) is not None:
                await self._heed(text)

    async def _receive(self) -> dict[str, Any]:
        while True:
            try:
                async with asyncio.timeout(self._idle_s):
                    message: dict[str, Any] = await self._socket.receive()
            except TimeoutError:
                if self._busy or self._inbox:
                    continue  # it is the client who waits
                raise StreamEnd(4408, f"no frame for {self._idle_s:g} s") from None
            if message["type"] == "websocket.disconnect":
                raise StreamEnd(None)
            return message

    async def _take(self, data: bytes) -> None:
        """Put a frame into the inbox, where there is room or someone makes way."""
        if self._complete:
            return
        frame = _Frame(self.counts["frames"], data, self._query, self._timestamp, time.monotonic())
        self._timestamp, self._bad_messages = None, 0
        self.counts["frames"] += 1
        if self._query.drop == "oldest":
            while len(self._inbox) >= self._query.waiting:
                self._release(self._inbox.popleft())
                self.counts["dropped"] += 1
                self._count("dropped")
        while len(self._inbox) >= self._query.waiting:
            self._changed.clear()
            await self._changed.wait()
        try:
            self._share.take(len(data))
        except DepthlensError as error:
            frame.data, frame.refusal = b"", error
        self._inbox.append(frame)
        self._changed.set()

    def _release(self, frame: _Frame) -> None:
        self._share.give_back(len(frame.data))

    async def _heed(self, text: str) -> None:
        try:
            given = _parsed(text)
            match given.pop("type", None):
                case "frame":
                    self._timestamp = _number(given.get("timestamp"))
                case "settings":
                    self._query = changed(self._query, given)
                    await self._say({"type": "settings", "from_frame": self.counts["frames"]})
                case "end":
                    self._end_input()
                case other:
                    raise BadRequest(
                        "A message has the type frame, settings or end.", field="type", value=str(other)[:40]
                    )
        except DepthlensError as error:
            self._bad_messages += 1
            await self._say({"type": "error", "problem": error.problem(self._context.request_id)})
            if self._bad_messages >= _BAD_MESSAGES:
                raise StreamEnd(4400, f"{_BAD_MESSAGES} messages in a row that cannot be understood") from None

    def _end_input(self) -> None:
        self._complete = True
        self._changed.set()

    # What goes out

    async def _answer_all(self) -> None:
        while await self._has_frame():
            await self._keep_to_rate()
            frame = self._inbox.popleft()  # after the wait: the newest there is
            self._busy = True
            self._changed.set()
            try:
                await self._answer(frame)
            finally:
                self._release(frame)
                self._busy = False
        if not self._gateway.streams.draining:
            await self._say({"type": "end"} | self.counts)

    async def _has_frame(self) -> bool:
        while not self._inbox and not self._complete:
            self._changed.clear()
            await self._changed.wait()
        return bool(self._inbox)

    async def _keep_to_rate(self) -> None:
        """A frame counts like a request; a stream above its rate is not refused, but waits."""
        while True:
            try:
                return self._gateway.clients.count(self._context.client)
            except TooManyRequests as error:
                await asyncio.sleep(error.retry_after_s or _PAUSE_S)

    async def _answer(self, frame: _Frame) -> None:
        context = RequestContext(
            request_id=f"{self._context.request_id[:50]}-{frame.number}",
            client=self._context.client,
            deadline=Deadline.after(self._timeout_s),
        )
        current.set(context)  # for the log; this task works on one frame after the other
        metrics = self._gateway.metrics
        try:
            answer = await self._worked_on(frame, context)
        except Exception as error:
            await self._fail(frame, context, of_work(error), error)
            return
        self.counts["results"] += 1
        self._count("ok")
        self._last_code = "ok"
        now = time.monotonic()
        metrics.frame_seconds.observe(now - frame.received_at)
        for stage, seconds in context.stage_s.items():
            metrics.stage_seconds.labels(stage).observe(seconds)
        words = {
            "type": "result",
            **self._which(frame),
            "bytes": len(answer.body),
            "media_type": answer.media_type,
            "width": answer.size[1],
            "height": answer.size[0],
            "received_s": round(frame.received_at - self._started_at, 6),
            "latency_s": round(now - frame.received_at, 6),
            "timing_ms": {stage: round(seconds * 1000, 2) for stage, seconds in context.stage_s.items()},
            **answer.said,
        }
        await self._say(words, answer.body)

    async def _worked_on(self, frame: _Frame, context: RequestContext) -> Answer:
        if frame.refusal is not None:
            raise frame.refusal
        with tracing.request(self._gateway.tracer, "frame", context.request_id, {}) as context.trace_id:
            return await self._work_on(frame, context)

    async def _work_on(self, frame: _Frame, context: RequestContext) -> Answer:
        try:
            async with asyncio.timeout(context.deadline.remaining_s()):
                while True:
                    try:
                        async with self._gateway.admission.place(context):
                            return await self._work.answer(context, frame.data, frame.query)
                    except (Overloaded, TooManyRequests) as error:
                        await asyncio.sleep(min(error.retry_after_s or _PAUSE_S, _PAUSE_S))
                        if self._query.drop == "oldest":
                            raise
        except (TimeoutError, DeadlineExceeded):
            raise context.deadline.exceeded(context.stage) from None

    def _which(self, frame: _Frame) -> dict[str, Any]:
        return {"frame": frame.number, "dropped": self.counts["dropped"], "timestamp": frame.timestamp}

    async def _fail(self, frame: _Frame, context: RequestContext, error: DepthlensError, cause: Exception) -> None:
        self.counts["errors"] += 1
        self._count(error.code)
        if error.status >= 500 and error.code != self._last_code:  # once, not thirty times a second
            shown = cause if error.status == 500 else None
            logger.error("frame %s: %s %s", context.request_id, error.code, error.detail, exc_info=shown)
        self._last_code = error.code
        await self._say({"type": "error", **self._which(frame), "problem": error.problem(context.request_id)})

    async def _say(self, words: dict[str, Any], body: bytes | None = None) -> None:
        """A text message, and the binary one that belongs to it directly behind."""
        async with self._speaking:
            await self._send(text=orjson.dumps(words, default=str).decode())
            if body is not None:
                await self._send(bytes=body)

    async def _send(self, **content: str | bytes) -> None:
        try:
            async with asyncio.timeout(self._idle_s):
                await self._socket.send({"type": "websocket.send", **content})
        except TimeoutError:
            raise StreamEnd(4408, f"no answer was read for {self._idle_s:g} s") from None
        except (WebSocketDisconnect, RuntimeError):  # the latter when the edge has closed already
            raise StreamEnd(None) from None


def _parsed(text: str) -> dict[str, Any]:
    if len(text) > _MAX_TEXT:
        raise BadRequest("A text message is short JSON.", value=len(text), limit=_MAX_TEXT)
    try:
        given = orjson.loads(text)
    except orjson.JSONDecodeError:
        given = None
    if not isinstance(given, dict):
        raise BadRequest("A text message is a JSON object with a type; frames are binary messages.")
    return given


def _number(value: object) -> float | None:
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise BadRequest("A timestamp is a number.", field="timestamp", value=str(value)[:40])
