"""A photo cut into depth layers, blurred each by its own circle of confusion and laid over one another, far to near.

Premultiplied layers composited far to near with blurred coverage follow MPIB (Peng et al., ECCV 2022); that farther
layers go on behind nearer ones, so that no gap opens at a blurred rim, is the push-pull continuation of `filling`.

A pixel's place u among the layers is fractional: between i and i + 1 it shows layer i in full and layer i + 1 over it
with the coverage u - i. Layer i is known where u <= i, hidden where u >= i + 1.
"""

from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from service.imaging.filling import push_pull
from service.imaging.geometry import resize
from service.imaging.lens import blur, shrink, working_scale

FloatMap = NDArray[np.float32]

_GROWTH: Final = 1.25  # of the radius from one layer to the next, beside the one pixel that small radii grow by
_BINS: Final = 4096  # of the histogram of circles of confusion
_GRID: Final = 4  # largest working scale; sides are padded to a multiple of it
_SURE_BACKGROUND: Final = 0.3  # matte value below which a pixel beside the subject is mostly background


@dataclass(frozen=True, slots=True)
class Stack:
    """Which layers there are: `radii` of the circle of confusion, signed, ascending (behind focus negative).

    `place` (H, W) is each pixel's fractional index among them; `focal` the index of the layer in focus.
    """

    radii: tuple[float, ...]
    place: FloatMap
    focal: int


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
    return Stack(ordered, table[bins], ordered.index(0.0))


@dataclass(slots=True)
class _Pile:
    """Layers composited so far at one scale: premultiplied linear light and coverage, float32 (h, w, 4)."""

    rgba: FloatMap
    scale: int

    def at(self, scale: int, size: tuple[int, int]) -> FloatMap:
        """The pile enlarged to another scale of a photo of `size`."""
        return resize(self.rgba, (size[0] // scale, size[1] // scale))


def over(below: FloatMap, above: FloatMap) -> None:
    """Lay premultiplied `above` over `below` (both float32 (h, w, 4)), in place."""
    below *= 1 - above[..., 3:]
    below += above


def composite(
    light: FloatMap, sharp: FloatMap, layers: Stack, subject: FloatMap | None, blades: int
) -> tuple[FloatMap, FloatMap]:
    """Render all layers.

    Args:
        light: float32 (H, W, 3), linear light of what gets blurred; H and W multiples of 4.
        sharp: the same without highlight recovery, for the layer in focus.
        layers: the stack of this photo.
        subject: float32 (H, W), matte of what counts as in the focal plane, or None.
        blades: corners of the aperture, 0 for a disc.

    Returns:
        linear light float32 (H, W, 3) and the coverage (H, W) of all that lies in front of the focal layer.
    """
    size = (light.shape[0], light.shape[1])
    pile: _Pile | None = None
    group: _Pile | None = None
    in_front = np.zeros(size, np.float32)
    for index, radius in enumerate(layers.radii):
        scale = 1 if index == layers.focal else working_scale(abs(radius))
        rgba = _layer(sharp if index == layers.focal else light, layers, index, subject, scale)
        if rgba is None:
            continue
        if index != layers.focal:
            rgba = blur(rgba, abs(radius), scale, blades, inverted=radius > 0)
        if group is not None and group.scale != scale:
            pile, group = _joined(pile, group, size), None
        if group is None:
            group = _Pile(rgba, scale)
        else:
            over(group.rgba, rgba)
        if index > layers.focal:
            coverage = resize(np.ascontiguousarray(rgba[..., 3]), size)
            in_front += (1 - in_front) * coverage
    if group is not None:
        pile = _joined(pile, group, size)
    if pile is None:
        return sharp, in_front
    return np.ascontiguousarray(pile.at(1, size)[..., :3]), in_front


def _joined(pile: _Pile | None, group: _Pile, size: tuple[int, int]) -> _Pile:
    if pile is None:
        return group
    scale = min(pile.scale, group.scale)
    if pile.scale != scale:
        pile = _Pile(pile.at(scale, size), scale)
    over(pile.rgba, group.at(scale, size))
    return pile


def _layer(light: FloatMap, layers: Stack, index: int, subject: FloatMap | None, scale: int) -> NDArray[Any] | None:
    """Layer `index` unblurred at `scale`: premultiplied colour and coverage (h, w, 4), continued where it is hidden."""
    place, focal = layers.place, layers.focal
    coverage = np.clip(place - np.float32(index - 1), 0, 1)
    known = np.clip(np.float32(index + 1) - place, 0, 1)
    own = coverage * known
    if index != 0 and not own.any() and (index != focal or subject is None):
        return None
    if index == 0:
        coverage.fill(1)
        own = known.copy()
    if subject is not None and index < focal:
        clean = np.clip(1 - subject * np.float32(1 / _SURE_BACKGROUND), 0, 1)
        own *= clean
        known = known * clean
    weighted = np.empty((*place.shape, 4), np.float32)
    np.multiply(light, own[..., None], out=weighted[..., :3])
    weighted[..., 3] = own
    weighted, known = shrink(weighted, scale), shrink(known, scale)
    size = (known.shape[0], known.shape[1])
    if known.min() < 1:
        deeper = _GRID // scale
        continued = push_pull(shrink(weighted, deeper), shrink(known, deeper))
        continued = resize(continued, size)
        continued *= (1 - known)[..., None]
        weighted += continued
    if index == focal and subject is not None:
        _lay_subject(weighted, light, subject)
    return weighted


def _lay_subject(rgba: FloatMap, light: FloatMap, subject: FloatMap) -> None:
    """Put the subject into the layer in focus, its matte as coverage and the background taken out of mixed pixels.

    A pixel of matte m shows light = m * subject + (1 - m) * background, so what the subject adds is
    light - (1 - m) * background; the background is continued from beside the matte.
    """
    rgba *= (1 - subject)[..., None]
    mixed = (subject > 0) & (subject < 1)
    beside = np.clip(1 - subject * np.float32(1 / _SURE_BACKGROUND), 0, 1)
    small = shrink(light * beside[..., None], _GRID)
    background = resize(push_pull(small, shrink(beside, _GRID)), (light.shape[0], light.shape[1]))
    own = light - (1 - subject)[..., None] * background
    np.clip(own, 0, subject[..., None], out=own)
    own = np.where(mixed[..., None], own, light * subject[..., None])
    rgba[..., :3] += own
    rgba[..., 3] += subject
