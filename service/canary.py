"""Readiness proved by a real inference, because Triton calls a model ready whose process has died."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from service.contract import MODELS, STEREO
from service.depth_client import Pair
from service.errors import ContractViolation, DeadlineExceeded, DepthlensError, Overloaded
from service.inference import DepthClient

logger = logging.getLogger("depthlens.canary")

_UNREADY_PERIOD_S = 0.25
"""A model that is down is probed more often: its return should be seen at once."""

_LARGEST_SHARE = 0.05
"""Of the time that probes of a model may take: a large network is probed less often."""

UNKNOWN_TIMEOUT_S = 10.0
"""Deadline of a probe of a model that is not one of the contract: nobody knows how fast it is."""

OnProbe = Callable[["CanaryState", DepthlensError | None], None]
OnFailure = Callable[[DepthlensError], Awaitable[None]]


class Reason(StrEnum):
    """Why a model is not ready; safe to show."""

    OK = "ok"
    STARTING = "starting"
    UNAVAILABLE = "unavailable"
    FAILED = "failed"
    TIMEOUT = "timeout"


_REASONS = {502: Reason.FAILED, 500: Reason.FAILED, 504: Reason.TIMEOUT}


@dataclass(frozen=True, slots=True)
class CanaryState:
    """What the last probes found.

    Args:
        ready: whether the model answers.
        reason: why not.
        since: `time.monotonic()` seconds at which `ready` last changed.
        failures: probes in a row that failed.
        last_success: `time.monotonic()` seconds of the last answer, None before the first.
    """

    ready: bool
    reason: Reason
    since: float
    failures: int = 0
    last_success: float | None = None


class Canary:
    """Probes one model again and again.

    Args:
        client: where the probe goes.
        model: name of the model.
        period_s: pause between two probes, longer where a probe takes more than 5 % of it.
        timeout_s: deadline of one probe. Long enough for the requests that may wait before it in the model's queue;
            a probe that finds the queue full (`Overloaded`) is no failure.
        unknown_timeout_s: the same for a model that is not one of the contract.
        late_probes: how many probes in a row may miss their deadline before the model counts as not ready: one can
            be a busy moment, any other failure counts at once.
        on_probe: told what each probe found, and the error of one that failed.
        on_failure: awaited after each failed probe, before the next one: the supervisor heals here.
    """

    def __init__(
        self,
        client: DepthClient,
        model: str,
        *,
        period_s: float = 1.0,
        timeout_s: float = 1.5,
        unknown_timeout_s: float = UNKNOWN_TIMEOUT_S,
        late_probes: int = 2,
        on_probe: OnProbe | None = None,
        on_failure: OnFailure | None = None,
    ) -> None:
        self._client = client
        self._model = model
        self._period_s = period_s
        self._timeout_s = timeout_s if model in MODELS else unknown_timeout_s
        self._late_probes = late_probes
        self._on_probe = on_probe
        self._on_failure = on_failure
        self._woken = asyncio.Event()
        self._quickest_s = math.inf
        self.state = CanaryState(ready=False, reason=Reason.STARTING, since=time.monotonic())

    async def run(self) -> None:
        """Probe until cancelled."""
        while True:
            state = await self.probe()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause_s(state)):
                    await self._woken.wait()
            self._woken.clear()

    def _pause_s(self, state: CanaryState) -> float:
        if not state.ready:
            return min(self._period_s, _UNREADY_PERIOD_S)
        return max(self._period_s, self._quickest_s / _LARGEST_SHARE)

    def wake(self) -> None:
        """Probe at once, not after the pause."""
        self._woken.set()

    async def probe(self) -> CanaryState:
        """One inference now; returns and keeps what it found."""
        try:
            began = time.monotonic()
            spec = MODELS.get(self._model) or await self._client.spec(self._model)
            image = np.full((*spec.canary_size, 3), 128, np.uint8)
            if spec is STEREO:
                await self._client.match(Pair(image, image), timeout_s=self._timeout_s, request_id="canary")
            else:
                await self._client.infer(self._model, image, timeout_s=self._timeout_s, request_id="canary")
        except Overloaded:
            return self.state
        except Exception as unexpected:  # whatever it is, the watch goes on: a silent canary would say ready for ever
            error = unexpected if isinstance(unexpected, DepthlensError) else ContractViolation("The probe broke.")
            if error is not unexpected:
                logger.exception("the readiness inference of %s broke", self._model)
            self._failed(error)
            if self._on_probe is not None:
                self._on_probe(self.state, error)
            if self._on_failure is not None:
                await self._on_failure(error)
            return self.state
        now = time.monotonic()
        self._quickest_s = min(self._quickest_s, now - began)
        if not self.state.ready:
            logger.info("%s answers", self._model)
        since = self.state.since if self.state.ready else now
        self.state = CanaryState(True, Reason.OK, since, 0, now)
        if self._on_probe is not None:
            self._on_probe(self.state, None)
        return self.state

    def _failed(self, error: DepthlensError) -> None:
        before = self.state
        failures = before.failures + 1
        patient = isinstance(error, DeadlineExceeded) and failures < self._late_probes
        ready = before.ready and patient
        if before.ready and not ready:
            logger.warning("%s does not answer: %s", self._model, error.detail)
        self.state = CanaryState(
            ready=ready,
            reason=before.reason if ready else _REASONS.get(error.status, Reason.UNAVAILABLE),
            since=before.since if ready == before.ready else time.monotonic(),
            failures=failures,
            last_success=before.last_success,
        )
