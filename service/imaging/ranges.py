"""Ranges that hold over a whole video: of preview colours, and of numbers stored in 16 bits."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.imaging.depth import finite

_SLOW: Final = 0.02  # of the way, each frame: half of it in 34
_MARGIN: Final = 0.5  # of the first frame's range, kept free on either side
_LEVELS_16: Final = 65_535


@dataclass(slots=True)
class Span:
    """A range that follows slowly, so that colours do not flicker; both ends 0 before the first map."""

    low: float = 0.0
    high: float = 0.0

    def follow(self, low: float, high: float, *, anew: bool) -> tuple[float, float]:
        """Go on towards another range, or jump to it where something new begins."""
        step = 1.0 if anew else _SLOW
        self.low += step * (low - self.low)
        self.high += step * (high - self.high)
        return self.low, self.high


@dataclass(slots=True)
class Levels:
    """Where 0 and 65535 are, the same for all frames as long as values fit; grows where they do not."""

    low: float = 0.0
    high: float = 0.0

    def store(self, values: NDArray[Any]) -> tuple[NDArray[np.uint16], float, float]:
        """Store a map in 16 bits.

        Args:
            values: (H, W), any unit.

        Returns:
            stored uint16 (H, W), larger = larger; scale, offset with value = stored * scale + offset. The error is half
            a step, scale / 2.
        """
        numbers = finite(values)
        low, high = float(numbers.min()), float(numbers.max())
        if self.high <= self.low or low < self.low or high > self.high:
            low = low if self.high <= self.low else min(low, self.low)
            high = high if self.high <= self.low else max(high, self.high)
            margin = _MARGIN * max(high - low, 1e-6 * max(abs(low), abs(high), 1.0))
            self.low, self.high = low - margin, high + margin
        scale = (self.high - self.low) / _LEVELS_16
        stored = (numbers.astype(np.float64) - self.low) / scale
        return np.rint(stored).astype(np.uint16), scale, self.low
