"""The init container's script: only listed files, only with the listed digests."""

import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from manifests import K8S, ROOT

from service.contract import MODELS

SCRIPT = K8S / "base/model_store.py"
LIST = K8S / "base/models.sha256"


@pytest.fixture(scope="module")
def model_store() -> ModuleType:
    spec = importlib.util.spec_from_file_location("model_store", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source/net/1").mkdir(parents=True)
    (tmp_path / "source/net/config.pbtxt").write_text("name: 'net'")
    (tmp_path / "source/net/1/model.onnx").write_bytes(bytes(range(256)) * 5000)
    (tmp_path / "source/net/1/unlisted.so").write_text("not asked for")
    return tmp_path / "source"


def listed(source: Path, *names: str) -> Path:
    lines = [f"{hashlib.sha256((source / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    path = source.with_name("list")
    path.write_text("".join(lines))
    return path


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_what_is_listed_is_copied_and_nothing_else(model_store: ModuleType, source: Path, tmp_path: Path) -> None:
    names = listed(source, "net/config.pbtxt", "net/1/model.onnx")
    store = tmp_path / "store"
    for _ in range(2):  # the store survives a restart of the container
        assert model_store.fill(names, source, store) == 2
        assert files(store) == {"net/config.pbtxt", "net/1/model.onnx"}
    assert (store / "net/1/model.onnx").read_bytes() == (source / "net/1/model.onnx").read_bytes()


def test_another_digest_is_refused(source: Path, tmp_path: Path) -> None:
    names = listed(source, "net/config.pbtxt", "net/1/model.onnx")
    changed = bytearray((source / "net/1/model.onnx").read_bytes())
    changed[700_000] ^= 1
    (source / "net/1/model.onnx").write_bytes(changed)
    done = subprocess.run(
        [sys.executable, "-I", SCRIPT, names, source, tmp_path / "store"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("model store: net/1/model.onnx: SHA-256 is ")
    assert done.stderr.count("\n") == 1
    assert files(tmp_path / "store") == {"net/config.pbtxt"}


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("", "names no file"),
        ("net/config.pbtxt", "not a line"),
        (f"{'0' * 64}  ../secret", "outside"),
        (f"{'0' * 64}  /etc/passwd", "outside"),
        (f"{'0' * 64}  net/missing", "missing"),
    ],
)
def test_a_list_that_cannot_be_followed(
    model_store: ModuleType, source: Path, tmp_path: Path, line: str, error: str
) -> None:
    names = tmp_path / "list"
    names.write_text(line)
    with pytest.raises((ValueError, OSError), match=error):
        model_store.fill(names, source, tmp_path / "store")
    assert not files(tmp_path / "store") if (tmp_path / "store").exists() else True


def test_the_list_is_that_of_the_repository(update_golden: bool) -> None:
    """What every clone serves; `pytest --update-golden tests/kubernetes` writes the list anew."""
    repository = ROOT / "model_repository"
    # What was exported beside it here is not in a clone.
    tracked = subprocess.run(["git", "ls-files", *MODELS], cwd=repository, capture_output=True, text=True, check=True)
    names = sorted(name for name in tracked.stdout.splitlines() if not name.endswith("README.md"))
    lines = [f"{hashlib.sha256((repository / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    if update_golden:
        LIST.write_text("".join(lines))
    assert LIST.read_text() == "".join(lines)
