"""One matte per person out of one matte of all people.

First by connected pieces; inside a piece along depth jumps, where each part needs a head of its own with a chest below
and of a size that fits its distance, or it is a lap or an arm and goes to the person whose depth is most like its own.
Two pieces of one person left and right of something nearer are put together again, and loose pieces that are nobody (a
bag, a shoe) go to the person they hang on: where in doubt, people stay whole. Then those who stand side by side at one
depth by their heads, along the cheapest seam from between them downwards. Found on a reduced copy; the soft borders of
the full-size matte are kept.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from service.imaging import heads, relief, seams
from service.imaging.depth import finite
from service.imaging.errors import InvalidMap
from service.imaging.geometry import resize
from service.imaging.heads import Head
from service.imaging.matte import THRESHOLD, Box, bounding_box, probability

FloatMap = NDArray[np.float32]
Labels = NDArray[np.int32]
Mask = NDArray[np.bool_]

MAX_PEOPLE: Final = 8
"""Most mattes returned, the largest people first; each costs a whole float map."""

_SPLIT_LONG_SIDE: Final = 320
_SPECK_SHARE: Final = 0.0008  # of the picture: smaller pieces are specks
_PART_SHARE: Final = 0.02  # of a connected piece: smaller parts (a hand stretched out) stay with it
_DEPTH_JUMP: Final = 0.05  # relative inverse depth: the least step between two people who overlap
_CLEAR_JUMP: Final = 0.2  # relative inverse depth: the step from which a large layer needs no head
_CLEAR_SHARE: Final = 0.2  # of a connected piece: how large that is
_ALIKE: Final = 0.04  # relative inverse depth: the most between two pieces of one person
_JUMP_WINDOW: Final = 5  # pixels of the reduced copy over which a network's soft depth edge climbs
_FLAT: Final = 1.9  # radii: a top wider than this a third of a radius below is a cut, no crown; a circle has 1.43
_LIMB: Final = 0.6  # of the radius of a head farther away: what is nearer and smaller is no head
_LARGEST: Final = 0.4  # of the radius of a layer's largest head: what is smaller is a hand or a lock of hair
_BODY: Final = 8.0  # squares of a head's radius: a head and a bit of body; a head alone has pi
_CHEST: Final = (2.5, 5.5, 1.5)  # radii: first and last row below a crown, and half the width, of shoulders and chest
_FILLED: Final = 0.6  # of the chest that nothing nearer hides
_HIDDEN: Final = 0.25  # of the chest: with less than this in the open, nothing can be said
_SHORTEST: Final = 3.0  # radii: how tall somebody is at least whom the picture's lower border cuts
_ROUND: Final = 1.5  # radii: how far round a head is looked for other parts of the mask
_FREE: Final = 0.6  # of the upper half circle
_DWARF: Final = 0.45  # of the size that another's head has, as seen at this distance: children have 0.7
_CROPPED: Final = (
    0.25  # of a part's height: the most its head may count for; a shoulder that the picture cuts looks larger
)
_HAND: Final = 2.0  # radii of somebody's head between him and what he carries
_SAME: Final = 0.15  # relative inverse depth: the most between him and that
_NEAR: Final = 0.7  # radii: what is small and nearer to him than this is his, whatever its depth: thin things have none
_LITTLE: Final = 0.15  # of his area: how small that is
_WIDEST: Final = 1.1  # width over height of a small piece that may be a person
_REACH: Final = 7.0  # radii of a head from a person's one side to the other
_CORE_SHARE: Final = 0.02  # of the shorter side of a person's box: how far inside its border the core begins
_CORE_SAMPLES: Final = 40_000  # pixels of a core looked at for its median, of any number


@dataclass(frozen=True, slots=True)
class Person:
    """One person of a photo, for the caller to choose by.

    Attributes:
        index: place in the mattes, 0 = nearest.
        box: left, top, right, bottom in pixels, right and bottom exclusive, round the matte above a half; 0, 0, 0, 0
            when no pixel is.
        depth: median inverse depth of the matte's core, which leaves out the border where depths mix; 0 when empty.
        spread: 1.4826 * median |inverse depth - depth| of the core: the standard deviation, were it normal.
        area: share of the picture above a half, 0..1.
    """

    index: int
    box: Box
    depth: float
    spread: float
    area: float


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A piece of the reduced mask on its way to become a person.

    Attributes:
        mask: bool (h, w).
        box: left, top, right, bottom.
        area: pixels.
        relief: how far it is.
        heads: its tops, left to right.
    """

    mask: Mask
    box: Box
    area: int
    relief: relief.Relief
    heads: list[Head]

    @classmethod
    def of(cls, mask: Mask, inverse_depth: FloatMap, tops: list[Head] | None = None) -> "Part":
        """All about a mask of one pixel at least; its heads are looked for unless given."""
        box, area = bounding_box(mask) or (0, 0, 0, 0), int(np.count_nonzero(mask))
        found = heads.find(mask) if tops is None else tops
        return cls(mask, box, area, relief.fit(inverse_depth, mask), found)

    @property
    def largest(self) -> float:
        """Radius of the largest head, 0 without any."""
        return max((head.radius for head in self.heads), default=0.0)

    def gap_px(self, other: "Part") -> float:
        """Between the two boxes, 0 when they meet."""
        across = max(self.box[0], other.box[0]) - min(self.box[2], other.box[2])
        down = max(self.box[1], other.box[1]) - min(self.box[3], other.box[3])
        return float(np.hypot(max(0, across), max(0, down)))

    def expects(self, other: "Part") -> float:
        """Difference between the other's inverse depth and what the relief of this one gives there."""
        there = other.relief
        return abs(self.relief.at(there.centre_x, there.centre_y) - there.level)


