"""Where Debian's Prometheus is: installed, or unpacked into the environment by `make test` without its service."""

import shutil
import sys
from pathlib import Path

MONITORING = Path(__file__).parents[2] / "docker" / "monitoring"
_UNPACKED = Path(sys.prefix) / "prometheus" / "usr" / "bin"

MISSING = "prometheus and promtool are not there: `make test` unpacks Debian's package where apt-get can be had"


def find(name: str) -> str | None:
    """Path of `prometheus` or `promtool`, None where there is none."""
    return shutil.which(name) or shutil.which(name, path=str(_UNPACKED))
