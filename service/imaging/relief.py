"""How far one person is: the main mode of his inverse depths and their spread, or a plane when he leans.

A median is drawn away by an arm stretched out and by a rim of wall; the main mode of the histogram is not.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

FloatMap = NDArray[np.float32]

_BINS: Final = 64  # of the histogram over 0..1
_SMOOTH: Final = np.array([1, 2, 3, 2, 1], np.float64) / 9
_LEAST_SPREAD: Final = 0.005  # no map is better than this
_PLANE_GAIN: Final = 0.6  # the plane is taken when its spread is less than this share of the mode's
_SAMPLES: Final = 4000  # pixels looked at


@dataclass(frozen=True, slots=True)
class Relief:
    """inverse depth = level + across * (x - centre_x) + down * (y - centre_y), give or take `spread` (1.4826 * MAD).

    The centre is that of the mask, in pixels, so that `level` is how far the person is, leaning or not.
    """

    level: float
    across: float
    down: float
    spread: float
    centre_x: float
    centre_y: float

    def at(self, x: float, y: float) -> float:
        """The inverse depth expected at a pixel."""
        return self.level + self.across * (x - self.centre_x) + self.down * (y - self.centre_y)


def fit(inverse_depth: FloatMap, mask: NDArray[np.bool_]) -> Relief:
    """The relief of what `mask` shows.

    Args:
        inverse_depth: float32 (H, W) in 0..1.
        mask: bool (H, W), one pixel at least.
    """
    y, x = np.nonzero(mask)
    step = max(1, len(x) // _SAMPLES)
    y, x = y[::step], x[::step]
    values = inverse_depth[y, x].astype(np.float64)
    counts = np.convolve(np.histogram(values, _BINS, (0, 1))[0], _SMOOTH, mode="same")
    mode = (float(counts.argmax()) + 0.5) / _BINS
    near = values[np.abs(values - mode) < 2 / _BINS]
    level = float(np.median(near)) if near.size else float(np.median(values))
    spread = _spread(values - level)
    centre_x, centre_y = float(x.mean()), float(y.mean())
    flat = Relief(level, 0.0, 0.0, max(spread, _LEAST_SPREAD), centre_x, centre_y)
    if spread <= 2 * _LEAST_SPREAD or len(values) < 30:
        return flat
    table = np.stack([np.ones_like(values), x - centre_x, y - centre_y], axis=1)
    trusted = np.ones(len(values), bool)
    for _ in range(3):  # least squares, each time without what lies far from the last plane
        plane = np.linalg.lstsq(table[trusted], values[trusted], rcond=None)[0]
        rest = values - table @ plane
        trusted = np.abs(rest) <= max(2.5 * _spread(rest), 1e-6)
    level, across, down = (float(value) for value in plane)
    tilted = Relief(level, across, down, max(_spread(rest), _LEAST_SPREAD), centre_x, centre_y)
    return tilted if tilted.spread < _PLANE_GAIN * spread else flat


def _spread(rest: NDArray[np.float64]) -> float:
    return 1.4826 * float(np.median(np.abs(rest)))
