"""The files under docker/, as far as they can be checked without an engine; compose-test does the rest."""

import importlib.util
from pathlib import Path

import pytest
import yaml

from service.contract import CANARY_SIZE, MODELS
from service.settings import Settings

DOCKER = Path(__file__).parents[2] / "docker"
DOCKERFILES = ("gateway.Dockerfile", "triton.Dockerfile")
FIXED_IN_CONTAINERS = {"host", "port", "triton_url", "triton_admin_file"} | {"model_repository", "openvino_cache"}
"""Where the gateway listens and finds Triton, and what only an embedded server reads."""


@pytest.fixture(scope="module")
def compose() -> dict:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


def stage(dockerfile: str, name: str) -> str:
    text = (DOCKER / dockerfile).read_text()
    return text.split(f" AS {name}\n")[1].split("\nFROM ")[0]


def test_compose_hands_every_other_setting_through(compose: dict) -> None:
    environment = compose["services"]["gateway"]["environment"]
    through = {name for name, value in environment.items() if value is None}
    assert through == {f"DEPTHLENS_{name.upper()}" for name in set(Settings.model_fields) - FIXED_IN_CONTAINERS}


def test_services_are_confined(compose: dict) -> None:
    for service in compose["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert {"mem_limit", "pids_limit", "tmpfs", "stop_grace_period"} <= service.keys()


def test_what_is_published_is_on_loopback(compose: dict) -> None:
    published = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert published == {
        "gateway": ["127.0.0.1:${PORT:-8080}:8080"],
        "prometheus": ["127.0.0.1:${PROMETHEUS_PORT:-9090}:9090"],
        "grafana": ["127.0.0.1:${GRAFANA_PORT:-3000}:3000"],
    }
    assert compose["services"]["triton"]["networks"] == ["inference"]
    assert compose["networks"]["inference"] == {"internal": True}


def test_plain_up_needs_no_image_of_others(compose: dict) -> None:
    built = {name for name, service in compose["services"].items() if "build" in service}
    assert {name for name, service in compose["services"].items() if "profiles" not in service} == built
    assert all(
        service["profiles"] == ["monitoring"] for name, service in compose["services"].items() if name not in built
    )


def test_monitoring_mounts_what_is_there(compose: dict) -> None:
    for name in ("prometheus", "grafana"):
        sources = [volume.split(":")[0] for volume in compose["services"][name]["volumes"]]
        for source in (source for source in sources if source.startswith(".")):
            assert (DOCKER / source).exists(), source
        assert set(sources) - set(compose["volumes"]) == {source for source in sources if source.startswith(".")}


def test_the_gpu_file_changes_triton_alone(compose: dict) -> None:
    over = yaml.safe_load((DOCKER / "compose.gpu.yaml").read_text())["services"]
    assert over["gateway"].keys() == {"environment"}
    assert over["triton"].keys() <= {
        "image",
        "build",
        "command",
        "deploy",
        "shm_size",
        "mem_limit",
        "pids_limit",
    }  # what confines it stays
    command = over["triton"]["command"]
    assert "--model-control-mode=explicit" in command
    assert "--model-config-name=${DEPTHLENS_TRITON_CONFIG:-torchscript}" in command


def test_the_probe_knows_the_contract() -> None:
    spec = importlib.util.spec_from_file_location("triton_health", DOCKER / "triton_health.py")
    probe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(probe)
    assert set(probe.NETWORKS) == {name for name, spec in MODELS.items() if spec.kind == "network"}
    assert probe.CANARY_SIZE == CANARY_SIZE


@pytest.mark.parametrize("name", ["dependencies", "wheel"])
def test_both_images_are_built_alike(name: str) -> None:
    assert stage(DOCKERFILES[0], name) == stage(DOCKERFILES[1], name)


@pytest.mark.parametrize("dockerfile", [path.name for path in DOCKER.glob("*.Dockerfile")])
def test_final_stage(dockerfile: str) -> None:
    text = (DOCKER / dockerfile).read_text()
    final = text[text.rindex("\nFROM ") :]
    assert "USER 10001:10001" in final
    assert "HEALTHCHECK" in final
    assert '\nCMD ["' in final
    assert "pip install" not in final
    assert "# syntax=" not in text  # it would fetch a front end from a registry at every build
