"""Overlays, rendered."""

import pytest
from manifests import OVERLAYS, Manifests, rendered


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> Manifests:
    return rendered(f"overlays/{request.param}")


@pytest.fixture
def cpu() -> Manifests:
    return rendered("overlays/cpu")


@pytest.fixture
def gpu() -> Manifests:
    return rendered("overlays/gpu")
