"""One `DepthClient` over several Tritons: the least busy sound one answers, another one tries when it went away.

Each model of each server is watched by a canary of its own and guarded by a breaker of its own, so that a broken model
takes neither its server nor the other models out, and a lost server costs no request that another can answer.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from service.canary import Reason
from service.contract import MODELS, STEREO, ModelSpec
from service.depth_client import DepthClient, Image, Pair, Prediction, ServedModel
from service.endpoint import Endpoint, Question
from service.errors import InvalidParameter, LastServer, ModelUnavailable
from service.hedging import Hedging

logger = logging.getLogger("depthlens.replicas")

Resolve = Callable[[], Awaitable[tuple[str, ...] | None]]

RESOLVE_PERIOD_S = 10.0
"""Between two look-ups of the servers' names."""

_UNREADY_RESOLVE_PERIOD_S = 1.0
"""The same while a server does not answer: it may have another address now."""

_RETIRE_TIMEOUT_S = 120.0
"""How long requests to an address that is no longer named may take: the cap of their deadlines."""


class Replicas:
    """`DepthClient` over every Triton behind one list of addresses.

    Args:
        resolve: the servers' addresses now, None when they could not be looked up.
        connect: makes the client of an address.
        models: those that get a canary.
        canary_period_s: pause between two probes of a model.
        resolve_period_s: pause between two look-ups; None when addresses cannot change.
        on_change: called when answers may no longer be what they were.

    Attributes:
        retries: requests that were tried a second time, on another server.
        hedges: requests that another server was asked as well, because the first had not answered.
    """

    def __init__(
        self,
        resolve: Resolve,
        connect: Callable[[str], DepthClient],
        models: Sequence[str],
        *,
        canary_period_s: float = 1.0,
        resolve_period_s: float | None = None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._resolve = resolve
        self._connect = connect
        self._models = tuple(dict.fromkeys(models))
        self._canary_period_s = canary_period_s
        self._resolve_period_s = resolve_period_s
        self.on_change = on_change
        self._turn = 0
        self._retiring: set[asyncio.Task[None]] = set()
        self._question: asyncio.Future[list[ServedModel]] | None = None
        self.endpoints: list[Endpoint] = []
        self.retries = 0
        self.hedges = 0
        self._hedging = Hedging()

    async def watch(self) -> None:
        """Look addresses up and probe the servers, until cancelled."""
        try:
            while True:
                await self._update()
                for endpoint in self.endpoints:
                    endpoint.start_probing()
                period_s = self._resolve_period_s
                if period_s is None:
                    await asyncio.Event().wait()
                else:
                    sound = self.endpoints and all(endpoint.sound for endpoint in self.endpoints)
                    await asyncio.sleep(period_s if sound else min(period_s, _UNREADY_RESOLVE_PERIOD_S))
        finally:
            await asyncio.gather(*(endpoint.stop_probing() for endpoint in self.endpoints))

    async def infer(
        self,
        model: str,
        image: Image,
        *,
        outputs: Sequence[str] | None = None,
        timeout_s: float,
        request_id: str | None = None,
    ) -> Prediction:
        """See `DepthClient.infer`.

        An inference changes nothing, so one that its server did not finish because it, or the model there, went away
        is tried once more on another one; one that its server does not answer for long is put to another one as well
        (`service.hedging`). A deadline is the caller's, so what missed it is not tried again.

        Raises:
            ModelUnavailable: at once, when no server has the model.
        """
        ends_at = time.monotonic() + timeout_s
        if not self.endpoints:
            await self._update()

        async def question(client: DepthClient) -> Prediction:
            left_s = ends_at - time.monotonic()
            return await client.infer(model, image, outputs=outputs, timeout_s=left_s, request_id=request_id)

        endpoint = self._least_busy(model)
        if endpoint is None:
            raise ModelUnavailable(f"No inference server has the model {model} at this moment. Try again.")
        began = time.monotonic()
        try:
            prediction = await self._patiently(endpoint, model, question, timeout_s)
        except ModelUnavailable:
            another = self._least_busy(model, but=endpoint)
            if another is None:
                raise
            self.retries += 1
            return await another.ask(model, question)
        self._hedging.answered(model, time.monotonic() - began)
        return prediction

    async def _patiently(self, endpoint: Endpoint, model: str, question: Question, timeout_s: float) -> Prediction:
        """The answer of the server, or of another one when this one does not answer: whichever comes first."""
        patience_s = self._hedging.patience_s(model, timeout_s)
        if patience_s is None or len(self.endpoints) < 2:
            return await endpoint.ask(model, question)
        asked = {asyncio.ensure_future(endpoint.ask(model, question))}
        try:
            done, _ = await asyncio.wait(asked, timeout=patience_s)
            another = None if done else self._least_busy(model, but=endpoint)
            if another is not None and another.rank(model) == 0 and self._hedging.take():
                self.hedges += 1
                endpoint.overdue(model)
                asked.add(asyncio.ensure_future(another.ask(model, question)))
            left = asked
            while True:
                done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    if not left or task.exception() is None:
                        return task.result()
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def match(self, pair: Pair, *, timeout_s: float, request_id: str | None = None) -> Prediction:
        """See `DepthClient.match`; a sequence stays with one server as long as the servers stay the same.

        Nothing is tried twice: a sequence's weights may have changed already.
        """
        if not self.endpoints:
            await self._update()
        endpoint = self._least_busy(STEREO.name)
        if endpoint is None:
            raise ModelUnavailable("No inference server can be asked at this moment. Try again.")
        if pair.sequence is not None:
            ordered = sorted(self._answering(), key=lambda each: each.address)
            endpoint = ordered[pair.sequence % len(ordered)]
        return await endpoint.ask(
            STEREO.name, lambda client: client.match(pair, timeout_s=timeout_s, request_id=request_id)
        )

    async def spec(self, model: str) -> ModelSpec:
        """See `DepthClient.spec`: as the least busy server has it."""
        if model in MODELS:
            return MODELS[model]
        if not self.endpoints:
            await self._update()
        endpoint = self._least_busy(model)
        if endpoint is None:
            raise ModelUnavailable("No inference server can be asked at this moment. Try again.")
        return await endpoint.client.spec(model)

    def _least_busy(self, model: str, but: Endpoint | None = None) -> Endpoint | None:
        ranks = {endpoint.address: endpoint.rank(model) for endpoint in self.endpoints if endpoint is not but}
        best = min(ranks.values(), default=2)
        if best == 2:
            return None
        able = [endpoint for endpoint in self.endpoints if ranks.get(endpoint.address) == best]
        self._turn += 1  # equals take turns
        return min(
            (able[(self._turn + index) % len(able)] for index in range(len(able))), key=lambda each: each.inflight
        )

    async def drain(self, address: str) -> Endpoint:
        """Give a server nothing new; returns when what it worked on has ended. Cancelled, it stays so.

        Raises:
            InvalidParameter: none has this address.
            LastServer: there is no other one that is asked.
        """
        endpoint = self._at(address)
        if not any(other is not endpoint and not other.drained and other.sound for other in self.endpoints):
            raise LastServer("No other inference server would be left that answers. Add one, or put one back first.")
        endpoint.drained = True
        self.on_change()  # whoever answers instead may have another version
        logger.info("an operator drains %s: %d requests in work", address, endpoint.inflight)
        await endpoint.left()
        return endpoint

    def resume(self, address: str) -> Endpoint:
        """Give a drained server requests again, as soon as its canaries answer; raises InvalidParameter."""
        endpoint = self._at(address)
        endpoint.drained = False
        self.on_change()
        logger.info("an operator puts %s back", address)
        return endpoint

    def _at(self, address: str) -> Endpoint:
        for endpoint in self.endpoints:
            if endpoint.address == address:
                return endpoint
        raise InvalidParameter(
            "No inference server has this address.",
            field="address",
            value=address[:100],
            limit=[endpoint.address for endpoint in self.endpoints],
        )

    def state(self) -> dict[str, Reason]:
        """Of each model with a canary, whether some server answers, else why the first does not."""
        states: dict[str, Reason] = {}
        for model in self._models:
            reasons = [
                Reason.UNAVAILABLE
                if watched.breaker.open and watched.canary.state.ready
                else watched.canary.state.reason
                for watched in (endpoint.watched[model] for endpoint in self.endpoints if not endpoint.drained)
            ]
            states[model] = Reason.OK if Reason.OK in reasons else (reasons or [Reason.STARTING])[0]
        return states

    async def is_ready(self, model: str) -> bool:
        """See `DepthClient.is_ready`: whether any server says so."""
        return any(await asyncio.gather(*(endpoint.client.is_ready(model) for endpoint in self._answering())))

    async def served_models(self) -> list[ServedModel]:
        """See `DepthClient.served_models`: of all servers together, each version once.

        Whoever asks while another does gets the same answer, so that many who ask cost the servers no more than one.
        """
        if self._question is None or self._question.done():
            self._question = asyncio.ensure_future(self._served_models())
        return await asyncio.shield(self._question)

    async def _served_models(self) -> list[ServedModel]:
        if not self.endpoints:
            await self._update()
        lists = await asyncio.gather(*(endpoint.client.served_models() for endpoint in self._answering()))
        merged: dict[tuple[str, str], ServedModel] = {}
        for served in (served for entries in lists for served in entries):
            known = merged.get((served.name, served.version))
            if known is None or not known.ready:
                merged[served.name, served.version] = served
        return list(merged.values())

    def _answering(self) -> list[Endpoint]:
        """The servers that are worth a question: all of them where none is."""
        found = [
            endpoint
            for endpoint in self.endpoints
            if not endpoint.drained and any(w.rank < 2 for w in endpoint.watched.values())
        ]
        return found or self.endpoints

    async def close(self) -> None:
        """See `DepthClient.close`."""
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        if self._question is not None:
            self._question.cancel()
        endpoints, self.endpoints = self.endpoints, []
        await asyncio.gather(*(endpoint.client.close() for endpoint in endpoints))

    async def _update(self) -> None:
        """Make the endpoints those that are named now; keep the old ones when nobody can say."""
        addresses = await self._resolve()
        if not addresses:
            return
        gone = [endpoint for endpoint in self.endpoints if endpoint.address not in addresses]
        known = {endpoint.address: endpoint for endpoint in self.endpoints if endpoint.address in addresses}
        new = [address for address in addresses if address not in known]
        for address in new:
            known[address] = Endpoint(
                address, self._connect(address), self._models, self._canary_period_s, lambda: self.on_change()
            )
        self.endpoints = [known[address] for address in addresses]
        for endpoint in gone:
            task = asyncio.create_task(_retire(endpoint))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)
        if gone:
            logger.info("inference servers: %d new, %d gone, %d now", len(new), len(gone), len(self.endpoints))


async def _retire(endpoint: Endpoint) -> None:
    """Close the connection to an address that is no longer named once its requests have ended."""
    try:
        await endpoint.stop_probing()
        with suppress(TimeoutError):
            async with asyncio.timeout(_RETIRE_TIMEOUT_S):
                while endpoint.inflight:
                    await asyncio.sleep(0.1)
    finally:
        await endpoint.client.close()
