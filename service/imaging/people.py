"""One matte per person out of one matte of all people.

First by connected pieces; inside a piece along depth jumps, where each part needs a head of its own with a chest below
and of a size that fits its distance, or it is a lap or an arm and goes to the person whose depth is most like its own;
what nearer people hide all round is somebody too (`behind`).
Two pieces of one person left and right of something nearer are put together again, and loose pieces that are nobody (a
bag, a shoe) go to the person they hang on: where in doubt, people stay whole. Then those who stand side by side at one
depth by their heads, along the cheapest seam from between them downwards. With a photo, a small network then divides
all but close-ups by what it sees in it (`grouping`).
All of it is found on a reduced copy; the soft borders of the full-size matte are kept.
"""

from dataclasses import replace
from itertools import pairwise
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from service.imaging import grouping, heads, seams, votes
from service.imaging.behind import people_behind, with_slivers
from service.imaging.depth import finite
from service.imaging.errors import InvalidMap
from service.imaging.geometry import resize
from service.imaging.heads import Head
from service.imaging.matte import THRESHOLD, probability
from service.imaging.parts import (
    ALIKE,
    CLEAR_JUMP,
    DEPTH_JUMP,
    LARGEST,
    Part,
    continues,
    has_body,
    is_clear,
    is_dwarfed,
    is_free,
    own_heads,
    with_heads_of,
)

FloatMap = NDArray[np.float32]
Labels = NDArray[np.int32]
Mask = NDArray[np.bool_]

MAX_PEOPLE: Final = 8
"""Most mattes returned, the largest people first; each costs a whole float map."""

_SPECK_SHARE: Final = 0.0008  # of the picture: smaller pieces are specks
_PART_SHARE: Final = 0.005  # of a connected piece: smaller parts (a hand stretched out) stay with it
_CLEAR_SHARE: Final = 0.2  # of a connected piece: how large that is
_JUMP_WINDOW: Final = 3  # pixels of the reduced copy over which a depth edge climbs, once it lies on the photo's
_GAP_PX: Final = 9.0  # of the reduced copy: a gap that counts like a jump in depth
_HAND: Final = 2.0  # radii of somebody's head between him and what he carries
_SAME: Final = 0.15  # relative inverse depth: the most between him and that
_NEAR: Final = 0.7  # radii: what is small and nearer to him than this is his
_CLOSE: Final = 0.3  # likewise, of what shows a depth far behind him: a hand has it where the map has lost the arm
_BEHIND: Final = 0.3  # relative inverse depth: how far that is; a shoe takes on some of the depth of the ground
_THIN_PX: Final = 2.0  # of the reduced copy, from the middle to the outline: thinner things have no depth of their own
_LITTLE: Final = 0.15  # of his area: how small that is
_WIDEST: Final = 1.1  # width over height of a small piece that may be a person
_REACH: Final = 7.0  # radii of a head from a person's one side to the other


def split(person: FloatMap, inverse_depth: FloatMap, image: NDArray[np.uint8] | None = None) -> FloatMap:
    """Tell people apart.

    Args:
        person: (H, W) in 0..1, matte of all people.
        inverse_depth: (H, W) in 0..1, 1 = nearest.
        image: uint8 (H, W, 3), RGB; edges of colour help to place the line between two who touch, and the network that
            tells people apart is asked only with it.

    Returns:
        float32 (N, H, W), one matte per person, nearest (largest median inverse depth) first; N is 0 when there is
        nobody and at most `MAX_PEOPLE`. Each pixel belongs to at most one of them, save for a soft seam; their sum is
        never more than `person`.

    Raises:
        InvalidMap: maps whose shapes do not agree.
    """
    if person.shape != inverse_depth.shape or (image is not None and image.shape[:2] != person.shape):
        raise InvalidMap(
            f"The matte is {person.shape}, the inverse depth {inverse_depth.shape}; they must agree.", field="mask"
        )
    matte, depth = probability(person), finite(inverse_depth)
    height, width = matte.shape
    factor = min(1.0, votes.LONG_SIDE / max(height, width))
    small_size = (max(1, round(height * factor)), max(1, round(width * factor)))
    small, small_depth = resize(matte, small_size), resize(depth, small_size)
    photo = None if image is None else resize(image, small_size)
    labels, count = _label(small > THRESHOLD, small_depth, photo)
    if photo is not None:
        labels = grouping.divided(labels, small, small_depth, photo)
        count = int(labels.max())
    kept = _kept(labels, count, small_depth)
    if not kept:
        return np.zeros((0, height, width), np.float32)
    territory = _territories(labels)
    mattes = np.empty((len(kept), height, width), np.float32)
    for index, label in enumerate(kept):
        member = resize((territory == label).astype(np.float32), (height, width))
        np.multiply(matte, member, out=mattes[index])
    return mattes


