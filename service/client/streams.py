"""Frame streams (`WS /frames`, docs/streams.md): what is said on them, and a waiting and an awaiting way to say it."""

import asyncio
import json
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Self, TypeAlias
from urllib.parse import urlencode, urlsplit, urlunsplit

import numpy as np
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from service import __version__
from service.client.arrays import FloatMap, FrameSource, Pixels, frame_bytes, read_gray, read_npy, read_photo
from service.client.errors import (
    PROBLEM_MEDIA_TYPE,
    ClientError,
    ConnectionFailed,
    TimedOut,
    UnexpectedAnswer,
    problem_of,
)
from service.client.operations import Parameters, query_of
from service.client.rules import parse_retry_after

_PROBLEM: Final = {"content-type": PROBLEM_MEDIA_TYPE}
_END: Final = json.dumps({"type": "end"})


@dataclass(frozen=True)
class FrameResult:
    """The answer for a frame.

    Attributes:
        frame: its number, from 0.
        data: the picture or array, as the service encoded it.
        words: all that it said of it: see docs/streams.md.
    """

    frame: int
    data: bytes = field(repr=False)
    words: Mapping[str, Any] = field(repr=False)

    @cached_property
    def pixels(self) -> Pixels:
        """uint8 (H, W, 3) sRGB of a preview, a matte or a refocused frame."""
        return read_photo(self.data)

    @cached_property
    def values(self) -> FloatMap:
        """float32 (H, W): depth, disparity or a matte sent as `npy`, or depth or disparity as `png16`."""
        if self.words["media_type"] == "application/x-npy":
            return read_npy(self.data)
        depth = self.words["depth"]
        scaled = read_gray(self.data) * np.float64(depth["scale"]) + np.float64(depth["offset"])
        return scaled.astype(np.float32)


@dataclass(frozen=True)
class FrameError:
    """What stands in the place of a result: the stream goes on."""

    frame: int
    problem: ClientError


Answered: TypeAlias = FrameResult | FrameError


@dataclass
class _Conversation:
    """What was said so far; the rules of both kinds of stream."""

    ready: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, Any] | None = None
    """Of the stream, once it has ended."""
    sent: int = 0
    answered: int = 0

    @property
    def may_send(self) -> bool:
        """Whether another frame may be on its way."""
        return self.sent - self.answered < int(self.ready["window"])

    def words(self, message: str | bytes) -> dict[str, Any]:
        """A text message.

        Raises:
            UnexpectedAnswer: it is none.
        """
        try:
            words = json.loads(message)
        except ValueError as error:
            raise UnexpectedAnswer("the stream says something that is no JSON") from error
        if not isinstance(words, dict) or "type" not in words:
            raise UnexpectedAnswer("the stream says something without a type")
        return words

    def heard(self, message: str | bytes) -> dict[str, Any] | FrameError | None:
        """What a message means: the words of a result whose picture comes next, an error in its place, or neither.

        Raises:
            Problem: about something that was no frame.
            UnexpectedAnswer: it cannot be understood.
        """
        words = self.words(message)
        if words["type"] == "end":
            self.counts = words
        if words["type"] not in ("result", "error"):
            return None
        frame = words.get("frame")
        if frame is not None:
            self.answered = int(frame) + 1  # those between were dropped
        if words["type"] == "result":
            return words
        document = words["problem"]
        problem = problem_of(int(document["status"]), _PROBLEM, json.dumps(document).encode(), None)
        if frame is None:
            raise problem
        return FrameError(int(frame), problem)

    @staticmethod
    def settings(parameters: Parameters) -> str:
        """The message that changes settings."""
        return json.dumps({"type": "settings"} | dict(parameters))


def _address(url: str, task: str, parameters: Parameters) -> str:
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    query = urlencode({"task": task} | query_of(parameters))
    return urlunsplit((scheme, parts.netloc, f"{parts.path.rstrip('/')}/frames", query, ""))


def _options(api_key: str | None, timeout_s: float, loopback: bool) -> dict[str, Any]:
    return {
        "additional_headers": {"X-API-Key": api_key} if api_key else {},
        "user_agent_header": f"depthlens/{__version__}",
        "max_size": None,
        "compression": None,  # pictures are compressed already
        "open_timeout": timeout_s,
        "proxy": None if loopback else True,
    }


def _refusal(error: Exception) -> ClientError:
    if isinstance(error, InvalidStatus):
        answer = error.response
        headers = {name.lower(): value for name, value in answer.headers.raw_items()}
        retry_after_s = parse_retry_after(headers.get("retry-after"))
        return problem_of(answer.status_code, headers, bytes(answer.body or b""), retry_after_s)
    if isinstance(error, TimeoutError):
        return TimedOut("the stream did not answer in time")
    if isinstance(error, ConnectionClosed) and error.rcvd is not None:
        return ConnectionFailed(f"the service closed the stream with {error.rcvd.code}: {error.rcvd.reason}")
    return ConnectionFailed(str(error) or type(error).__name__)


_FAILURES = (InvalidHandshake, ConnectionClosed, OSError)  # TimeoutError is an OSError


