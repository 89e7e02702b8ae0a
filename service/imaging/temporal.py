"""Maps of the frames of one video, steady over time: one scale, less flicker, no trailing behind what moves.

A network sees every frame for itself. Its relative depth has another scale and shift each time, and noise in the frame
is noise in the map. For each frame:

1. a cut is looked for: the frame's brightness pattern has less than `CUT_BELOW` correlation with the last one's. After
   it, and when size or model change, everything begins anew;
2. scale and shift are found with which the map fits the running one, from places where the picture has not changed, by
   regression that is robust against the rest (Tukey's biweight; P. Holland, R. Welsch, Robust regression using
   iteratively reweighted least-squares, 1977) and does not shrink with noise (geometric mean regression: the ratio of
   the deviations); they slowly go back to 1 and 0, so that what the fits get wrong does not add up;
3. each pixel of the running map moves towards the new one: by `_CALM` of the way where nothing changes, all the way
   where the picture changed, or where the map goes on differing to one side. So the average is taken over noise and not
   over motion.

Maps are those of the network's own size. Depth in metres is never rescaled (step 2 is left out).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from service.imaging.depth import finite

FloatMap = NDArray[np.float32]
Doubles = NDArray[np.float64]
Reset = Literal["start", "cut", "size", "model"]

CUT_BELOW: Final = 0.5
"""Correlation of two frames' brightness below which they are not of one shot; gain and offset do not change it."""

_CUT_SIDE_PX: Final = 32  # of the small pictures compared for that
_FLAT_LEVELS: Final = 2.0  # standard deviation of brightness (of 255) below which a frame has no pattern
_CALM: Final = 0.15  # share of the way where nothing happens: an average over about 12 frames
_BLUR_PX: Final = 5
_SPREAD_PX: Final = 7  # a change is one for its surroundings, too: the network saw those together
_PICTURE_SIGMAS: Final = (3.0, 6.0)  # change of the picture, in its noise, that begins to count, and counts in full
_MAP_SIGMAS: Final = (2.5, 5.0)  # the same for the lasting difference of the map
_MEMORY: Final = 0.6  # of that lasting difference
_MATTE_STEP: Final = (0.1, 0.3)  # change of a matte that begins to count, and counts in full
_NOISE_STEPS: Final = (
    0.3,
    0.03,
)  # how the level of noise follows, down and up: a map that moves as a whole is no noise
_HOME: Final = 1 / 200  # per frame: how scale and shift go back to the network's own
_FIT_ROUNDS: Final = 5
_TRUSTED: Final = 0.5
_TUKEY: Final = 4.685  # 95 % efficiency on normal residuals (Holland and Welsch)
_LEAST_SHARE: Final = 0.05  # of the picture unchanged, for the fit to rely on that part
_SCALES: Final = (1 / 3, 3.0)
_LEAST_NOISE: Final = 0.35  # levels of brightness: a picture without noise is still quantised


@dataclass(frozen=True, slots=True)
class Step:
    """What one frame gave.

    Attributes:
        maps: the steady maps, float32 (h, w) each.
        reset: why they began anew with this frame, None when they did not.
        scale: of the fit: steady values are near own * scale + shift.
        shift: see `scale`.
    """

    maps: Mapping[str, FloatMap]
    reset: Reset | None
    scale: float
    shift: float


@dataclass(slots=True)
class _Running:
    """One map, and how it has differed from the frames' own of late."""

    value: FloatMap
    difference: FloatMap
    noise: float = 0.0


@dataclass(slots=True)
class Sequence:
    """The frames of one video, one after the other.

    Args:
        relative: the map of inverse depth that each frame has in a scale of its own; None where there is none.
    """

    relative: str | None
    _brightness: FloatMap | None = None
    _small: FloatMap | None = None
    _source: object = None
    _maps: dict[str, _Running] = field(default_factory=dict)
    _scale: float = 1.0
    _shift: float = 0.0

    def step(self, picture: NDArray[np.uint8], maps: Mapping[str, NDArray[Any]], source: object = None) -> Step:
        """Take the next frame.

        Args:
            picture: uint8 (h, w, 3), sRGB, of the maps' size.
            maps: by name, (h, w) each: depth of any unit, mattes in 0..1 under the name `person`.
            source: whatever gave the maps; another one than before begins anew.

        Raises:
            InvalidMap: a map without one finite value.
        """
        given = {name: finite(values) for name, values in maps.items()}
        gray: NDArray[Any] = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        brightness: NDArray[Any] = cv2.blur(gray.astype(np.float32), (_BLUR_PX, _BLUR_PX))
        small: NDArray[Any] = cv2.resize(brightness, (_CUT_SIDE_PX, _CUT_SIDE_PX), interpolation=cv2.INTER_AREA)
        reset = self._reset_because(brightness, small, source)
        if reset is not None or self._brightness is None:
            self._begin(given)
        else:
            noise = _noise(gray)
            change = _change(self._brightness, brightness, noise)
            self._fit(given, change)
            for name, values in given.items():
                self._move(name, values, change)
        self._brightness, self._small, self._source = brightness, small, source
        return Step({name: kept.value for name, kept in self._maps.items()}, reset, self._scale, self._shift)

    def _reset_because(self, brightness: FloatMap, small: FloatMap, source: object) -> Reset | None:
        if self._brightness is None or self._small is None:
            return "start"
        if self._brightness.shape != brightness.shape:
            return "size"
        if source != self._source:
            return "model"
        return "cut" if is_cut(self._small, small) else None

    def _begin(self, given: Mapping[str, FloatMap]) -> None:
        self._scale, self._shift = 1.0, 0.0
        self._maps = {name: _Running(values, np.zeros_like(values)) for name, values in given.items()}

    def _fit(self, given: dict[str, FloatMap], change: FloatMap) -> None:
        if self.relative is None:
            return
        own = given[self.relative]
        scale, shift = fit(own, self._maps[self.relative].value, 1 - change, self._scale)
        self._scale = scale ** (1 - _HOME)
        self._shift = shift * (1 - _HOME)
        given[self.relative] = own * np.float32(self._scale) + np.float32(self._shift)

    def _move(self, name: str, values: FloatMap, change: FloatMap) -> None:
        kept = self._maps[name]
        difference = values - kept.value
        if name == "person":
            lasting = _ramp(np.abs(difference), *_MATTE_STEP)
        else:
            kept.difference *= np.float32(_MEMORY)
            kept.difference += np.float32(1 - _MEMORY) * cv2.blur(difference, (_BLUR_PX, _BLUR_PX))
            size = np.abs(kept.difference)
            kept.noise = _calm_level(size, change, kept.noise)
            lasting = _ramp(size, *(limit * max(kept.noise, 1e-9) for limit in _MAP_SIGMAS))
        share = np.float32(_CALM) + np.float32(1 - _CALM) * np.maximum(change, lasting)
        kept.value = kept.value + share * difference


