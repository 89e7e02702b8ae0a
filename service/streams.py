"""Which frame streams are open: how many there may be, and when they have to end."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import Draining, StreamsFull, TooManyStreams
from service.metrics import Metrics


class Streams:
    """The open streams of one gateway.

    Of one client no more than there are places left, so that there is always one for a client that has none, as with
    the queue for places (`service.admission`).

    Args:
        max_streams: how many may be open.
        metrics: gets the counts.
    """

    def __init__(self, max_streams: int, metrics: Metrics) -> None:
        self._max_streams = max_streams
        self._metrics = metrics
        self._open: Counter[str] = Counter()
        """By client."""
        self._waiting: set[asyncio.Future[None]] = set()
        self.draining = False

    def __len__(self) -> int:
        return self._open.total()

    @contextmanager
    def place(self, client: str) -> Iterator[None]:
        """Count a stream of a client for the block.

        Raises:
            TooManyStreams: the client has its share already.
            StreamsFull: there is no place.
            Draining: the gateway stops.
        """
        self._check(client)
        self._open[client] += 1
        self._metrics.streams.set(len(self))
        try:
            yield
        finally:
            self._open[client] -= 1
            if not self._open[client]:
                del self._open[client]
            self._metrics.streams.set(len(self))

    def _check(self, client: str) -> None:
        if self.draining:
            raise Draining("This gateway is about to stop. Connect again.")
        left = self._max_streams - len(self)
        own = self._open[client]
        if left <= 0:
            self._metrics.rejected.labels("streams_full").inc()
            raise StreamsFull(f"All {self._max_streams} streams are taken. Try again later.")
        if own >= left:
            self._metrics.rejected.labels("client_streams").inc()
            raise TooManyStreams(
                f"{own} streams of yours are open, as many as others have room left.", value=own + 1, limit=own
            )

    def drain(self) -> None:
        """Let every stream answer what it has and close; no more are opened."""
        self.draining = True
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def ending(self) -> None:
        """Wait until the streams have to end."""
        if self.draining:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)
