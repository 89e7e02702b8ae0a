"""Another version of a model, in front of users: loaded beside the one that serves, tried, and only then chosen.

Triton serves the newest version that is loaded, so by itself it would answer with an untried one. Here every request
names the version it wants (`TritonClient`), and ensembles, which take the newest of their steps, are held to the
chosen one meanwhile. The steps, on every server at once:

1. the model's own policy becomes `these versions`, because loading an ensemble makes Triton look for newer files;
2. the ensembles over it are pinned to the version that serves;
3. the new version is loaded beside it, which leaves the serving one alone, and answers two trial images;
4. the ensembles, then this gateway's requests, turn to the new version: from one request to the next;
5. the old version is unloaded, which ends its requests first. Gateways that asked for it by name take the new one.

When 2 or 3 fails on any server, all go back to the version that serves and nothing has been seen of it.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from service.contract import MODEL_NAME, MODELS, ModelSpec
from service.errors import (
    DepthlensError,
    ModelUnavailable,
    NoPreviousVersion,
    RolloutFailed,
    UnknownModel,
)
from service.inference import Image, Prediction, only_versions
from service.replicas import Replicas
from service.triton_errors import VersionGone

logger = logging.getLogger("depthlens.rollout")

Config = dict[str, Any]

_NEWEST = "-1"
"""What ensembles say of their steps at rest. It has to be said: a load without a configuration does not bring that of
the file back, it leaves the last one given in force (measured on 2.51)."""

_TRIAL_TIMEOUT_S = 10.0
"""For the first inference of a version on a busy server."""


@runtime_checkable
class ModelControl(Protocol):
    """What a rollout asks of a server's client; `TritonClient` has it all."""

    async def names(self) -> list[str]:
        """Models of the repository, loaded or not."""
        ...

    async def spec(self, model: str) -> ModelSpec:
        """What a loaded model takes and gives."""
        ...

    async def serving(self, model: str) -> list[str]:
        """Versions that are loaded, the one that is asked first."""
        ...

    async def config(self, model: str) -> Config:
        """What the loaded model runs with."""
        ...

    async def load(self, model: str, config: Config | None = None) -> None:
        """Load a model, or change what is loaded of it."""
        ...

    async def unload(self, model: str) -> None:
        """Unload every version."""
        ...

    async def infer_version(self, model: str, version: str, image: Image, *, timeout_s: float) -> Prediction:
        """One inference by one version."""
        ...

    def choose(self, model: str, version: str) -> None:
        """Ask this version from now on."""
        ...


@dataclass(frozen=True, slots=True)
class ServedVersions:
    """What the servers have of one model.

    Args:
        model: its name.
        version: the one that is asked, None where the model is not loaded.
        loaded: of each server, every version it has.
        previous: those that `rollback` goes back to, the next one last.
    """

    model: str
    version: str | None
    loaded: list[list[str]]
    previous: list[str]


