"""Where the Tritons are: `host:port` entries, and the addresses that their names stand for at this moment."""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass

logger = logging.getLogger("depthlens.replicas")


@dataclass(frozen=True, slots=True)
class HostPort:
    """One entry of `DEPTHLENS_TRITON_URL`; `host` is a name or an address without brackets."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "HostPort":
        """From `host:port` or `[v6]:port`.

        Raises:
            ValueError: it is neither.
        """
        host, colon, port = text.strip().rpartition(":")
        host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536 or "/" in host:
            raise ValueError(f"{text.strip()!r} is not host:port")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def literal(self) -> bool:
        """Whether the host is an address, which stands for itself."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True


def parse_list(text: str) -> tuple[HostPort, ...]:
    """The entries of a comma-separated list, each once, in order.

    Raises:
        ValueError: an entry is not `host:port`, or there is none.
    """
    return tuple(dict.fromkeys(HostPort.parse(entry) for entry in text.split(",")))


async def resolve(entries: Sequence[HostPort]) -> tuple[str, ...] | None:
    """Every `address:port` behind the entries now, sorted within an entry; None when a name could not be looked up.

    IPv4 where a name has both kinds: its IPv6 addresses would be the same servers again, and Triton's listeners are
    IPv4 unless told otherwise.
    """
    found: list[str] = []
    for entry in entries:
        if entry.literal:
            found.append(str(entry))
            continue
        try:
            infos = await asyncio.get_running_loop().getaddrinfo(entry.host, entry.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):  # gaierror among them; a name that cannot be one
            return None
        by_family = {family: sorted({str(info[4][0]) for info in infos if info[0] == family}) for family, *_ in infos}
        addresses = by_family.get(socket.AF_INET) or by_family.get(socket.AF_INET6) or []
        found += [str(HostPort(address, entry.port)) for address in addresses]
    return tuple(dict.fromkeys(found))
