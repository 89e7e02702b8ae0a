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

FloatMap = NDArray[np.float32]

NOBODY: Final = 255
"""Owner of what belongs to no matte."""

_STEP: Final = 0.03  # inverse depth difference between neighbours that makes an edge
_RINGS: Final = (1, 2, 3, 5, 8)  # distances in pixels at which the surroundings are looked at, in eight directions
_CHUNK: Final = 32_768  # mixed pixels at once: their surroundings stay in the processor's cache
_NOISE: Final = 2e-4  # variance of linear light beside texture: sensor noise and 8 bits
_DEPTH_SPREAD: Final = 0.04  # inverse depth difference that halves a pixel's say about a side
_MIXED_SAY: Final = 1e-3  # of a mixed pixel about a side, as long as there are others
_UNSURE: Final = 0.1  # of the coverage: what may be the surroundings' own texture counts as none
_LIGHT_SAY: Final = 0.3  # of the light about coverage where there is a matte, whose say is better in texture
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
        matte = mattes[index]
        inside = (matte > 127).astype(np.uint8)
        whole[inside > 0] = index
        border: NDArray[Any] = cv2.morphologyEx(inside, cv2.MORPH_GRADIENT, neighbourhood(_RINGS[-1]))
        mixed = (border > 0) & (matte > _MATTE_SURE[0]) & (matte < _MATTE_SURE[1]) & (matte >= best)
        partly[mixed] = index
        best[mixed] = matte[mixed]
    return Owners(whole, partly)


def unmix(light: FloatMap, inverse_depth: FloatMap, mattes: NDArray[np.uint8], owner: Owners) -> Mixed:
    """Find the mixed pixels and take them apart.

    Args:
        light: float32 (H, W, 3), linear.
        inverse_depth: float32 (H, W), edges hard.
        mattes: uint8 (N, H, W).
        owner: of these mattes.
    """
    window = np.ones((3, 3), np.uint8)
    low: NDArray[Any] = cv2.erode(inverse_depth, window)
    high: NDArray[Any] = cv2.dilate(inverse_depth, window)
    band = (high - low > np.float32(_STEP)) | (owner.partly != NOBODY)
    places = np.flatnonzero(band)
    surroundings = _Surroundings(light, inverse_depth, mattes, owner, band, low, high)
    darkest, brightest = _range_round(light, places)
    chunks = [slice(start, start + _CHUNK) for start in range(0, max(1, places.size), _CHUNK)]
    parts = [surroundings.apart(places[chunk], darkest[chunk], brightest[chunk]) for chunk in chunks]
    return Mixed(places, *(np.concatenate(part) for part in zip(*parts, strict=True)))


def _range_round(light: FloatMap, places: NDArray[np.int64]) -> tuple[FloatMap, FloatMap]:
    """Least and most light round about `places`, channel by channel, so that memory holds one at a time: (n, 3)."""
    window = np.ones((2 * _RINGS[-1] + 1, 2 * _RINGS[-1] + 1), np.uint8)
    least, most = np.empty((places.size, 3), np.float32), np.empty((places.size, 3), np.float32)
    for channel in range(3):
        plane = np.ascontiguousarray(light[..., channel])
        least[:, channel] = cv2.erode(plane, window).ravel()[places]
        most[:, channel] = cv2.dilate(plane, window).ravel()[places]
    return least, most


