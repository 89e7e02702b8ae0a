"""One launch of tritonserver: its command line, its log, its end."""

import asyncio
import fcntl
import logging
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from service.embedded import shm
from service.embedded.amendments import keep_temporary_folder, survive_cancellations
from service.embedded.binary import TritonBinary
from service.embedded.settings import EmbeddedSettings
from service.tracing import traces_url
from service.triton_admin import ADMIN_NAME

logger = logging.getLogger("depthlens.triton")

_RESTRICTED = "model-repository,shared-memory,trace,logging"
_GUARD = Path(__file__).with_name("guard.py")
_OPENVINO_CACHE_VARIABLE = "DEPTHLENS_OPENVINO_CACHE"  # read by backends/openvino/model.py
_LOG_LINE = re.compile(r"^([EWIV])\d{4} [\d:.]+ \d+ (\S+?:\d+)\] \"?(.*?)\"?$")
_LEVELS = {"E": logging.ERROR, "W": logging.WARNING, "I": logging.DEBUG, "V": logging.DEBUG}
_NORMAL_WITHOUT_GPU = ("CudaDriverHelper", "CUDA driver version", "pinned system memory", "no pinned memory pool")
_KEPT_LINES = 200
_LAST_LISTENER = "Started Metrics Service"
_NO_LISTENER = "failed to start"
_STUB = "triton_python_backend_stub"  # a model's own process


@dataclass(frozen=True, slots=True)
class Ports:
    """The three listeners of a server."""

    grpc: int
    http: int
    metrics: int


def pick_ports(settings: EmbeddedSettings) -> Ports:
    """The settings' ports, those that are 0 replaced by ones that are free now, all different.

    Somebody can take one before Triton binds it; the start then fails with `in use` in its log.
    """
    with_sockets = [socket.socket() for _ in range(3)]
    try:
        free = []
        for candidate in with_sockets:
            candidate.bind((settings.host, 0))
            free.append(candidate.getsockname()[1])
    finally:
        for candidate in with_sockets:
            candidate.close()
    wanted = (settings.grpc_port, settings.http_port, settings.metrics_port)
    return Ports(*(port or free[index] for index, port in enumerate(wanted)))


