"""What others notice of a fault meanwhile, and when its connections are answered and gone."""

import asyncio
import time
from collections.abc import Iterable
from contextlib import suppress
from types import TracebackType

from .arena import Gateway, until
from .fault import Unmet
from .wire import Answer, Wire

TRIES = 3
"""Of which the best counts: what a flood costs it costs every time, other processes on the machine do not."""


class Pulse:
    """How long somebody else's requests take meanwhile, on a connection of its own; a context manager."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.seconds: list[float] = []

    async def __aenter__(self) -> "Pulse":
        wire = await self._gateway.connect()

        async def beat() -> None:
            while True:
                start = time.monotonic()
                await wire.ask("GET", "/health/live")
                self.seconds.append(time.monotonic() - start)
                await asyncio.sleep(0.001)

        self._task = asyncio.create_task(beat())
        await until(lambda: len(self.seconds) > 5, 10.0, "a beat")
        self.seconds.clear()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        count = len(self.seconds)
        if error is None:
            await until(lambda: len(self.seconds) > count + 1, 20.0, "an answer for anybody else")
        self._task.cancel()


async def until_answered(wire: Wire, pieces: Iterable[bytes], pause_s: float, within_s: float) -> Answer:
    """The answer to what is sent piece by piece, until it comes; `seconds` from the first piece on."""

    async def send() -> None:
        with suppress(Unmet):
            for piece in pieces:
                await wire.send(piece)
                if pause_s:
                    await asyncio.sleep(pause_s)

    start = time.monotonic()
    sending = asyncio.create_task(send())
    try:
        answer = await wire.answer(within_s)
        return Answer(answer.status, answer.headers, answer.body, time.monotonic() - start)
    finally:
        sending.cancel()


async def gone_s(gateway: Gateway, within_s: float) -> float:
    """Seconds until the gateway has closed every connection but the one that asks; Unmet when it does not."""

    async def gone() -> bool:
        return await gateway.metric("depthlens_connections") == 1

    return await until(gone, within_s, "all connections closed")
