"""The command line as a process, on a terminal of its own where that matters."""

import os
import pty
import re
import select
import subprocess
import sys
import termios
import time


def depthlens(url: str | None, *arguments: str, **options: object) -> "subprocess.Popen[bytes]":
    """`depthlens` on a gateway; without one it starts its own."""
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    environment.pop("DEPTHLENS_GATEWAY_URL", None)
    if url is not None:
        environment["DEPTHLENS_GATEWAY_URL"] = url
    return subprocess.Popen([sys.executable, "-m", "service", *arguments], env=environment, **options)


class Terminal:
    """A process on a terminal of its own, and all that it has shown; it ends with the block."""

    def __init__(self, url: str | None, *arguments: str) -> None:
        self.controller, terminal = pty.openpty()
        termios.tcsetwinsize(terminal, (24, 100))
        self.process = depthlens(
            url, *arguments, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True
        )
        os.close(terminal)
        self.shown = ""

    def read_until(self, pattern: str, timeout_s: float = 60) -> str:
        deadline = time.monotonic() + timeout_s
        while not re.search(pattern, self.shown):
            assert time.monotonic() < deadline, f"{pattern} did not come: {self.shown!r}"
            if select.select([self.controller], [], [], 0.2)[0]:
                try:
                    self.shown += os.read(self.controller, 65536).decode()
                except OSError:  # the process has ended, and with it its terminal
                    break
        assert re.search(pattern, self.shown), f"{pattern} did not come: {self.shown!r}"
        return self.shown

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self.process.kill()
        self.process.wait(60)
        os.close(self.controller)
