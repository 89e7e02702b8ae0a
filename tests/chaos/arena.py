"""Where a row runs: real gateways and real Tritons on the loopback, ended and removed when the row is over."""

import asyncio
import inspect
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from prometheus_client.parser import text_string_to_metric_families

from service.embedded.process import Ports, pick_ports
from service.embedded.settings import EmbeddedSettings
from tests.support.embedded_triton import make_repository

from .fault import Unmet
from .process import Process
from .puppet import Puppet
from .wire import Answer, Wire

START_TIMEOUT_S = 60.0
_POLL_S = 0.01
_LOG_LINES = 25


class Gateway(Process):
    """A `depthlens serve`."""

    def __init__(self, arena: "Arena", command: Sequence[str], environment: Mapping[str, str]) -> None:
        number = len(arena.processes)
        log = arena.directory / f"gateway-{number}.log"
        super().__init__(command, log=log, directory=arena.directory, environment=environment)
        self._arena = arena
        self._port: int | None = None

    @property
    def port(self) -> int:
        """Where it listens; Unmet while it does not."""
        if self._port is None:
            ports = self.listening_ports() if self.status is None else set()
            if not ports:
                raise Unmet("the gateway does not listen")
            self._port = min(ports)
        return self._port

    async def connect(self, *, kept: bool = True) -> Wire:
        """A connection of its own, closed at the end of the run; not `kept`, the caller closes it."""
        wire = await Wire.open(self.port, self._arena.record)
        if kept:
            self._arena.wires.append(wire)
        return wire

    async def ask(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        timeout_s: float = 30.0,
    ) -> Answer:
        """One request on a new connection, and its answer; Unmet when there is none."""
        wire = await Wire.open(self.port, self._arena.record)
        start = time.monotonic()
        try:
            answer = await wire.ask(method, target, body, headers, timeout_s=timeout_s)
            return Answer(answer.status, answer.headers, answer.body, time.monotonic() - start)
        finally:
            await wire.close()

    async def metric(self, name: str, **labels: str) -> float:
        """A sample of `/metrics`, summed over the labels not given; 0 when there is none."""
        return total(await self.metrics(), name, **labels)

    async def metrics(self) -> str:
        """The text of `/metrics`."""
        return (await self.ask("GET", "/metrics")).body.decode()

    async def ready(self, within_s: float = START_TIMEOUT_S) -> float:
        """Seconds until `/health/ready` answers 200; Unmet when it does not."""

        async def answers() -> bool:
            if self.status is not None:
                raise Unmet(f"the gateway ended with {self.status}")
            try:
                return (await self.ask("GET", "/health/ready", timeout_s=2.0)).status == 200
            except Unmet:
                return False

        return await until(answers, within_s, "ready")


def python_m(module: str, control: str | None) -> list[str]:
    """Command that runs this module; in a negative control, without the row's protection."""
    without = [] if control is None else ["tests.chaos.unprotected", control]
    return [sys.executable, "-m", *without, module]


class Triton(Process):
    """A real Triton under its supervisor, `python -m service.embedded`, on ports that stay the same."""

    def __init__(
        self,
        directory: Path,
        repository: Path,
        ports: Ports | None = None,
        models: Sequence[str] = (),
        under: Sequence[str] = (),
        control: str | None = None,
        log_verbose: int = 0,
    ) -> None:
        self.repository = repository
        self.ports = ports or pick_ports(EmbeddedSettings(repository))
        directory.mkdir(parents=True, exist_ok=True)
        command = [
            *under,
            *python_m("service.embedded", control),
            *("--repository", str(repository), "--exit-timeout-s", "3", "--log-verbose", str(log_verbose)),
            *("--grpc-port", str(self.ports.grpc), "--http-port", str(self.ports.http)),
            *("--metrics-port", str(self.ports.metrics)),
            *(part for model in models for part in ("--model", model)),
        ]
        super().__init__(command, log=directory / f"triton-{self.ports.grpc}.log", directory=directory)
        self.puppet: Puppet | None = None

    @property
    def url(self) -> str:
        """`host:port` of its gRPC endpoint."""
        return f"127.0.0.1:{self.ports.grpc}"

    async def ready(self, within_s: float = START_TIMEOUT_S) -> float:
        """Seconds until every model answers."""

        def answers() -> bool:
            if self.status is not None:
                raise RuntimeError(f"Triton ended with {self.status}: {self.text()[-2000:]}")
            return "is ready" in self.text()

        return await until(answers, within_s, "a Triton that is ready")


