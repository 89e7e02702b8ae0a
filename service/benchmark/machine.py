"""What a figure was measured on."""

import datetime
import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from service import __version__

_PACKAGES: Final = ("numpy", "opencv-python-headless", "pillow", "openvino", "nvidia-pytriton", "uvicorn")
_FLAGS: Final = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "avx512_fp16")
"""Of those that decide how fast a CPU multiplies."""


def describe(packages: tuple[str, ...] = ()) -> dict[str, str]:
    """Time, commit, processor, load and versions; `packages` are named beside this package's own."""
    cpuinfo = _cpuinfo()
    model = re.search(r"model name\s*: (.*)", cpuinfo)
    flags = [flag for flag in _FLAGS if re.search(rf"\b{flag}\b", cpuinfo)]
    versions = [f"{name} {_version(name)}" for name in (*_PACKAGES, *packages) if _version(name)]
    return {
        "time": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        "commit": _commit(),
        "cpu": f"{model[1] if model else platform.machine()}, {cores()} cores, {' '.join(flags)}",
        "load": f"load {os.getloadavg()[0]:.1f} at the start",
        "versions": ", ".join([f"Python {platform.python_version()}", f"depthlens {__version__}", *versions]),
    }


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _commit() -> str:
    root = Path(__file__).parents[2]
    try:
        command = ["git", "rev-parse", "--short", "HEAD"]
        said = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return f"depthlens {__version__}"
    return f"commit {said}"
