"""A photo cut into depth layers, blurred each by its own circle of confusion and laid over one another, far to near.

Premultiplied layers composited far to near with blurred coverage follow MPIB (Peng et al., ECCV 2022); that farther
layers go on behind nearer ones, so that no gap opens at a blurred rim, is the push-pull continuation of `filling`.

A pixel's place u among the layers is fractional: between i and i + 1 it shows layer i in full and layer i + 1 over it
with the coverage u - i. Layer i is known where u <= i, hidden where u >= i + 1.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from service.contract import Size
from service.imaging.filling import push_pull
from service.imaging.geometry import bounded_long_side, neighbourhood, resize
from service.imaging.lens import Aperture, blur, shrink, working_scale

FloatMap = NDArray[np.float32]

_GROWTH: Final = 1.25  # of the radius from one layer to the next, beside the one pixel that small radii grow by
_BINS: Final = 4096  # of the histogram of circles of confusion
_GRID: Final = 4  # largest working scale; sides are padded to a multiple of it
_EDGE_ERROR_SHARE: Final = 0.005  # of the long side: how far a depth edge may lie from the photo's
_EDGE_JUMP_PX: Final = 2.0  # step in the circle of confusion that makes an edge
_SURE_BACKGROUND: Final = 0.3  # matte value below which a pixel beside the subject is mostly background


@dataclass(frozen=True, slots=True)
class Stack:
    """Which layers there are: `radii` of the circle of confusion, signed, ascending (behind focus negative).

    `place` (H, W) is each pixel's fractional index among them; `focal` the index of the layer in focus. `tainted`
    (H, W) is True right beside something nearer: depth edges are a pixel or two off the photo's, so such a pixel may
    show the nearer thing's colour, and what is farther is rather continued there than trusted.
    """

    radii: tuple[float, ...]
    place: FloatMap
    focal: int
    tainted: NDArray[np.bool_]


def stack(coc: FloatMap) -> Stack:
    """Choose layers for a map of signed circles of confusion (pixels, > 0 in front of the focal plane).

    Radii grow by one pixel or a quarter of themselves, whichever is more, near enough; each layer then sits at the mean
    of what falls to it, so that a flat object gets exactly its own radius.
    """
    low, high, _, _ = cv2.minMaxLoc(coc)
    low, high = min(low, 0.0), max(high, 0.0)
    step = max(high - low, 1e-6) / (_BINS - 1)
    bins = np.rint((coc - np.float32(low)) * np.float32(1 / step)).astype(np.uint16)
    counts = np.bincount(bins.ravel(), minlength=_BINS)
    centres = low + step * np.arange(_BINS)
    growth = np.log(_GROWTH)
    index = np.sign(centres) * np.rint(np.log1p(np.abs(centres) * (_GROWTH - 1)) / growth)
    radii = {0.0}
    for value in np.unique(index):
        members = index == value
        if value != 0 and counts[members].sum() > 0:
            radii.add(float((centres[members] * counts[members]).sum() / counts[members].sum()))
    ordered = tuple(sorted(radii))
    table = np.interp(centres, ordered, np.arange(len(ordered))).astype(np.float32)
    table[np.abs(centres) <= step] = ordered.index(0.0)
    return Stack(ordered, table[bins], ordered.index(0.0), _tainted(coc))


def _tainted(coc: FloatMap) -> NDArray[np.bool_]:
    radius = max(1, round(_EDGE_ERROR_SHARE * bounded_long_side(coc.shape)))
    nearest: NDArray[Any] = cv2.dilate(coc, neighbourhood(radius))
    beside: NDArray[np.bool_] = nearest - coc > np.float32(_EDGE_JUMP_PX)
    return beside


@dataclass(slots=True)
class _Pile:
    """Layers composited so far at one scale: premultiplied linear light and coverage, float32 (h, w, 4)."""

    rgba: FloatMap
    scale: int

    def at(self, scale: int, size: Size) -> FloatMap:
        """The pile enlarged to another scale of a photo of `size`."""
        return resize(self.rgba, (size[0] // scale, size[1] // scale))


@dataclass(frozen=True, slots=True)
class _Window:
    """The part of the photo that a layer can show in, in full-size pixels; its sides are multiples of 4."""

    top: int
    bottom: int
    left: int
    right: int

    def at(self, scale: int) -> tuple[slice, slice]:
        """Rows and columns at a working scale."""
        return slice(self.top // scale, self.bottom // scale), slice(self.left // scale, self.right // scale)


def _four(values: FloatMap) -> FloatMap:
    """A map repeated into four channels: OpenCV multiplies those in a third of NumPy's broadcasting time."""
    repeated: NDArray[Any] = cv2.merge([values, values, values, values])
    return repeated


def _times(rgba: FloatMap, factor: FloatMap) -> FloatMap:
    result = _four(factor)
    cv2.multiply(rgba, result, dst=result)
    return result


def over(below: FloatMap, above: FloatMap) -> FloatMap:
    """Premultiplied `above` laid over `below`, both float32 (h, w, 4)."""
    result = _times(below, 1 - above[..., 3])
    cv2.add(result, above, dst=result)
    return result


