"""The tables and the picture of the study of proxy labels (`training.proxy_study`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from training.confidence import MEASURES, Measure, optimal_area, sparsification_area
from training.data.stereo_pairs import StereoFrame
from training.proxies import Match
from training.proxy_study import TRUTH, WAYS, Outcome
from training.tables import table
from training.tasks.stereo import drawn

MARKS = "<!-- results: made by `python -m training proxy-study` -->", "<!-- end of results -->"
RIGHT_PX = 1.0
"""A label that is this near the truth is right."""

_LABEL_ROWS = 18  # pixels above a column of the picture
_GAP = 4
_LARGE = 2  # times a drawn world's size
_BRIGHTEST_PX = 26.0

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class LabelQuality:
    """Of a matcher's labels, means over pairs: `density`, share `wrong` by `RIGHT_PX`, and areas by measure."""

    density: float
    wrong: float
    optimal: float
    areas: dict[str, float]


def label_quality(frames: Sequence[StereoFrame], matches: Sequence[Match], more: Mapping[str, Measure]) -> LabelQuality:
    """Judges labels and every hand-made measure, and those in `more`, by the truth of the frames."""
    rows = []
    measures = dict(MEASURES) | dict(more)
    for frame, match in zip(frames, matches, strict=True):
        assert frame.disparity_px is not None  # what is judged has truth
        counts = (match.disparity_px > 0) & (frame.disparity_px > 0)
        wrong = (np.abs(match.disparity_px - frame.disparity_px) > RIGHT_PX)[counts]
        areas = [sparsification_area(m(frame.left, frame.right, match)[counts], wrong) for m in measures.values()]
        rows.append([float((match.disparity_px > 0).mean()), wrong.mean(), optimal_area(float(wrong.mean())), *areas])
    density, wrong_share, optimal, *areas = np.mean(rows, axis=0).tolist()
    return LabelQuality(density, wrong_share, optimal, dict(zip(measures, areas, strict=True)))


def quality_table(found: Mapping[str, LabelQuality]) -> str:
    """Markdown: a line per matcher, a column per measure; areas and shares in percent."""
    measures = next(iter(found.values())).areas
    lines = [
        [name, *(f"{100 * value:.1f}" for value in (one.density, one.wrong, one.optimal, *one.areas.values()))]
        for name, one in found.items()
    ]
    return table(["labels", "density", "wrong", "optimal area", *measures], lines)


def outcome_table(before: Mapping[str, float], outcomes: Sequence[Outcome]) -> str:
    """Markdown: mean and spread over seeds of every way, and what it is better by than `unweighted`, world by world."""
    lines = [["", "before adaptation", f"{before['epe']:.3f}", f"{100 * before['bad3']:.2f}", "", "", ""]]
    for matcher in dict.fromkeys(one.matcher for one in outcomes):
        plain = [one for one in outcomes if (one.matcher, one.way) == (matcher, WAYS[0].name)]
        for way in (*WAYS, TRUTH):
            rows = [one for one in outcomes if (one.matcher, one.way) == (matcher, way.name)]
            if not rows:
                continue
            epe, bad3 = np.array([row.epe for row in rows]), 100 * np.array([row.bad3 for row in rows])
            gain, better = "", ""
            if plain and way is not WAYS[0]:
                found = gains(plain, rows)
                spread_of_mean = f" ± {found.std(ddof=1) / np.sqrt(len(found)):.3f}" if len(found) > 1 else ""
                gain = f"{found.mean():+.3f}{spread_of_mean}"
                better = f"{(found > 0).sum()} of {len(found)}"
            tau = f"{np.mean([row.threshold for row in rows]):.2f}" if "threshold" in way.name else ""
            spread = f"{epe.mean():.3f} ± {epe.std():.3f}", f"{bad3.mean():.2f} ± {bad3.std():.2f}"
            lines.append([matcher, way.name, *spread, tau, gain, better])
    heads = ["labels", "used", "EPE px", "bad3 %", "threshold at the end", "EPE gained on unweighted", "worlds better"]
    return table(heads, lines)


def gains(plain: Sequence[Outcome], rows: Sequence[Outcome]) -> npt.NDArray[np.float64]:
    """By how much EPE is below that of `plain` in each judged world, mean over the seeds that both have, pixels."""
    theirs = {one.seed: one.worlds for one in plain}
    pairs = [(theirs[row.seed], row.worlds) for row in rows if row.seed in theirs]
    return np.array([np.mean([one[world] - other[world] for one, other in pairs]) for world in rows[0].worlds])


def picture(columns: Sequence[tuple[str, Sequence[Bytes | npt.NDArray[np.float32]]]]) -> Bytes:
    """Rows of pictures under headings, uint8 RGB; maps of floats above 1 are drawn as disparity, others as grey."""
    stacks = []
    for heading, cells in columns:
        shown = [_enlarged(cell) for cell in cells]
        head = np.full((_LABEL_ROWS, shown[0].shape[1], 3), 255, np.uint8)
        cv2.putText(head, heading, (2, _LABEL_ROWS - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
        gap = np.full((_GAP, shown[0].shape[1], 3), 255, np.uint8)
        stacks.append(np.vstack([head, *(part for cell in shown for part in (cell, gap))]))
    gap = np.full((stacks[0].shape[0], _GAP, 3), 255, np.uint8)
    return np.hstack([part for stack in stacks for part in (stack, gap)])


def _enlarged(cell: Bytes | npt.NDArray[np.float32]) -> Bytes:
    if cell.dtype != np.uint8:
        maps = cell.astype(np.float32)
        grey = np.repeat((maps.clip(0, 1) * 255).astype(np.uint8)[..., None], 3, 2)
        cell = drawn(maps, _BRIGHTEST_PX) if maps.max() > 1 else grey
    size = (cell.shape[1] * _LARGE, cell.shape[0] * _LARGE)
    return cv2.resize(cell, size, interpolation=cv2.INTER_NEAREST).astype(np.uint8)
