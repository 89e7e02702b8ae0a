"""Parts of people's outlines, and whether a part is somebody: a head, a chest below it, a size that fits its distance.

Sizes are in radii of the head, which is the one part that looks alike in everybody.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.imaging import heads, relief
from service.imaging.heads import Head
from service.imaging.matte import Box, bounding_box

FloatMap = NDArray[np.float32]
Mask = NDArray[np.bool_]

DEPTH_JUMP: Final = 0.05  # relative inverse depth: the least step between two people who overlap
CLEAR_JUMP: Final = 0.2  # relative inverse depth: no sleeve, bag or arm is so far from its owner
ALIKE: Final = 0.04  # relative inverse depth: the most between two pieces of one person
_FLAT: Final = 1.9  # radii: a top wider than this a third of a radius below is a cut, no crown; a circle has 1.43
_LIMB: Final = 0.6  # of the radius of a head farther away: what is nearer and smaller is no head
LARGEST: Final = 0.4  # of the radius of a layer's largest head: what is smaller is a hand or a lock of hair
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


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A piece of the reduced mask on its way to become a person.

    Attributes:
        mask: bool (h, w).
        box: left, top, right, bottom.
        area: pixels.
        relief: how far it is.
        heads: its tops, left to right.
        behind: whether it is what others leave to be seen of a person, who need show no head.
    """

    mask: Mask
    box: Box
    area: int
    relief: relief.Relief
    heads: list[Head]
    behind: bool = False

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


def with_heads_of(part: Part, tops: list[Head]) -> Part:
    """The part with those heads of the whole piece that are its own: cut along a depth jump, a head can lose form."""
    found = list(part.heads)
    for top in tops:
        row = min(top.y + round(top.radius), part.mask.shape[0] - 1)
        if part.mask[row, top.x] and all(abs(top.x - head.x) > max(top.radius, head.radius) for head in found):
            found.append(top)
    return replace(part, heads=sorted(found, key=lambda head: head.x))


def is_clear(layer: Part, layers: list[Part]) -> bool:
    """Whether a layer is so far from all the others, beside the spread of its depth, that nothing joins them."""
    steps = [abs(layer.relief.level - other.relief.level) for other in layers if other is not layer]
    return min(steps) > max(CLEAR_JUMP, 6 * layer.relief.spread)


def own_heads(layer: Part, layers: list[Part], depth: FloatMap) -> list[Head]:
    """The tops that are heads: not under something nearer, not flat, no limb, no second one below, a body to it."""
    behind = [other for other in layers if other is not layer and other.relief.level < layer.relief.level]
    largest = max((head.radius for other in behind if not layer.gap_px(other) for head in other.heads), default=0.0)
    own = LARGEST * max((head.radius for head in layer.heads), default=0.0)
    good = [head for head in layer.heads if head.radius >= own and _is_head(head, layer, depth, largest)]
    return [head for head in good if not any(_above(other, head) for other in good)]


def continues(layer: Part, other: Part) -> bool:
    """Whether a layer is the lower half of another, as far and straight below: trousers under a coat's hem."""
    left, top, right, bottom = other.box
    below = layer.box[1] > (top + bottom) / 2 and left < layer.relief.centre_x < right
    return below and abs(layer.relief.level - other.relief.level) < ALIKE


def is_dwarfed(part: Part, other: Part) -> bool:
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
    covered = above.size > 0 and float(np.median(above)) > layer.relief.level + DEPTH_JUMP / 2
    row = layer.mask[min(head.y + round(0.3 * head.radius), layer.mask.shape[0] - 1)]
    half = max(1, round(_FLAT * head.radius / 2))
    flat = head.y > 1 and bool(row[max(0, head.x - half) : head.x + half + 1].all())
    limb = head.radius < _LIMB * farther_radius
    return not (covered or flat or limb) and layer.area > _BODY * head.radius**2 and has_body(head, layer, depth)


def is_free(head: Head, mask: Mask) -> bool:
    """Whether the mask leaves the upper half of the head free; a shoulder or an elbow goes on to one side."""
    height, width = mask.shape
    radius = min(head.radius, float(height + width))  # infinite in a mask without any outline
    angle = np.linspace(-np.pi, 0, 19)
    x = np.rint(head.x + _ROUND * radius * np.cos(angle)).astype(int)
    y = np.rint(head.y + radius + _ROUND * radius * np.sin(angle)).astype(int)
    outside = (x < 0) | (x >= width) | (y < 0) | (y >= height)
    free = outside | ~mask[y.clip(0, height - 1), x.clip(0, width - 1)]
    return float(free.mean()) > _FREE


def has_body(head: Head, layer: Part, depth: FloatMap) -> bool:
    """Whether there are shoulders and a chest below, as far as nothing nearer hides them and the picture goes on."""
    height, width = layer.mask.shape
    radius = min(head.radius, float(height + width))
    rows = slice(round(head.y + _CHEST[0] * radius), min(height, round(head.y + _CHEST[1] * radius)))
    columns = slice(max(0, round(head.x - _CHEST[2] * radius)), min(width, round(head.x + _CHEST[2] * radius) + 1))
    own = layer.mask[rows, columns]
    if own.shape[0] < radius:  # the picture ends here
        return layer.box[3] - layer.box[1] > _SHORTEST * radius
    hidden = ~own & (depth[rows, columns] > layer.relief.level + DEPTH_JUMP / 2)
    open_px = own.size - int(hidden.sum())
    return open_px < _HIDDEN * own.size or int(own.sum()) > _FILLED * open_px
