"""Proxy labels of rectified pairs: semi-global matching, AD-Census, and what both views agree on.

Tonioni et al., "Unsupervised Domain Adaptation for Depth Prediction from Images", arXiv:1909.03943, adapt networks to
what such matchers find. SGM: Hirschmueller, TPAMI 2008, in OpenCV's block variant. AD-Census: absolute differences and
the census transform (Zabih and Woodfill, ECCV 1994) in one bounded cost, as Mei et al., ICCV Workshops 2011, join them;
here summed over a square, best of all disparities, without their later refinements.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

Pictures = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Matcher = Literal["sgm", "ad_census"]

LARGEST_SHARE = 0.2
"""Of the picture's width: the largest disparity that is looked for, where nothing else is said."""

_STEP = 16  # OpenCV looks for multiples of 16 disparities
_BLOCK = 5
_NO_CHECK = 1 << 20  # pixels of disagreement; OpenCV takes 0 for 1, whatever its documentation says
_CENSUS = (7, 9)  # rows and columns
_CENSUS_SCALE, _COLOUR_SCALE = 30.0, 10.0  # bits and grey levels at which a cost is 1 - 1/e, as Mei et al. have it
_SQUARE = 5  # pixels, over which costs are summed
_BITS = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)


@dataclass(frozen=True, slots=True)
class Match:
    """What a matcher finds in a pair.

    Attributes:
        disparity_px: float32 (H, W), of the left picture, pixels; 0 where it finds nothing.
        right_px: The same of the right picture: its pixel x shows what the left has at x + disparity.
    """

    disparity_px: Floats
    right_px: Floats


def largest_disparity(width: int) -> int:
    """The least multiple of 16 that is at least `LARGEST_SHARE` of a picture's width."""
    return max(1, int(np.ceil(width * LARGEST_SHARE / _STEP))) * _STEP


def semi_global(left: Pictures, right: Pictures, largest_px: int | None = None, *, checked: bool = False) -> Match:
    """Semi-global matching from both sides.

    Args:
        left: uint8 (H, W) or (H, W, 3).
        right: The same.
        largest_px: Disparities looked for, a multiple of 16; None: `largest_disparity`.
        checked: Leave out what is hardly better than the second best, or contradicted within the same run. Without,
            nearly every pixel has a disparity, and a confidence must tell the wrong ones.
    """
    count = largest_px or largest_disparity(left.shape[1])
    matcher = cv2.StereoSGBM.create(
        numDisparities=count,
        blockSize=_BLOCK,
        P1=8 * _BLOCK**2,
        P2=32 * _BLOCK**2,
        disp12MaxDiff=0 if checked else _NO_CHECK,
        uniquenessRatio=5 if checked else 0,
        mode=cv2.STEREO_SGBM_MODE_SGBM_3WAY,
    )
    forth = _run(matcher, left, right, count)
    back = _run(matcher, right[:, ::-1], left[:, ::-1], count)[:, ::-1]
    return Match(np.maximum(forth, 0), np.maximum(back, 0))


def _run(matcher: cv2.StereoSGBM, left: Pictures, right: Pictures, count: int) -> Floats:
    # without a border of its own the matcher leaves the first `count` columns empty
    border = ((0, 0), (count, 0)) + ((0, 0),) * (left.ndim - 2)
    found = matcher.compute(np.pad(left, border, mode="edge"), np.pad(right, border, mode="edge"))
    disparity: Floats = found[:, count:].astype(np.float32) / 16
    return disparity


def ad_census(left: Pictures, right: Pictures, largest_px: int | None = None) -> Match:
    """Absolute differences and census, the cheapest disparity of each pixel, to a fraction of a pixel.

    Args:
        left: uint8 (H, W) or (H, W, 3).
        right: The same.
        largest_px: Disparities looked for, 0 to one less; None: `largest_disparity`. Costs take 4 H W times as many
            bytes.
    """
    costs = matching_costs(left, right, largest_px or largest_disparity(left.shape[1]))
    return Match(_cheapest(costs), _cheapest(costs_from_the_right(costs)))


