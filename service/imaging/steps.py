"""Steps of a network's map: where it goes from far to near within a few pixels, and the two levels it goes between.

A network draws the border of an object as a ramp, a few pixels of its map wide. Each pixel looks along the direction in
which the map rises, up to the ramp's top and down to its foot: where the map has become flat compared with the ramp.
Both must come soon, else it is no step but a slope (a floor, a wall seen from the side). The levels are those at foot
and top themselves, so a floor behind an object keeps its own slope up to it; and looking along one line, not all round,
keeps other things that lie nearby out of them.
"""

from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

FloatMap = NDArray[np.float32]

REACH_PX: Final = 14
"""How far a pixel looks to both sides, in pixels of the map: twice 1.9 sigma of ramps of a Gaussian's sigma 3.6."""

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
    direction = (down * unit, across * unit)
    profile = _profiles(relative, direction)
    rise = np.diff(profile, axis=0)  # rise[REACH_PX + k] is that from k to k + 1 pixels up the profile
    upwards, downwards = rise[REACH_PX:], rise[REACH_PX - 1 :: -1]
    here = np.maximum(upwards[0], downwards[0])
    # the steepest place of the ramp may lie to either side of the pixel: first each side by itself
    steepest = np.maximum(_walk(upwards, here)[1], _walk(downwards, here)[1])
    top, foot = _walk(upwards, steepest)[0], _walk(downwards, steepest)[0]
    far, near = _at(profile, -foot), _at(profile, top)
    height, width = near - far, top + foot
    step = (width <= _WIDEST_PX) & (height > _LEAST)
    step &= (width <= _NARROW_PX) | (steepest * width > _BEND * height)
    step &= _ends_inside(top, direction) & _ends_inside(-foot, direction)
    # a blurred ramp has tails: they belong to it, and its levels lie at their ends
    core = (step & (here >= _FLAT * steepest)).astype(np.uint8)
    beside: NDArray[Any] = cv2.dilate(core, np.ones((2 * _TAIL_PX + 1, 2 * _TAIL_PX + 1), np.uint8))
    ramp = step & (beside > 0) & (here >= _TAIL * steepest)
    most, tail = np.float32(_TAIL_HEIGHT) * height, (width + 2) // 4
    deeper = ramp & _ends_inside(-foot - tail, direction)
    higher = ramp & _ends_inside(top + tail, direction)
    far = np.where(deeper, np.minimum(far, np.maximum(_at(profile, -foot - tail), far - most)), far)
    near = np.where(higher, np.maximum(near, np.minimum(_at(profile, top + tail), near + most)), near)
    strength = np.where(ramp, np.clip((height - _LEAST) * np.float32(1 / (_FULL - _LEAST)), 0, 1), np.float32(0))
    return Steps(
        relative - strength * np.maximum(relative - far, 0), relative + strength * np.maximum(near - relative, 0), ramp
    )


def _profiles(relative: FloatMap, direction: tuple[FloatMap, FloatMap]) -> FloatMap:
    """The map at -REACH_PX..REACH_PX pixels from each of its pixels in a direction (down, across): (2 REACH + 1, h, w).

    Slopes go on beyond the picture, so that its border is no end of a ramp.
    """
    height, width = relative.shape
    padded = np.pad(relative, REACH_PX, mode="reflect", reflect_type="odd")
    x, y = np.meshgrid(np.arange(width, dtype=np.float32) + REACH_PX, np.arange(height, dtype=np.float32) + REACH_PX)
    profile = np.empty((2 * REACH_PX + 1, height, width), np.float32)
    for index, distance in enumerate(range(-REACH_PX, REACH_PX + 1)):
        step = np.float32(distance)
        line: NDArray[Any] = cv2.remap(
            padded, x + step * direction[1], y + step * direction[0], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        profile[index] = line.reshape(height, width)
    return profile


def _at(profile: FloatMap, steps: NDArray[np.intp]) -> FloatMap:
    """The map so many steps up the profile of each pixel, (h, w); at the end of the profile when it ends before."""
    index = np.clip(REACH_PX + steps, 0, 2 * REACH_PX)
    found: FloatMap = np.take_along_axis(profile, index[None], axis=0)[0]
    return found


def _ends_inside(steps: NDArray[np.intp], direction: tuple[FloatMap, FloatMap]) -> NDArray[np.bool_]:
    """Whether the place so many steps in the direction is on the map, and was not beyond reach."""
    height, width = steps.shape
    x = np.arange(width) + steps * direction[1]
    y = np.arange(height)[:, None] + steps * direction[0]
    inside: NDArray[np.bool_] = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return inside & (np.abs(steps) < REACH_PX)


def _walk(rises: FloatMap, steepest: FloatMap) -> tuple[NDArray[np.intp], FloatMap]:
    """How many pixels to where it is flat compared with the steepest rise so far, and that rise.

    Args:
        rises: (n, h, w), pixel after pixel.
        steepest: (h, w), the steepest rise known before.
    """
    steps, going = np.zeros(steepest.shape, np.intp), np.ones(steepest.shape, np.bool_)
    steepest = steepest.copy()
    for rise in rises:
        going &= rise > _FLAT * steepest
        steps += going
        np.maximum(steepest, rise, out=steepest, where=going)
    return steps, steepest