class TritonProcess:
    """A running tritonserver under its guard; made by `launch`.

    Attributes:
        listening: True once Triton says that all three listeners are open, False when one could not be, None before.
            They open one after the other, so a server that answers over gRPC may still end because its HTTP port is
            taken; and of the metrics it says so some milliseconds before it binds them.
    """

    def __init__(self, guard: asyncio.subprocess.Process, prefix: str, directory: Path) -> None:
        self._guard = guard
        self._prefix = prefix
        self._directory = directory
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._log = asyncio.create_task(self._forward_log())
        self.listening: bool | None = None

    @classmethod
    async def launch(
        cls, binary: TritonBinary, settings: EmbeddedSettings, ports: Ports, admin_secret: str
    ) -> "TritonProcess":
        """Start the server; it is not ready yet.

        Raises:
            OSError: no room for the working directory or the shared memory.
        """
        environment = binary.environment(os.environ)
        if settings.cache is not None and _writable(settings.cache):
            environment[_OPENVINO_CACHE_VARIABLE] = settings.cache.as_posix()
        prefix, lock = shm.claim_prefix()
        directory = Path(tempfile.gettempdir(), prefix.rstrip("_"))
        held: list[int] = [lock]
        try:
            directory.mkdir(mode=0o700)
            held.append(_lock_directory(directory))
            binary.make_backend_directory(directory / "backends")
            if settings.working_directory is None:
                keep_temporary_folder(directory / "backends")
            server = await asyncio.to_thread(survive_cancellations, binary.server, directory / "tritonserver")
            working_directory = settings.working_directory or directory / "empty"
            working_directory.mkdir(exist_ok=True)
            guard = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", _GUARD.as_posix()),
                *("--exit-timeout-s", str(settings.exit_timeout_s), "--lock-fd", str(lock)),
                *("--shm-prefix", (shm.DIRECTORY / prefix).as_posix(), "--work-directory", directory.as_posix(), "--"),
                *_command(server, settings, ports, admin_secret, prefix, directory / "backends"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                cwd=working_directory,
                env=environment,
                pass_fds=held,
                start_new_session=True,  # a terminal's Ctrl-C reaches the supervisor alone, which drains first
            )
        except BaseException:
            _remove(prefix, directory)
            raise
        finally:
            for descriptor in held:
                os.close(descriptor)
        return cls(guard, prefix, directory)

    @property
    def pid(self) -> int:
        """Process number of the guard, which is also the session of every process of this launch."""
        return self._guard.pid

    @property
    def running(self) -> bool:
        """Whether the launch has not ended yet."""
        return self._guard.returncode is None

    def log_lines(self) -> list[str]:
        """The last lines the server wrote, those about errors alone when there are any."""
        lines = [line for line in self._lines if not any(text in line for text in _NORMAL_WITHOUT_GPU)]
        return [line for line in lines if line.startswith("E") or "error" in line.lower()] or lines

    async def wait(self) -> int:
        """Until the launch ended; returns the exit status."""
        status = await self._guard.wait()
        await asyncio.wait([self._log], timeout=1.0)
        return status

    async def stop(self, timeout_s: float) -> None:
        """End the server after its requests in flight, everything of it after `timeout_s`; leaves nothing behind."""
        if self.running:
            self._signal_guard(signal.SIGTERM)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._guard.wait(), timeout_s)
        await self.kill()

    async def kill(self) -> None:
        """End every process of this launch at once and remove what they left."""
        for _ in range(100):
            members = session_members(self.pid)
            if not members and not self.running:
                break
            for pid in members:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0.05)
        await self._guard.wait()
        await asyncio.wait([self._log], timeout=1.0)  # its last lines; the pipe closes with its last writer
        self._log.cancel()
        _remove(self._prefix, self._directory)

    def _signal_guard(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self._guard.send_signal(number)

    async def _forward_log(self) -> None:
        assert self._guard.stdout is not None
        level = logging.DEBUG
        while True:
            try:
                raw = await self._guard.stdout.readline()
            except ValueError:  # a line beyond the reader's limit
                continue
            if not raw:
                return
            line = raw.decode(errors="replace").rstrip()
            self._lines.append(line)
            if _LAST_LISTENER in line:
                self.listening = True
            elif _NO_LISTENER in line:
                self.listening = False
            match = _LOG_LINE.match(line)
            if match:
                level = logging.DEBUG if any(text in line for text in _NORMAL_WITHOUT_GPU) else _LEVELS[match[1]]
                logger.log(level, "%s (%s)", match[3], match[2])
            elif line:
                logger.log(level, "%s", line)


def session_members(session: int) -> list[int]:
    """Process numbers of a session, ended but unreaped ones left out.

    A killed process of several threads can look ended (Z) while its last thread still frees memory; until that one is
    gone too, its files and their locks are held, and it counts as a member.
    """
    members = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # pid (name) state ppid pgrp session ... threads (the 20th); the name may hold anything, brackets too
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            state, owner, threads = fields[0], int(fields[3]), int(fields[17])
        except (OSError, ValueError, IndexError):
            continue
        if owner == session and (state != "Z" or threads > 1):
            members.append(int(entry.name))
    return members


def kill_model(session: int, model: str) -> None:
    """Kill what processes one model has in a session."""
    for pid in session_members(session):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
            if _STUB in words[0] and any(re.search(rf"/{re.escape(model)}/\d+/", word) for word in words[1:]):
                os.kill(pid, signal.SIGKILL)
        except OSError:
            continue  # it has ended


def remove_stale() -> list[str]:
    """Remove the working directories of launches of which nothing lives any more; returns their names.

    A machine that stopped, or a kill -9 of everything at once, leaves them. One whose lock is still in `/dev/shm` is in
    use, or just being made; one that is locked itself belongs to a container that shares this folder and no more.
    """
    removed = []
    for directory in Path(tempfile.gettempdir()).glob(f"depthlens-{'[0-9a-f]' * 8}"):
        if (shm.DIRECTORY / f"{directory.name}_lock").exists():
            continue
        try:
            descriptor = _lock_directory(directory)
        except OSError:
            continue
        shutil.rmtree(directory, ignore_errors=True)
        os.close(descriptor)
        removed.append(directory.name)
    return removed


def _lock_directory(directory: Path) -> int:
    """A descriptor that holds the directory's lock; raises OSError when another has it, or it is none of ours."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_uid != os.getuid():
            raise PermissionError(f"{directory} is somebody else's")
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _remove(prefix: str, directory: Path) -> None:
    shm.remove(prefix)
    shutil.rmtree(directory, ignore_errors=True)


def _writable(directory: Path) -> bool:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(directory, os.W_OK | os.X_OK)


def _command(
    server: Path,
    settings: EmbeddedSettings,
    ports: Ports,
    admin_secret: str,
    prefix: str,
    backend_directory: Path,
) -> list[str]:
    return [
        server.as_posix(),
        f"--model-repository={settings.repository.resolve()}",
        f"--backend-directory={backend_directory}",
        # Explicit: loading is the supervisor's, and only unload and load replace a model's dead process.
        "--model-control-mode=explicit",
        *(f"--load-model={model}" for model in settings.models),
        "--disable-auto-complete-config",  # the committed configs are complete; guesses would hide a mistake
        "--strict-readiness=true",
        f"--exit-timeout-secs={settings.exit_timeout_s}",
        f"--http-address={settings.host}",
        f"--http-port={ports.http}",
        f"--grpc-address={settings.host}",
        f"--grpc-port={ports.grpc}",
        f"--metrics-address={settings.host}",
        f"--metrics-port={ports.metrics}",
        f"--grpc-restricted-protocol={_RESTRICTED}:{ADMIN_NAME}={admin_secret}",
        f"--http-restricted-api={_RESTRICTED}:x-{ADMIN_NAME}={admin_secret}",
        f"--backend-config=python,shm-region-prefix-name={prefix}",
        f"--backend-config=python,shm-default-byte-size={settings.shm_bytes}",
        "--allow-gpu-metrics=false",
        "--pinned-memory-pool-byte-size=0",
        f"--log-verbose={settings.log_verbose}",
        *(_tracing(settings.otlp_endpoint) if settings.otlp_endpoint else ()),
    ]


def _tracing(endpoint: str) -> list[str]:
    """Spans of those requests whose caller keeps a trace, and of no others: canaries and health would drown them."""
    return [
        "--trace-config=mode=opentelemetry",
        f"--trace-config=opentelemetry,url={traces_url(endpoint)}",
        "--trace-config=opentelemetry,resource=service.name=depthlens-triton",
        "--trace-config=opentelemetry,bsp_schedule_delay=1000",  # milliseconds; spans come as late as this
        "--trace-config=level=TIMESTAMPS",
        # One of so many without a `traceparent`; those with one are traced whatever stands here.
        f"--trace-config=rate={2**31 - 1}",
    ]
