"""`make bench`: everything side by side with its peer, into `docs/results/bench.md`."""

import argparse
import datetime
import os
import platform
import re
import subprocess
from pathlib import Path

from . import imaging, network, request

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"


def machine() -> str:
    """Processor, cores, versions."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    flags = Path("/proc/cpuinfo").read_text()
    extra = [flag for flag in ("avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    return (
        f"{datetime.date.today()}, commit {commit.strip()}, {model[1] if model else 'CPU'}, {os.cpu_count()} cores, "
        f"{' '.join(extra)}, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f} at the start, seed 0"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--repository", type=Path, default=ROOT / "model_repository")
    options = parser.parse_args()
    model = options.repository / "focus_on_depth" / "1" / "model.onnx"
    parts = [
        "# Benchmark",
        "",
        f"`make bench`: {machine()}. Contenders are interleaved; medians; the ratio is the median of the rounds' own.",
        "",
        network.run(model, rounds=options.rounds * 3),
        request.run(options.repository, rounds=options.rounds),
        imaging.run(rounds=options.rounds),
    ]
    text = "\n".join(parts)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "bench.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
