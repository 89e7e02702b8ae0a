"""Users who ask at a steady rate, and note every request that was not answered."""

import asyncio
import time
from collections import Counter
from contextlib import suppress
from types import TracebackType

from .fault import Unmet
from .pictures import photo
from .wire import Answer, Wire

_PHOTOS = 50
_USERS = 16
_PATIENCE_S = 60.0


class Steady:
    """Load on one port over connections that are kept; a context manager that sends from start to end.

    What is lost is asked here, not what is too much: with 16 requests under way the next one waits, so that a busy
    machine takes longer and sheds nothing.

    Args:
        port: a gateway's or a balancer's.
        rate: most requests a second.
        targets: routes, by turns.
        deadline_s: of each request.

    Attributes:
        sent: requests begun.
        seconds: of every answer 200.
        failures: how often each other end was seen.
    """

    def __init__(
        self,
        port: int,
        rate: float,
        targets: tuple[str, ...] = ("/depth?format=json&size=native",),
        deadline_s: float = 60.0,
    ) -> None:
        self._deadline_s = deadline_s
        self._port = port
        self._rate = rate
        self._targets = targets
        self._idle: list[Wire] = []
        self._users = asyncio.Semaphore(_USERS)
        self._began = time.monotonic()
        self._asking: set[asyncio.Task[None]] = set()
        self._sending: asyncio.Task[None] | None = None
        self._answers: dict[int, str] = {}
        self.sent = 0
        self.seconds: list[float] = []
        self.failures: Counter[str] = Counter()

    async def __aenter__(self) -> "Steady":
        self._sending = asyncio.create_task(self._send())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Send no more, and wait for what is under way."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)
        await asyncio.gather(*self._asking, return_exceptions=True)
        for wire in self._idle:
            await wire.close()
        self._idle = []

    async def until_sent(self, count: int) -> None:
        """Wait until so many requests have been begun; Unmet at the first that failed."""
        while self.sent < count:
            self.check()
            await asyncio.sleep(0.05)

    def check(self) -> None:
        """Unmet when a request has failed."""
        if self.failures:
            said = ", ".join(f"{count} x {what}" for what, count in self.failures.most_common(3))
            raise Unmet(f"{self.failures.total()} of {self.sent} requests failed: {said}")

    def versions(self, first: int, end: int) -> set[str]:
        """`X-Model-Version` of the answers of the first target, from request `first` up to, without, `end`."""
        return {version for number, version in self._answers.items() if first <= number < end}

    def summary(self) -> str:
        """Figures of what was answered."""
        ordered = sorted(self.seconds)
        median, p99 = (ordered[int(len(ordered) * share)] if ordered else 0.0 for share in (0.5, 0.99))
        rate = self.sent / (time.monotonic() - self._began)
        return (
            f"0 of {self.sent:,} failed at {rate:.0f}/s, median {median * 1000:.0f} ms, "
            f"p99 {p99 * 1000:.0f} ms, longest {max(ordered, default=0.0):.2f} s"
        )

    async def _send(self) -> None:
        due = self._began = time.monotonic()
        while True:
            await self._users.acquire()
            due = max(due + 1 / self._rate, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
            task = asyncio.create_task(self._ask(self.sent))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
            task.add_done_callback(lambda _: self._users.release())
            self.sent += 1

    async def _ask(self, number: int) -> None:
        start = time.monotonic()
        try:
            wire = self._idle.pop() if self._idle else await Wire.open(self._port, _nothing)
        except Unmet as error:
            self.failures[str(error)] += 1
            return
        target = self._targets[number % len(self._targets)]
        try:
            patience = {"X-Request-Timeout": f"{self._deadline_s:g}"}
            answer = await wire.ask("POST", target, photo(number % _PHOTOS), patience, timeout_s=_PATIENCE_S)
        except Unmet as error:
            self.failures[str(error)] += 1
            await wire.close()
            return
        if wire.reusable:
            self._idle.append(wire)
        else:
            await wire.close()
        if answer.status != 200:
            self.failures[_said(answer)] += 1
            return
        self.seconds.append(time.monotonic() - start)
        if target == self._targets[0]:
            self._answers[number] = answer.headers.get("x-model-version", "")


def _said(answer: Answer) -> str:
    with suppress(Unmet):
        return f"{answer.status} {answer.problem.get('code')}"
    return str(answer.status)


def _nothing(_: Answer) -> None:
    """Errors of these are counted here, and not kept."""