def describe(mattes: FloatMap | NDArray[np.uint8], inverse_depth: FloatMap) -> list[Person]:
    """Say where each person is and how far.

    Args:
        mattes: (N, H, W), float32 in 0..1 or uint8 in 0..255, one per person.
        inverse_depth: (H, W), larger = nearer; no NaN.

    Raises:
        InvalidMap: mattes that are not of the map's size.
    """
    if mattes.ndim != 3 or mattes.shape[1:] != inverse_depth.shape:
        raise InvalidMap(
            f"The mattes are {mattes.shape}, the inverse depth {inverse_depth.shape}; they must be (N, H, W).",
            field="mask",
        )
    half = 255 * THRESHOLD if mattes.dtype == np.uint8 else THRESHOLD
    return [_describe(index, matte > half, inverse_depth) for index, matte in enumerate(mattes)]


def _describe(index: int, inside: NDArray[np.bool_], inverse_depth: FloatMap) -> Person:
    box = bounding_box(inside)
    if box is None:
        return Person(index, (0, 0, 0, 0), 0.0, 0.0, 0.0)
    left, top, right, bottom = box
    cut = inside[top:bottom, left:right]
    step = max(1, round((cut.size / _CORE_SAMPLES) ** 0.5))
    values = inverse_depth[top:bottom:step, left:right:step][_core(cut[::step, ::step])]
    depth = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(values - depth)))
    return Person(index, box, depth, spread, float(np.count_nonzero(cut)) / inside.size)