class FrameStream:
    """A stream that waits; from `Client.stream`, in a `with` block.

    Raises:
        Problem: refused.
        ConnectionFailed: nobody answers, or the service has closed the stream.
        TimedOut: no answer within `timeout_s`.
    """

    def __init__(
        self, url: str, task: str, parameters: Parameters, api_key: str | None, timeout_s: float, loopback: bool
    ) -> None:
        self._timeout_s = timeout_s
        self._said = _Conversation()
        self._address = _address(url, task, parameters)
        self._options = _options(api_key, timeout_s, loopback)
        self._open = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._connection: ClientConnection = self._open.enter_context(connect(self._address, **self._options))
        except _FAILURES as error:
            raise _refusal(error) from error
        with self._open.pop_all() as opened:
            self._said.ready = self._said.words(self._receive())
            self._open = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def ready(self) -> Mapping[str, Any]:
        """What the service said first: task, format, model, window and limits."""
        return self._said.ready

    @property
    def counts(self) -> Mapping[str, Any] | None:
        """Frames, results, errors and dropped ones, once the stream has ended."""
        return self._said.counts

    def run(self, frames: Iterable[FrameSource]) -> Iterator[Answered]:
        """Frames in, their answers out in order; no more are on their way than the service can hold.

        Frames that the service drops (`drop="oldest"`) have no answer.
        """
        for frame in frames:
            while not self._said.may_send:
                answer = self.receive()
                if answer is None:
                    raise _ended_early()
                yield answer
            self.send(frame)
        self.end()
        while (answer := self.receive()) is not None:
            yield answer

    def send(self, frame: FrameSource) -> None:
        """A frame."""
        self._send(frame_bytes(frame))
        self._said.sent += 1

    def settings(self, **parameters: Any) -> None:
        """New settings from the next frame on."""
        self._send(_Conversation.settings(parameters))

    def end(self) -> None:
        """There are no more frames: what waits is answered."""
        self._send(_END)

    def receive(self) -> Answered | None:
        """The next answer; None at the end."""
        while self._said.counts is None:
            answer = self._said.heard(self._receive())
            if isinstance(answer, FrameError):
                return answer
            if answer is not None:
                return FrameResult(answer["frame"], _binary(self._receive()), answer)
        return None

    def _send(self, message: str | bytes) -> None:
        try:
            self._connection.send(message)
        except _FAILURES as error:
            raise _refusal(error) from error

    def _receive(self) -> str | bytes:
        try:
            return self._connection.recv(self._timeout_s)
        except _FAILURES as error:
            raise _refusal(error) from error


class AsyncFrameStream:
    """A stream that awaits; from `AsyncClient.stream`, in an `async with` block. As `FrameStream` otherwise."""

    def __init__(
        self, url: str, task: str, parameters: Parameters, api_key: str | None, timeout_s: float, loopback: bool
    ) -> None:
        self._timeout_s = timeout_s
        self._said = _Conversation()
        self._opening = connect_async(_address(url, task, parameters), **_options(api_key, timeout_s, loopback))

    async def __aenter__(self) -> Self:
        try:
            self._connection = await self._opening
        except _FAILURES as error:
            raise _refusal(error) from error
        self._said.ready = self._said.words(await self._receive())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connection.close()

    @property
    def ready(self) -> Mapping[str, Any]:
        """As `FrameStream.ready`."""
        return self._said.ready

    @property
    def counts(self) -> Mapping[str, Any] | None:
        """As `FrameStream.counts`."""
        return self._said.counts

    async def run(self, frames: Iterable[FrameSource] | AsyncIterable[FrameSource]) -> AsyncIterator[Answered]:
        """As `FrameStream.run`."""
        async for frame in frames if isinstance(frames, AsyncIterable) else _one_by_one(frames):
            while not self._said.may_send:
                answer = await self.receive()
                if answer is None:
                    raise _ended_early()
                yield answer
            await self.send(frame)
        await self.end()
        while (answer := await self.receive()) is not None:
            yield answer

    async def send(self, frame: FrameSource) -> None:
        """A frame."""
        await self._send(frame_bytes(frame))
        self._said.sent += 1

    async def settings(self, **parameters: Any) -> None:
        """New settings from the next frame on."""
        await self._send(_Conversation.settings(parameters))

    async def end(self) -> None:
        """There are no more frames: what waits is answered."""
        await self._send(_END)

    async def receive(self) -> Answered | None:
        """The next answer; None at the end."""
        while self._said.counts is None:
            answer = self._said.heard(await self._receive())
            if isinstance(answer, FrameError):
                return answer
            if answer is not None:
                return FrameResult(answer["frame"], _binary(await self._receive()), answer)
        return None

    async def _send(self, message: str | bytes) -> None:
        try:
            await self._connection.send(message)
        except _FAILURES as error:
            raise _refusal(error) from error

    async def _receive(self) -> str | bytes:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._connection.recv()
        except _FAILURES as error:
            raise _refusal(error) from error


async def _one_by_one(frames: Iterable[FrameSource]) -> AsyncIterator[FrameSource]:
    for frame in frames:
        yield frame


def _binary(message: str | bytes) -> bytes:
    if isinstance(message, str):
        raise UnexpectedAnswer("the stream announced a picture, and sent words")
    return message


def _ended_early() -> UnexpectedAnswer:
    return UnexpectedAnswer("the service ended the stream before its frames were answered")
