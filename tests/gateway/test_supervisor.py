"""How long the supervisor of the embedded server waits before it starts it again, and what it clears away."""

import fcntl
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from service.embedded import shm
from service.embedded.amendments import keep_temporary_folder, survive_cancellations
from service.embedded.binary import find_binary
from service.embedded.process import remove_stale
from service.embedded.supervisor import next_backoff_s


def test_pauses_double_up_to_the_longest() -> None:
    pauses = [0.0]
    while len(pauses) < 10:
        pauses.append(next_backoff_s(pauses[-1], ran_s=1.0, longest_s=10.0))
    assert pauses[1:] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]


def test_a_launch_that_lasted_starts_over() -> None:
    assert next_backoff_s(10.0, ran_s=21.0, longest_s=10.0) == 0.1
    assert next_backoff_s(10.0, ran_s=19.0, longest_s=10.0) == 10.0
    assert next_backoff_s(0.0, ran_s=1.0, longest_s=0.05) == 0.05


def test_working_directories_without_a_launch_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    prefix, lock = shm.claim_prefix()
    live = tmp_path / prefix.rstrip("_")
    stale, elsewhere, other = (tmp_path / f"depthlens-{name}" for name in ("00000000", "11111111", "chaos-arm6480j"))
    for directory in (live, stale, elsewhere, other):
        (directory / "backends").mkdir(parents=True)
    link = tmp_path / "depthlens-22222222"
    link.symlink_to(other)
    held = os.open(elsewhere, os.O_RDONLY)  # by a server of a container that shares this folder and not /dev/shm
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        assert remove_stale() == [stale.name]
        assert sorted(tmp_path.iterdir()) == sorted((live, elsewhere, other, link))
    finally:
        os.close(held)
        os.close(lock)
        shm.remove(prefix)
    assert sorted(remove_stale()) == sorted((live.name, elsewhere.name))


@pytest.mark.parametrize("times", [0, 2])
def test_a_backend_that_is_built_in_another_way_is_left_alone(tmp_path: Path, times: int) -> None:
    library = tmp_path / "python" / "libtriton_python.so"
    library.parent.mkdir()
    code = b"code" + b"/tmp/python_env_" * times
    library.write_bytes(code)
    assert not keep_temporary_folder(tmp_path)
    assert library.read_bytes() == code


def test_the_server_started_differs_in_the_jump_alone(tmp_path: Path) -> None:
    """`make chaos F9d` shows what it is for."""
    server = find_binary().server
    copy = survive_cancellations(server, tmp_path / "tritonserver")
    before, after = (np.frombuffer(path.read_bytes(), np.uint8) for path in (server, copy))
    (changed,) = np.nonzero(before != after)
    assert len(changed) == 2
    assert changed[1] == changed[0] + 1
    assert bytes(before[changed]) == b"\x0f\x84"
    assert bytes(after[changed]) == b"\x90\xe9"
    assert copy.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("times", [0, 2])
def test_a_server_that_is_built_in_another_way_is_started_as_it_is(tmp_path: Path, times: int) -> None:
    server = tmp_path / "wheel"
    server.write_bytes(b"code" + bytes.fromhex("4180bd60010000000f84bb020000498b7d10") * times)
    assert survive_cancellations(server, tmp_path / "tritonserver") == server
    assert not (tmp_path / "tritonserver").exists()


def test_without_room_for_a_copy_the_server_is_started_as_it_is(tmp_path: Path) -> None:
    server = find_binary().server
    assert survive_cancellations(server, tmp_path / "no" / "folder") == server
