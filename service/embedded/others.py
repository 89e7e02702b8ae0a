"""The models of a repository beside those that the server starts with: loaded once it answers, then kept alive.

They are optional: one that does not load, or is slow, keeps nobody from being served by the rest.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

from service.canary import Canary
from service.errors import DepthlensError, UnknownModel
from service.inference import TritonClient, only_versions
from service.triton_errors import DeadStub

logger = logging.getLogger("depthlens.triton")

_LOAD_TIMEOUT_S = 600.0
"""For a large network to be read, compiled and warmed up at every size."""


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
        on_reload: called when a model gets a new process because its old one died.
    """

    def __init__(
        self,
        client: TritonClient,
        repository: Path,
        known: Collection[str],
        period_s: float,
        on_reload: Callable[[], None],
    ) -> None:
        self._client = client
        self._repository = repository
        self._known = frozenset(known)
        self._period_s = period_s
        self._configs: dict[str, dict[str, Any]] = {}
        self._watched: set[str] = set()
        self._on_reload = on_reload

    async def run(self) -> None:
        """Load every one, then probe and heal them until cancelled; for one launch of the server."""
        self._watched = set()
        async with asyncio.TaskGroup() as group:
            for name in sorted(models_in(self._repository) - self._known):
                if await self._load(name):
                    for probed in await self._to_probe(name):
                        self._watched.add(probed)
                        heal = partial(self._heal, probed)
                        canary = Canary(self._client, probed, period_s=self._period_s, on_failure=heal)
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
        return [name] if spec.takes_image and (spec.kind == "network" or await self._blind_steps(name)) else []

    async def _blind_steps(self, name: str) -> list[str]:
        steps = {str(step["model_name"]) for step in self._configs[name]["ensemble_scheduling"]["step"]}
        return [step for step in sorted(steps) if not (await self._client.spec(step)).takes_image]

    async def _heal(self, name: str, error: DepthlensError) -> None:
        if not isinstance(error, DeadStub):
            return
        ensemble = "ensemble_scheduling" in self._configs[name]
        for dead in await self._blind_steps(name) if ensemble else [name]:
            logger.warning("the process of %s died, loading the model again", dead)
            self._on_reload()
            try:
                await self._client.reload(dead)
            except DepthlensError as failure:
                logger.error("%s could not be loaded again: %s", dead, failure.detail)
