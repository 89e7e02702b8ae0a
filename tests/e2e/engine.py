"""A Docker engine for the compose test: the one that runs, else one that a helper beside the checkout starts."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HELPER = ROOT.parent / "shared/tools/container-engine"
"""Optional: `start`, `env` and `stop` of an engine for a machine that has none."""

_PROBE_TIMEOUT_S = 20
_START_TIMEOUT_S = 600


class Skip(Exception):
    """This machine cannot run containers; the message says why."""


class CommandError(RuntimeError):
    """A command failed or ran past its time; the message holds the end of its output."""


def run(*command: str, timeout_s: float, env: dict[str, str] | None = None) -> str:
    """What `command` printed on both streams.

    It runs in a session of its own, all of which ends at the timeout: nothing that it started outlives this call.

    Raises:
        CommandError: exit status other than 0, or more than `timeout_s`.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=env, start_new_session=True
        )
        try:
            status: int | None = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        output.seek(0)
        text = output.read()
    if status != 0:
        how = f"did not end within {timeout_s:g} s" if status is None else f"ended with status {status}"
        raise CommandError(f"`{' '.join(command)[:300]}` {how}:\n{text[-6000:]}")
    return text


@contextmanager
def engine() -> Iterator[dict[str, str]]:
    """The environment in which `docker` reaches an engine; one that was started here is stopped at the end.

    Raises:
        Skip: there is none and none can be started.
        CommandError: the helper is there and failed.
    """
    environment = dict(os.environ)
    if _answers(environment):
        yield environment
        return
    if not HELPER.exists():
        raise Skip("no Docker engine answers `docker info`, and no helper script beside the checkout can start one")
    environment |= _helper_environment()
    if _answers(environment):
        yield environment
        return
    if os.geteuid() != 0:
        raise Skip("no Docker engine answers `docker info`, and starting one needs root")
    try:
        run(str(HELPER), "start", timeout_s=_START_TIMEOUT_S)
        yield environment
    finally:
        run(str(HELPER), "stop", timeout_s=120)


def compose_command(environment: dict[str, str]) -> tuple[str, ...]:
    """`docker compose`, or `docker-compose` where the plugin is missing.

    Raises:
        Skip: neither is installed.
    """
    for command in (("docker", "compose"), ("docker-compose",)):
        if shutil.which(command[0]) is None:
            continue
        with suppress(CommandError):
            run(*command, "version", timeout_s=_PROBE_TIMEOUT_S, env=environment)
            return command
    raise Skip("neither `docker compose` nor `docker-compose` is installed")


def _answers(environment: dict[str, str]) -> bool:
    if shutil.which("docker") is None:
        return False
    try:
        run("docker", "info", timeout_s=_PROBE_TIMEOUT_S, env=environment)
    except CommandError:
        return False
    return True


def _helper_environment() -> dict[str, str]:
    """What `HELPER env` exports, as `export NAME=VALUE ...` lines."""
    words = run(str(HELPER), "env", timeout_s=_PROBE_TIMEOUT_S).split()
    return dict(word.split("=", 1) for word in words if "=" in word)