def _core(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels well inside; all of them where nothing is (thin things)."""
    apart = cv2.distanceTransform(np.pad(inside.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    core: NDArray[np.bool_] = apart > max(1.0, _CORE_SHARE * min(inside.shape))
    return core if core.any() else inside


def split(person: FloatMap, inverse_depth: FloatMap, image: NDArray[np.uint8] | None = None) -> FloatMap:
    """Tell people apart.

    Args:
        person: (H, W) in 0..1, matte of all people.
        inverse_depth: (H, W) in 0..1, 1 = nearest.
        image: uint8 (H, W, 3), RGB; edges of colour help to place the line between two who touch.

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
    factor = min(1.0, _SPLIT_LONG_SIDE / max(height, width))
    small_size = (max(1, round(height * factor)), max(1, round(width * factor)))
    small, small_depth = resize(matte, small_size), resize(depth, small_size)
    labels, count = _label(small > THRESHOLD, small_depth, None if image is None else resize(image, small_size))
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
        found += [_with_heads_of(part, tops) for part in _whole(_layers(inside, depth), depth)]
    found = _gathered(_joined(found, depth), depth)
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
    calm = piece & (highest - lowest < _DEPTH_JUMP)
    count, cores, areas = _components(calm)
    least = max(_PART_SHARE * int(piece.sum()), _SPECK_SHARE * piece.size)
    seeds = [cores == core for core in range(1, count) if areas[core] >= least]
    if len(seeds) < 2:
        return [Part.of(piece, depth)]
    costs = []
    for seed in seeds:
        apart = cv2.distanceTransform((~seed).astype(np.uint8), cv2.DIST_L2, 5)
        costs.append(apart / _JUMP_WINDOW + np.abs(depth - np.median(depth[seed])) / np.float32(_DEPTH_JUMP))
    nearest = np.argmin(np.stack(costs), axis=0)
    return [Part.of(piece & (nearest == index), depth) for index in range(len(seeds))]


def _whole(layers: list[Part], depth: FloatMap) -> list[Part]:
    """Layers that have no head of their own (a lap, an arm, legs under a belt) given to the person they belong to."""
    if len(layers) < 2:
        return layers
    whole = sum(layer.area for layer in layers)
    own = [replace(layer, heads=_own_heads(layer, layers, depth)) for layer in layers]
    beside = [mine if mine.heads else layer for mine, layer in zip(own, layers, strict=True)]
    owners, rest = [], []
    for layer in own:
        small = any(_dwarfed(layer, other) for other in beside if other.area > layer.area and not layer.gap_px(other))
        small |= any(_continues(layer, other) for other in own if other.heads and not layer.gap_px(other))
        if (layer.heads and not small) or (layer.area > _CLEAR_SHARE * whole and _clear(layer, own)):
            owners.append(layer)
        else:
            rest.append(layer)
    if not owners:
        return [Part.of(np.logical_or.reduce([layer.mask for layer in layers]), depth)]
    masks = [owner.mask.copy() for owner in owners]
    for layer in rest:
        masks[min(range(len(owners)), key=lambda index: _strangeness(layer, owners[index]))] |= layer.mask
    return [Part.of(mask, depth, owner.heads) for mask, owner in zip(masks, owners, strict=True)]


def _with_heads_of(part: Part, tops: list[Head]) -> Part:
    """The part with those heads of the whole piece that are its own: cut along a depth jump, a head can lose form."""
    found = list(part.heads)
    for top in tops:
        row = min(top.y + round(top.radius), part.mask.shape[0] - 1)
        if part.mask[row, top.x] and all(abs(top.x - head.x) > max(top.radius, head.radius) for head in found):
            found.append(top)
    return replace(part, heads=sorted(found, key=lambda head: head.x))


def _clear(layer: Part, layers: list[Part]) -> bool:
    """Whether a layer is so far from all the others, beside the spread of its depth, that nothing joins them."""
    steps = [abs(layer.relief.level - other.relief.level) for other in layers if other is not layer]
    return min(steps) > max(_CLEAR_JUMP, 6 * layer.relief.spread)


def _own_heads(layer: Part, layers: list[Part], depth: FloatMap) -> list[Head]:
    """The tops that are heads: not under something nearer, not flat, no limb, no second one below, a body to it."""
    behind = [other for other in layers if other is not layer and other.relief.level < layer.relief.level]
    largest = max((head.radius for other in behind if not layer.gap_px(other) for head in other.heads), default=0.0)
    own = _LARGEST * max((head.radius for head in layer.heads), default=0.0)
    good = [head for head in layer.heads if head.radius >= own and _is_head(head, layer, depth, largest)]
    return [head for head in good if not any(_above(other, head) for other in good)]


def _continues(layer: Part, other: Part) -> bool:
    """Whether a layer is the lower half of another, as far and straight below: trousers under a coat's hem."""
    left, top, right, bottom = other.box
    below = layer.box[1] > (top + bottom) / 2 and left < layer.relief.centre_x < right
    return below and abs(layer.relief.level - other.relief.level) < _ALIKE


def _dwarfed(part: Part, other: Part) -> bool:
    """Whether a head is too small for its distance beside another: sizes go like inverse depths, heads differ little.

    Relative inverse depth is 0 at the farthest, which is rarely at infinity: true ratios are nearer to 1.
    """
    if not part.heads or not other.heads or part.relief.level > other.relief.level:
        return False
    nearness = max(part.relief.level, 0.0) / max(other.relief.level, 1e-6)
    largest = min(other.largest, _CROPPED * (other.box[3] - other.box[1]))
    return part.largest < _DWARF * largest * nearness


def _above(first: Head, second: Head) -> bool:
    """Whether the second is straight below the first."""
    return first.y < second.y and abs(first.x - second.x) < max(first.radius, second.radius)


def _is_head(head: Head, layer: Part, depth: FloatMap, farther_radius: float) -> bool:
    reach = max(2, round(0.5 * head.radius))
    rows = slice(max(0, head.y - reach - 2), max(0, head.y - 1))
    above = depth[rows, max(0, head.x - 1) : head.x + 2]
    covered = above.size > 0 and float(np.median(above)) > layer.relief.level + _DEPTH_JUMP / 2
    row = layer.mask[min(head.y + round(0.3 * head.radius), layer.mask.shape[0] - 1)]
    half = max(1, round(_FLAT * head.radius / 2))
    flat = head.y > 1 and bool(row[max(0, head.x - half) : head.x + half + 1].all())
    limb = head.radius < _LIMB * farther_radius
    return not (covered or flat or limb) and layer.area > _BODY * head.radius**2 and _has_body(head, layer, depth)


def _is_free(head: Head, mask: Mask) -> bool:
    """Whether the mask leaves the upper half of the head free; a shoulder or an elbow goes on to one side."""
    height, width = mask.shape
    radius = min(head.radius, float(height + width))  # infinite in a mask without any outline
    angle = np.linspace(-np.pi, 0, 19)
    x = np.rint(head.x + _ROUND * radius * np.cos(angle)).astype(int)
    y = np.rint(head.y + radius + _ROUND * radius * np.sin(angle)).astype(int)
    outside = (x < 0) | (x >= width) | (y < 0) | (y >= height)
    free = outside | ~mask[y.clip(0, height - 1), x.clip(0, width - 1)]
    return float(free.mean()) > _FREE


def _has_body(head: Head, layer: Part, depth: FloatMap) -> bool:
    """Whether there are shoulders and a chest below, as far as nothing nearer hides them and the picture goes on."""
    height, width = layer.mask.shape
    radius = min(head.radius, float(height + width))
    rows = slice(round(head.y + _CHEST[0] * radius), min(height, round(head.y + _CHEST[1] * radius)))
    columns = slice(max(0, round(head.x - _CHEST[2] * radius)), min(width, round(head.x + _CHEST[2] * radius) + 1))
    own = layer.mask[rows, columns]
    if own.shape[0] < radius:  # the picture ends here
        return layer.box[3] - layer.box[1] > _SHORTEST * radius
    hidden = ~own & (depth[rows, columns] > layer.relief.level + _DEPTH_JUMP / 2)
    open_px = own.size - int(hidden.sum())
    return open_px < _HIDDEN * own.size or int(own.sum()) > _FILLED * open_px


def _strangeness(layer: Part, owner: Part) -> float:
    """How little a layer fits a person: difference of depth in jumps, and the gap between them."""
    step = abs(layer.relief.level - owner.relief.level) / _DEPTH_JUMP
    return step + layer.gap_px(owner) / _JUMP_WINDOW


def _gathered(parts: list[Part], depth: FloatMap) -> list[Part]:
    """Loose pieces that show no head with a body (a bag, a shoe, a lock of hair) given to the person they hang on."""
    sure = [bool(_own_heads(part, [part], depth)) for part in parts]
    for index, part in enumerate(parts):
        sure[index] &= not any(_hangs_small(part, other) for other in parts if other is not part)
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
        owners = [Part.of(part.mask | one.mask, depth, one.heads) if one is owner else one for one in owners]


def _hangs_small(part: Part, other: Part) -> bool:
    """Whether a piece at a person is too small, or too wide, to be one itself, whatever its top looks like."""
    if other.area < part.area or part.gap_px(other) > _HAND * other.largest:
        return False
    left, top, right, bottom = part.box
    wide = right - left > _WIDEST * (bottom - top) and part.area < _LITTLE * other.area
    return wide or _dwarfed(part, other)


def _hangs_on(part: Part, owner: Part) -> bool:
    """Whether a piece that is nobody may be somebody's: close to him and as far, or small and at his very side."""
    gap = part.gap_px(owner) / max(owner.largest, 1.0)
    alike = abs(part.relief.level - owner.relief.level) < _SAME
    return part.area < owner.area and ((gap <= _HAND and alike) or (gap <= _NEAR and part.area < _LITTLE * owner.area))


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
                joined[index] = Part.of(part.mask | other.mask, depth, found)
                break
        else:
            index += 1
    return joined


def _heads_of_both(part: Part, other: Part, depth: FloatMap) -> list[Head]:
    """The heads of two pieces, the larger first, seen as one; none when they are not one person.

    They are when they are equally far, something nearer lies between, and with it they show no head more.
    """
    alike = max(_ALIKE, 1.5 * part.relief.spread)
    if not part.heads or min(part.area, other.area) < _SPECK_SHARE * depth.size or part.expects(other) > alike:
        return []
    between = _between(part, other)
    if not between.any():
        return []
    if float(np.median(depth[between])) < min(part.relief.level, other.relief.level) - _DEPTH_JUMP / 4:
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
        if head.radius > _LARGEST * part.largest and _is_free(head, part.mask) and _has_body(head, part, depth)
    ]
    if len(tops) < 2:
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
