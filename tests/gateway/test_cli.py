"""The command line: help, and errors in one line."""

import socket
import subprocess
import sys

import pytest

from service import __version__
from service.clients import hash_of


def depthlens(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service", *arguments],
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_shows_examples() -> None:
    assert "serve" in depthlens("--help").stdout
    assert "examples:" in depthlens("serve", "--help").stdout
    assert "--highlights {auto,off,NUMBER}" in depthlens("focus", "--help").stdout, "words that a number may be"
    assert depthlens("--version").stdout.strip() == f"depthlens {__version__}"


@pytest.mark.parametrize(
    ("arguments", "environment", "said", "status"),
    [
        (["serve", "--port", "70000"], {}, "setting port", 2),
        (["serve"], {"DEPTHLENS_DEPTH_MODEL": "No Name"}, "setting depth_model", 2),
        (["serve"], {"DEPTHLENS_DEPTH_MODEL": "nope"}, "nope is not in the repository model_repository, which has", 2),
        (["serve"], {"DEPTHLENS_MAX_INFLIGHT": "0"}, "setting max_inflight", 2),
        (["serve"], {"DEPTHLENS_TRUSTED_PROXIES": "127.0.0.1, nonsense"}, "setting trusted_proxies", 2),
        (["serve"], {"DEPTHLENS_API_KEY_HASHES": f"{hash_of('a')},dl_secret"}, "setting api_key_hashes", 2),
        (["serve", "--port", "0", "--model-repository", "/nonexistent"], {}, "/nonexistent", 1),
    ],
)
def test_errors_are_one_line(arguments: list[str], environment: dict[str, str], said: str, status: int) -> None:
    done = depthlens(*arguments, **environment)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == status
    assert last.startswith("depthlens: ")
    assert said in last
    assert "Traceback" not in done.stderr
    assert "dl_secret" not in done.stderr


def test_a_new_key_and_its_hash() -> None:
    lines = dict(line.split() for line in depthlens("keys", "new").stdout.splitlines())
    assert hash_of(lines["key"]) == lines["hash"]


def test_a_taken_port_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = depthlens("serve", "--port", str(port))
    assert done.returncode == 1
    assert done.stderr.strip() == f"depthlens: cannot listen on 127.0.0.1 port {port}: Address already in use"
