"""Mixed pixels: what they show of the nearer thing at an edge, and what of the farther one behind it.

A pixel on the border of two things shows coverage * front + (1 - coverage) * back in linear light. A lens blurs the two
apart, so both have to be known, or the old background goes with a blurred head of hair as a fringe. Front and back are
taken from the pixels round about that are not mixed, on either side; coverage is where the pixel's light lies between
the two, as far as they differ more than their own texture, and else what the matte or the depth map says. After
Chuang et al., A Bayesian approach to digital matting, CVPR 2001, with one Gaussian a side along the line of the two.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from service.imaging.geometry import neighbourhood
from service.imaging.light import to_linear

FloatMap = NDArray[np.float32]

NOBODY: Final = 255
"""Owner of what belongs to no matte."""

_STEP: Final = 0.03  # inverse depth difference between neighbours that makes an edge
_RINGS: Final = (1, 2, 3, 5, 8)  # distances in pixels at which the surroundings are looked at, in eight directions
_CHUNK: Final = 8_192  # mixed pixels at once: sums over their surroundings stay in the processor's cache
_NOISE: Final = 2e-4  # variance of linear light beside texture: sensor noise and 8 bits
_DEPTH_SPREAD: Final = 0.04  # inverse depth difference that halves a pixel's say about a side
_MIXED_SAY: Final = 1e-3  # of a mixed pixel about a side, as long as there are others
_UNSURE: Final = 0.1  # of the coverage: what may be the surroundings' own texture counts as none
_LIGHT_SAY: Final = 0.3  # of the light about coverage where there is a matte, whose say is better in texture
_MIXED_FLAG: Final = 256
_MATTE_SURE: Final = (5, 250)  # matte levels up to and from which a pixel is not mixed


@dataclass(frozen=True, slots=True, eq=False)
class Mixed:
    """The mixed pixels of a photo, n of them.

    Attributes:
        index: int64 (n,), place in the flattened photo, ascending.
        front: float32 (n, 4), linear light times coverage of the nearer thing, and its coverage 0..1.
        back: float32 (n, 3), linear light of the farther one.
        front_depth: float32 (n,), inverse depth of the nearer.
        back_depth: likewise of the farther.
        front_owner: uint8 (n,), index of the matte that the nearer belongs to, or `NOBODY`.
        back_owner: likewise of the farther.
    """

    index: NDArray[np.int64]
    front: FloatMap
    back: FloatMap
    front_depth: FloatMap
    back_depth: FloatMap
    front_owner: NDArray[np.uint8]
    back_owner: NDArray[np.uint8]

    @classmethod
    def blank(cls, places: NDArray[np.int64]) -> "Mixed":
        """Room for what is found at `places`."""
        count = places.size
        front, back = np.empty((count, 4), np.float32), np.empty((count, 3), np.float32)
        depths, owned = np.empty((2, count), np.float32), np.empty((2, count), np.uint8)
        return cls(places, front, back, *depths, *owned)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(getattr(self, name).nbytes for name in self.__dataclass_fields__)


@dataclass(frozen=True, slots=True, eq=False)
class Owners:
    """Which matte a pixel belongs to.

    Attributes:
        whole: uint8 (H, W), index of the matte that covers more than half of the pixel, else `NOBODY`.
        partly: uint8 (H, W), index of the matte that covers most of it without covering all, else `NOBODY`; only near
            a matte's border: in the middle of a person a matte below 1 is a network's doubt.
    """

    whole: NDArray[np.uint8]
    partly: NDArray[np.uint8]


def owners(mattes: NDArray[np.uint8], order: Sequence[int]) -> Owners:
    """Owners of all pixels by mattes uint8 (N, H, W); where several are equal, the last in `order`."""
    whole = np.full(mattes.shape[1:], NOBODY, np.uint8)
    partly, best = whole.copy(), np.zeros(mattes.shape[1:], np.uint8)
    for index in order:
        left, top, across, down = cv2.boundingRect(mattes[index])
        # what lies beyond this is no border of his, and mattes are mostly small beside the photo
        part = (
            slice(max(0, top - _RINGS[-1]), top + down + _RINGS[-1]),
            slice(max(0, left - _RINGS[-1]), left + across + _RINGS[-1]),
        )
        matte = mattes[index][part]
        if not matte.size:
            continue
        inside = (matte > 127).astype(np.uint8)
        whole[part][inside > 0] = index
        border: NDArray[Any] = cv2.morphologyEx(inside, cv2.MORPH_GRADIENT, neighbourhood(_RINGS[-1]))
        mixed = (border > 0) & (matte > _MATTE_SURE[0]) & (matte < _MATTE_SURE[1]) & (matte >= best[part])
        partly[part][mixed] = index
        best[part][mixed] = matte[mixed]
    return Owners(whole, partly)


def unmix(
    light: FloatMap,
    display: NDArray[np.uint8],
    inverse_depth: FloatMap,
    mattes: NDArray[np.uint8],
    owner: Owners,
) -> Mixed:
    """Find the mixed pixels and take them apart.

    Args:
        light: float32 (H, W, 3), linear.
        display: uint8 (H, W, 3), the same in sRGB.
        inverse_depth: float32 (H, W), edges hard.
        mattes: uint8 (N, H, W).
        owner: of these mattes.
    """
    window = np.ones((3, 3), np.uint8)
    low: NDArray[Any] = cv2.erode(inverse_depth, window)
    high: NDArray[Any] = cv2.dilate(inverse_depth, window)
    band = (high - low > np.float32(_STEP)) | (owner.partly != NOBODY)
    places = np.flatnonzero(band)
    which = owner.partly.ravel()[places]
    surroundings = _Surroundings.of(light, inverse_depth, mattes, owner, band)
    spans = _spans_round(display, places), low.ravel()[places], high.ravel()[places]
    mixed = Mixed.blank(places)
    for by_matte in (True, False):
        chosen = np.flatnonzero((which != NOBODY) == by_matte)
        for start in range(0, chosen.size, _CHUNK):
            some = chosen[start : start + _CHUNK]
            span = _Span(spans[0][0][:, some], spans[0][1][:, some], spans[1][some], spans[2][some])
            if by_matte:
                surroundings.apart_by_matte(mixed, some, which[some].astype(np.int64), span)
            else:
                surroundings.apart_by_depth(mixed, some, span)
    return mixed


def _spans_round(display: NDArray[np.uint8], places: NDArray[np.int64]) -> tuple[FloatMap, FloatMap]:
    """Least and most light round about `places`, channel by channel: (3, n) each.

    Display values order light as light itself does, and 8 bits are eroded several times as fast as floats.
    """
    window = np.ones((2 * _RINGS[-1] + 1, 2 * _RINGS[-1] + 1), np.uint8)
    extremes = cv2.erode(display, window), cv2.dilate(display, window)
    least, most = (to_linear(np.ascontiguousarray(values.reshape(-1, 3)[places].T)) for values in extremes)
    return least, most


@dataclass(frozen=True, slots=True)
class _Span:
    """Between what the surroundings of mixed pixels lie: `darkest` and `brightest` (3, n), `low` and `high` depth (n,).

    The depths are those of the pixels next to it, the light is that of `_RINGS`.
    """

    darkest: FloatMap
    brightest: FloatMap
    low: FloatMap
    high: FloatMap


@dataclass(frozen=True, slots=True, eq=False)
class _Surroundings:
    """The photo with its border pixels repeated outwards, so that what lies at a distance is one number farther.

    Attributes:
        planes: float32 (4, M), red, green, blue and inverse depth of the M pixels.
        flags: uint16 (M,), the owner, and 256 more where the pixel is mixed itself.
        mattes: uint8 (N * M,).
        width: of the widened photo.
        inner: width of the photo itself.
    """

    planes: FloatMap
    flags: NDArray[np.uint16]
    mattes: NDArray[np.uint8]
    width: int
    inner: int

    @classmethod
    def of(
        cls,
        light: FloatMap,
        inverse_depth: FloatMap,
        mattes: NDArray[np.uint8],
        owner: Owners,
        band: NDArray[np.bool_],
    ) -> "_Surroundings":
        """Those of a photo."""
        far = _RINGS[-1]
        height, width = inverse_depth.shape[0] + 2 * far, inverse_depth.shape[1] + 2 * far

        def widen(values: NDArray[Any], room: NDArray[Any]) -> None:
            cv2.copyMakeBorder(values, far, far, far, far, cv2.BORDER_REPLICATE, dst=room)

        planes = np.empty((4, height, width), np.float32)
        for channel in range(3):
            widen(np.asarray(cv2.extractChannel(light, channel)), planes[channel])
        widen(inverse_depth, planes[3])
        flags = np.empty((height, width), np.uint16)
        widen(owner.whole + np.multiply(band, _MIXED_FLAG, dtype=np.uint16), flags)
        wide_mattes = np.empty((len(mattes), height, width), np.uint8)
        for matte, room in zip(mattes, wide_mattes, strict=True):
            widen(matte, room)
        return cls(planes.reshape(4, -1), flags.ravel(), wide_mattes.ravel(), width, inverse_depth.shape[1])

    def _wide(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Places of the photo in the widened one."""
        rows, columns = np.divmod(places, self.inner)
        wide: NDArray[np.int64] = (rows + _RINGS[-1]) * self.width + columns + _RINGS[-1]
        return wide

    def _around(self) -> Iterator[tuple[float, int]]:
        """Distances of the pixels looked at, and how far on they are."""
        for ring in _RINGS:
            for down, right in ((0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)):
                slant = round(ring * 0.7071) or 1 if down and right else ring
                yield slant * (2**0.5 if down and right else 1.0), (down * self.width + right) * slant

    def apart_by_depth(self, mixed: "Mixed", some: NDArray[np.int64], span: _Span) -> None:
        """Front, back, depths and owners of the mixed pixels number `some`, by the depths round about."""
        at = self._wide(mixed.index[some])
        here = self.planes[:, at]
        middle = (span.low + span.high) * np.float32(0.5)
        mostly = here[3] > middle
        near, far, seen = _Side(some.size), _Side(some.size), _Seen(some.size)
        share, counted = np.where(mostly, np.float32(2), np.float32(0)), 2.0
        for distance, ahead_by in self._around():
            seen.look(self, at + ahead_by)
            ahead = seen.depth > middle
            if distance < 2:
                share, counted = share + ahead, counted + 1
            beyond = seen.depth - np.where(ahead, span.high, span.low)  # another thing yet, or a slope's far end
            beyond *= np.float32(1 / _DEPTH_SPREAD)
            beyond *= beyond
            beyond += 1
            say = np.where(seen.flags >= _MIXED_FLAG, np.float32(_MIXED_SAY), np.float32(1)) / beyond
            say *= np.float32(1 / distance**2)
            near.add(seen, say * ahead)
            far.add(seen, say * ~ahead)
        expected = share * np.float32(1 / counted)
        near.close(here)
        far.close(here)
        self._write(mixed, some, here[:3], (near, far), _Guess(expected, mostly, 1.0), span)

    def apart_by_matte(self, mixed: "Mixed", some: NDArray[np.int64], which: NDArray[np.int64], span: _Span) -> None:
        """The same of those on the border of the mattes `which`, by these."""
        at = self._wide(mixed.index[some])
        here = self.planes[:, at]
        at_matte = at + which * self.flags.size
        expected = self.mattes[at_matte] * np.float32(1 / 255)
        # near is what the matte shows, put right below where it is the farther
        near, far, seen = _Side(some.size), _Side(some.size), _Seen(some.size)
        for distance, ahead_by in self._around():
            seen.look(self, at + ahead_by)
            level = self.mattes[at_matte + ahead_by]
            ahead = level > 127
            certain = (level <= _MATTE_SURE[0]) | (level >= _MATTE_SURE[1])
            say = np.where(certain, np.float32(1 / distance**2), np.float32(_MIXED_SAY / distance**2))
            near.add(seen, say * ahead)
            far.add(seen, say * ~ahead)
        near.close(here)
        far.close(here)
        behind = near.depth < far.depth - np.float32(_STEP)
        near, far = near.exchanged(far, behind)
        mostly = (expected > 0.5) ^ behind
        expected = np.where(behind, 1 - expected, expected)
        self._write(mixed, some, here[:3], (near, far), _Guess(expected, mostly, _LIGHT_SAY), span)

    def _write(
        self,
        mixed: "Mixed",
        some: NDArray[np.int64],
        here: FloatMap,
        sides: "tuple[_Side, _Side]",
        guess: "_Guess",
        span: _Span,
    ) -> None:
        """What two sides say of the mixed pixels number `some`, whose light is `here`, (3, n)."""
        near, far = sides
        coverage = _coverage(here, near, far, guess)
        rest = 1 - coverage
        front = np.clip(here - rest * far.mean, 0, coverage)
        np.clip(front, span.darkest * coverage, span.brightest * coverage, out=front)
        seen = np.clip((here - front) / np.maximum(rest, np.float32(0.5)), span.darkest, span.brightest)
        mixed.front[some, :3], mixed.front[some, 3] = front.T, coverage
        mixed.back[some] = np.where(rest > 0.5, seen, far.mean).T
        mixed.front_depth[some], mixed.back_depth[some] = near.depth, np.minimum(far.depth, near.depth)
        mixed.front_owner[some], mixed.back_owner[some] = near.owner, far.owner


