"""A cache bounded in bytes: least recently used entries leave first.

Keys are content hashes of uploads, so an entry can never be wrong for its key; a second click on the same photo costs
only the render.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

from service.metrics import Metrics


class ByteCache:
    """Least-recently-used cache of `max_bytes`, for one event loop.

    An entry larger than half the cache is not kept: it would throw out everything else for one photo.
    """

    def __init__(self, max_bytes: int, metrics: Metrics) -> None:
        self._max_bytes = max_bytes
        self._metrics = metrics
        self._entries: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self.used_bytes = 0

    def get(self, kind: str, key: Hashable) -> Any | None:
        """The entry of `kind` under `key`, or None; `kind` labels the hit and miss counters."""
        entry = self._entries.get((kind, key))
        self._metrics.cache_hits.labels(kind, "miss" if entry is None else "hit").inc()
        if entry is None:
            return None
        self._entries.move_to_end((kind, key))
        return entry[0]

    def put(self, kind: str, key: Hashable, value: Any, nbytes: int) -> None:
        """Keep `value`, counted as `nbytes`, and let the oldest entries go until all fits."""
        if nbytes > self._max_bytes // 2:
            return
        previous = self._entries.pop((kind, key), None)
        if previous is not None:
            self.used_bytes -= previous[1]
        self._entries[kind, key] = (value, nbytes)
        self.used_bytes += nbytes
        while self.used_bytes > self._max_bytes:
            _, (_, freed) = self._entries.popitem(last=False)
            self.used_bytes -= freed
