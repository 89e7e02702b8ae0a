"""Shared-memory regions of the python backend: named by a prefix of ours, found again after a crash.

A killed tritonserver leaves its regions in `/dev/shm`. Each launch therefore has its own prefix and a lock file of
that name, held by the whole family of processes: a lock nobody holds means regions nobody uses, whatever process
numbers, containers or restarts lie between.
"""

import fcntl
import os
import secrets
from contextlib import suppress
from pathlib import Path

DIRECTORY = Path("/dev/shm")  # nosec B108  # Triton puts its regions there; ours have random names and locks
_FAMILY = "depthlens-"
_LOCK = "lock"


def claim_prefix() -> tuple[str, int]:
    """A new prefix and the descriptor of its lock; hand the descriptor to every process of the launch.

    Raises:
        OSError: `/dev/shm` is not writable.
    """
    while True:
        prefix = f"{_FAMILY}{secrets.token_hex(4)}_"
        path = DIRECTORY / f"{prefix}{_LOCK}"
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Another start may have found the file between these two lines, taken it for stale and removed it.
        with suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                return prefix, descriptor
        os.close(descriptor)


def remove(prefix: str) -> list[str]:
    """Remove every region of a prefix and its lock; returns their names."""
    names = sorted((path.name for path in DIRECTORY.glob(f"{prefix}*")), key=lambda name: name.endswith(_LOCK))
    for name in names:  # the lock last: while it exists, a crash here can still be cleaned up
        (DIRECTORY / name).unlink(missing_ok=True)
    return names


def remove_stale() -> list[str]:
    """Remove the regions of launches of which no process lives any more; returns their names."""
    removed: list[str] = []
    for path in DIRECTORY.glob(f"{_FAMILY}*_{_LOCK}"):
        try:
            descriptor = os.open(path, os.O_RDWR)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            removed += remove(path.name.removesuffix(_LOCK))
        except BlockingIOError:
            pass
        finally:
            os.close(descriptor)
    return removed
