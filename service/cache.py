"""A cache bounded in bytes and in age: least recently used entries leave first.

Keys are content hashes of uploads, so a second click on the same photo costs only the render. What a model said of a
photo can change when the model does: the gateway empties the cache when Triton comes back, and no entry lives longer
than its age limit.
"""

import hashlib
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from service.metrics import Metrics

_SHARE_BYTES = 1024
"""What an entry costs whose value another entry holds already: its key and its place."""


@dataclass(frozen=True, slots=True)
class _Entry:
    value: Any
    nbytes: int
    expires_at: float


class ByteCache:
    """Least-recently-used cache of `max_bytes`, for one event loop; an entry larger than that is not kept.

    One value may be held under several keys; its bytes count once.

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
        self._entries: OrderedDict[tuple[str, Hashable], _Entry] = OrderedDict()
        self._holders: Counter[int] = Counter()  # entries by the identity of their value
        self.used_bytes = 0

    def key_of(self, data: bytes) -> str:
        """A content hash; of a cache that is switched off always the same, since nothing is found under it."""
        return hashlib.sha256(data).hexdigest() if self._max_bytes else ""

    def holds(self, kind: str, key: Hashable) -> bool:
        """Whether there is an entry, perhaps one grown old; asked by any thread, and counted nowhere."""
        return (kind, key) in self._entries

    def get(self, kind: str, key: Hashable) -> Any | None:
        """The entry of `kind` under `key`, or None; `kind` labels the hit and miss counters."""
        entry = self._entries.get((kind, key))
        if entry is not None and entry.expires_at < self._clock():
            self._drop((kind, key))
            entry = None
        self._metrics.cache_hits.labels(kind, "miss" if entry is None else "hit").inc()
        if entry is None:
            return None
        self._entries.move_to_end((kind, key))
        return entry.value

    def put(self, kind: str, key: Hashable, value: Any, nbytes: int, *, max_age_s: float | None = None) -> bool:
        """Keep `value`, counted as `nbytes`, and let the oldest entries go until all fits.

        Args:
            kind: labels the counters; keys of different kinds do not collide.
            key: within its kind.
            value: what to keep.
            nbytes: what it holds.
            max_age_s: how long this entry lives, if not as long as the others.

        Returns:
            whether it was kept.
        """
        self._drop((kind, key))
        if nbytes > self._max_bytes or self._max_bytes == 0:
            return False
        age_s = self._max_age_s if max_age_s is None else max_age_s
        self._entries[kind, key] = _Entry(value, nbytes, self._clock() + age_s)
        self._holders[id(value)] += 1
        self.used_bytes += self._cost(self._entries[kind, key])
        while self.used_bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))
        return (kind, key) in self._entries

    def clear(self, *, keep: str | None = None) -> None:
        """Forget everything, save the entries of the kind `keep`."""
        for kind, key in list(self._entries):
            if kind != keep:
                self._drop((kind, key))

    def _cost(self, entry: _Entry) -> int:
        return entry.nbytes if self._holders[id(entry.value)] == 1 else min(entry.nbytes, _SHARE_BYTES)

    def _drop(self, key: tuple[str, Hashable]) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        self.used_bytes -= self._cost(entry)
        self._holders[id(entry.value)] -= 1
        if not self._holders[id(entry.value)]:
            del self._holders[id(entry.value)]