def is_cut(before: FloatMap, after: FloatMap) -> bool:
    """Whether two small pictures of brightness (levels of 255) are of different shots; see `CUT_BELOW`."""
    flat = [float(picture.std()) < _FLAT_LEVELS for picture in (before, after)]
    if any(flat):
        return not all(flat)
    one, other = before - before.mean(), after - after.mean()
    return float((one * other).mean()) < CUT_BELOW * float(one.std()) * float(other.std())


def fit(values: FloatMap, target: FloatMap, weight: FloatMap, start: float = 1.0) -> tuple[float, float]:
    """Scale and shift with which `values` come nearest to `target`; a map that says nothing of scale gets 1.

    Args:
        values: (h, w).
        target: (h, w).
        weight: (h, w) in 0..1; ignored where hardly anything has any.
        start: the scale to begin with, from which what does not fit is told apart first.
    """
    x, y = (cv2.blur(each, (_BLUR_PX, _BLUR_PX))[::2, ::2].ravel().astype(np.float64) for each in (values, target))
    trust = weight[::2, ::2].ravel().astype(np.float64)
    if trust.mean() < _LEAST_SHARE:
        trust = np.ones_like(trust)
    scale = start
    shift = float(np.median((y - scale * x)[trust > _TRUSTED] if (trust > _TRUSTED).any() else y - scale * x))
    for _ in range(_FIT_ROUNDS):
        now = _tukey(np.abs(y - scale * x - shift), trust)
        total = now.sum()
        middle_x, middle_y = (now @ x) / total, (now @ y) / total
        spread_x = float(np.sqrt(now @ (x - middle_x) ** 2 / total))
        spread_y = float(np.sqrt(now @ (y - middle_y) ** 2 / total))
        tiny = 1e-6 * (abs(middle_x) + 1e-12)
        scale = 1.0 if spread_x <= tiny or spread_y <= tiny else float(np.clip(spread_y / spread_x, *_SCALES))
        shift = float(middle_y - scale * middle_x)
    return scale, shift


def _tukey(residual: Doubles, trust: Doubles) -> Doubles:
    """Weights by the biweight of the residuals, in their own deviation where there is trust."""
    trusted = residual[trust > _TRUSTED]
    level = 1.4826 * float(np.median(trusted if trusted.size else residual))
    if level <= 1e-12:
        level = float(residual.max()) * 0.1 + 1e-12  # more than half fits exactly: what does not is left out
    weights: Doubles = trust * np.clip(1 - (residual / (_TUKEY * level)) ** 2, 0, None) ** 2
    return weights if weights.sum() > 1e-6 else trust


def _noise(gray: NDArray[np.uint8]) -> float:
    """Standard deviation of the noise, in levels of 255, from how pixels differ from their neighbours.

    J. Immerkaer, Fast noise variance estimation, CVIU 64(2), 1996; the median instead of the mean, so that a few edges
    are not taken for noise.
    """
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    response = np.abs(cv2.filter2D(gray, cv2.CV_32F, mask))
    return max(_LEAST_NOISE, 1.4826 * float(np.median(response[::2, ::2])) / 6)


def _change(before: FloatMap, after: FloatMap, noise: float) -> FloatMap:
    """Where the picture has changed by more than its noise and a new gain and offset: float32 (h, w) in 0..1."""
    gain, offset = fit(after, before, np.ones_like(after))
    apart = np.abs(after * np.float32(gain) + np.float32(offset) - before)
    level = noise * 2**0.5 / _BLUR_PX * 2  # of the difference of two blurred pictures; their noise is not quite white
    change = _ramp(apart, _PICTURE_SIGMAS[0] * level, _PICTURE_SIGMAS[1] * level)
    spread: NDArray[Any] = cv2.blur(
        cv2.dilate(change, np.ones((_SPREAD_PX, _SPREAD_PX), np.uint8)), (_BLUR_PX, _BLUR_PX)
    )
    return spread


def _calm_level(size: FloatMap, change: FloatMap, before: float) -> float:
    """Standard deviation of the lasting difference where the picture is calm; the one before where it is nowhere."""
    calm = size[::2, ::2][change[::2, ::2] < 0.5]
    if calm.size < _LEAST_SHARE * size.size / 4:
        return before
    now = 1.4826 * float(np.median(calm))
    return now if before == 0 else before + _NOISE_STEPS[now > before] * (now - before)


def _ramp(values: FloatMap, start: float, end: float) -> FloatMap:
    """0 below `start`, 1 above `end`, linear between."""
    result: FloatMap = np.clip((values - np.float32(start)) * np.float32(1 / (end - start)), 0, 1)
    return result
