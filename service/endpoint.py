"""One Triton as one gateway sees it: which of its models to ask, what it works on, and whether it is to be asked."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from service.breaker import Breaker
from service.canary import Canary, CanaryState, Reason
from service.depth_client import DepthClient, Prediction
from service.errors import DeadlineExceeded, DepthlensError

Question = Callable[[DepthClient], Awaitable[Prediction]]
"""An inference, for whichever server it is given to."""


class Watched:
    """One model of one server.

    Args:
        client: the server.
        model: its model.
        period_s: pause between two probes.
        on_change: called when answers may no longer be what they were: another version, or a server that returned.
    """

    def __init__(self, client: DepthClient, model: str, period_s: float, on_change: Callable[[], None]) -> None:
        self.canary = Canary(client, model, period_s=period_s, on_probe=self._probed)
        self.breaker = Breaker(on_open=self.canary.wake)
        self._on_change = on_change
        self._version: str | None = None
        self._was_gone = False
        self._overdue = False

    @property
    def rank(self) -> int:
        """0: to be asked. 1: wrong, or late, so asked when nobody else is there. 2: not to be asked."""
        if self.breaker.open:
            return 2
        return int(self._overdue or self.canary.state.reason is Reason.FAILED)

    def overdue(self) -> None:
        """A request has not been answered for too long: others come first until one is, or a probe."""
        self._overdue = True
        self.canary.wake()

    def answered(self, version: str) -> None:
        """A request was answered."""
        self._overdue = False
        self.breaker.answered()
        if self._version not in (None, version):
            self._on_change()
        self._version = version

    def _probed(self, state: CanaryState, error: DepthlensError | None) -> None:
        if error is None:
            self._overdue = False
            self.breaker.probed(True)
            if self._was_gone:
                self._on_change()
            self._was_gone = False
            return
        # What comes back may be another version; a slow moment changes nothing.
        self._was_gone |= not isinstance(error, DeadlineExceeded)
        if not state.ready:
            self.breaker.probed(state.reason is Reason.FAILED)


class Endpoint:
    """One Triton at one address.

    Attributes:
        address: `address:port`; not for users' eyes.
        client: the connection to it.
        watched: its models that have a canary.
        inflight: requests that it is working on for this gateway.
        drained: whether it gets no new ones, because an operator said so.
    """

    def __init__(
        self, address: str, client: DepthClient, models: Sequence[str], period_s: float, on_change: Callable[[], None]
    ) -> None:
        self.address = address
        self.client = client
        self.watched = {model: Watched(client, model, period_s, on_change) for model in models}
        self.inflight = 0
        self.drained = False
        self._left = asyncio.Event()
        self._left.set()
        self._probing: list[asyncio.Task[None]] = []

    def rank(self, model: str) -> int:
        """As `Watched.rank`; a model without a canary is always asked, because nothing would close its breaker."""
        if self.drained:
            return 2
        return self.watched[model].rank if model in self.watched else 0

    @property
    def sound(self) -> bool:
        """Whether every canary's last word was good."""
        return all(watched.canary.state.ready for watched in self.watched.values())

    def start_probing(self) -> None:
        """Run the canaries; once is enough."""
        if not self._probing:
            self._probing = [asyncio.create_task(watched.canary.run()) for watched in self.watched.values()]

    async def stop_probing(self) -> None:
        """Stop the canaries."""
        for task in self._probing:
            task.cancel()
        await asyncio.gather(*self._probing, return_exceptions=True)
        self._probing = []

    async def ask(self, model: str, question: Question) -> Prediction:
        """Put the question to this server, and tell the model's breaker how it went."""
        watched = self.watched.get(model)
        self.inflight += 1
        self._left.clear()
        try:
            prediction = await question(self.client)
        except DepthlensError as error:
            if watched is not None:
                watched.breaker.failed(error)
            raise
        finally:
            self.inflight -= 1
            if not self.inflight:
                self._left.set()
        if watched is not None:
            watched.answered(prediction.version)
        return prediction

    def overdue(self, model: str) -> None:
        """A request was given to another server, because this one did not answer: see at once what is wrong."""
        if model in self.watched:
            self.watched[model].overdue()

    async def left(self) -> None:
        """Wait until it works on nothing."""
        await self._left.wait()
