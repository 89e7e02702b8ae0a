"""A queue that serves its clients in turn, so that one with much to ask delays the others by one turn at most.

Round robin over one first-come queue per client (J. Nagle, On packet switches with infinite storage, RFC 970, 1985).
"""

import asyncio
from collections import OrderedDict, deque

Turn = asyncio.Future[None]


class FairQueue:
    """Turns waited for, by client; holds nothing of clients that wait for none."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, deque[Turn]] = OrderedDict()
        """The first client is the next to be served; whoever was served goes to the end."""
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def of(self, client: str) -> int:
        """How many turns the client waits for."""
        return len(self._lines.get(client, ()))

    def ahead_of(self, client: str) -> int:
        """How many turns come before one that the client would begin to wait for now, if nobody else came."""
        own = self.of(client)
        return own + sum(min(len(line), own + 1) for other, line in self._lines.items() if other != client)

    def push(self, client: str, turn: Turn) -> None:
        """Wait for a turn, behind the client's earlier ones."""
        self._lines.setdefault(client, deque()).append(turn)
        self._length += 1

    def pop(self) -> Turn | None:
        """The next turn, taken out; None when nobody waits."""
        if not self._lines:
            return None
        client, line = self._lines.popitem(last=False)
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