class _Seen:
    """The pixels at one distance and in one direction: light, its square, depth and a one for counting, (6, n)."""

    def __init__(self, count: int) -> None:
        self.values = np.ones((6, count), np.float32)
        self.flags = np.zeros(count, np.uint16)

    @property
    def depth(self) -> FloatMap:
        """Inverse depth, (n,)."""
        result: FloatMap = self.values[3]
        return result

    def look(self, surroundings: _Surroundings, at: NDArray[np.int64]) -> None:
        """Look there; without `clip`, NumPy takes by way of a copy, and nothing is ever outside."""
        np.take(surroundings.planes, at, axis=1, out=self.values[:4], mode="clip")
        np.take(surroundings.flags, at, out=self.flags, mode="clip")
        red, green, blue = self.values[:3]
        self.values[4] = red * red + green * green + blue * blue


class _Side:
    """What is known of one side of an edge, summed up pixel by pixel: `mean` (3, n) light, `depth` and so on (n,)."""

    def __init__(self, count: int) -> None:
        self._sums = np.zeros((6, count), np.float32)
        self._sums[5] = 1e-9
        self._most = np.zeros(count, np.float32)
        self.owner = np.full(count, NOBODY, np.uint8)
        self.mean, self.depth, self.variance = self._sums[:3], self._sums[3], self._sums[4]

    def add(self, seen: _Seen, weight: FloatMap) -> None:
        self._sums += seen.values * weight
        np.copyto(self.owner, seen.flags, where=weight > self._most, casting="unsafe")  # its low byte
        np.maximum(self._most, weight, out=self._most)

    def close(self, here: FloatMap) -> None:
        """Means of the sums; the pixel's own values, (4, n), where nothing was found."""
        found = self._most > 0
        means = np.where(found, self._sums[:5] / self._sums[5], np.float32(0))
        means[:4, ~found] = here[:, ~found]
        self.mean, self.depth = means[:3], means[3]
        self.variance = np.maximum(means[4] - _dot(self.mean, self.mean), 0)  # of the light, all channels together

    def exchanged(self, other: "_Side", where: NDArray[np.bool_]) -> "tuple[_Side, _Side]":
        """Self and other with the pixels `where` changed over."""
        first, second = _Side(0), _Side(0)
        for name in ("mean", "variance", "depth", "owner"):
            mine, theirs = getattr(self, name), getattr(other, name)
            setattr(first, name, np.where(where, theirs, mine))
            setattr(second, name, np.where(where, mine, theirs))
        return first, second


