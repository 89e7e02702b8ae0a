"""A limit on the processors that running processes take together, as a container's: a control group of Linux."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.chaos.process import descendants

_GROUPS = Path("/sys/fs/cgroup")
_PERIOD_US = 20_000


class QuotaError(Exception):
    """This user may not limit processors here; the message says what failed."""


@contextmanager
def processor_quota(cores: float, pids: Iterable[int]) -> Iterator[None]:
    """Let processes, and all they have started or will start, use no more than so many processors together.

    Args:
        cores: how many, parts included.
        pids: of running processes.

    Raises:
        QuotaError: the control group cannot be made; nothing is limited then.
    """
    unified = (_GROUPS / "cgroup.controllers").exists()
    parent = _GROUPS if unified else _GROUPS / "cpu"
    group = parent / f"depthlens-{os.getpid()}"
    quota_us = round(cores * _PERIOD_US)
    try:
        if unified:
            (parent / "cgroup.subtree_control").write_text("+cpu")
        group.mkdir()
        if unified:
            (group / "cpu.max").write_text(f"{quota_us} {_PERIOD_US}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota_us))
        for pid in pids:
            for each in (pid, *descendants(pid)):
                _move(each, group)
    except OSError as error:
        _remove(group, parent)
        raise QuotaError(f"control group not made: {error.strerror}") from error
    try:
        yield
    finally:
        _remove(group, parent)


def _move(pid: int, group: Path) -> None:
    with suppress(ProcessLookupError):
        (group / "cgroup.procs").write_text(str(pid))


def _remove(group: Path, parent: Path) -> None:
    """Processes that still run go back to where there is no limit."""
    with suppress(OSError):
        for pid in (group / "cgroup.procs").read_text().split():
            _move(int(pid), parent)
        group.rmdir()
