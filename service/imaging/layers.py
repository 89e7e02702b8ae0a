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

from service.imaging.filling import push_pull
from service.imaging.geometry import resize
from service.imaging.lens import Aperture, blur, shrink, working_scale
from service.imaging.patterns import add_patterns
from service.imaging.windows import Window, any_in_cells, merged, pieces, rectangles, widened

FloatMap = NDArray[np.float32]

_GROWTH: Final = 1.4  # of the radius from one layer to the next, beside the one pixel that small radii grow by
_BINS: Final = 4096  # of the histogram of circles of confusion
_LEVEL: Final = 0.004  # of a layer, over `_LEVEL_REACH_PX`: what changes less faces the camera; twice that, it slopes
_LEVEL_REACH_PX: Final = 4
_LEVEL_WINDOW_PX: Final = 9
_STEP_PX: Final = 2.0  # of radius: what hides another thing is nearer by more, else it may be the same on a slope
_HIDES_ON: Final = 4  # power of the share of its blur that does not move along with what hides it
_LEAST_SAY: Final = 0.05  # of a hidden place: next to nothing, but not nothing, where no seen one is within the blur
_STRIP_ROWS: Final = 64  # at a time: what is worked on stays in the processor's cache
_GRID: Final = 4  # largest working scale; sides are padded to a multiple of it


@dataclass(frozen=True, slots=True)
class Stack:
    """Which layers there are: `radii` of the circle of confusion, signed, ascending (behind focus negative).

    `place` (H, W) is each pixel's fractional index among them, in mixed pixels that of the farther thing; `focal` the
    index of the layer in focus; `fringe` what mixed pixels show of the nearer thing.
    """

    radii: tuple[float, ...]
    place: FloatMap
    focal: int
    fringe: "Fringe"


@dataclass(frozen=True, slots=True)
class Fringe:
    """What n mixed pixels show of the nearer thing, by `place` among the layers, ascending, and there by row.

    `rows`, `columns` int64 (n,); `rgba` float32 (n, 4) premultiplied; `place` whole numbers, float32 (n,).
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    rgba: FloatMap
    place: FloatMap

    def around(self, index: int) -> slice:
        """Those that show in layer `index`."""
        # of its own kind: for other numbers NumPy would copy all places first
        first, last = np.searchsorted(self.place, np.array((index - 0.5, index + 0.5), np.float32))
        return slice(int(first), int(last))


def stack(coc: FloatMap, rows: NDArray[np.int64], columns: NDArray[np.int64], rgba: FloatMap, front: FloatMap) -> Stack:
    """Choose layers for a map of signed circles of confusion (pixels, > 0 in front of the focal plane).

    Radii grow by one pixel or four tenths of themselves, whichever is more, near enough: what lies between is
    interpolated, and more layers cost more than they gain. Each layer sits at the mean of what falls to it, so that a
    flat object gets exactly its own radius.

    Args:
        coc: float32 (H, W), in mixed pixels that of the farther thing.
        rows: rows of the mixed pixels, int64 (n,), ascending.
        columns: their columns.
        rgba: float32 (n, 4), what they show of the nearer thing, premultiplied.
        front: float32 (n,), its circle of confusion.
    """
    low = min(float(coc.min()), float(front.min(initial=0)), 0.0)
    high = max(float(coc.max()), float(front.max(initial=0)), 0.0)
    step = max(high - low, 1e-6) / (_BINS - 1)
    bins = np.rint((coc - np.float32(low)) * np.float32(1 / step)).astype(np.uint16)
    front_bins = np.rint((front - np.float32(low)) * np.float32(1 / step)).astype(np.uint16)
    counts = np.bincount(bins.ravel(), minlength=_BINS) + np.bincount(front_bins, minlength=_BINS)
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
    place = np.rint(table[front_bins])
    order = np.argsort(place, kind="stable")
    fringe = Fringe(rows[order], columns[order], rgba[order], place[order])
    return Stack(ordered, _whole_where_level(table[bins]), ordered.index(0.0), fringe)


def _whole_where_level(place: FloatMap) -> FloatMap:
    """Places made whole where they hardly change from pixel to pixel: on what faces the camera.

    A slope has to pass from layer to layer, or it shows a step at each. At the rim of what is shared by two layers,
    though, their blurred coverages a and b add up to a + b - a b, which is too much.
    """
    height = place.shape[0]
    result = np.empty_like(place)
    far = _LEVEL_REACH_PX
    for start in range(0, height, _STRIP_ROWS):
        stop = min(start + _STRIP_ROWS, height)
        top, bottom = max(0, start - far), min(height, stop + far)
        margins = (top - start + far, stop + far - bottom, far, far)
        around = cv2.copyMakeBorder(place[top:bottom], *margins, cv2.BORDER_REPLICATE)
        here = place[start:stop]
        # the lesser of the changes to either side: a step is none of the thing's own slope
        down = cv2.min(cv2.absdiff(around[: -2 * far, far:-far], here), cv2.absdiff(around[2 * far :, far:-far], here))
        right = cv2.min(cv2.absdiff(around[far:-far, : -2 * far], here), cv2.absdiff(around[far:-far, 2 * far :], here))
        change: NDArray[Any] = cv2.blur(np.minimum(cv2.max(down, right), 1), (_LEVEL_WINDOW_PX, _LEVEL_WINDOW_PX))
        whole = np.rint(here)
        result[start:stop] = whole + np.clip(change * np.float32(1 / _LEVEL) - 1, 0, 1) * (here - whole)
    return result


def _four(values: FloatMap) -> FloatMap:
    """A map repeated into four channels: OpenCV multiplies those in a third of NumPy's broadcasting time."""
    repeated: NDArray[Any] = cv2.merge([values, values, values, values])
    return repeated


