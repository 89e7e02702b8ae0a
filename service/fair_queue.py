"""A queue that serves its clients in turn, so that one with much to ask delays the others by one turn at most.

Round robin over one first-come queue per client (J. Nagle, On packet switches with infinite storage, RFC 970, 1985).
Turns are not alike: a focus pull takes a hundred times as long as a depth map. So those come first who have had less
work done of late, in whole seconds: a client's account is paid off by a second every second, and never holds more than
ten.
"""

import asyncio
import math
from collections import OrderedDict, deque
from typing import Final

Turn = asyncio.Future[None]

_MOST_S: Final = 10.0


class FairQueue:
    """Turns waited for, by client; of clients that wait for none it holds their accounts, for ten seconds at most."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, deque[Turn]] = OrderedDict()
        """The first client is the next to be served of those alike; whoever was served goes to the end."""
        self._paid_at: OrderedDict[str, float] = OrderedDict()
        """When each client's account will be paid off; in the order of its last work."""
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def of(self, client: str) -> int:
        """How many turns the client waits for."""
        return len(self._lines.get(client, ()))

    def charge(self, client: str, work_s: float, now: float) -> None:
        """Count work done for a client.

        Args:
            client: whoever.
            work_s: how long it took, in seconds.
            now: `time.monotonic()` seconds.
        """
        self._paid_at[client] = min(now + _MOST_S, max(now, self._paid_at.get(client, now)) + work_s)
        self._paid_at.move_to_end(client)
        while self._paid_at and next(iter(self._paid_at.values())) <= now:
            self._paid_at.popitem(last=False)

    def _account_s(self, client: str, now: float) -> int:
        return max(0, math.floor(self._paid_at.get(client, now) - now))

    def ahead_of(self, client: str, now: float) -> int:
        """How many turns come before one that the client would begin to wait for now, if nobody else came."""
        own, account_s = self.of(client), self._account_s(client, now)
        ahead = own
        for other, line in self._lines.items():
            if other != client and (others_s := self._account_s(other, now)) <= account_s:
                ahead += len(line) if others_s < account_s else min(len(line), own + 1)
        return ahead

    def push(self, client: str, turn: Turn) -> None:
        """Wait for a turn, behind the client's earlier ones."""
        self._lines.setdefault(client, deque()).append(turn)
        self._length += 1

    def pop(self, now: float) -> Turn | None:
        """The next turn, taken out; None when nobody waits."""
        if not self._lines:
            return None
        client = min(self._lines, key=lambda each: self._account_s(each, now))
        line = self._lines.pop(client)
        turn = line.popleft()
        self._length -= 1
        if line:
            self._lines[client] = line
        return turn

    def remove(self, client: str, turn: Turn) -> None:
        """Wait no longer; nothing happens when the turn was taken out already."""
        line = self._lines.get(client)
        if line is None or turn not in line:
            return
        line.remove(turn)
        self._length -= 1
        if not line:
            del self._lines[client]
