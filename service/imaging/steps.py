"""Steps of a network's map: where it goes from far to near within a few pixels, and the two levels it goes between.

A network draws the border of an object as a ramp, a few pixels of its map wide. Each pixel looks along the direction in
which the map rises, up to the ramp's top and down to its foot: where the map has become flat compared with the ramp.
Both must come soon, else it is no step but a slope (a floor, a wall seen from the side). The levels are those at foot
and top themselves, so a floor behind an object keeps its own slope up to it; and looking along one line, not all round,
keeps other things that lie nearby out of them.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

FloatMap = NDArray[np.float32]

REACH_PX: Final = 14
"""How far a pixel looks to both sides, in pixels of the map: twice 1.9 sigma of ramps of a Gaussian's sigma 3.6."""

_CHUNK: Final = 8_192  # pixels at once: what lies along their lines stays in the processor's cache
_LEAST: Final = 0.04  # of the map's range: smaller steps are left as they are
_FULL: Final = 0.10  # steps this high are made quite hard; between, the more the higher, so that noise makes no facets
_WIDEST_PX: Final = 16  # from foot to top
_NARROW_PX: Final = 6  # ramps up to this are steps whatever their shape
_BEND: Final = 1.25  # steepest over mean slope; 1 is a short slope (a box's side), a blurred step has 1.6
_FLAT: Final = 0.15  # of the ramp's steepest slope; between two such places lie 95 % of the height of a Gaussian's ramp
_TAIL: Final = 0.02  # of the steepest slope: less is not even a ramp's tail
_TAIL_PX: Final = 2  # how far tails go beyond where the map is flat compared with the ramp
_TAIL_HEIGHT: Final = 0.06  # of the step: what a Gaussian's ramp still has to go there, and a little


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of a map of (h, w) pixels.

    Attributes:
        far: float32 (h, w), the level at the foot of the ramp a pixel is on; its own value on none, and between the two
            on a low ramp.
        near: float32 (h, w), the same for its top.
        ramp: bool (h, w), True on a ramp, whose in-between values are neither level.
    """

    far: FloatMap
    near: FloatMap
    ramp: NDArray[np.bool_]


def find_steps(relative: FloatMap) -> Steps:
    """The steps of a map.

    Args:
        relative: float32 (h, w) in 0..1; neither side 32,767 or more.
    """
    across: NDArray[Any] = cv2.Sobel(relative, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8, borderType=cv2.BORDER_REPLICATE)
    down: NDArray[Any] = cv2.Sobel(relative, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8, borderType=cv2.BORDER_REPLICATE)
    unit = 1 / np.maximum(cv2.magnitude(across, down), np.float32(1e-6))
    direction = (down * unit).ravel(), (across * unit).ravel()
    # where nothing within reach differs by a step, there is none: most of a matte, and the calm of a depth map
    window = np.ones((2 * REACH_PX + 3, 2 * REACH_PX + 3), np.uint8)
    range_: NDArray[Any] = cv2.subtract(cv2.dilate(relative, window), cv2.erode(relative, window))
    places = np.flatnonzero(range_ > _LEAST)
    padded = np.pad(relative, REACH_PX, mode="reflect", reflect_type="odd")  # a border is no end of a ramp
    core, ramp = np.zeros(relative.shape, np.uint8), np.zeros(relative.shape, np.bool_)
    far, near = relative.copy(), relative.copy()
    for start in range(0, places.size, _CHUNK):
        some = places[start : start + _CHUNK]
        line = _Line(padded, relative.shape, some, (direction[0][some], direction[1][some]))
        core.ravel()[some], ramp.ravel()[some], far.ravel()[some], near.ravel()[some] = line.step()
    # a blurred ramp has tails: they belong to it, and its levels lie at their ends
    beside: NDArray[Any] = cv2.dilate(core, np.ones((2 * _TAIL_PX + 1, 2 * _TAIL_PX + 1), np.uint8))
    ramp &= beside > 0
    return Steps(np.where(ramp, far, relative), np.where(ramp, near, relative), ramp)


class _Line:
    """The map along the direction in which it rises, through each of n pixels."""

    def __init__(
        self, padded: FloatMap, size: tuple[int, ...], places: NDArray[np.int64], direction: tuple[FloatMap, FloatMap]
    ) -> None:
        """Lines through `places` of a map of `size`, given `padded` by the reach."""
        self._size, self._direction = size, direction
        rows, columns = np.divmod(places, size[1])
        self._y, self._x = rows.astype(np.float32), columns.astype(np.float32)
        distances = np.arange(-REACH_PX, REACH_PX + 1, dtype=np.float32)[:, None]
        x, y = self._x + distances * direction[1], self._y + distances * direction[0]
        x += REACH_PX
        y += REACH_PX
        profile: NDArray[Any] = cv2.remap(padded, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        self._profile: FloatMap = profile.reshape(2 * REACH_PX + 1, places.size)

    def step(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_], FloatMap, FloatMap]:
        """Whether each pixel is in the midst of a step, whether it is so or on a step's tail, and its two levels."""
        profile = self._profile
        relative = profile[REACH_PX]
        rise = np.diff(profile, axis=0)  # rise[REACH_PX + k] is that from k to k + 1 pixels up the profile
        upwards, downwards = rise[REACH_PX:], rise[REACH_PX - 1 :: -1]
        here = np.maximum(upwards[0], downwards[0])
        # the steepest place of the ramp may lie to either side of the pixel: first each side by itself
        steepest = np.maximum(_walk(upwards, here)[1], _walk(downwards, here)[1])
        top, foot = _walk(upwards, steepest)[0], _walk(downwards, steepest)[0]
        far, near = self._at(-foot), self._at(top)
        height, width = near - far, top + foot
        step = (width <= _WIDEST_PX) & (height > _LEAST)
        step &= (width <= _NARROW_PX) | (steepest * width > _BEND * height)
        step &= self._ends_inside(top) & self._ends_inside(-foot)
        most, tail = np.float32(_TAIL_HEIGHT) * height, (width + 2) // 4
        deeper, higher = self._ends_inside(-foot - tail), self._ends_inside(top + tail)
        far = np.where(deeper, np.minimum(far, np.maximum(self._at(-foot - tail), far - most)), far)
        near = np.where(higher, np.maximum(near, np.minimum(self._at(top + tail), near + most)), near)
        strength = np.clip((height - _LEAST) * np.float32(1 / (_FULL - _LEAST)), 0, 1)
        far = relative - strength * np.maximum(relative - far, 0)
        near = relative + strength * np.maximum(near - relative, 0)
        return step & (here >= _FLAT * steepest), step & (here >= _TAIL * steepest), far, near

    def _at(self, steps: NDArray[np.int64]) -> FloatMap:
        """The map so many steps up the line; at its end when it ends before."""
        return _taken(self._profile, np.clip(REACH_PX + steps, 0, 2 * REACH_PX))

    def _ends_inside(self, steps: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the place so many steps up the line is on the map, and was not beyond reach."""
        (height, width), (down, across) = self._size, self._direction
        x, y = self._x + steps * across, self._y + steps * down
        inside: NDArray[np.bool_] = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
        return inside & (np.abs(steps) < REACH_PX)


def _walk(rises: FloatMap, steepest: FloatMap) -> tuple[NDArray[np.int64], FloatMap]:
    """How many pixels to where it is flat compared with the steepest rise so far, and that rise.

    Args:
        rises: (k, n), pixel after pixel.
        steepest: (n,), the steepest rise known before.
    """
    known = np.concatenate([steepest[None], rises])
    for before, after in pairwise(known):  # NumPy's own accumulation goes down the columns, at a tenth of the speed
        np.maximum(before, after, out=after)
    going = rises > np.float32(_FLAT) * known[:-1]
    for before, after in pairwise(going):
        after &= before
    steps = np.add.reduce(going.view(np.uint8), axis=0, dtype=np.uint8).astype(np.int64)
    return steps, _taken(known, steps)


def _taken(columns: FloatMap, rows: NDArray[np.int64]) -> FloatMap:
    """One value of each column, (k, n): (n,)."""
    found: FloatMap = columns.ravel().take(rows * rows.size + np.arange(rows.size))
    return found