class Stage:
    """What the rows of one matrix share: a directory, a Triton of tiny networks, one of a puppet, the errors seen.

    Args:
        directory: for logs and repositories, new and empty; by default a temporary one.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or Path(tempfile.mkdtemp(prefix="depthlens-chaos-"))
        self.errors: dict[tuple[int, bytes], Answer] = {}
        self.repository = make_repository(self.directory / "tiny")
        self._shared: dict[str, Triton] = {}
        self._runs = 0

    def arena(self, control: str | None, relaxed: float) -> "Arena":
        """A new place for one run of a row."""
        self._runs += 1
        return Arena(self, self.directory / f"run-{self._runs}", control, relaxed)

    async def shared(self, kind: str) -> Triton:
        """The Triton of this kind (`tiny`, `puppet`), started when it is not running."""
        triton = self._shared.get(kind)
        if triton is None or triton.status is not None:
            puppet = Puppet.make(Path(tempfile.mkdtemp(dir=self.directory)) / kind) if kind == "puppet" else None
            triton = Triton(self.directory / "shared", puppet.repository if puppet else self.repository)
            triton.puppet = puppet
            self._shared[kind] = triton
            await triton.ready()
        return triton

    def close(self) -> None:
        """End the shared servers and remove the directory."""
        for triton in self._shared.values():
            triton.end()
        shutil.rmtree(self.directory, ignore_errors=True)


class Arena:
    """One run of one row; a context manager that ends everything the row has started.

    Attributes:
        directory: of this run alone.
        control: the protection that gateways lack, None when they lack none.
        errors: every kind of error seen in this run.
        processes: everything started so far.
        stage: what the rows share.
    """

    def __init__(self, stage: Stage, directory: Path, control: str | None, relaxed: float) -> None:
        self.stage = stage
        self.errors: dict[tuple[int, bytes], Answer] = {}
        self.directory = directory
        self.control = control
        self.processes: list[Process] = []
        self.wires: list[Wire] = []
        self._relaxed = relaxed
        directory.mkdir()

    async def __aenter__(self) -> "Arena":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for wire in self.wires:
            await wire.close()
        for process in reversed(self.processes):
            await asyncio.to_thread(process.end, 3.0)
        shutil.rmtree(self.directory, ignore_errors=True)

    def limit(self, seconds: float) -> float:
        """A limit on the clock as the fault list has it, ten times as long where pytest runs the row."""
        return seconds * self._relaxed

    def record(self, answer: Answer) -> None:
        """Keep errors, each kind once: a row of its own looks for secrets in all of them."""
        if answer.status >= 400:
            detail = re.search(rb'"detail":"[^"]{0,100}', answer.body)
            kind = answer.status, re.sub(rb"\d", b"", detail[0] if detail else answer.body[:100])
            self.errors.setdefault(kind, answer)
            if self.control is None:
                self.stage.errors.setdefault(kind, answer)

    def own_shm(self, size: str = "1g", more: str = "true") -> list[str]:
        """Command under which a process has an empty `/dev/shm` of its own, where this user may arrange that.

        It is seen from outside as `/proc/<pid>/root/dev/shm`.

        Args:
            size: of the file system, as mount has it.
            more: shell commands to run there before.
        """
        if os.geteuid() != 0:
            return []
        mount = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && {more} && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", mount, "sh"]

    def logs(self) -> str:
        """The last lines of every process of this run, answered requests left out."""
        said = []
        for process in self.processes:
            lines = [line for line in process.text().splitlines() if " INFO    depthlens.access: " not in line]
            said += [f"--- {process.log.name} (status {process.status})", *lines[-_LOG_LINES:]]
        return "\n".join(said)

    async def gateway(
        self,
        triton: Triton | Sequence[Triton] | str | None = None,
        *,
        embedded: bool = False,
        ready: bool = True,
        port: int = 0,
        under: Sequence[str] = (),
        **settings: object,
    ) -> Gateway:
        """Start a real `depthlens serve` on a free port; in a negative control, without the row's protection.

        Args:
            triton: where inferences go, also several or an address; by default the shared one with tiny networks.
            embedded: let the gateway run its own Triton instead.
            ready: wait until it is ready; otherwise only until it listens.
            port: where it listens; by default a free one.
            under: command that runs it: `["unshare", "-m", ...]`.
            settings: fields of `Settings`.
        """
        environment = {f"DEPTHLENS_{name.upper()}": str(value) for name, value in settings.items()}
        if embedded:
            environment.setdefault("DEPTHLENS_MODEL_REPOSITORY", str(self.stage.repository))
        else:
            several = [triton or await self.triton()] if triton is None or isinstance(triton, Triton | str) else triton
            environment["DEPTHLENS_TRITON_URL"] = ",".join(t if isinstance(t, str) else t.url for t in several)
        command = [*under, *python_m("service", self.control), "serve", "--port", str(port)]
        gateway = Gateway(self, command, environment)
        self.processes.append(gateway)

        def listens() -> bool:
            if gateway.status is not None:
                raise RuntimeError(f"the gateway ended with {gateway.status}: {gateway.text()[-2000:]}")
            return bool(gateway.listening_ports())

        await until(listens, START_TIMEOUT_S, "a gateway that listens")
        if ready:
            await gateway.ready()
        return gateway

    async def triton(
        self,
        *,
        own: bool = False,
        ports: Ports | None = None,
        repository: Path | None = None,
        ready: bool = True,
        under: Sequence[str] = (),
        control: str | None = None,
        log_verbose: int = 0,
    ) -> Triton:
        """A Triton with tiny networks: the shared one, or an `own` one that the row may harm.

        Args:
            own: start one for this run.
            ports: where an own one listens, to start it again where another was.
            repository: what an own one serves.
            ready: wait for it.
            under: command that runs an own one.
            control: the protection that an own one lacks.
            log_verbose: of an own one.
        """
        if not own:
            return await self.stage.shared("tiny")
        directory = self.directory / f"triton-{len(self.processes)}"
        triton = Triton(directory, repository or self.stage.repository, ports, (), under, control, log_verbose)
        self.processes.append(triton)
        if ready:
            await triton.ready()
        return triton

    async def puppet(self, *, own: bool = False, instances: int = 1) -> tuple[Triton, Puppet]:
        """A Triton whose model does as told, idle and without notes: the shared one, or one of this run.

        Args:
            own: start one for this run.
            instances: how many images an own one works on at once.
        """
        if own:
            puppet = Puppet.make(self.directory / f"puppet-{len(self.processes)}", instances)
            triton = await self.triton(own=True, repository=puppet.repository)
            triton.puppet = puppet
        else:
            triton = await self.stage.shared("puppet")
            assert triton.puppet
            puppet = triton.puppet
            puppet.reset()
        return triton, puppet


async def until(condition: Callable[[], bool | Awaitable[bool]], within_s: float, what: str) -> float:
    """Seconds until the condition holds; Unmet, "no <what> within ... s", when it does not."""
    start = time.monotonic()
    while True:
        holds = condition()
        if inspect.isawaitable(holds):
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s + 1.0):
                    holds = await holds
        if holds is True:
            return time.monotonic() - start
        if time.monotonic() - start > within_s:
            raise Unmet(f"not within {within_s:g} s: {what}")
        await asyncio.sleep(_POLL_S)


def total(metrics: str, name: str, **labels: str) -> float:
    """Sum of the samples of `name` in a Prometheus text that carry these labels."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )
