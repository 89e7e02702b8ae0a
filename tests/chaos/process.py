"""Real processes of a run: started with a log of their own, measured through /proc, ended with all they started."""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)
ROOT = Path(__file__).parents[2]


class Process:
    """A child process in a session of its own; standard output and error go to `log`, temporary files to `directory`.

    It is asked to end, too, when the process that made it is killed: an interrupted matrix leaves nothing running.

    Args:
        command: what to run.
        log: file for its output.
        directory: where it starts.
        environment: variables beside this process's own, which loses every `DEPTHLENS_*`.
    """

    def __init__(
        self, command: Sequence[str], *, log: Path, directory: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("DEPTHLENS_")}
        self.log = log
        with log.open("wb") as output:
            self._popen = subprocess.Popen(
                command,
                cwd=directory,
                env=inherited | {"PYTHONPATH": str(ROOT), "TMPDIR": str(directory)} | dict(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        self.pid = self._popen.pid

    @property
    def status(self) -> int | None:
        """Exit status, None while it runs, -n when signal n ended it."""
        return self._popen.poll()

    def text(self) -> str:
        """What it has written so far."""
        return self.log.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this process alone."""
        self._popen.send_signal(number)

    def rss_mb(self) -> float:
        """Resident memory of this process in MB (10^6 bytes)."""
        return rss_mb(self.pid)

    def family_mb(self) -> float:
        """Resident memory of this process and all below it in MB, pages shared by several counted in each."""
        return sum(rss_mb(pid) for pid in (self.pid, *descendants(self.pid)))

    def fds(self) -> int:
        """Open file descriptors."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def threads(self) -> int:
        """Threads."""
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def listening_ports(self) -> set[int]:
        """TCP ports that this process listens on."""
        sockets = set()
        with suppress(OSError):  # it may end meanwhile
            for entry in Path(f"/proc/{self.pid}/fd").iterdir():
                sockets.add(os.readlink(entry))
        ports = set()
        for table in ("tcp", "tcp6"):
            for line in _lines(Path(f"/proc/{self.pid}/net/{table}"))[1:]:
                fields = line.split()
                if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                    ports.add(int(fields[1].rpartition(":")[2], 16))
        return ports

    def end(self, grace_s: float = 10.0) -> int:
        """SIGTERM, after the grace SIGKILL, and the same for whatever it had started; returns the exit status."""
        below = descendants(self.pid)
        if self.status is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._popen.wait(grace_s)
        if self.status is None:
            self._popen.kill()
        status = self._popen.wait()
        deadline = time.monotonic() + 2.0
        while any(running(pid) for pid in below) and time.monotonic() < deadline:
            time.sleep(0.02)  # a Triton's guard sees that its supervisor is gone, and cleans up
        for pid in below:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return status


def _end_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def running(pid: int) -> bool:
    """Whether the process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def rss_mb(pid: int) -> float:
    """Resident memory in MB (10^6 bytes), 0 for a process that is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES / 1e6
    except OSError:
        return 0.0


def processor_s(pid: int) -> float:
    """Processor time that this process and those below it have used so far, in seconds."""
    return sum(_own_processor_s(each) for each in (pid, *descendants(pid)))


def _own_processor_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def descendants(pid: int) -> dict[int, str]:
    """Every process below `pid`, with its command's name."""
    parents: dict[int, tuple[int, str]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, ValueError):
                name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
                parents[int(entry.name)] = (int(rest.split()[1]), name)
    below: dict[int, str] = {}
    frontier = {pid}
    while frontier:
        frontier = {child for child, (parent, _) in parents.items() if parent in frontier}
        below |= {child: parents[child][1] for child in frontier}
    return below
