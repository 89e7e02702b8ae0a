"""Bounded admission: how many requests are worked on, how many may wait, and who is refused at once.

A request that could not finish before its deadline, going by the measured time of the ones before it, is refused
immediately with `Retry-After`: under overload a queue without bounds answers nobody in time.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from starlette.requests import Request

from service.context import RequestContext
from service.errors import ClientLeft, Overloaded
from service.metrics import Metrics

T = TypeVar("T")

_SMOOTHING = 0.2
"""Weight of the newest service time in the running mean."""


class Admission:
    """Places for `max_inflight` requests, and a first-come queue of at most `max_waiting` behind them."""

    def __init__(self, max_inflight: int, max_waiting: int, metrics: Metrics) -> None:
        self._max_inflight = max_inflight
        self._max_waiting = max_waiting
        self._metrics = metrics
        self._inflight = 0
        self._queue: deque[asyncio.Future[None]] = deque()
        self._service_s = 0.0

    def _predicted_wait_s(self) -> float:
        return self._service_s * (len(self._queue) + 1) / self._max_inflight

    def _refuse(self, reason: str, detail: str) -> Overloaded:
        self._metrics.rejected.labels(reason).inc()
        return Overloaded(detail, retry_after_s=max(1.0, self._predicted_wait_s()))

    def check_room(self) -> None:
        """Overloaded when a request that came now would find the queue full."""
        if self._inflight >= self._max_inflight and len(self._queue) >= self._max_waiting:
            raise self._refuse("queue_full", f"{self._max_waiting} requests are waiting already. Try again later.")

    @asynccontextmanager
    async def place(self, context: RequestContext) -> AsyncIterator[None]:
        """Hold a place for the block; Overloaded when the queue is full or the deadline out of reach."""
        with context.timed("queue"):
            await self._enter(context)
        start = time.monotonic()
        try:
            yield
        finally:
            elapsed_s = time.monotonic() - start
            self._service_s += _SMOOTHING * (elapsed_s - self._service_s) if self._service_s else elapsed_s
            self._leave()

    async def _enter(self, context: RequestContext) -> None:
        if self._inflight < self._max_inflight:
            self._inflight += 1
            self._metrics.inflight.set(self._inflight)
            return
        self.check_room()
        if self._predicted_wait_s() + self._service_s > context.deadline.remaining_s():
            raise self._refuse("deadline", "The queue is longer than this request's deadline. Try again later.")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        self._metrics.waiting.set(len(self._queue))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()  # the place had been handed over already: pass it on
            else:
                with suppress(ValueError):  # `_leave` may have dropped it already
                    self._queue.remove(turn)
            raise
        finally:
            self._metrics.waiting.set(len(self._queue))

    def _leave(self) -> None:
        """Hand the place to the first in the queue, or free it."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._inflight -= 1
        self._metrics.inflight.set(self._inflight)


async def until_left(request: Request, work: Callable[[], Awaitable[T]]) -> T:
    """Run `work`, cancelling it when the client closes the connection.

    The request's body must have been read: what `receive` gives after it is the disconnect.

    Raises:
        ClientLeft: the client went first.
    """

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task = asyncio.ensure_future(work())
    watcher = asyncio.ensure_future(left())
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientLeft("The client closed the connection before the answer was ready.")
    finally:
        for pending in (task, watcher):
            if not pending.done():
                pending.cancel()
                with suppress(asyncio.CancelledError):
                    await pending