def _label(mask: Mask, depth: FloatMap, image: NDArray[np.uint8] | None) -> tuple[Labels, int]:
    """Labels 1..count of the people; 0 is nobody."""
    cost = seams.costs(mask, depth, image)
    count, pieces, _ = _components(mask)
    found: list[Part] = []
    for piece in range(1, count):
        inside = pieces == piece
        tops = heads.find(inside)
        found += [with_heads_of(part, tops) for part in _whole(_layers(inside, depth), depth)]
    found = with_slivers(_gathered(_joined(found, depth), depth), depth)
    people = [person for part in found for person in _side_by_side(part, cost, depth)]
    labels = np.zeros(mask.shape, np.int32)
    for label, person in enumerate(people, start=1):
        labels[person] = label
    return labels, len(people)


def _layers(piece: Mask, depth: FloatMap) -> list[Part]:
    """The piece cut along its depth jumps."""
    element = np.ones((_JUMP_WINDOW, _JUMP_WINDOW), np.uint8)
    highest = cv2.dilate(np.where(piece, depth, np.float32(-1)), element)
    lowest = cv2.erode(np.where(piece, depth, np.float32(2)), element)
    calm = piece & (highest - lowest < DEPTH_JUMP)
    count, cores, areas = _components(calm)
    least = max(_PART_SHARE * int(piece.sum()), _SPECK_SHARE * piece.size)
    seeds = [cores == core for core in range(1, count) if areas[core] >= least]
    if len(seeds) < 2:
        return [Part.of(piece, depth)]
    costs = []
    for seed in seeds:
        apart = cv2.distanceTransform((~seed).astype(np.uint8), cv2.DIST_L2, 5)
        costs.append(apart / _JUMP_WINDOW + np.abs(depth - np.median(depth[seed])) / np.float32(DEPTH_JUMP))
    nearest = np.argmin(np.stack(costs), axis=0)
    return [Part.of(piece & (nearest == index), depth) for index in range(len(seeds))]


def _whole(layers: list[Part], depth: FloatMap) -> list[Part]:
    """Layers that have no head of their own (a lap, an arm, legs under a belt) given to the person they belong to."""
    if len(layers) < 2:
        return layers
    whole = sum(layer.area for layer in layers)
    own = [replace(layer, heads=own_heads(layer, layers, depth)) for layer in layers]
    beside = [mine if mine.heads else layer for mine, layer in zip(own, layers, strict=True)]
    owners, rest = [], []
    for layer in own:
        small = any(is_dwarfed(layer, other) for other in beside if other.area > layer.area and not layer.gap_px(other))
        small |= any(continues(layer, other) for other in own if other.heads and not layer.gap_px(other))
        if (layer.heads and not small) or (layer.area > _CLEAR_SHARE * whole and is_clear(layer, own)):
            owners.append(layer)
        else:
            rest.append(layer)
    if not owners:
        return [Part.of(np.logical_or.reduce([layer.mask for layer in layers]), depth)]
    behind = people_behind(rest, own, owners, depth)
    rest = [layer for layer in rest if not any((layer.mask & person.mask).any() for person in behind)]
    owners += behind
    masks = [owner.mask.copy() for owner in owners]
    for layer in rest:
        masks[min(range(len(owners)), key=lambda index: _strangeness(layer, owners[index]))] |= layer.mask
    return [_grown(owner, mask, depth) for mask, owner in zip(masks, owners, strict=True)]


