"""How many connections there may be, how slow, and who goes when there are too many."""

import resource
from typing import Protocol

from service.door import Door
from service.errors import Overloaded
from service.gateway import Gateway

_RESERVED_DESCRIPTORS = 256
"""For everything that is no connection: listeners, gRPC, workers, files. With none left at all uvloop spins on accept,
and asyncio lets clients hang."""


class Connection(Protocol):
    """What a connection must be able to do."""

    def give_way(self) -> None:
        """Close at once; only called while it has no request."""
        ...


class Connections:
    """What all connections of one server share: the rules, and who waits without a request.

    Args:
        gateway: has the rules, counts refusals, and knows when it is about to stop.
        door: who is let in.
    """

    def __init__(self, gateway: Gateway, door: Door) -> None:
        settings = gateway.settings
        self._gateway = gateway
        self.header_timeout_s = settings.header_timeout_s
        self.grace_s = settings.body_grace_s
        self.min_bytes_per_s = settings.min_body_bytes_per_s
        self.max_connections = raise_descriptor_limit(settings.max_connections)
        self.metrics = gateway.metrics
        self.door = door
        self.turned_away = 0
        self._fresh: dict[Connection, None] = {}
        """Without a request yet, or any more: these give way first."""
        self._resting: dict[Connection, None] = {}
        """Between two requests."""

    @property
    def ending(self) -> bool:
        """Whether every answer is to be its connection's last: clients go elsewhere before the gateway stops."""
        return self._gateway.draining

    def enter(self, connection: Connection, others: int) -> None:
        """A new connection beside `others`: makes room for it, or raises Overloaded when all of them are busy."""
        if others >= self.max_connections:
            longest = next(iter(self._fresh), None) or next(iter(self._resting), None)
            if longest is None:
                raise Overloaded(f"{self.max_connections} connections are open and busy. Try again later.")
            longest.give_way()
        self._fresh[connection] = None

    def rest(self, connection: Connection) -> None:
        """The connection waits for its next request."""
        self._resting[connection] = None

    def leave(self, connection: Connection) -> None:
        """The connection has had its last answer."""
        self.work(connection)
        self._fresh[connection] = None

    def work(self, connection: Connection) -> None:
        """The connection has a request, or is closed."""
        self._fresh.pop(connection, None)
        self._resting.pop(connection, None)

    def closed(self, reason: str) -> None:
        """Count a connection closed by a rule."""
        self.metrics.connections_closed.labels(reason).inc()


class Pace:
    """The moment until which a transfer may go on: every byte moves it, to `grace_s` from now at most."""

    def __init__(self, rules: Connections, now: float) -> None:
        self._rules = rules
        self.until = now + rules.grace_s

    def moved(self, count: int, now: float) -> None:
        """`count` bytes more have come through."""
        self.until = min(now + self._rules.grace_s, self.until + count / self._rules.min_bytes_per_s)

    def held(self, now: float) -> None:
        """It was us who kept the client waiting: the grace begins anew."""
        self.until = now + self._rules.grace_s


def raise_descriptor_limit(connections: int) -> int:
    """Let this process open descriptors for so many connections; returns for how many there is room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _RESERVED_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return connections
    return min(connections, soft - min(_RESERVED_DESCRIPTORS, soft // 2))
