"""A cache bounded in bytes and in age: least recently used entries leave first.

Keys are content hashes of uploads, so a second click on the same photo costs only the render. What a model said of a
photo can change when the model does: the gateway empties the cache when Triton comes back, and no entry lives longer
than its age limit.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from service.metrics import Metrics


class ByteCache:
    """Least-recently-used cache of `max_bytes`, for one event loop; an entry larger than that is not kept.

    Args:
        max_bytes: what all entries together may hold; 0 switches the cache off.
        max_age_s: how long an entry lives.
        metrics: hits and misses are counted there.
        clock: seconds, monotonic.
    """

    def __init__(
        self, max_bytes: int, max_age_s: float, metrics: Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._metrics = metrics
        self._clock = clock
        self._entries: OrderedDict[Hashable, tuple[Any, int, float]] = OrderedDict()
        self.used_bytes = 0

    def get(self, kind: str, key: Hashable) -> Any | None:
        """The entry of `kind` under `key`, or None; `kind` labels the hit and miss counters."""
        entry = self._entries.get((kind, key))
        if entry is not None and entry[2] < self._clock():
            self._drop((kind, key))
            entry = None
        self._metrics.cache_hits.labels(kind, "miss" if entry is None else "hit").inc()
        if entry is None:
            return None
        self._entries.move_to_end((kind, key))
        return entry[0]

    def put(self, kind: str, key: Hashable, value: Any, nbytes: int) -> None:
        """Keep `value`, counted as `nbytes`, and let the oldest entries go until all fits."""
        self._drop((kind, key))
        if nbytes > self._max_bytes:
            return
        self._entries[kind, key] = (value, nbytes, self._clock() + self._max_age_s)
        self.used_bytes += nbytes
        while self.used_bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self.used_bytes = 0

    def _drop(self, key: Hashable) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.used_bytes -= entry[1]