def matching_costs(left: Pictures, right: Pictures, count: int) -> Floats:
    """Cost of every disparity 0 to `count` - 1 at every left pixel, float32 (count, H, W), 0..2.

    Pictures are uint8 (H, W) or (H, W, 3). Beyond the right picture's border it repeats its first column.
    """
    ours, theirs = _channels(left), _channels(right)
    our_signs, their_signs = _census(left), _census(right)
    height, width = left.shape[:2]
    columns = np.arange(width)
    costs = np.empty((count, height, width), np.float32)
    for disparity in range(count):
        there = np.maximum(columns - disparity, 0)
        colour = np.abs(ours - theirs[:, there]).mean(2)
        signs = _BITS[our_signs ^ their_signs[:, there]].sum(2, dtype=np.float32)
        raw = 2 - np.exp(signs / -_CENSUS_SCALE) - np.exp(colour / -_COLOUR_SCALE)
        costs[disparity] = cv2.blur(raw, (_SQUARE, _SQUARE), borderType=cv2.BORDER_REPLICATE)
    return costs


def costs_from_the_right(costs: Floats) -> Floats:
    """The same volume seen from the right picture: cost of x and d is that of the left x + d and d, (D, H, W)."""
    last = costs.shape[2] - 1
    columns = np.arange(costs.shape[2])
    return np.stack([plane[:, np.minimum(columns + d, last)] for d, plane in enumerate(costs)])


def _channels(picture: Pictures) -> Floats:
    return picture.reshape(*picture.shape[:2], -1).astype(np.float32)


def _census(picture: Pictures) -> npt.NDArray[np.uint8]:
    """Bits that say which of the neighbours in a 7 x 9 window are darker than the pixel, uint8 (H, W, 8)."""
    grey = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    rows, columns = _CENSUS[0] // 2, _CENSUS[1] // 2
    wide = cv2.copyMakeBorder(grey, rows, rows, columns, columns, cv2.BORDER_REPLICATE)
    height, width = grey.shape
    darker = [
        wide[y : y + height, x : x + width] < grey
        for y in range(_CENSUS[0])
        for x in range(_CENSUS[1])
        if (y, x) != (rows, columns)
    ]
    packed: npt.NDArray[np.uint8] = np.packbits(np.stack(darker, 2), axis=2)
    return packed


def _cheapest(costs: Floats) -> Floats:
    """The disparity of least cost, moved to the vertex of the parabola through it and its neighbours, (H, W)."""
    best = costs.argmin(0)
    inner = best.clip(1, max(1, len(costs) - 2))
    if len(costs) < 3:
        return np.asarray(best, np.float32)
    below, at, above = (np.take_along_axis(costs, inner[None] + step, 0)[0] for step in (-1, 0, 1))
    bend = below + above - 2 * at
    moved = inner + np.where(bend > 1e-6, (below - above) / np.maximum(2 * bend, 1e-6), 0).clip(-0.5, 0.5)
    return np.asarray(np.where(best == inner, moved, best), np.float32)


MATCHERS: MappingProxyType[Matcher, Callable[[Pictures, Pictures], Match]] = MappingProxyType(
    {"sgm": semi_global, "ad_census": ad_census}
)
"""Each takes left and right."""


def disagreement(match: Match) -> Floats:
    """Left-right check: how far the right picture's own disparity differs where a left pixel's leads to, (H, W).

    Pixels; infinite where either has none or the match lies beyond the border.
    """
    width = match.disparity_px.shape[1]
    there = np.rint(np.arange(width) - match.disparity_px).astype(np.int64)
    theirs = np.take_along_axis(match.right_px, there.clip(0, width - 1), 1)
    known = (match.disparity_px > 0) & (theirs > 0) & (there >= 0)
    return np.where(known, np.abs(theirs - match.disparity_px), np.inf).astype(np.float32)


def with_outliers(match: Match, share: float, largest_px: float, rng: np.random.Generator) -> Match:
    """Left labels of which at least a share is wrong: round patches of a random disparity each, for experiments.

    Args:
        match: What was found.
        share: Of the pixels that patches cover, 0..1.
        largest_px: Wrong disparities lie between 1 and this.
        rng: Of the patches.
    """
    disparity = match.disparity_px.copy()
    covered = np.zeros(disparity.shape, np.uint8)
    while covered.mean() < share:
        centre = int(rng.integers(disparity.shape[1])), int(rng.integers(disparity.shape[0]))
        radius, wrong = int(rng.integers(1, 5)), float(rng.uniform(1, largest_px))
        cv2.circle(covered, centre, radius, (1,), -1)
        cv2.circle(disparity, centre, radius, (wrong,), -1)
    return Match(disparity, match.right_px)
