"""The files under docker/, as far as they can be checked without an engine; compose-test does the rest."""

from pathlib import Path

import pytest
import yaml

from service.settings import Settings

DOCKER = Path(__file__).parents[2] / "docker"
DOCKERFILES = ("gateway.Dockerfile", "triton.Dockerfile")
FIXED_IN_CONTAINERS = {"host", "port", "triton_url"} | {"model_repository", "openvino_cache"}
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


def test_only_the_gateway_publishes_and_only_on_loopback(compose: dict) -> None:
    published = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert published == {"gateway": ["127.0.0.1:${PORT:-8080}:8080"]}
    assert compose["services"]["triton"]["networks"] == ["inference"]
    assert compose["networks"]["inference"] == {"internal": True}


@pytest.mark.parametrize("name", ["dependencies", "wheel"])
def test_both_images_are_built_alike(name: str) -> None:
    assert stage(DOCKERFILES[0], name) == stage(DOCKERFILES[1], name)


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_final_stage(dockerfile: str) -> None:
    text = (DOCKER / dockerfile).read_text()
    final = text[text.rindex("\nFROM ") :]
    assert "USER 10001:10001" in final
    assert "HEALTHCHECK" in final
    assert '\nCMD ["' in final
    assert "pip install" not in final
    assert "# syntax=" not in text  # it would fetch a front end from a registry at every build
