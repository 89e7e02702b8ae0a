"""The command line of docker/compose.gpu.yaml on a real Triton, with our backend in the place of NVIDIA's."""

import importlib.util
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import tritonclient.grpc as tritongrpc
import yaml
from embedded_triton import REPOSITORY, expected_outputs, make_repository, noise

from service.contract import IMAGE, INVERSE_DEPTH, PERSON
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
    add_package(repository)
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


def add_package(repository: Path) -> None:
    """`depth_compiled` as `export --target aoti` leaves it, but for an ONNX file in the place of the package."""
    serving = pytest.importorskip("training.serving", reason="the extra `training` is not installed: it writes configs")
    sizes = ((64, 96), (96, 64))
    spec = serving.spec_for("depth_compiled", (IMAGE,), (INVERSE_DEPTH, PERSON), sizes, (64, 64), serving.Traits())
    package = replace(spec, name="depth_compiled_pt2")
    text = serving.aoti_config(package, "cpu")
    text = text.replace('platform: "torch_aoti"', 'backend: "openvino"').replace("model.pt2", "model.onnx")
    text = "\n".join(line for line in text.splitlines() if "ENABLE_WEIGHT_SHARING" not in line)
    for name, config in ((spec.name, serving.one_step_config(spec, package.name)), (package.name, text)):
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "configs").mkdir()
        (repository / name / "configs" / "stand-in.pbtxt").write_text(config)
    model = onnx.load(repository / "focus_on_depth" / "1" / "model.onnx")
    names = {"image": "INPUT__0", "inverse_depth": "OUTPUT__0", "person": "OUTPUT__1"}
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in (*model.graph.input, *model.graph.output):
        value.name = names[value.name]
    onnx.save(model, repository / package.name / "1" / "model.onnx")


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


def test_a_package_is_served_under_the_contract_s_names(ports: Ports) -> None:
    image = noise((64, 96))
    given = tritongrpc.InferInput("image", (1, 64, 96, 3), "UINT8")
    given.set_data_from_numpy(image[None])
    with tritongrpc.InferenceServerClient(f"127.0.0.1:{ports.grpc}") as client:
        answer = client.infer("depth_compiled", [given], client_timeout=20)
    for name, wanted in expected_outputs(image).items():
        np.testing.assert_allclose(answer.as_numpy(name)[0], wanted, atol=1e-2)  # OpenVINO may count in bfloat16
