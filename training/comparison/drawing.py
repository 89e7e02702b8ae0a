"""What the page shows: predictions side by side on rendered scenes, and numbers as points and bars."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from service.imaging.geometry import resize
from training.comparison.judging import IN_METRES, RELATIVE, Judged
from training.comparison.latency import Latency
from training.data.sample import Sample
from training.errors import TrainingError
from training.protocols import PROTOCOLS, DepthPredictor, Output, depth_m_of

_CELL = (96, 128)  # (height, width) in pixels of a picture
_LABEL_WIDTH = 176
_GAP = 2
_PAPER, _INK = 255, 30


def _colours(
    inverse: npt.NDArray[np.float64], known: npt.NDArray[np.bool_], low: float, high: float
) -> npt.NDArray[np.uint8]:
    """Inverse depth as inferno, bright = near; black where truth is missing."""
    scaled = (np.clip((inverse - low) / max(high - low, 1e-9), 0, 1) * 255).astype(np.uint8)
    drawn = cv2.cvtColor(cv2.applyColorMap(scaled, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB).astype(np.uint8)
    return np.where(known[..., None], drawn, 0).astype(np.uint8)


def _label(lines: Sequence[str]) -> npt.NDArray[np.uint8]:
    cell = np.full((_CELL[0], _LABEL_WIDTH, 3), _PAPER, np.uint8)
    for index, line in enumerate(lines):
        place = (4, _CELL[0] // 2 + 4 + 16 * index - 8 * (len(lines) - 1))
        cv2.putText(cell, line, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (_INK,) * 3, 1, cv2.LINE_AA)
    return cell


def draw_sheet(samples: Sequence[Sample], systems: Mapping[str, tuple[DepthPredictor, Output]], path: Path) -> None:
    """A PNG: a column a scene; rows of photos, truth and every system, in one colour scale a column.

    Networks that give metres are drawn as they are, the others after alignment to truth.

    Args:
        samples: Rendered scenes, with depth in metres; real photos have terms that forbid to pass them on.
        systems: Predictor and its unit, by name.
        path: Of the PNG.

    Raises:
        TrainingError: A sample is not rendered, or the file cannot be written.
    """
    photos = [sample.name for sample in samples if not sample.source.startswith("synth")]
    if photos:
        raise TrainingError(f"{photos[0]} is a photo: only rendered scenes are drawn, which are ours to show")
    rows = [[_label(["photo"])], [_label(["truth"])], *([_label(_lines(name, o))] for name, (_, o) in systems.items())]
    for sample in samples:
        target = depth_m_of(sample)
        metres = PROTOCOLS[IN_METRES]
        valid = metres.valid(target)
        inverse = 1 / np.maximum(target, metres.least_m)
        low, high = 1 / metres.most_m, float(np.percentile(inverse[valid], 99)) if valid.any() else 1.0
        drawn = [sample.image, _colours(inverse, valid, low, high)]
        for predict, output in systems.values():
            protocol = metres if output == "depth_m" else PROTOCOLS[RELATIVE]
            depth = protocol.depth_m(predict(sample.image), target, valid, output)
            drawn.append(_colours(1 / depth, np.ones_like(valid), low, high))
        for row, picture in zip(rows, drawn, strict=True):
            row += [np.full((_CELL[0], _GAP, 3), _PAPER, np.uint8), resize(picture, _CELL)]
    lines = [np.hstack(row) for row in rows]
    gap = np.full((_GAP, lines[0].shape[1], 3), _PAPER, np.uint8)
    _write_png(np.vstack([part for line in lines for part in (line, gap)]), path)


def _lines(name: str, output: Output) -> list[str]:
    words = name.replace("_", " ").split()
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) > 20:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines if output == "depth_m" else [*lines, "(aligned)"]


def _write_png(picture: npt.NDArray[np.uint8], path: Path) -> None:
    """With 256 colours: a third of the bytes, and nothing to be seen of it."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        Image.fromarray(picture).quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    except OSError as error:
        raise TrainingError(f"cannot write {path}: {error}") from error


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise TrainingError("matplotlib is not installed: pip install --group dev") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def draw_plots(judged: Mapping[str, Judged], taken: Mapping[str, Latency], path: Path) -> None:
    """A PNG of two plots: RMSE in metres on rendered scenes against milliseconds, and delta1 of every system.

    Networks that give no metres are only in the second, after alignment.
    """
    pyplot = _pyplot()
    from matplotlib import ticker

    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(11, max(4.0, 0.32 * len(judged) + 2.2)), width_ratios=(1, 1.1)
    )
    for name, one in judged.items():
        row = one.mean("scenes", IN_METRES)
        if row and name in taken:
            left.scatter(taken[name].median_ms, row["rmse"], s=8 + 2 * one.parameters / 1e6, alpha=0.6)
            left.annotate(
                name, (taken[name].median_ms, row["rmse"]), fontsize=7, xytext=(4, 3), textcoords="offset points"
            )
    left.set_xscale("log")
    left.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    left.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    left.xaxis.set_minor_formatter(ticker.NullFormatter())
    left.margins(x=0.3)
    left.set_xlabel("milliseconds a picture (area of a point: parameters)")
    left.set_ylabel("RMSE on rendered scenes, metres")
    left.grid(alpha=0.3)
    places = np.arange(len(judged))
    bars = (
        ("scenes", IN_METRES, "rendered, in metres"),
        ("scenes", RELATIVE, "rendered, aligned"),
        ("real", RELATIVE, "real, aligned"),
    )
    for index, (kind, protocol, label) in enumerate(bars):
        values = [one.mean(kind, protocol).get("delta1", np.nan) for one in judged.values()]
        right.barh(places + 0.27 * (index - 1), values, 0.25, label=label)
    right.set_yticks(places, list(judged), fontsize=8)
    right.invert_yaxis()
    right.set_xlim(0, 1)
    right.set_xlabel("delta1")
    right.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower right", ncols=3, fontsize=8)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
