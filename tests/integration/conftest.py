"""One real Triton per session for the tests that do not break it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from embedded_triton import ServedTriton, admin_file, make_repository

from service.embedded.binary import find_binary
from service.embedded.process import Ports, pick_ports
from service.embedded.settings import EmbeddedSettings

READY_TIMEOUT_S = 60


@pytest.fixture(scope="session", autouse=True)
def _binary() -> None:
    """Skips only where the wheel is not installed at all; a wheel with a part missing is a failure."""
    if find_spec("pytriton") is None:
        pytest.skip("the extra `embedded` is not installed, so there is no tritonserver")
    find_binary()


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repository(tmp_path_factory.mktemp("repository"))


@pytest.fixture(scope="session")
def triton(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedTriton]:
    log = tmp_path_factory.mktemp("triton") / "log"
    ports = pick_ports(EmbeddedSettings(repository))
    with log.open("w") as out:
        process = start_embedded(repository, ports, out.fileno())
        try:
            deadline = time.monotonic() + READY_TIMEOUT_S
            while "is ready" not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            yield ServedTriton(ports, process.pid, repository)
        finally:
            process.terminate()
            assert process.wait(30) == 0, log.read_text()


def start_embedded(repository: Path, ports: Ports, out: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "service.embedded", "--repository", str(repository), "--exit-timeout-s", "5"),
            *("--grpc-port", str(ports.grpc), "--http-port", str(ports.http), "--metrics-port", str(ports.metrics)),
            *("--admin-file", str(admin_file(repository))),
        ],
        stdout=out,
        stderr=out,
        stdin=subprocess.DEVNULL,
        env=os.environ.copy(),
    )
