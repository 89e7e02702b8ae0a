"""Following one person from frame to frame of a video, by where he was, what he looks like and how far he is.

People's mattes come anew with every frame and are numbered by distance, so that numbers change places. The one followed
is whoever is most like the last sight of him: overlap with his matte, moved on as he moved last (E. Bochinski et al.,
High-speed tracking-by-detection without using image information, AVSS 2017), colours (histogram intersection; M. Swain,
D. Ballard, Color indexing, IJCV 1991) and inverse depth.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from service.imaging.geometry import resize

FloatMap = NDArray[np.float32]

_LONG_SIDE_PX: Final = 96  # of the copy that people are compared on
_BINS: Final = 8  # of each colour
_WEIGHTS: Final = (0.45, 0.35, 0.2)  # of overlap, colours, depth
_DEPTH_STEP: Final = 0.15  # relative inverse depth at which likeness by depth is down to 1/e
_ENOUGH: Final = 0.45
"""Likeness from which somebody is taken for the one followed."""
_COLOURS_ALONE: Final = 0.6  # of somebody who is nowhere near the place, as after a few lost frames
_LEARN: Final = 0.1  # share of a new sight in what he looks like
_FORGET: Final = 0.8  # of his speed, each frame without a sight of him


@dataclass(frozen=True, slots=True)
class Sight:
    """One person in one frame: matte float32 (h, w) in 0..1, its centre (x, y), colours, inverse depth."""

    matte: FloatMap
    centre: tuple[float, float]
    colours: FloatMap
    depth: float


@dataclass(slots=True)
class Track:
    """The one who is followed.

    Attributes:
        lost: frames since he was last seen.
    """

    lost: int = 0
    _last: Sight | None = None
    _speed: tuple[float, float] = (0.0, 0.0)
    _colours: FloatMap = field(default_factory=lambda: np.zeros(0, np.float32))

    def begin(self, sight: Sight) -> None:
        """Follow this one from now on."""
        self.lost, self._last, self._speed, self._colours = 0, sight, (0.0, 0.0), sight.colours

    def find(self, sights: list[Sight]) -> int | None:
        """Which of the people of the next frame he is; None when he is not among them."""
        if self._last is None:
            return None
        if any(sight.matte.shape != self._last.matte.shape for sight in sights):
            self._missed()
            return None
        moved = _moved(self._last.matte, *self._speed)
        scores = [self._likeness(moved, sight) for sight in sights]
        best = int(np.argmax(scores)) if scores else -1
        if best < 0 or scores[best] < _ENOUGH:
            self._missed()
            return None
        self._seen(sights[best])
        return best

    def _likeness(self, moved: FloatMap, sight: Sight) -> float:
        assert self._last is not None
        union = float(np.maximum(moved, sight.matte).sum())
        overlap = float(np.minimum(moved, sight.matte).sum()) / union if union > 0 else 0.0
        colours = float(np.minimum(self._colours, sight.colours).sum())
        if overlap == 0 and colours < _COLOURS_ALONE:
            return 0.0
        near = math.exp(-abs(sight.depth - self._last.depth) / _DEPTH_STEP)
        place = math.sqrt(overlap)  # halfway out of the last matte is a third of overlap, and still him
        return _WEIGHTS[0] * place + _WEIGHTS[1] * colours + _WEIGHTS[2] * near

    def _seen(self, sight: Sight) -> None:
        assert self._last is not None
        steps = self.lost + 1
        self._speed = (
            (sight.centre[0] - self._last.centre[0]) / steps,
            (sight.centre[1] - self._last.centre[1]) / steps,
        )
        self._colours = self._colours + np.float32(_LEARN) * (sight.colours - self._colours)
        self._last, self.lost = sight, 0

    def _missed(self) -> None:
        self.lost += 1
        self._speed = (self._speed[0] * _FORGET, self._speed[1] * _FORGET)


def look_at(mattes: NDArray[np.uint8], picture: NDArray[np.uint8], depths: list[float]) -> list[Sight]:
    """The people of a frame as they are compared.

    Args:
        mattes: uint8 (N, H, W), one per person.
        picture: uint8 (H, W, 3).
        depths: inverse depth of each.
    """
    height, width = picture.shape[:2]
    factor = min(1.0, _LONG_SIDE_PX / max(height, width))
    size = max(1, round(height * factor)), max(1, round(width * factor))
    small = resize(picture, size)
    bins: NDArray[Any] = small.astype(np.int32) * _BINS // 256
    codes = ((bins[..., 0] * _BINS + bins[..., 1]) * _BINS + bins[..., 2]).ravel()
    return [_sight(resize(matte, size), codes, depth) for matte, depth in zip(mattes, depths, strict=True)]


def _sight(matte: NDArray[np.uint8], codes: NDArray[np.int32], depth: float) -> Sight:
    share = matte.astype(np.float32) / np.float32(255)
    total = float(share.sum())
    if total <= 0:
        return Sight(share, (0.0, 0.0), np.zeros(_BINS**3, np.float32), depth)
    rows, columns = share.sum(axis=1), share.sum(axis=0)
    centre = float(columns @ np.arange(columns.size)) / total, float(rows @ np.arange(rows.size)) / total
    colours = np.bincount(codes, weights=share.ravel(), minlength=_BINS**3) / total
    return Sight(share, centre, colours.astype(np.float32), depth)


def _moved(matte: FloatMap, right_px: float, down_px: float) -> FloatMap:
    shift = np.array([[1, 0, right_px], [0, 1, down_px]], np.float32)
    result: NDArray[Any] = cv2.warpAffine(matte, shift, (matte.shape[1], matte.shape[0]))
    return result
