"""A whole `depthlens serve`, gateway and real Triton, for tests and benchmarks that speak to it over sockets."""

import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[2]
READY_S = 120


class Served:
    """`depthlens serve` on a port of its own, with the networks of a repository and further environment variables."""

    def __init__(self, repository: Path, log: Path, **settings: str) -> None:
        self.log = log
        environment = os.environ | {"DEPTHLENS_MODEL_REPOSITORY": str(repository), "DEPTHLENS_PORT": "0"} | settings
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "service", "serve"], cwd=ROOT, env=environment, stdout=output, stderr=output
            )
        started = time.monotonic()
        while (ready := re.search(r"ready: http://([\d.]+):(\d+)", log.read_text())) is None:
            assert self.process.poll() is None, log.read_text()
            assert time.monotonic() - started < READY_S, log.read_text()
            time.sleep(0.05)
        self.address = ready[1], int(ready[2])

    def resident_bytes(self, pid: int | None = None) -> int:
        """Of the gateway, or of another process."""
        status = Path(f"/proc/{pid or self.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) * 1024

    def model_pid(self, model: str) -> int:
        """Of the process that a model has in the python backend."""
        for pid in self._below():
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
            if "python_backend_stub" in words[0] and any(f"/{model}/" in word for word in words):
                return pid
        raise LookupError(model)

    def triton_pid(self) -> int:
        """Of the server below this process, the one that answers."""
        return next(pid for pid, name in self._below().items() if name == "tritonserver")

    def _below(self) -> dict[int, str]:
        """Numbers and names of the processes below this one."""
        parents = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                text = (entry / "stat").read_text()
            except OSError:
                continue
            name, rest = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :].split()
            parents[int(entry.name)] = (int(rest[1]), name)
        below = {self.process.pid}
        for _ in range(6):
            below |= {pid for pid, (parent, _) in parents.items() if parent in below}
        return {pid: parents[pid][1] for pid in below}

    def metric(self, line: str) -> float:
        host, port = self.address
        with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=10) as answer:
            found = re.search(rf"^{re.escape(line)} (\S+)$", answer.read().decode(), re.MULTILINE)
        return float(found[1]) if found else 0.0
