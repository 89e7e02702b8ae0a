"""A seeded mix of requests as a long life brings them: cached and new photos, clicks on scenes, bad input, leavers."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable

from .arena import Gateway
from .fault import Unmet
from .pictures import PHOTO, photo
from .wire import Answer, Wire, head

_KNOWN_PHOTOS = 8
_FORM = b"--b\r\nContent-Disposition: form-data; name=image; filename=p\r\n\r\n%s\r\n--b--\r\n"

Kind = Callable[["Client"], Awaitable[None]]


class Client:
    """One caller with a connection that it keeps, and a scene that it comes back to.

    Args:
        gateway: whom it asks.
        seed: of all that it draws.
        seen: counts answers by status, and leavers as `left`.
    """

    def __init__(self, gateway: Gateway, seed: int, seen: Counter[str]) -> None:
        self._gateway = gateway
        self._random = random.Random(seed)
        self._seen = seen
        self._wire: Wire | None = None
        self._scene: str | None = None

    async def run(self, requests: int) -> None:
        """Send so many requests one after the other, then hang up."""
        kinds, weights = zip(*_MIX, strict=True)
        for kind in self._random.choices(kinds, weights, k=requests):
            await kind(self)
        if self._wire is not None:
            await self._wire.close()
            self._wire = None

    async def _ask(self, target: str, body: bytes, allowed: tuple[int, ...], type: str = "image/png") -> Answer:
        if self._wire is None or not self._wire.reusable:
            if self._wire is not None:
                await self._wire.close()
            self._wire = await self._gateway.connect(kept=False)
        answer = await self._wire.ask("POST" if body else "GET", target, body, {"Content-Type": type})
        self._seen[str(answer.status)] += 1
        if answer.status not in (*allowed, 503):
            raise Unmet(f"{target}: {answer.status} {answer.body[:200]!r}")
        return answer

    def _known(self) -> bytes:
        return photo(self._random.randrange(_KNOWN_PHOTOS))

    def _new(self) -> bytes:
        return photo(self._random.randrange(1000, 2**24))

    async def cached_depth(self) -> None:
        await self._ask("/depth?format=json", self._known(), (200,))

    async def preview(self) -> None:
        await self._ask("/depth?format=preview&edges=sharp", self._known(), (200,))

    async def new_depth(self) -> None:
        await self._ask("/depth", self._new(), (200,))

    async def form(self) -> None:
        kind = "multipart/form-data; boundary=b"
        await self._ask("/segmentation", _FORM % self._known(), (200,), kind)

    async def new_segmentation(self) -> None:
        await self._ask("/segmentation?edges=sharp", self._new(), (200,))

    async def focus(self) -> None:
        answer = await self._ask("/focus?rx=0.7&ry=0.5", self._new(), (200,))
        self._scene = answer.headers.get("x-scene")

    async def click(self) -> None:
        if self._scene is None:
            await self.focus()
            return
        x = self._random.random()
        empty = {"Content-Type": "application/octet-stream"}
        wire = await self._gateway.connect(kept=False)
        answer = await wire.ask("POST", f"/focus?rx={x:.3f}&ry=0.5&f_number=4&scene={self._scene}", b"", empty)
        await wire.close()
        self._seen[str(answer.status)] += 1
        if answer.status == 404:  # pushed out of the cache, as it may be
            self._scene = None
        elif answer.status not in (200, 503):
            raise Unmet(f"a click on a scene: {answer.status}")

    async def bad_photo(self) -> None:
        bad = self._random.choice((PHOTO[: len(PHOTO) // 2], b"no picture at all", PHOTO[:16], PHOTO[8:]))
        await self._ask("/depth", bad, (400, 415))

    async def bad_parameter(self) -> None:
        target = self._random.choice(("/depth?near=nan", "/focus?rx=2&ry=0", "/depth?model=x", "/depth?format=odd"))
        await self._ask(target, PHOTO, (404, 406, 422))

    async def bad_form(self) -> None:
        await self._ask("/depth", b"--b\r\nno form", (400,), "multipart/form-data; boundary=b")

    async def no_route(self) -> None:
        await self._ask(f"/no/{self._random.randrange(10**9)}", b"", (404,))

    async def health(self) -> None:
        await self._ask("/health/ready", b"", (200,))

    async def leave(self) -> None:
        """Connect, send some or all of a request, and go."""
        wire = await self._gateway.connect(kept=False)
        body = self._new()
        data = head("POST", "/depth", len(body)) + body
        await wire.send(data[: self._random.choice((20, len(data) // 2, len(data)))])
        if self._random.random() < 0.5:
            await asyncio.sleep(0.002)
        wire.leave(reset=self._random.random() < 0.5)
        await wire.close()
        self._seen["left"] += 1


_MIX: tuple[tuple[Kind, int], ...] = (
    (Client.cached_depth, 34),
    (Client.preview, 8),
    (Client.new_depth, 8),
    (Client.form, 8),
    (Client.new_segmentation, 4),
    (Client.focus, 2),
    (Client.click, 12),
    (Client.bad_photo, 5),
    (Client.bad_parameter, 5),
    (Client.bad_form, 2),
    (Client.no_route, 2),
    (Client.health, 4),
    (Client.leave, 6),
)
"""Kinds of requests and their weights."""