def _times(rgba: FloatMap, factor: FloatMap) -> FloatMap:
    result = _four(factor)
    cv2.multiply(rgba, result, dst=result)
    return result


def lay_over(below: FloatMap, above: FloatMap) -> None:
    """Lay premultiplied `above` over `below`, both float32 (h, w, 4), in place and a strip at a time."""
    for start in range(0, below.shape[0], _STRIP_ROWS):
        rows = slice(start, start + _STRIP_ROWS)
        strip, over = below[rows], above[rows]
        cv2.multiply(strip, _four(1 - np.asarray(cv2.extractChannel(over, 3))), dst=strip)
        cv2.add(strip, over, dst=strip)


def composite(light: FloatMap, sharp: FloatMap, layers: Stack, aperture: Aperture) -> tuple[FloatMap, FloatMap]:
    """Render all layers.

    Args:
        light: float32 (H, W, 4), linear light of what gets blurred and an opaque fourth channel (`opaque`), in mixed
            pixels that of the farther thing; H and W multiples of 4.
        sharp: the same without highlight recovery, for the layer in focus.
        layers: the stack of this photo.
        aperture: shape of the blur.

    Returns:
        linear light float32 (H, W, 4), opaque, and the coverage (H, W) of all that lies in front of the focal layer.
    """
    size = (light.shape[0], light.shape[1])
    in_front = np.zeros(size, np.float32)
    scale = _scale(layers, 0)
    pile = np.empty(0, np.float32)
    cells = any_in_cells(_layer_bits(layers))
    for indices in _groups(layers):
        own_scale = _scale(layers, indices[0])
        finer = min(scale, own_scale)
        # a group in front may be coarser than what lies below it: it is piled up by itself first
        apart = indices[0] > layers.focal
        group = np.zeros((size[0] // own_scale, size[1] // own_scale, 4), np.float32) if apart else None
        windows: list[Window] = []
        for index in indices:
            shown = cells & cells.dtype.type(1 << index) > 0
            for window in _windows(layers, cells, index):
                source = sharp if index == layers.focal else light
                rgba, say = _layer(source, layers, index, own_scale, shown, window)
                if index != layers.focal:
                    lens = abs(layers.radii[index]), own_scale, aperture, index > layers.focal
                    rgba = blur(rgba, *lens)
                    if say is not None:
                        cv2.multiply(rgba, _four(1 / blur(say, *lens)), dst=rgba)
                if group is not None:
                    lay_over(group[window.at(own_scale)], rgba)
                elif index == 0:
                    pile = rgba
                else:
                    pile, scale = resize(pile, (size[0] // finer, size[1] // finer)), finer
                    lay_over(pile[window.at(scale)], rgba)
                windows.append(window)
        if group is None or not windows:
            continue
        pile, scale = resize(pile, (size[0] // finer, size[1] // finer)), finer
        for window in merged(windows):
            rgba = np.ascontiguousarray(group[window.at(own_scale)])
            view = pile[window.at(scale)]
            lay_over(view, resize(rgba, (view.shape[0], view.shape[1])))
            covered = in_front[window.at(1)]
            alpha = resize(np.ascontiguousarray(rgba[..., 3]), (covered.shape[0], covered.shape[1]))
            covered += (1 - covered) * alpha
    return resize(pile, size), in_front


def opaque(light: FloatMap) -> FloatMap:
    """Linear light (H, W, 3) with a fourth channel of ones, its coverage."""
    rgba: NDArray[Any] = cv2.cvtColor(light, cv2.COLOR_RGB2RGBA)
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


def _layer_bits(layers: Stack) -> NDArray[Any]:
    """Which layers a pixel shows in, bit by bit: (H, W); there are no more than 43, of the widest lens on a photo."""
    kind: type[Any] = np.uint32 if len(layers.radii) <= 32 else np.uint64
    below = layers.place.astype(np.uint8)
    one = kind(1) << np.arange(8 * kind().nbytes, dtype=kind)
    bits: NDArray[Any] = one[below]
    bits |= one[below + (layers.place > below)]
    at = layers.fringe.rows, layers.fringe.columns
    bits[at] |= one[layers.fringe.place.astype(np.uint8)]
    return bits


def _windows(layers: Stack, cells: NDArray[Any], index: int) -> list[Window]:
    """Where layer `index` can be seen: round the cells it shows in, as far as its blur and that of all that hides it.

    Of what is farther it only blurs over the rim.
    """
    height, width = layers.place.shape
    if index == 0:
        return [Window(0, height, 0, width)]
    bit = cells.dtype.type(1 << index)
    own, before = abs(layers.radii[index]) + 2 * _GRID, max(layers.radii[-1], 0.0)
    seen = widened(cells & bit > 0, math.ceil(own + before)) & widened(cells >= bit, math.ceil(own))
    return rectangles(seen, (height, width))


def _layer(
    light: FloatMap, layers: Stack, index: int, scale: int, shown: NDArray[np.bool_], window: Window
) -> tuple[FloatMap, FloatMap | None]:
    """Layer `index` unblurred at `scale`: premultiplied colour and coverage, continued where it is hidden.

    Only the cells where it is `shown` are looked at: most of a window is what it may be blurred into.

    Returns:
        float32 (h, w, 4), already times the second: how much say each place has when the lens takes its mean,
        float32 (h, w) in 0..1, or None for 1 everywhere.
    """
    rows, columns = window.at(scale)
    known = np.empty((rows.stop - rows.start, columns.stop - columns.start), np.float32)
    weighted = np.zeros((*known.shape, 4), np.float32)
    for strip in window.strips(_STRIP_ROWS):
        part = slice(strip.top // scale - rows.start, strip.bottom // scale - rows.start)
        known_here = np.float32(index + 1) - layers.place[strip.at(1)]
        np.minimum(np.maximum(known_here, 0, out=known_here), 1, out=known_here)
        for piece in pieces(shown, strip):
            across = slice(piece.left // scale - columns.start, piece.right // scale - columns.start)
            here = known_here[:, piece.left - window.left : piece.right - window.left]
            weighted[part, across] = shrink(_cut(light, layers, index, piece, here), scale)
        known[part] = shrink(known_here, scale)
    say = None
    if known.min() < 1:
        deeper = _GRID // scale
        seen = shrink(weighted, deeper)
        continued = push_pull(seen, shrink(known, deeper))
        if index <= layers.focal:
            # what a blurred thing on the same side of the focus hides, it goes on hiding from most of the lens
            place = layers.place[window.at(1)][_GRID // 2 :: _GRID, _GRID // 2 :: _GRID]
            hiding = np.searchsorted(layers.radii, max(0.0, layers.radii[index] + _STEP_PX))
            add_patterns(continued, seen, place > float(hiding) - 0.5)
        of_hidden = _say_of_hidden(layers, index, window)
        if of_hidden is not None:
            say = known.copy()
        for start in range(0, known.shape[0], _STRIP_ROWS):
            hidden = _hidden_part(known, start, deeper)
            if hidden is None:
                continue
            unknown = 1 - known[hidden]
            if say is not None and of_hidden is not None:
                unknown *= _enlarged(of_hidden, hidden, deeper)
                say[hidden] += unknown
            there = weighted[hidden]
            cv2.add(there, _times(_enlarged(continued, hidden, deeper), unknown), dst=there)
    return weighted, say


def _hidden_part(known: FloatMap, start: int, factor: int) -> tuple[slice, slice] | None:
    """The part of the strip from row `start` that holds all that is hidden, in whole squares of `factor` pixels."""
    rows = slice(start, min(start + _STRIP_ROWS, known.shape[0]))
    least = known[rows].min(axis=0)
    hidden = np.flatnonzero(least.reshape(-1, factor).min(axis=1) < 1)
    return (rows, slice(int(hidden[0]) * factor, (int(hidden[-1]) + 1) * factor)) if hidden.size else None


def _enlarged(values: FloatMap, part: tuple[slice, slice], factor: int) -> FloatMap:
    """A part of `values` as they are enlarged by a whole `factor`, which divides the part's sides."""
    if factor == 1:
        return values[part]
    rows, columns = (
        slice(max(0, side.start // factor - 1), min(length, side.stop // factor + 1))
        for side, length in zip(part, values.shape[:2], strict=True)
    )
    source = values[rows, columns]
    large = resize(source, (source.shape[0] * factor, source.shape[1] * factor))
    top, left = part[0].start - rows.start * factor, part[1].start - columns.start * factor
    return large[top : top + part[0].stop - part[0].start, left : left + part[1].stop - part[1].start]


def _say_of_hidden(layers: Stack, index: int, window: Window) -> FloatMap | None:
    """How much say what is guessed of layer `index` has, at 1 / `_GRID` of the size: (h, w) in 0..1; None for all.

    From each point of the lens, things on one side of the focus move the same way. What one of them hides of another
    it therefore goes on hiding from most of the lens, and the picture holds no guess but what is seen of the other.
    From a thing in focus, or on the other side, blur moves away: there the guess shows in full.
    """
    own = layers.radii[index]
    same_side = layers.radii[index + 1 :] if own > 0 else layers.radii[index + 1 : layers.focal]
    if own == 0 or not same_side:
        return None
    place = layers.place[window.at(1)][_GRID // 2 :: _GRID, _GRID // 2 :: _GRID]
    steps = np.arange(len(layers.radii))
    together = [min(own / radius, radius / own) if own * radius > 0 else 0.0 for radius in layers.radii]
    free = 1 - np.interp(place, steps, together).astype(np.float32)
    return np.maximum(free**_HIDES_ON, np.float32(_LEAST_SAY))


def _cut(light: FloatMap, layers: Stack, index: int, window: Window, known: FloatMap) -> FloatMap:
    """Layer `index` in a window at full size, premultiplied; what mixed pixels show of it becomes `known`."""
    own = known
    if index > 0:
        own = np.abs(layers.place[window.at(1)] - np.float32(index))
        np.maximum(np.subtract(1, own, out=own), 0, out=own)
    rgba = _times(light[window.at(1)], own)
    _lay_fringe(rgba, known, layers.fringe, index, window)
    return rgba


def _lay_fringe(rgba: FloatMap, known: FloatMap, fringe: Fringe, index: int, window: Window) -> None:
    """Lay what mixed pixels show of nearer things over layer `index` in a window, at full size: it is `known`."""
    around = fringe.around(index)
    first, last = np.searchsorted(fringe.rows[around], (window.top, window.bottom))
    part = slice(around.start + int(first), around.start + int(last))
    columns = fringe.columns[part] - window.left
    inside = (columns >= 0) & (columns < known.shape[1])
    rows, columns, over = fringe.rows[part][inside] - window.top, columns[inside], fringe.rgba[part][inside]
    rgba[rows, columns] = rgba[rows, columns] * (1 - over[:, 3:]) + over
    known[rows, columns] = known[rows, columns] * (1 - over[:, 3]) + over[:, 3]
