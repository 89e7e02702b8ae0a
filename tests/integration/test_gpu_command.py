"""The command line of docker/compose.gpu.yaml on a real Triton, with our backend in the place of NVIDIA's."""

import importlib.util
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from embedded_triton import REPOSITORY, make_repository

from service.embedded.binary import find_binary
from service.embedded.process import Ports, pick_ports
from service.embedded.settings import EmbeddedSettings

pytestmark = pytest.mark.integration

DOCKER = Path(__file__).parents[2] / "docker"
ADMIN = "depthlens=a-secret"
READY_TIMEOUT_S = 60


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    """Of a server with the command of the file; only folders, ports and the probe's small wishes are this machine's."""
    folder = tmp_path_factory.mktemp("gpu")
    repository = make_repository(folder / "repository")
    # As an export without a file for this configuration: a line in the log, and the others are served.
    (repository / "depth_broken/1").mkdir(parents=True)
    config = (REPOSITORY / "focus_on_depth/config.pbtxt").read_text()
    (repository / "depth_broken/config.pbtxt").write_text(config.replace('"focus_on_depth"', '"depth_broken"'))
    binary = find_binary()
    binary.make_backend_directory(folder / "backends")
    chosen = pick_ports(EmbeddedSettings(repository))
    words = yaml.safe_load((DOCKER / "compose.gpu.yaml").read_text())["services"]["triton"]["command"]
    words = [
        word.replace("${DEPTHLENS_TRITON_ADMIN}", ADMIN).replace("${DEPTHLENS_TRITON_CONFIG:-torchscript}", "stand-in")
        for word in words
    ]
    assert words[0] == "tritonserver"
    command = [
        binary.server.as_posix(),
        *(word.replace("=/models", f"={repository}") for word in words[1:]),
        *(f"--backend-directory={folder / 'backends'}", "--allow-gpu-metrics=false"),
        *(f"--{name}-address=127.0.0.1" for name in ("http", "grpc", "metrics")),
        *(f"--http-port={chosen.http}", f"--grpc-port={chosen.grpc}", f"--metrics-port={chosen.metrics}"),
    ]
    log = folder / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=binary.environment(os.environ), cwd=folder
        )
        try:
            deadline = time.monotonic() + READY_TIMEOUT_S
            while "Started Metrics Service" not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            yield chosen
        finally:
            process.terminate()
            assert process.wait(40) == 0, log.read_text()


def status(ports: Ports, path: str, headers: dict[str, str] | None = None) -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{ports.http}{path}", method="POST", headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_model_control_needs_the_key(ports: Ports) -> None:
    assert status(ports, "/v2/repository/index") == 403
    assert status(ports, "/v2/repository/models/focus/unload") == 403
    assert status(ports, "/v2/repository/index", {"x-depthlens": "a-secret"}) == 200


def test_the_probe_is_answered(ports: Ports, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    spec = importlib.util.spec_from_file_location("triton_health", DOCKER / "triton_health.py")
    probe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(probe)
    monkeypatch.setattr(probe, "_PORT", ports.http)
    assert probe.main([]) == 0
    assert capsys.readouterr().out == "focus_on_depth: answers\n"
    assert probe.main(["focus_on_depth", "depth_broken"]) == 1
    assert "depth_broken: ValueError: 404" in capsys.readouterr().out
    monkeypatch.setattr(probe, "_PORT", 1)
    assert probe.main([]) == 1
