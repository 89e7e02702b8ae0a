"""The models of a repository beside those that the server starts with: loaded once it answers, then kept alive.

They are optional: one that does not load, is slow or hangs, keeps nobody from being served by the rest. So a hung one
loses its own process, and gets a new one as if it had died; the server goes on, which it does not when a model hangs
that it starts with.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

from service.canary import Canary
from service.contract import STEREO
from service.errors import DeadlineExceeded, DepthlensError, UnknownModel
from service.inference import TritonClient, only_versions
from service.triton_errors import DeadStub

logger = logging.getLogger("depthlens.triton")

_LOAD_TIMEOUT_S = 600.0
"""For a large network to be read, compiled and warmed up at every size."""

_LATE_PROBES = 3
"""So many in a row without an answer, while the model ends no other request either, are no busy moment."""


def models_in(repository: Path) -> set[str]:
    """Names of the models in a repository: folders with a `config.pbtxt` and some version."""
    return {
        config.parent.name
        for config in repository.glob("*/config.pbtxt")
        if any(folder.name.isdecimal() for folder in config.parent.iterdir())
    }


class Others:
    """Loads and heals them, on one server, over its restarts.

    Args:
        client: of the server.
        repository: the model repository, looked at again at each start.
        known: names of the models that are somebody else's task.
        period_s: pause between two probes of a model.
        timeout_s: deadline of a probe.
        on_reload: called when a model gets a new process because its old one died.
        kill: ends what processes a model has.
    """

    def __init__(
        self,
        client: TritonClient,
        repository: Path,
        known: Collection[str],
        period_s: float,
        timeout_s: float,
        on_reload: Callable[[], None],
        kill: Callable[[str], None],
    ) -> None:
        self._client = client
        self._repository = repository
        self._known = frozenset(known)
        self._period_s = period_s
        self._timeout_s = timeout_s
        self._configs: dict[str, dict[str, Any]] = {}
        self._canaries: dict[str, Canary] = {}
        self._late: dict[str, tuple[int, int]] = {}
        """By model: how often it had run when a probe was late, and how many were since then."""
        self._on_reload = on_reload
        self._kill = kill

    async def run(self) -> None:
        """Load every one, then probe and heal them until cancelled; for one launch of the server."""
        self._canaries, self._late = {}, {}
        async with asyncio.TaskGroup() as group:
            for name in sorted(models_in(self._repository) - self._known):
                if await self._load(name):
                    for probed in await self._to_probe(name):
                        self._canaries[probed] = canary = Canary(
                            self._client,
                            probed,
                            period_s=self._period_s,
                            unknown_timeout_s=self._timeout_s,
                            on_failure=partial(self._heal, probed),
                        )
                        group.create_task(canary.run())

    async def _load(self, name: str) -> bool:
        version = self._client.version(name)
        config = only_versions(self._configs[name], version) if version and name in self._configs else None
        try:
            await self._client.load(name, config, timeout_s=_LOAD_TIMEOUT_S)
            self._configs[name] = await self._client.config(name)
        except DepthlensError as error:
            logger.error("%s could not be loaded and is not served: %s", name, error.detail)
            return False
        return True

    async def _to_probe(self, name: str) -> list[str]:
        """The network itself; an ensemble only for those of its steps that no photo alone can probe."""
        try:
            spec = await self._client.spec(name)
        except DepthlensError as error:
            if isinstance(error, UnknownModel):
                logger.error("%s does not say in its configuration what it takes and gives, so nobody can ask it", name)
            return []
        logger.info("%s is loaded", name)
        if spec is STEREO:
            return [name]
        return [name] if spec.takes_image and (spec.kind == "network" or await self._blind_steps(name)) else []

    def _steps(self, name: str) -> set[str]:
        if "ensemble_scheduling" not in self._configs[name]:
            return set()
        return {str(step["model_name"]) for step in self._configs[name]["ensemble_scheduling"]["step"]}

    async def _blind_steps(self, name: str) -> list[str]:
        return [step for step in sorted(self._steps(name)) if not (await self._client.spec(step)).takes_image]

    async def _heal(self, name: str, error: DepthlensError) -> None:
        """What a failed probe asks for; of an ensemble only those steps that no probe of their own heals."""
        for model in await self._blind_steps(name) if self._steps(name) else [name]:
            if isinstance(error, DeadStub):
                await self._reload(model)
            elif isinstance(error, DeadlineExceeded) and await self._hangs(name, model):
                logger.error("%s has answered none of %d probes and runs nothing: it hangs", model, _LATE_PROBES)
                self._kill(model)  # the next probe finds it dead

    async def _hangs(self, name: str, model: str) -> bool:
        """Whether a late probe of `name` was one too many for `model`, that is it or a step of it."""
        others = self._steps(name) & self._canaries.keys()
        if any(self._canaries[step].state.failures for step in others):
            return False  # one of those keeps it waiting
        try:
            ran = await self._client.executions(model)
        except DepthlensError:
            return False  # the server itself has gone
        before, late = self._late.get(model, (ran, 0))
        self._late[model] = (ran, late + 1 if ran == before else 1)
        if self._late[model][1] < _LATE_PROBES:
            return False
        del self._late[model]
        return True

    async def _reload(self, model: str) -> None:
        logger.warning("the process of %s died, loading the model again", model)
        self._kill(model)  # Triton calls one that is only stopped dead, too, and would leave it there
        self._on_reload()
        try:
            await self._client.reload(model)
        except DepthlensError as failure:
            logger.error("%s could not be loaded again: %s", model, failure.detail)