@dataclass(frozen=True, slots=True)
class _Guess:
    """What depth or matte say of coverage: `expected` 0..1, whether it is `mostly` front, and the light's `say`."""

    expected: FloatMap
    mostly: NDArray[np.bool_]
    say: float


def _dot(first: FloatMap, second: FloatMap) -> FloatMap:
    """Of colours, (3, n) each: (n,)."""
    result: FloatMap = first[0] * second[0] + first[1] * second[1] + first[2] * second[2]
    return result


def _coverage(here: FloatMap, near: _Side, far: _Side, guess: _Guess) -> FloatMap:
    """Of the nearer side in mixed pixels: (n,)."""
    along = near.mean - far.mean
    contrast = _dot(along, along)
    measured = _dot(here - far.mean, along) / np.maximum(contrast, np.float32(1e-9))
    texture = near.variance + far.variance
    trust = contrast / (contrast + 2 * texture + np.float32(_NOISE)) * np.float32(guess.say)
    coverage: FloatMap = np.clip(trust * measured + (1 - trust) * guess.expected, 0, 1)
    unsure = np.minimum(np.sqrt((texture + np.float32(_NOISE)) / np.maximum(contrast, np.float32(1e-9))), _UNSURE)
    coverage[(coverage < unsure) & ~guess.mostly] = 0
    coverage[(coverage > 1 - unsure) & guess.mostly] = 1
    return coverage
