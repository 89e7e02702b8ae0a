"""Versions of a model loaded, tried, chosen and rolled back on a real Triton, while users ask for both models."""

import asyncio
import os
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from embedded_triton import eventually, make_repository, noise, write_tiny_network

from service.embedded.settings import EmbeddedSettings
from service.embedded.supervisor import Supervisor
from service.errors import (
    DepthlensError,
    ModelUnavailable,
    NoPreviousVersion,
    RolloutFailed,
    UnknownModel,
)
from service.inference import TritonClient
from service.replicas import Replicas
from service.rollout import Rollout

pytestmark = pytest.mark.integration

NETWORK, ENSEMBLE = "focus_on_depth", "focus"
IMAGE = noise((96, 64))


class Users:
    """Ask for both models without a pause, and note which network's scale each answer shows and every failure."""

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        self.seen: dict[str, list[float]] = {NETWORK: [], ENSEMBLE: []}
        self.versions: list[str] = []
        self.failures: Counter[str] = Counter()

    async def run(self, model: str) -> None:
        expected = scale()
        while True:
            try:
                prediction = await self._replicas.infer(model, IMAGE, timeout_s=10.0)
            except DepthlensError as error:
                self.failures[f"{model}: {type(error).__name__}"] += 1
            else:
                self.seen[model].append(round(float(prediction.outputs["inverse_depth"].mean()) / expected, 3))
                if model == NETWORK:
                    self.versions.append(prediction.version)
            await asyncio.sleep(0.005)


def scale() -> float:
    """Mean of what version 1 answers."""
    return float((IMAGE.astype(np.float64).sum(axis=2) / 765).mean())


def changes(values: list[float] | list[str]) -> list[float | str]:
    """The values without repetitions."""
    return [value for index, value in enumerate(values) if index == 0 or value != values[index - 1]]


async def answers(replicas: Replicas, model: str) -> bool:
    try:
        await replicas.infer(model, IMAGE, timeout_s=5.0)
    except ModelUnavailable:
        return False
    return True


@pytest.fixture
def versions(tmp_path: Path) -> Path:
    """1 and 2 are sound, 3 is no network, 4 answers NaN."""
    repository = make_repository(tmp_path / "repository")
    config = repository / NETWORK / "config.pbtxt"
    config.write_text(re.sub(r"model_warmup \[.*?\n\]", "", config.read_text(), flags=re.DOTALL))
    return repository


def add(repository: Path, version: int, scale: float | None) -> None:
    path = repository / NETWORK / str(version) / "model.onnx"
    if scale is None:
        path.parent.mkdir()
        path.write_bytes(b"no network")
    else:
        write_tiny_network(path, scale)


@asynccontextmanager
async def fleet(repository: Path, servers: int) -> AsyncIterator[tuple[Replicas, Rollout, list[Supervisor]]]:
    supervisors = [
        Supervisor(EmbeddedSettings(repository, canary_period_s=0.2, exit_timeout_s=0)) for _ in range(servers)
    ]
    await asyncio.gather(*(supervisor.start() for supervisor in supervisors))
    admin = {supervisor.grpc_url: supervisor.admin for supervisor in supervisors}

    async def resolve() -> tuple[str, ...]:
        return tuple(admin)

    replicas = Replicas(
        resolve, lambda url: TritonClient(url, admin=admin[url]), (NETWORK, ENSEMBLE), canary_period_s=0.2
    )
    watch = asyncio.create_task(replicas.watch())
    try:
        await replicas.infer(NETWORK, IMAGE, timeout_s=10.0)
        yield replicas, Rollout(replicas), supervisors
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        await replicas.close()
        await asyncio.gather(*(supervisor.stop() for supervisor in supervisors))


def test_versions_come_and_go_without_a_failed_request(versions: Path) -> None:
    async def scenario() -> None:
        async with fleet(versions, 1) as (replicas, rollout, _):
            users = Users(replicas)
            asking = [asyncio.create_task(users.run(model)) for model in (NETWORK, ENSEMBLE)]
            await asyncio.sleep(0.3)
            add(versions, 2, 2.0)
            served = await rollout.load(NETWORK, "2")
            assert (served.version, served.loaded, served.previous) == ("2", [["2"]], ["1"])
            add(versions, 3, None)
            with pytest.raises(RolloutFailed, match="Version 2 serves on"):
                await rollout.load(NETWORK, "3")
            add(versions, 4, float("nan"))
            with pytest.raises(RolloutFailed, match="not numbers"):
                await rollout.load(NETWORK, "4")
            assert [entry.version for entry in await rollout.models()] == ["2", "1"]
            served = await rollout.rollback(NETWORK)
            assert (served.version, served.loaded, served.previous) == ("1", [["1"]], [])
            with pytest.raises(NoPreviousVersion):
                await rollout.rollback(NETWORK)
            await asyncio.sleep(0.3)
            for task in asking:
                task.cancel()
            assert users.failures == {}
            assert changes(users.versions) == ["1", "2", "1"]
            assert changes(users.seen[NETWORK]) == [1.0, 2.0, 1.0]
            assert set(users.seen[ENSEMBLE]) == {1.0, 2.0}
            assert users.seen[ENSEMBLE][0] == users.seen[ENSEMBLE][-1] == 1.0
            print({model: len(seen) for model, seen in users.seen.items()})

    asyncio.run(scenario())


def test_another_gateway_follows_and_healing_keeps_the_version(versions: Path) -> None:
    async def scenario() -> None:
        async with fleet(versions, 1) as (replicas, rollout, [supervisor]):
            other = TritonClient(supervisor.grpc_url)
            assert (await other.infer(NETWORK, IMAGE, timeout_s=5.0)).version == "1"
            add(versions, 2, 2.0)
            await rollout.load(NETWORK, "2")
            assert (await other.infer(NETWORK, IMAGE, timeout_s=5.0)).version == "2"
            add(versions, 3, None)
            client = supervisor._client
            assert client is not None
            await eventually(lambda: client.version(NETWORK) == "2", 5)  # its own canary has seen it
            await client.reload(NETWORK)
            assert (await other.infer(NETWORK, IMAGE, timeout_s=5.0)).version == "2"
            assert supervisor.pid is not None
            os.kill(supervisor.pid, signal.SIGKILL)
            await eventually(lambda: supervisor.restarts == 1 and supervisor.ready, 60)
            for model in (NETWORK, ENSEMBLE):
                prediction = await other.infer(model, IMAGE, timeout_s=5.0)
                assert prediction.outputs["inverse_depth"].mean() == pytest.approx(2 * scale(), rel=1e-3)
            await other.close()
            await rollout.unload(NETWORK)
            with pytest.raises(ModelUnavailable):
                await replicas.infer(NETWORK, IMAGE, timeout_s=5.0)
            served = await rollout.load(NETWORK, "1")
            assert served.version == "1"
            for model in (NETWORK, ENSEMBLE):
                async with asyncio.timeout(10):
                    while not await answers(replicas, model):
                        await asyncio.sleep(0.02)
            with pytest.raises(UnknownModel):
                await rollout.load("../../etc/passwd", "1")

    asyncio.run(scenario())