def composite(
    light: FloatMap, sharp: FloatMap, layers: Stack, subject: FloatMap | None, aperture: Aperture
) -> tuple[FloatMap, FloatMap]:
    """Render all layers.

    Args:
        light: float32 (H, W, 4), linear light of what gets blurred and an opaque fourth channel (`opaque`); H and W
            multiples of 4.
        sharp: the same without highlight recovery, for the layer in focus.
        layers: the stack of this photo.
        subject: float32 (H, W), matte of what counts as in the focal plane, or None.
        aperture: shape of the blur.

    Returns:
        linear light float32 (H, W, 3) and the coverage (H, W) of all that lies in front of the focal layer.
    """
    size = (light.shape[0], light.shape[1])
    in_front = np.zeros(size, np.float32)
    pile: _Pile | None = None
    for indices in _groups(layers):
        group: _Pile | None = None
        for index in indices:
            radius = abs(layers.radii[index])
            scale = _scale(layers, index)
            window = _window(layers, index, subject)
            if window is None:
                continue
            rgba = _layer(sharp if index == layers.focal else light, layers, index, subject, scale, window)
            if index != layers.focal:
                rgba = blur(rgba, radius, scale, aperture, inverted=index > layers.focal)
            if group is None:
                group = _Pile(np.zeros((size[0] // scale, size[1] // scale, 4), np.float32), scale)
            part = group.rgba[window.at(scale)]
            part[...] = over(part, rgba)
        if group is None:
            continue
        if indices[0] > layers.focal:
            in_front += (1 - in_front) * resize(np.ascontiguousarray(group.rgba[..., 3]), size)
        pile = group if pile is None else _joined(pile, group, size)
    assert pile is not None  # the farthest layer is never left out
    return np.ascontiguousarray(pile.at(1, size)[..., :3]), in_front


def opaque(light: FloatMap) -> FloatMap:
    """Linear light (H, W, 3) with a fourth channel of ones, its coverage."""
    rgba: NDArray[Any] = cv2.merge([*cv2.split(light), np.ones(light.shape[:2], np.float32)])
    return rgba


def _scale(layers: Stack, index: int) -> int:
    return 1 if index == layers.focal else working_scale(abs(layers.radii[index]))


def _groups(layers: Stack) -> list[list[int]]:
    """Layers from far to near, those of one scale and one side of the focus together."""
    groups: list[list[int]] = []
    for index in range(len(layers.radii)):
        last = groups[-1][-1] if groups else None
        if last is not None and last != layers.focal and _scale(layers, last) == _scale(layers, index):
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _joined(pile: _Pile, group: _Pile, size: Size) -> _Pile:
    scale = min(pile.scale, group.scale)
    return _Pile(over(pile.at(scale, size), group.at(scale, size)), scale)


def _window(layers: Stack, index: int, subject: FloatMap | None) -> _Window | None:
    """Where layer `index` can be seen: what is its own, wider by its blur and by that of all that hides it."""
    height, width = layers.place.shape
    if index == 0:
        return _Window(0, height, 0, width)
    own = np.abs(layers.place - np.float32(index)) < 1
    if index == layers.focal and subject is not None:
        own |= subject > 0
    rows, columns = np.flatnonzero(own.any(axis=1)), np.flatnonzero(own.any(axis=0))
    if rows.size == 0:
        return None
    reach = math.ceil(abs(layers.radii[index]) + max(layers.radii[-1], 0)) + 2 * _GRID
    return _Window(
        max(0, (int(rows[0]) - reach) // _GRID * _GRID),
        min(height, -(-(int(rows[-1]) + 1 + reach) // _GRID) * _GRID),
        max(0, (int(columns[0]) - reach) // _GRID * _GRID),
        min(width, -(-(int(columns[-1]) + 1 + reach) // _GRID) * _GRID),
    )


def _layer(
    light: FloatMap, layers: Stack, index: int, subject: FloatMap | None, scale: int, window: _Window
) -> FloatMap:
    """Layer `index` unblurred at `scale`: premultiplied colour and coverage (h, w, 4), continued where it is hidden."""
    view = window.at(1)
    place, focal = layers.place[view], layers.focal
    known = np.clip(np.float32(index + 1) - place, 0, 1)
    own = known.copy()
    if index > 0:
        own *= np.clip(place - np.float32(index - 1), 0, 1)
    clean = 1 - (layers.tainted[view] & (own > 0)).astype(np.float32)
    if index > 0 or (own * clean).any():  # the farthest layer must show something
        own *= clean
        known *= clean
    if subject is not None and 0 < index == focal:
        own *= subject[view] <= np.float32(0.5)  # laid in by its matte instead, below
    if subject is not None and index < focal:
        beside = np.clip(1 - subject[view] * np.float32(1 / _SURE_BACKGROUND), 0, 1)
        own *= beside
        known *= beside
    weighted, known = shrink(_times(light[view], own), scale), shrink(known, scale)
    if known.min() < 1:
        deeper = _GRID // scale
        continued = push_pull(shrink(weighted, deeper), shrink(known, deeper))
        weighted = weighted + _times(resize(continued, (known.shape[0], known.shape[1])), 1 - known)
    if index == focal and subject is not None:
        _lay_subject(weighted, light[view], subject[view])
    return weighted


def _lay_subject(rgba: FloatMap, light: FloatMap, subject: FloatMap) -> None:
    """Put the subject into the layer in focus, its matte as coverage and the background taken out of mixed pixels.

    A pixel of matte m shows light = m * subject + (1 - m) * background, so what the subject adds is
    light - (1 - m) * background; the background is continued from beside the matte.
    """
    rgba *= (1 - subject)[..., None]
    beside = np.clip(1 - subject * np.float32(1 / _SURE_BACKGROUND), 0, 1)
    small = push_pull(shrink(_times(light, beside), _GRID), shrink(beside, _GRID))
    background = resize(small, (subject.shape[0], subject.shape[1]))
    own = light - (1 - subject)[..., None] * background
    np.clip(own, 0, subject[..., None], out=own)
    mixed = (subject > 0) & (subject < 1)
    rgba += np.where(mixed[..., None], own, light * subject[..., None])