def _grown(part: Part, mask: Mask, depth: FloatMap) -> Part:
    """The part with another mask, its heads as they are."""
    return replace(Part.of(mask, depth, part.heads), behind=part.behind)


def _strangeness(layer: Part, owner: Part) -> float:
    """How little a layer fits a person: difference of depth in jumps, and the gap between them."""
    step = abs(layer.relief.level - owner.relief.level) / DEPTH_JUMP
    return step + layer.gap_px(owner) / _GAP_PX


def _gathered(parts: list[Part], depth: FloatMap) -> list[Part]:
    """Loose pieces that show no head with a body (a bag, a shoe, a lock of hair) given to the person they hang on."""
    sure = [bool(own_heads(part, [part], depth)) for part in parts]
    for index, part in enumerate(parts):
        sure[index] &= not any(_hangs_small(part, other) for other in parts if other is not part)
        sure[index] |= part.behind
    if not any(sure):
        return parts
    owners = [part for part, is_sure in zip(parts, sure, strict=True) if is_sure]
    rest = [part for part, is_sure in zip(parts, sure, strict=True) if not is_sure]
    while True:  # the nearest first: a shoe hangs on the trousers that hang on the coat
        pairs = [(part, owner) for part in rest for owner in owners if _hangs_on(part, owner)]
        if not pairs:
            return owners + rest
        part, owner = min(pairs, key=lambda pair: _strangeness(*pair))
        rest = [other for other in rest if other is not part]
        owners = [_grown(one, part.mask | one.mask, depth) if one is owner else one for one in owners]


def _hangs_small(part: Part, other: Part) -> bool:
    """Whether a piece at a person is too small, or too wide, to be one itself, whatever its top looks like."""
    if other.area < part.area or part.gap_px(other) > _HAND * other.largest:
        return False
    left, top, right, bottom = part.box
    near = other.relief.level - part.relief.level < CLEAR_JUMP  # what is seen of somebody on both sides of him is wide
    wide = near and right - left > _WIDEST * (bottom - top) and part.area < _LITTLE * other.area
    return wide or is_dwarfed(part, other)


def _hangs_on(part: Part, owner: Part) -> bool:
    """Whether a piece that is nobody may be somebody's: close to him and as far, or small and at his very side."""
    gap = part.gap_px(owner) / max(owner.largest, 1.0)
    alike = abs(part.relief.level - owner.relief.level) < _SAME
    beside = gap <= (_CLOSE if _is_far_behind(part, owner) else _NEAR) and part.area < _LITTLE * owner.area
    return part.area < owner.area and ((gap <= _HAND and alike) or beside)


def _is_far_behind(part: Part, owner: Part) -> bool:
    """Whether a piece is thick enough to have a depth of its own, and that is far behind him: a passer-by, mostly."""
    if owner.relief.level - part.relief.level <= _BEHIND:
        return False
    left, top, right, bottom = part.box
    inside = np.pad(part.mask[top:bottom, left:right].astype(np.uint8), 1)
    return float(cv2.distanceTransform(inside, cv2.DIST_L2, 5).max()) > _THIN_PX


def _joined(parts: list[Part], depth: FloatMap) -> list[Part]:
    """Pieces of one person on either side of something nearer, a pole or another person, put together again."""
    joined = sorted(parts, key=lambda part: -part.area)
    index = 0
    while index < len(joined):
        part = joined[index]
        for other in joined[index + 1 :]:
            found = _heads_of_both(part, other, depth)
            if found:
                joined.remove(other)
                whole = Part.of(part.mask | other.mask, depth, found)
                joined[index] = replace(whole, behind=part.behind or other.behind)
                break
        else:
            index += 1
    return joined