class Rollout:
    """Loads, unloads and rolls back versions of models on every server, one change at a time.

    Args:
        replicas: the servers; all of them have to take part.
    """

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        self._changing = asyncio.Lock()
        self._previous: dict[str, list[str]] = {}
        self._configs: dict[str, Config] = {}
        """Of models that have been unloaded; a server tells nothing of those."""

    async def models(self) -> list[ServedVersions]:
        """What is loaded of each model of the repository."""
        return [await self._served(model) for model in await self._servers()[0].names()]

    async def load(self, model: str, version: str) -> ServedVersions:
        """Make `version` the one that serves.

        Raises:
            UnknownModel: no such model in the repository.
            RolloutFailed: it does not load, fails, or answers something else than the contract says; what served
                before serves on.
            ModelUnavailable: a server does not answer.
        """
        async with self._changing:
            await self._check(model)
            before = await self._replace(model, version)
            if before not in (None, version):
                self._previous.setdefault(model, []).append(str(before))
            return await self._served(model)

    async def rollback(self, model: str) -> ServedVersions:
        """Go back to the version before the last `load`; raises as that one, and `NoPreviousVersion`."""
        async with self._changing:
            await self._check(model)
            previous = self._previous.get(model, [])
            if not previous:
                raise NoPreviousVersion(f"This gateway has loaded no other version of {model}. Name one: load?version=")
            await self._replace(model, previous[-1])
            previous.pop()
            return await self._served(model)

    async def unload(self, model: str) -> ServedVersions:
        """Take the model, and with it the ensembles over it, out of service: their routes answer 503."""
        async with self._changing:
            await self._check(model)
            servers = self._servers()
            with suppress(VersionGone):
                self._configs[model] = await servers[0].config(model)
            await _every(servers, lambda server: server.unload(model))
            return await self._served(model)

    async def _check(self, model: str) -> None:
        """Raise UnknownModel for a name that no server's repository has."""
        if model in MODELS:
            return
        names = [*MODELS]
        if re.fullmatch(MODEL_NAME, model):
            names = sorted({name for server in self._servers() for name in await server.names()})
        if model not in names:
            raise UnknownModel(f"No such model. Those there are: {', '.join(names)}.", field="name", value=model[:100])

    def _servers(self) -> list[ModelControl]:
        servers = [endpoint.client for endpoint in self._replicas.endpoints]
        if not servers:
            raise ModelUnavailable("No inference server has been found yet.")
        able: list[ModelControl] = [server for server in servers if isinstance(server, ModelControl)]
        assert len(able) == len(servers)
        return able

    async def _served(self, model: str) -> ServedVersions:
        loaded = [await _loaded(server, model) for server in self._servers()]
        version = next((versions[0] for versions in loaded if versions), None)
        return ServedVersions(model, version, [sorted(each, key=int) for each in loaded], self._previous.get(model, []))

    async def _replace(self, model: str, version: str) -> str | None:
        """Steps 1 to 5; returns the version that served before."""
        servers = self._servers()
        loaded = await asyncio.gather(*(_loaded(server, model) for server in servers))
        plans = [
            _Plan(server, model, versions[0] if versions else None, version, self._configs.get(model))
            for server, versions in zip(servers, loaded, strict=True)
        ]
        serving = plans[0].serving
        try:
            await _every(plans, lambda plan: plan.prepare())
            await _every(plans, lambda plan: plan.point_ensembles(version))
        except DepthlensError as error:
            logger.error("%s version %s is not used: %s", model, version, error.detail)
            await asyncio.gather(*(plan.finish(plan.serving) for plan in plans), return_exceptions=True)
            if isinstance(error, ModelUnavailable) and not isinstance(error, VersionGone):
                raise
            stays = f"Version {serving} serves on." if serving else "Nothing has changed."
            raise RolloutFailed(f"Version {version} of {model} is not used: {_reason(error)} {stays}") from error
        for server in servers:
            server.choose(model, version)
        self._replicas.on_change()
        logger.info("%s: version %s serves now, %s before", model, version, serving or "none")
        for outcome in await asyncio.gather(*(plan.finish(version) for plan in plans), return_exceptions=True):
            if isinstance(outcome, Exception):  # it serves; what is left over is memory
                logger.error("%s: the old version could not be unloaded", model, exc_info=outcome)
        return serving


class _Plan:
    """The steps on one server."""

    def __init__(
        self, server: ModelControl, model: str, serving: str | None, version: str, config: Config | None
    ) -> None:
        self.serving = serving
        self._server = server
        self._model = model
        self._version = version
        self._config = config
        self._ensembles: dict[str, Config] = {}

    async def prepare(self) -> None:
        """Steps 1 to 3."""
        server, model, version = self._server, self._model, self._version
        if self.serving is None:
            await server.load(model, None if self._config is None else only_versions(self._config, version))
        else:
            self._config = await server.config(model)
            await server.load(model, only_versions(self._config, self.serving))
            self._ensembles = await _ensembles(server, model)
            await self.point_ensembles(self.serving)
            await server.load(model, only_versions(self._config, self.serving, version))
        spec = await server.spec(model)
        for size in (spec.canary_size, spec.sizes[0]) if spec.takes_image else ():
            trial = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
            await server.infer_version(model, version, trial, timeout_s=_TRIAL_TIMEOUT_S)

    async def point_ensembles(self, version: str) -> None:
        """Let the ensembles over the model use this version of it."""
        for name, config in self._ensembles.items():
            await self._server.load(name, _steps_at(config, self._model, version))

    async def finish(self, version: str | None) -> None:
        """Leave this version alone, and the ensembles with the newest, which it is."""
        if version is None:
            await self._server.unload(self._model)
        if version is None or self._config is None:
            return
        await self._server.load(self._model, only_versions(self._config, version))
        await self.point_ensembles(_NEWEST)


async def _ensembles(server: ModelControl, model: str) -> dict[str, Config]:
    """Configurations of the loaded ensembles that have the model as a step."""
    found = {}
    for name in await server.names():
        if name != model and await _loaded(server, name):
            config = await server.config(name)
            steps = config.get("ensemble_scheduling", {}).get("step", [])
            if any(step["model_name"] == model for step in steps):
                found[name] = config
    return found


def _steps_at(config: Config, model: str, version: str) -> Config:
    steps = [
        step | {"model_version": int(version)} if step["model_name"] == model else step
        for step in config["ensemble_scheduling"]["step"]
    ]
    return config | {"ensemble_scheduling": config["ensemble_scheduling"] | {"step": steps}}


async def _loaded(server: ModelControl, model: str) -> list[str]:
    try:
        return await server.serving(model)
    except VersionGone:
        return []


async def _every(targets: Sequence[Any], step: Callable[[Any], Awaitable[None]]) -> None:
    """Take the step everywhere, wait for all, and raise the first error: nobody is left half-way."""
    outcomes = await asyncio.gather(*(step(target) for target in targets), return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome


def _reason(error: DepthlensError) -> str:
    if isinstance(error, RolloutFailed | VersionGone) or error.status == 500:
        return "it does not load, or answers something else than the contract says."
    return error.detail
