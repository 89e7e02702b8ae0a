"""A gateway with its own Triton and a key for `/admin`, and somebody who has the key."""

from collections.abc import Awaitable, Callable

from service.clients import hash_of, new_key

from .arena import Arena, Gateway
from .wire import Answer

Operate = Callable[[str], Awaitable[Answer]]
"""What to do: `<model>/load?version=2`, `<model>/rollback`, `<model>/unload`."""


async def administered(arena: Arena, **settings: object) -> tuple[Gateway, Operate]:
    """A gateway that runs its own Triton, and its operator; `settings` as for `Arena.gateway`."""
    key = new_key()
    gateway = await arena.gateway(embedded=True, admin_key_hashes=hash_of(key), **settings)

    async def operate(action: str) -> Answer:
        headers = {"Authorization": f"Bearer {key}"}
        return await gateway.ask("POST", f"/admin/models/{action}", b"", headers, timeout_s=60.0)

    return gateway, operate
