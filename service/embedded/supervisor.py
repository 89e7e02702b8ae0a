"""Keeps one embedded Triton answering: starts it, proves it, heals its models, restarts it, stops it."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Self

from service.canary import Canary
from service.embedded import exposition, shm
from service.embedded.binary import BinaryMissingError, find_binary
from service.embedded.others import Others, models_in
from service.embedded.process import Ports, TritonProcess, kill_model, pick_ports, remove_stale
from service.embedded.settings import EmbeddedSettings
from service.errors import DeadlineExceeded, DepthlensError, ModelUnavailable
from service.inference import TritonClient, only_versions
from service.triton_admin import ADMIN_NAME, make_or_read, metadata
from service.triton_errors import DeadStub

logger = logging.getLogger("depthlens.triton")

_EVERYWHERE = "0.0.0.0"  # nosec B104  # compared with, not bound to
_LOOPBACK = {_EVERYWHERE: "127.0.0.1", "::": "::1"}
"""Addresses to listen on everywhere, and where to reach them from here."""

_START_POLL_S = 0.05
_BIND_ATTEMPTS = 5
_FIRST_BACKOFF_S = 0.1
_STOP_MARGIN_S = 6.0
"""Beyond the exit timeout: the guard's own margin before it kills, and a little more."""


def next_backoff_s(previous_s: float, ran_s: float, longest_s: float) -> float:
    """Pause before the next start: twice the previous one, or the first again after a launch that lasted.

    Args:
        previous_s: pause before the launch that ended; 0 for none.
        ran_s: how long that launch lasted.
        longest_s: longest pause; a launch that lasted more than twice as long counts as sound.
    """
    if ran_s > 2 * longest_s:
        previous_s = 0.0
    return min(max(2 * previous_s, _FIRST_BACKOFF_S), longest_s)


class TritonStartError(RuntimeError):
    """tritonserver ended or stayed silent at start; `log_lines` is what it said, for the operator only."""

    def __init__(self, message: str, log_lines: list[str]) -> None:
        super().__init__("\n  ".join([message, *log_lines]))
        self.log_lines = log_lines


