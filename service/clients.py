"""Who a client is: the API key it shows, where keys are set, else the address it comes from.

Keys are made here (`depthlens keys new`) with 256 random bits. That is why their plain SHA-256 can be kept: there is
nothing to guess, so nothing that a slow hash would slow down.
"""

import hashlib
import hmac
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Final

from starlette.requests import HTTPConnection

from service.errors import TooManyRequests, Unauthorized
from service.metrics import Metrics

KEY_HEADER: Final = "X-API-Key"
KEY_PROTOCOL: Final = "depthlens.key."
"""Before the key in the name of a WebSocket's subprotocol: a browser can send no header with one."""

_KEY_BYTES: Final = 32
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)
_IPV6_PREFIX: Final = 64  # what one customer gets at the least (RFC 6177), so that it counts as one
_BURST_S: Final = 5.0
_ROUNDING_S: Final = 1e-6
_MAX_CLIENTS: Final = 10_000


def new_key() -> str:
    """A key nobody has."""
    return f"dl_{secrets.token_urlsafe(_KEY_BYTES)}"


def hash_of(key: str) -> str:
    """What the settings hold of a key: its SHA-256 in hexadecimal digits."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


class Keys:
    """The keys that open a route, as their hashes.

    Args:
        hashes: of `hash_of`; none at all locks nothing.

    Raises:
        ValueError: something else among them; its text does not show it, because it may be a key.
    """

    def __init__(self, hashes: Iterable[str]) -> None:
        self._hashes = tuple(hashes)
        for index, given in enumerate(self._hashes):
            if not _HASH.fullmatch(given):
                raise ValueError(f"entry {index + 1} is no SHA-256 in 64 hexadecimal digits; see `depthlens keys new`")

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def check(self, connection: HTTPConnection) -> str:
        """The hash of the key that the request shows, in `X-API-Key` or `Authorization: Bearer`.

        Raises:
            Unauthorized: it shows none, or one that does not open.
        """
        given = _shown(connection)
        if given is None:
            raise Unauthorized(f"Send an API key, in {KEY_HEADER} or as Authorization: Bearer.", field=KEY_HEADER)
        hashed = hash_of(given)
        known = [kept for kept in self._hashes if hmac.compare_digest(kept, hashed)]
        if not known:
            raise Unauthorized("The API key is not one of those that open this route.", field=KEY_HEADER)
        return known[0]


def _shown(connection: HTTPConnection) -> str | None:
    key = connection.headers.get(KEY_HEADER)
    if key is not None:
        return key.strip()
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    offered: list[str] = connection.scope.get("subprotocols", [])
    return next((name.removeprefix(KEY_PROTOCOL) for name in offered if name.startswith(KEY_PROTOCOL)), None)


@lru_cache(_MAX_CLIENTS)
def name_of(address: str | None) -> str:
    """One name for all the addresses that one client can choose among: an IPv6 network of 64 bits is one client.

    Args:
        address: the peer's, or the one a trusted proxy named; None for a Unix socket.
    """
    try:
        ip = ip_address(address or "")
    except ValueError:
        return "unknown"  # a proxy may name anything; all of it is one client
    if not isinstance(ip, IPv6Address):
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(IPv6Network((int(ip), _IPV6_PREFIX), strict=False))


class RateLimit:
    """So many requests a second for each client, and five seconds' worth at once after a pause.

    A token bucket, kept as the time at which it will be full again (GCRA). Full ones are forgotten; so are those of
    the clients seen longest ago, beyond 10,000: whoever has that many addresses is not bounded by a limit per address.

    Args:
        per_s: requests a second.
    """

    def __init__(self, per_s: float) -> None:
        self._interval_s = 1 / per_s
        self._room_s = max(_BURST_S, self._interval_s)
        self._full_at: OrderedDict[str, float] = OrderedDict()
        """By client, `time.monotonic()` seconds; last seen last."""

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, client: str, now: float) -> None:
        """Count a request.

        Args:
            client: its name.
            now: `time.monotonic()` seconds.

        Raises:
            TooManyRequests: there was none left; says when there will be.
        """
        full_at = max(now, self._full_at.get(client, now)) + self._interval_s
        if full_at - now > self._room_s + _ROUNDING_S:
            raise TooManyRequests(
                "More requests than the limit for one client. Try again later.",
                retry_after_s=full_at - now - self._room_s,
                limit=round(1 / self._interval_s, 6),
            )
        self._full_at[client] = full_at
        self._full_at.move_to_end(client)
        while self._full_at and (len(self._full_at) > _MAX_CLIENTS or next(iter(self._full_at.values())) <= now):
            self._full_at.popitem(last=False)


class Clients:
    """Tells clients apart, and turns away those without a key and those above their rate.

    Args:
        keys: those that open; none locks nothing.
        rate_limit: of each client, if any.
        metrics: gets the counts.
    """

    def __init__(self, keys: Keys, rate_limit: RateLimit | None, metrics: Metrics) -> None:
        self._keys = keys
        self._rate_limit = rate_limit
        self._metrics = metrics

    def identify(self, connection: HTTPConnection) -> str:
        """A name for the client, for fair shares only: it is not logged and labels no metric.

        Raises:
            Unauthorized: keys are set, and the request shows none of them.
            TooManyRequests: above its rate.
        """
        if self._keys:
            client = self._keys.check(connection)  # of a key that is not checked anyone could make up a thousand
        else:
            client = name_of(connection.client.host if connection.client else None)
        self.count(client)
        return client

    def count(self, client: str) -> None:
        """Count one more request of a client, a frame of a stream for instance.

        Raises:
            TooManyRequests: above its rate; says when it will not be.
        """
        if self._rate_limit is not None:
            try:
                self._rate_limit.take(client, time.monotonic())
            except TooManyRequests:
                self._metrics.rejected.labels("rate_limit").inc()
                raise