def _heads_of_both(part: Part, other: Part, depth: FloatMap) -> list[Head]:
    """The heads of two pieces, the larger first, seen as one; none when they are not one person.

    They are when they are equally far, something nearer lies between, and with it they show no head more.
    """
    alike = max(ALIKE, 1.5 * part.relief.spread)
    if not part.heads or min(part.area, other.area) < _SPECK_SHARE * depth.size or part.expects(other) > alike:
        return []
    between = _between(part, other)
    if not between.any():
        return []
    if float(np.median(depth[between])) < min(part.relief.level, other.relief.level) - DEPTH_JUMP / 4:
        return []  # what lies between is behind them: the open air between two people
    found = heads.find(part.mask | other.mask | between)
    if not found or len(found) > len(part.heads):
        return []
    widths = between.sum(axis=1)
    narrow = float(np.median(widths[widths > 0])) <= max(head.radius for head in found)
    left, right = min(part.box[0], other.box[0]), max(part.box[2], other.box[2])
    near = right - left <= _REACH * max(head.radius for head in part.heads)
    return found if narrow or near else []


def _between(part: Part, other: Part) -> Mask:
    """The pixels of the rows, or else of the columns, that both have, from one to the other."""
    between = _bridge(part.mask, other.mask)
    if not between.any():
        between = np.ascontiguousarray(_bridge(part.mask.T, other.mask.T).T)
    return between


def _bridge(first: Mask, second: Mask) -> Mask:
    """In every row that both have, from the right end of the one on the left to the left end of the other."""
    both = first.any(axis=1) & second.any(axis=1)
    result = np.zeros(first.shape, bool)
    if both.any():
        if np.nonzero(first[both])[1].mean() > np.nonzero(second[both])[1].mean():
            first, second = second, first
        end, start = first.shape[1] - first[:, ::-1].argmax(axis=1), second.argmax(axis=1)
        columns = np.arange(first.shape[1])
        result |= both[:, None] & (columns >= end[:, None]) & (columns < start[:, None])
    return result


def _side_by_side(part: Part, cost: FloatMap, depth: FloatMap) -> list[Mask]:
    """Those who stand at one depth, told apart by their heads."""
    tops = [
        head
        for head in part.heads
        if head.radius > LARGEST * part.largest and is_free(head, part.mask) and has_body(head, part, depth)
    ]
    if len(tops) < 2 or part.behind:  # scraps have tops of their own that are no heads
        return [part.mask]
    rest, found = part.mask.copy(), []
    columns = np.arange(rest.shape[1])
    for left, right in pairwise(tops):
        line = seams.cheapest(cost, left.x, right.x)
        before = rest & (columns < line[:, None])
        rest &= ~before
        found.append(before)
    return [*found, rest]


def _components(mask: NDArray[np.bool_]) -> tuple[int, Labels, NDArray[np.int32]]:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas: NDArray[Any] = stats[:, cv2.CC_STAT_AREA]
    found: NDArray[Any] = labels
    return count, found, areas


def _kept(labels: Labels, count: int, depth: FloatMap) -> list[int]:
    """Labels that are no specks, at most MAX_PEOPLE of the largest, nearest first."""
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    large = [label for label in range(1, count + 1) if areas[label] >= max(2, _SPECK_SHARE * labels.size)]
    largest = sorted(large, key=lambda label: -int(areas[label]))[:MAX_PEOPLE]
    return sorted(largest, key=lambda label: -float(np.median(depth[labels == label])))


def _territories(labels: Labels) -> Labels:
    """Every pixel of the picture given to the nearest label, so that soft borders outside the mask have an owner."""
    _, owner = cv2.distanceTransformWithLabels(
        (labels == 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    at_label = labels > 0
    table = np.zeros(int(owner.max()) + 1, np.int32)
    table[owner[at_label]] = labels[at_label]
    return table[owner]