class Supervisor:
    """One embedded Triton server, kept alive from `start` to `stop`; also an async context manager.

    Args:
        settings: what to serve and where.
        pick: chooses the listeners' ports, again when Triton finds one taken.

    Attributes:
        restarts: how often the server was started again after it ended or hung.
        reloads: how often a model was given a new process after its old one died.
    """

    def __init__(self, settings: EmbeddedSettings, *, pick: Callable[[EmbeddedSettings], Ports] = pick_ports) -> None:
        self._settings = settings
        self._pick = pick
        self._secret = make_or_read(settings.admin_file)
        self._ports: Ports | None = None
        self._process: TritonProcess | None = None
        self._client: TritonClient | None = None
        self._canaries: dict[str, Canary] = {}
        self._configs: dict[str, dict[str, Any]] = {}
        self._others: Others | None = None
        self._loading: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._launched_at = 0.0
        self._launching = True
        self.restarts = 0
        self.reloads = 0

    @property
    def ports(self) -> Ports:
        """The listeners' ports; the same over restarts.

        Raises:
            RuntimeError: before `start`.
        """
        if self._ports is None:
            raise RuntimeError("the embedded server is not started")
        return self._ports

    @property
    def grpc_url(self) -> str:
        """`host:port` for a `TritonClient` on this machine."""
        host = _LOOPBACK.get(self._settings.host, self._settings.host)
        return f"[{host}]:{self.ports.grpc}" if ":" in host else f"{host}:{self.ports.grpc}"

    @property
    def ready(self) -> bool:
        """Whether it runs and every canary answered its last probe; the other models of the repository do not count."""
        return not self._launching and all(canary.state.ready for canary in self._canaries.values())

    @property
    def admin(self) -> tuple[str, str]:
        """Metadata key and value, for gRPC, that open the model control of this server."""
        return metadata(f"{ADMIN_NAME}={self._secret}")

    async def exposition(self) -> bytes:
        """Triton's own metrics in Prometheus' text format, empty while it does not answer."""
        host = _LOOPBACK.get(self._settings.host, self._settings.host)
        return await exposition.read(host, self.ports.metrics)

    @property
    def pid(self) -> int | None:
        """Session of the running launch, None while there is none."""
        return self._process.pid if self._process is not None and self._process.running else None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start the server and wait until every canary answers; from then on it is watched.

        Raises:
            BinaryMissingError: no tritonserver in this environment.
            TritonStartError: it ended, or answered nothing within the start timeout.
        """
        started = time.monotonic()
        if not self._settings.repository.is_dir():
            raise TritonStartError(f"there is no model repository at {self._settings.repository}", [])
        there = models_in(self._settings.repository)
        if not there:
            raise TritonStartError(f"there is no model in the repository {self._settings.repository}", [])
        self._settings = replace(
            self._settings,
            models=tuple(model for model in self._settings.models if model in there),
            canaries=tuple(model for model in self._settings.canaries if model in there),
        )
        if stale := shm.remove_stale():
            logger.info("removed %d shared-memory files of servers that are gone", len(stale))
        if left := remove_stale():
            logger.info("removed %d working directories of servers that are gone", len(left))
        try:
            await self._start_with_free_ports()
        except BaseException:
            await self.stop()
            raise
        assert self._client is not None
        self._configs = {model: await self._client.config(model) for model in self._canaries}
        logger.info("tritonserver is ready on %s after %.1f s", self.grpc_url, time.monotonic() - started)
        self._tasks = [asyncio.create_task(self._keep_alive())]
        self._tasks += [asyncio.create_task(canary.run()) for canary in self._canaries.values()]
        if self._settings.others:
            self._others = Others(
                self._client,
                self._settings.repository,
                self._settings.models,
                self._settings.canary_period_s,
                self._settings.others_timeout_s,
                self._count_reload,
                self._kill_model,
            )
        self._load_others()

    def _count_reload(self) -> None:
        self.reloads += 1

    def _kill_model(self, model: str) -> None:
        if self.pid is not None:
            kill_model(self.pid, model)

    def _load_others(self) -> None:
        if self._others is not None:
            self._loading = asyncio.create_task(self._others.run())

    async def _leave_others(self) -> None:
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)
            self._loading = None

    async def stop(self) -> None:
        """Drain and end the server; no process, port or shared memory of it is left. May be called twice."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await self._leave_others()
        if self._client is not None:
            await self._client.close()
            self._client = None
        if self._process is not None:
            await self._process.stop(self._settings.exit_timeout_s + _STOP_MARGIN_S)
            self._process = None

    async def _start_with_free_ports(self) -> None:
        for attempt in range(_BIND_ATTEMPTS):
            self._ports = self._pick(self._settings)
            self._connect()
            try:
                await self._launch()
                return
            except TritonStartError as error:
                taken = "".join(line for line in error.log_lines if "already in use" in line)
                fixed = (self._settings.grpc_port, self._settings.http_port, self._settings.metrics_port)
                if not taken or any(port and f":{port}'" in taken for port in fixed) or attempt == _BIND_ATTEMPTS - 1:
                    raise
                logger.info("a port was taken before tritonserver could bind it, trying others")
                assert self._client is not None
                await self._client.close()

    def _connect(self) -> None:
        self._client = TritonClient(self.grpc_url, admin=self.admin)
        self._canaries = {
            model: Canary(
                self._client,
                model,
                period_s=self._settings.canary_period_s,
                timeout_s=self._settings.canary_timeout_s,
                on_failure=partial(self._heal, model),
            )
            for model in self._settings.canaries
        }

    async def _launch(self) -> None:
        """Start one process and wait for its canaries."""
        self._launching = True
        self._launched_at = time.monotonic()
        held = self._held_versions()
        settings = replace(self._settings, models=()) if held else self._settings
        self._process = process = await TritonProcess.launch(find_binary(), settings, self.ports, self._secret)
        try:
            async with asyncio.timeout(self._settings.start_timeout_s):
                while process.running and process.listening is not False:
                    if held and process.listening and await self._load(held):
                        held = {}
                    states = [await canary.probe() for canary in self._canaries.values()]
                    answers = process.listening and all(state.ready for state in states)
                    # Triton says that its metrics listen before it binds them, so what they say is read
                    if answers and await self.exposition() and process.listening:
                        self._launching = False
                        return
                    await asyncio.sleep(_START_POLL_S)
        except TimeoutError:
            problem = f"did not answer within {self._settings.start_timeout_s:g} s"
        else:
            problem = "could not listen" if process.running else f"ended at start with status {await process.wait()}"
        await process.kill()
        raise TritonStartError(f"tritonserver {problem}", process.log_lines())

    def _held_versions(self) -> dict[str, str]:
        """Networks that a plain start would load newer files of than served last: tried by nobody, or refused."""
        held = {}
        for model in self._configs:
            version = self._client.version(model) if self._client is not None else None
            folders = [path.name for path in (self._settings.repository / model).iterdir() if path.name.isdecimal()]
            if version in folders and version != max(folders, key=int):
                held[model] = str(version)
        return held

    async def _load(self, held: dict[str, str]) -> bool:
        """Load every model, networks before the ensembles over them, these ones in these versions.

        Returns:
            False when the server does not listen yet after all.
        """
        assert self._client is not None
        for model in sorted(self._settings.models, key=lambda model: model not in self._canaries):
            config = only_versions(self._configs[model], held[model]) if model in held else None
            try:
                await self._client.load(model, config)
            except ModelUnavailable:
                return False
            except DepthlensError as error:
                logger.error("%s could not be loaded: %s", model, error.detail)
        return True

    async def _keep_alive(self) -> None:
        backoff_s = 0.0
        while True:
            assert self._process is not None
            status = await self._process.wait()
            await self._leave_others()
            await self._process.kill()
            backoff_s = next_backoff_s(backoff_s, time.monotonic() - self._launched_at, self._settings.max_backoff_s)
            logger.error("tritonserver ended with status %d, starting it again in %.1f s", status, backoff_s)
            await asyncio.sleep(backoff_s)
            self.restarts += 1
            try:
                await self._launch()
            except (BinaryMissingError, TritonStartError, OSError) as error:
                logger.error("%s", error)
            else:
                logger.info("tritonserver answers again after %.1f s", time.monotonic() - self._launched_at)
                self._load_others()

    async def _heal(self, model: str, error: DepthlensError) -> None:
        """What a failed probe asks for; nothing while a start is under way."""
        process, client = self._process, self._client
        if self._launching or client is None or process is None or not process.running:
            return
        if isinstance(error, DeadStub):
            logger.warning("the process of %s died, loading the model again", model)
            self._kill_model(model)  # Triton calls one that is only stopped dead, too, and would leave it there
            self._count_reload()
            try:
                await client.reload(model)
            except DepthlensError as failure:
                logger.error("%s could not be loaded again: %s", model, failure.detail)
        elif isinstance(error, DeadlineExceeded | ModelUnavailable):
            last_success = self._canaries[model].state.last_success or 0.0
            if time.monotonic() - max(last_success, self._launched_at) > self._settings.unhealthy_after_s:
                logger.error("%s has not answered for %g s", model, self._settings.unhealthy_after_s)
                await process.kill()  # `_keep_alive` starts it again
