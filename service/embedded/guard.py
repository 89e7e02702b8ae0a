"""The process between the supervisor and tritonserver: when either of them dies, nothing of the launch is left.

tritonserver killed with -9 leaves the processes of its models running, and a supervisor killed with -9 can clean up
nothing. This script, standard library only and run by path, starts the server in a process group of its own, waits
for its end, for SIGTERM or for the end of its own standard input (the supervisor is gone), and then ends the group
and removes the launch's shared memory and working directory.
"""

import argparse
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_KILL_MARGIN_S = 3.0
"""Time beyond the server's own exit timeout before it is killed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command to its end; returns its exit status, 128 + n when signal n ended it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--exit-timeout-s", type=float, required=True)
    parser.add_argument("--lock-fd", type=int, required=True, help="inherited by every process of the launch")
    parser.add_argument("--shm-prefix", type=Path, required=True, help="path prefix of the shared-memory regions")
    parser.add_argument("--work-directory", type=Path, required=True, help="removed at the end")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(arguments)
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)  # models' processes that outlive the server become children of this one
    child_read, child_write = os.pipe()
    os.set_blocking(child_write, False)
    signal.set_wakeup_fd(child_write)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, _ignore)
    server = subprocess.Popen(
        options.command,
        stdin=subprocess.DEVNULL,
        pass_fds=(options.lock_fd,),
        process_group=0,
        preexec_fn=_end_with_parent(libc, os.getpid()),
    )
    _wait(server, child_read, options.exit_timeout_s + _KILL_MARGIN_S)
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)  # not yet reaped, so the number is still this group's
    status = server.wait()
    with suppress(ChildProcessError):
        while True:
            os.wait()
    for region in options.shm_prefix.parent.glob(f"{options.shm_prefix.name}*"):
        region.unlink(missing_ok=True)
    shutil.rmtree(options.work_directory, ignore_errors=True)
    return status if status >= 0 else 128 - status


def _ignore(number: int, frame: object) -> None:
    """The wakeup descriptor tells the loop; a handler is needed so that the default action does not run."""


def _end_with_parent(libc: ctypes.CDLL, parent: int) -> Callable[[], None]:
    def arrange() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return arrange


def _wait(server: "subprocess.Popen[bytes]", signals: int, grace_s: float) -> None:
    """Until the server ended, or its grace after a request to stop is over."""
    watched = [sys.stdin.fileno(), signals]
    deadline: float | None = None
    while os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        timeout_s = None if deadline is None else deadline - time.monotonic()
        if timeout_s is not None and timeout_s <= 0:
            return
        ready, _, _ = select.select(watched, [], [], timeout_s)
        stop = False
        if signals in ready:
            stop = bool({signal.SIGTERM, signal.SIGINT} & set(os.read(signals, 64)))
        if watched[0] in ready and watched[0] != signals and not os.read(watched[0], 64):
            stop = True
        if stop and deadline is None:
            watched = [signals]
            deadline = time.monotonic() + grace_s
            server.send_signal(signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
