"""Bounded admission: how many requests are worked on, how many may wait, for how long, and who is refused at once.

Under overload a queue without bounds answers nobody in time. This one has three bounds:

- of length: `max_waiting` requests, and of one client no more than there are places left, so that there is always one
  for a client that has none (A. Choudhury, E. Hahne, Dynamic queue length thresholds, IEEE/ACM ToN 6(2), 1998);
- of time: nobody waits longer than `max_wait_s`, whatever his deadline;
- of hope: who would wait longer than that, or than his deadline, going by the measured service rate, is refused
  immediately, before his photo is read.

Clients are served in turn, those first who have had less work done of late. A refusal is 429 when this client has its
share of the queue already, else 503; its `Retry-After` is the wait that was predicted.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from starlette.requests import Request

from service.context import RequestContext
from service.errors import ClientLeft, DepthlensError, Overloaded, TooManyRequests
from service.fair_queue import FairQueue
from service.metrics import Metrics

T = TypeVar("T")

_SMOOTHING = 0.2
"""Weight of the newest service time in the running mean."""


class Admission:
    """Places for `max_inflight` requests, and a bounded queue behind them, served client by client.

    Args:
        max_inflight: requests worked on at once.
        max_waiting: requests waiting for a place.
        max_wait_s: the longest wait.
        metrics: gets the counts.
    """

    def __init__(self, max_inflight: int, max_waiting: int, max_wait_s: float, metrics: Metrics) -> None:
        self._max_inflight = max_inflight
        self._max_waiting = max_waiting
        self._max_wait_s = max_wait_s
        self._metrics = metrics
        self._inflight = 0
        self._numbers = itertools.count()
        self._started: dict[int, float] = {}
        """When each request in flight got its place, oldest first."""
        self._queue = FairQueue()
        self._mean_service_s = 0.0

    def _service_s(self) -> float:
        """How long a place is held: the mean of late, or what most of those in flight have taken by now, if longer.

        The second is how a model that has become slow is noticed before its first slow answer. Most, not the oldest:
        one that hangs says nothing about the rest.
        """
        if not self._started:
            return self._mean_service_s
        starts = list(self._started.values())
        return max(self._mean_service_s, time.monotonic() - starts[len(starts) // 2])

    def _predicted_wait_s(self, client: str) -> float:
        return self._service_s() * (self._queue.ahead_of(client, time.monotonic()) + 1) / self._max_inflight

    def check_room(self, context: RequestContext) -> None:
        """Refuse a request that would have to wait and should not.

        Raises:
            Overloaded: the queue is full, or too slow for this request.
            TooManyRequests: the client has its share of the queue already.
        """
        if self._inflight < self._max_inflight:
            return
        client, waiting = context.client, len(self._queue)
        wait_s = self._predicted_wait_s(client)
        if waiting >= self._max_waiting:
            raise self._refusal("queue_full", Overloaded, f"{waiting} requests are waiting already.", wait_s)
        own = self._queue.of(client)
        if own > 0 and own >= self._max_waiting - waiting:
            detail = f"{own} requests of yours are waiting already, as many as others have room left."
            raise self._refusal("client_share", TooManyRequests, detail, wait_s)
        if wait_s > min(self._max_wait_s, context.deadline.remaining_s() - self._service_s()):
            slow = "deadline" if wait_s <= self._max_wait_s else "wait"
            detail = f"It would be {wait_s:.1f} s before work on this request began."
            raise self._refusal(slow, Overloaded, detail, wait_s)

    def _refusal(
        self, reason: str, kind: type[Overloaded | TooManyRequests], detail: str, wait_s: float
    ) -> DepthlensError:
        self._metrics.rejected.labels(reason).inc()
        return kind(f"{detail} Try again later.", retry_after_s=max(1.0, wait_s))

    @asynccontextmanager
    async def place(self, context: RequestContext) -> AsyncIterator[None]:
        """Hold a place for the block; raises as `check_room`, and Overloaded when the wait took too long after all."""
        with context.timed("queue"):
            await self._enter(context)
        number, start = next(self._numbers), time.monotonic()
        self._started[number] = start
        try:
            yield
        finally:
            now = time.monotonic()
            elapsed_s = now - start
            self._queue.charge(context.client, elapsed_s, now)
            change = elapsed_s - self._mean_service_s
            self._mean_service_s += _SMOOTHING * change if self._mean_service_s else elapsed_s
            del self._started[number]
            self._leave()

    async def _enter(self, context: RequestContext) -> None:
        if self._inflight < self._max_inflight:
            self._inflight += 1
            self._metrics.inflight.set(self._inflight)
            return
        self.check_room(context)
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._queue.push(context.client, turn)
        self._metrics.waiting.set(len(self._queue))
        expiry = loop.call_later(self._max_wait_s, self._expire, context, turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._leave()  # the place had been handed over already: pass it on
            raise
        finally:
            expiry.cancel()
            self._queue.remove(context.client, turn)  # nothing to remove after a hand-over
            self._metrics.waiting.set(len(self._queue))

    def _expire(self, context: RequestContext, turn: asyncio.Future[None]) -> None:
        if not turn.done():
            detail = f"No work on this request was begun within {self._max_wait_s:g} s."
            turn.set_exception(self._refusal("waited", Overloaded, detail, self._predicted_wait_s(context.client)))

    def _leave(self) -> None:
        """Hand the place to whose turn it is, or free it."""
        while (turn := self._queue.pop(time.monotonic())) is not None:
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
    working = asyncio.current_task()
    assert working is not None
    left = False

    async def watch() -> None:
        nonlocal left
        while (await request.receive())["type"] != "http.disconnect":
            pass
        left = True
        working.cancel()

    watcher = asyncio.ensure_future(watch())
    try:
        return await work()
    except asyncio.CancelledError:
        if not left or working.uncancel():  # somebody else gave it up, too
            raise
        raise ClientLeft("The client closed the connection before the answer was ready.") from None
    finally:
        watcher.cancel()