@dataclass(frozen=True, slots=True, eq=False)
class _Surroundings:
    light: FloatMap
    depth: FloatMap
    mattes: NDArray[np.uint8]
    owner: Owners
    band: NDArray[np.bool_]
    low: FloatMap
    high: FloatMap

    def apart(self, places: NDArray[np.int64], darkest: FloatMap, brightest: FloatMap) -> tuple[NDArray[Any], ...]:
        """Front, back, depths and owners of the mixed pixels at `places`, in the order of `Mixed`.

        No front is darker than `darkest` or brighter than `brightest`, (n, 3).
        """
        light, depth = self.light.reshape(-1, 3), self.depth.ravel()
        owner, band = self.owner.whole.ravel(), self.band.ravel()
        which = self.owner.partly.ravel()[places]
        by_matte = which != NOBODY
        matte_of = np.where(by_matte, which, 0).astype(np.int64)
        low, high = self.low.ravel()[places], self.high.ravel()[places]
        middle = (low + high) / 2
        here = light[places]
        near, far = _Side(places.size), _Side(places.size)
        # by matte: `near` is what the matte shows, put right below where it is the farther
        share, counted = np.where(depth[places] > middle, np.float32(2), np.float32(0)), 2.0
        for distance, at in self._around(places):
            values, depths = light[at], depth[at]
            ahead, sure = depths > middle, ~band[at]
            if by_matte.any():
                levels = self.mattes[matte_of, *np.divmod(at, self.depth.shape[1])]
                ahead = np.where(by_matte, levels > 127, ahead)
                certain = (levels <= _MATTE_SURE[0]) | (levels >= _MATTE_SURE[1])
                sure = np.where(by_matte, certain, sure)
            if distance < 2:
                share, counted = share + ahead, counted + 1
            say = np.where(sure, np.float32(1), np.float32(_MIXED_SAY)) * np.float32(1 / distance**2)
            beyond = np.where(ahead, depths - high, depths - low)  # another thing yet, or a slope's far end
            say /= 1 + np.where(by_matte, np.float32(0), np.square(beyond * np.float32(1 / _DEPTH_SPREAD)))
            near.add(values, depths, owner[at], say * ahead)
            far.add(values, depths, owner[at], say * ~ahead)
        near.close(here, depth[places])
        far.close(here, depth[places])
        level = self.mattes[matte_of, *np.divmod(places, self.depth.shape[1])] if len(self.mattes) else 0
        expected = np.where(by_matte, np.float32(1 / 255) * level, share * np.float32(1 / counted))
        behind = by_matte & (near.depth < far.depth - _STEP)
        near, far = near.exchanged(far, behind)
        mostly = np.where(by_matte, expected > 0.5, depth[places] > middle) ^ behind
        expected = np.where(behind, 1 - expected, expected).astype(np.float32)
        front = _premultiplied(
            here, near, far, expected, mostly, np.where(by_matte, np.float32(_LIGHT_SAY), np.float32(1))
        )
        front[:, :3] = np.clip(front[:, :3], darkest * front[:, 3:], brightest * front[:, 3:])
        rest = 1 - front[:, 3:]
        seen = np.clip((here - front[:, :3]) / np.maximum(rest, np.float32(0.5)), darkest, brightest)
        back = np.where(rest > 0.5, seen, far.mean)
        return front, back, near.depth, np.minimum(far.depth, near.depth), near.owner, far.owner

    def _around(self, places: NDArray[np.int64]) -> Iterator[tuple[float, NDArray[np.int64]]]:
        """Distances and places of the pixels looked at, kept within the photo."""
        height, width = self.depth.shape
        rows, columns = np.divmod(places, width)
        for ring in _RINGS:
            for down, right in ((0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)):
                slant = round(ring * 0.7071) or 1 if down and right else ring
                at = np.clip(rows + down * slant, 0, height - 1) * width
                at += np.clip(columns + right * slant, 0, width - 1)
                yield slant * (2**0.5 if down and right else 1.0), at


class _Side:
    """What is known of one side of an edge, summed up pixel by pixel."""

    def __init__(self, count: int) -> None:
        self.weight = np.full(count, 1e-9, np.float32)
        self.mean = np.zeros((count, 3), np.float32)
        self.square = np.zeros(count, np.float32)
        self.depth = np.zeros(count, np.float32)
        self.owner = np.full(count, NOBODY, np.uint8)
        self._most = np.zeros(count, np.float32)

    def add(self, light: FloatMap, depth: FloatMap, owner: NDArray[np.uint8], weight: FloatMap) -> None:
        self.weight += weight
        self.mean += light * weight[:, None]
        self.square += np.einsum("ij,ij->i", light, light) * weight
        self.depth += depth * weight
        heavier = weight > self._most
        self.owner[heavier] = owner[heavier]
        self._most = np.maximum(self._most, weight)

    def close(self, here: FloatMap, depth: FloatMap) -> None:
        """Means of the sums; the pixel's own values where nothing was found."""
        found = self._most > 0
        self.mean = np.where(found[:, None], self.mean / self.weight[:, None], here)
        self.depth = np.where(found, self.depth / self.weight, depth)
        self.square = np.where(found, self.square / self.weight, 0)

    @property
    def variance(self) -> FloatMap:
        """Of the light, all channels together: (n,)."""
        result: FloatMap = np.maximum(self.square - np.einsum("ij,ij->i", self.mean, self.mean), 0)
        return result

    def exchanged(self, other: "_Side", where: NDArray[np.bool_]) -> tuple["_Side", "_Side"]:
        """Self and other with the pixels `where` changed over."""
        first, second = _Side(0), _Side(0)
        for name in ("mean", "square", "depth", "owner"):
            mine, theirs = getattr(self, name), getattr(other, name)
            swap = where[:, None] if mine.ndim == 2 else where
            setattr(first, name, np.where(swap, theirs, mine))
            setattr(second, name, np.where(swap, mine, theirs))
        return first, second


def _premultiplied(
    here: FloatMap, near: _Side, far: _Side, expected: FloatMap, mostly: NDArray[np.bool_], say: FloatMap
) -> FloatMap:
    """Light of the nearer side in mixed pixels, and its coverage: (n, 4)."""
    along = near.mean - far.mean
    contrast = np.einsum("ij,ij->i", along, along)
    measured = np.einsum("ij,ij->i", here - far.mean, along) / np.maximum(contrast, np.float32(1e-9))
    texture = near.variance + far.variance
    trust = contrast / (contrast + 2 * texture + np.float32(_NOISE)) * say
    coverage = np.clip(trust * measured + (1 - trust) * expected, 0, 1)
    unsure = np.minimum(np.sqrt((texture + _NOISE) / np.maximum(contrast, np.float32(1e-9))), _UNSURE)
    coverage = np.where((coverage < unsure) & ~mostly, 0, coverage)
    coverage = np.where((coverage > 1 - unsure) & mostly, 1, coverage)
    own = np.clip(here - (1 - coverage)[:, None] * far.mean, 0, coverage[:, None])
    front: FloatMap = np.concatenate([own, coverage[:, None]], axis=1).astype(np.float32)
    return front
