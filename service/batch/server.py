"""The service that a job asks: one that runs, or one started for the job and stopped after it."""

import asyncio
import ctypes
import os
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Final

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.client import AsyncClient, ClientError, ConnectionFailed, UnexpectedAnswer

_READY: Final = re.compile(rb"Depthlens is ready: (http://\S+)")
_STOP_TIMEOUT_S: Final = 40.0  # longer than the gateway's own: 20 s for requests, 10 s and a margin for Triton
_PR_SET_PDEATHSIG: Final = 1
_OF_A_SHARED_SERVICE: Final = ("API_KEY_HASHES", "ADMIN_KEY_HASHES", "RATE_LIMIT_PER_S", "DRAIN_S", "HOST", "PORT")
"""Settings that make no sense for a service with one user, on this machine."""


class NoService(Exception):
    """There is none; one line."""


class JobSettings(BaseSettings):
    """Where the service is, and the key that it wants."""

    model_config = SettingsConfigDict(env_prefix="DEPTHLENS_", extra="ignore", frozen=True)

    gateway_url: str | None = Field(None, pattern="^https?://")
    api_key: SecretStr = SecretStr("")


@asynccontextmanager
async def service_at(url: str | None) -> AsyncIterator[str]:
    """The address of the service: the one given, once it has answered, or that of one that runs meanwhile.

    Raises:
        NoService: nobody answers there, or none can be started.
    """
    if url is not None:
        await _greet(url)
        yield url
        return
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "service", "serve", "--host", "127.0.0.1", "--port", "0"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env=_environment(os.environ),
            start_new_session=True,  # Ctrl-C is this process's: the requests end first, then their service
            preexec_fn=_end_with_parent(os.getpid()),
        )
        try:
            yield await _address(process, log)
        finally:
            await asyncio.shield(_stop(process))


async def _greet(url: str) -> None:
    client = AsyncClient(url, timeout_s=10, retries=0)
    try:
        await client.ready()
    except (ConnectionFailed, UnexpectedAnswer) as error:
        raise NoService(f"no service at {url}: {error}") from error
    except ClientError:
        pass  # it is there, and not ready yet: each photo waits for that within its own time
    finally:
        await client.close()


def _environment(given: Mapping[str, str]) -> dict[str, str]:
    """That of the job, with a model repository that does not depend on where the job is started."""
    kept = {
        name: value for name, value in given.items() if name not in {f"DEPTHLENS_{s}" for s in _OF_A_SHARED_SERVICE}
    }
    beside = Path(__file__).parents[2] / "model_repository"
    if "DEPTHLENS_MODEL_REPOSITORY" not in kept and not Path("model_repository").is_dir() and beside.is_dir():
        kept["DEPTHLENS_MODEL_REPOSITORY"] = str(beside)
    return kept


def _end_with_parent(parent: int) -> Callable[[], None]:
    def arrange() -> None:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return arrange


async def _address(process: asyncio.subprocess.Process, log: IO[bytes]) -> str:
    assert process.stdout is not None
    async for line in process.stdout:
        if found := _READY.search(line):
            return found[1].decode()
    await process.wait()
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines() or ["it ended without a word"]
    raise NoService(f"the embedded service did not start: {lines[-1].removeprefix('depthlens: ')}")


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
