"""`make bench`: everything side by side with its peer, into `docs/results/bench.md` and `bench.png`."""

import argparse
import datetime
import os
import platform
import re
import subprocess
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot

from . import imaging, network, request
from .clock import Section

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
    said = machine()
    sections = [
        *network.run(model, rounds=options.rounds * 3),
        *request.run(options.repository, rounds=options.rounds),
        *imaging.run(rounds=options.rounds),
    ]
    head = (
        f"# Benchmark\n\n`make bench`: {said}. Contenders are interleaved; medians; the ratio is the median of the "
        "rounds' own.\n\n![wall time of every contender](bench.png)\n\n"
    )
    text = head + "\n".join(section.table() for section in sections)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "bench.md").write_text(text)
    plot(sections, RESULTS / "bench.png")
    print(text)


def plot(sections: list[Section], path: Path) -> None:
    """Wall time of every contender, one panel a section, the peer in gray."""
    heights = [len(section.timings) + 1 for section in sections]
    figure, axes = pyplot.subplots(
        len(sections), 1, figsize=(8, 0.36 * sum(heights)), height_ratios=heights, layout="constrained"
    )
    for section, axis in zip(sections, axes, strict=True):
        names = list(section.timings)[::-1]
        times = [section.timings[name].wall_ms for name in names]
        bars = axis.barh(names, times, color=["tab:blue"] * (len(names) - 1) + ["tab:gray"])
        axis.bar_label(bars, fmt="%.1f", padding=3)
        axis.set_title(f"{section.title}: wall ms, median", fontsize=9, loc="left")
        axis.margins(x=0.12)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
