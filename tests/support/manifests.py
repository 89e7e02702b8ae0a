"""Manifests as `kubectl apply -k` would send them."""

import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
OVERLAYS = ("cpu", "gpu", "dev")

Manifest = dict
Manifests = list[Manifest]


@cache
def rendered(folder: str) -> Manifests:
    """The objects of `k8s/<folder>`; a warning of kustomize is a failure."""
    if shutil.which("kubectl") is not None:
        command = ["kubectl", "kustomize"]
    elif shutil.which("kustomize") is not None:
        command = ["kustomize", "build"]
    else:
        pytest.skip("neither kubectl nor kustomize is installed")
    done = subprocess.run([*command, str(K8S / folder)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return [document for document in yaml.safe_load_all(done.stdout) if document]
