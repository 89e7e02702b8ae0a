"""The import rules of CONTRIBUTING.md, checked on the syntax trees and in a fresh interpreter."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# who -> what it must never import (a prefix of a dotted name)
FORBIDDEN = {
    "service": ("torch", "training", "onnx", "timm"),
    "service/contract.py": ("numpy", "cv2", "service", "fastapi", "tritonclient"),
    "service/imaging": ("fastapi", "starlette", "tritonclient", "pydantic"),
    "service/routes": ("tritonclient", "openvino"),
    "service/client": ("fastapi", "starlette", "tritonclient", "pydantic", "uvicorn"),
    "service/batch": ("fastapi", "starlette", "tritonclient", "uvicorn"),
    "service/embedded": ("fastapi", "starlette", "uvicorn"),
    "training": ("fastapi", "starlette", "tritonclient", "uvicorn"),
    "training/models": ("training.data", "training.trainer", "training.config"),
    "training/losses.py": ("training.data", "training.trainer", "training.config"),
    "training/metrics.py": ("training.data", "training.trainer", "training.config"),
    "training/metric_depth.py": ("training.data", "training.trainer", "training.config"),
    "model_repository": ("fastapi", "service.app", "torch", "training"),
}
# who -> the only modules of `service` it may import
ALLOWED_OF_SERVICE = {
    "service/client": ("service.client", "service.__version__"),
    "service/batch": ("service.client", "service.batch"),
    "service/imaging": ("service.imaging", "service.contract"),
    "training": ("service.imaging", "service.contract"),
    "model_repository": ("service.imaging", "service.contract"),
}
ONLY_HERE = {"tritonclient": "service/inference.py"}


def python_files(folder: str) -> list[Path]:
    path = ROOT / folder
    return [path] if path.suffix == ".py" else sorted(path.rglob("*.py"))


def imports(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def under(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def violations(source: str, forbidden: tuple[str, ...], allowed: tuple[str, ...] | None = None) -> list[str]:
    names = list(imports(source))
    wrong = [name for name in names if under(name, forbidden)]
    if allowed is not None:
        wrong += [name for name in names if under(name, ("service",)) and not under(name, allowed)]
    return wrong


@pytest.mark.parametrize("folder", sorted(set(FORBIDDEN) | set(ALLOWED_OF_SERVICE)))
def test_import_rules(folder: str) -> None:
    for path in python_files(folder):
        wrong = violations(path.read_text(), FORBIDDEN.get(folder, ()), ALLOWED_OF_SERVICE.get(folder))
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


@pytest.mark.parametrize(("library", "home"), ONLY_HERE.items())
def test_one_module_sees_the_library(library: str, home: str) -> None:
    seen = {
        str(path.relative_to(ROOT))
        for path in python_files("service")
        if any(under(name, (library,)) for name in imports(path.read_text()))
    }
    assert seen == {home}


def test_the_rule_finds_what_it_forbids() -> None:
    assert violations("from torch import nn", ("torch",)) == ["torch.nn"]
    assert violations("import service.app", (), ("service.imaging",)) == ["service.app"]
    assert violations("import torchlight", ("torch",)) == []


def test_the_gateway_never_loads_torch() -> None:
    code = "import service.app, service.server, sys; assert 'torch' not in sys.modules, 'torch'"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=ROOT, timeout=60)


def test_no_module_has_outgrown_one_noun() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for folder in ("service", "training")
        for path in python_files(folder)
        if (lines := len(path.read_text().splitlines())) > 400
    }
    assert not long
