"""People of whom something nearer hides so much that no head and chest of theirs show.

What is seen of somebody behind a crowd are scraps: a shoulder beside one person, a bit of leg between two others. Such
a scrap ends where something nearer begins, so most of its border inside the mask is a step up in depth. Scraps that are
equally far and no farther from one another than a person is wide are one person, unless they may belong to one who does
show a head. A sleeve that lies behind its owner's chest looks just so, but is no longer than an arm: what is not taller
in all is nobody, unless it is farther than any sleeve and what is nearer goes along much of its outline. Slivers too
narrow for a layer go to whoever is as far as they are.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from service.imaging.parts import CLEAR_JUMP, Part

FloatMap = NDArray[np.float32]

_STEP: Final = 0.06  # relative inverse depth that what hides a scrap is nearer by, at least
_STEP_SPREADS: Final = 3.0  # of the scrap's own depth: the same
_HIDDEN_SHARE: Final = 0.5  # of the scrap's border with other layers
_LEAST_SHARE: Final = 0.003  # of the picture: all scraps of one person together
_ARM: Final = 6.0  # radii of the head of him who hides them: what is no taller may be his own sleeve or bag
_SHORT: Final = 3.0  # radii of the same head: how tall a person behind is at least who is farther than that
_COVERED: Final = 0.3  # of the outline of such a person, where something nearer begins; an arm stretched out has less
_SAME_DEPTH: Final = 0.05  # relative inverse depth between two scraps of one person
_WIDEST: Final = 7.0  # radii of a head: from one side of a person to the other
_SLIVER_OFF: Final = 0.06  # relative inverse depth that a sliver is farther than the person it was given to, at least
_SLIVER_OFF_SPREADS: Final = 3.0  # of that person's own depth: the same
_SLIVER_LIKE: Final = 0.05  # relative inverse depth between a sliver and the person it is given to, at most
_SLIVER_LIKE_SPREADS: Final = 2.0  # of that person's own depth: the same
_SLIVER_PX: Final = 15  # smaller ones are mixed pixels of an outline
_SLIVER_BESIDE: Final = 2.5  # radii of a head: what is farther to its side is not this person's
_BESIDE: Final = 3.5  # radii of a head: what is farther from its middle is not this person's


def people_behind(rest: Sequence[Part], layers: Sequence[Part], owners: Sequence[Part], depth: FloatMap) -> list[Part]:
    """Those of whom only scraps are seen, each as one part with `behind` set.

    Args:
        rest: layers without a head of their own.
        layers: all layers of this piece of the mask.
        owners: those among them that are people.
        depth: float32 (h, w), relative inverse depth.
    """
    sizes = [owner.largest / max(owner.relief.level, 0.05) for owner in owners if owner.heads]
    head = float(np.median(sizes)) if sizes else np.inf  # radius at inverse depth 1
    people: list[list[Part]] = []
    for scrap in sorted((layer for layer in rest if _is_hidden(layer, layers)), key=lambda layer: -layer.area):
        mine = (person for person in people if _is_one([*person, scrap], _WIDEST * head * person[0].relief.level))
        person = next(mine, None)
        if person is None:
            people.append([scrap])
        else:
            person.append(scrap)
    return [
        replace(Part.of(np.logical_or.reduce([scrap.mask for scrap in person]), depth), behind=True)
        for person in people
        if sum(scrap.area for scrap in person) >= _LEAST_SHARE * depth.size
        and _is_tall(person, owners, head)
        and not any(_may_be(person[0], owner) for owner in owners)
    ]


def _is_hidden(layer: Part, layers: Sequence[Part]) -> bool:
    """Whether nearer layers make up most of its border with others."""
    around: NDArray[np.bool_] = cv2.dilate(layer.mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    nearer = layer.relief.level + max(_STEP, _STEP_SPREADS * layer.relief.spread)
    border = hidden = 0
    for other in layers:
        if other is not layer:
            shared = int(np.count_nonzero(around & other.mask))
            border += shared
            hidden += shared if other.relief.level > nearer else 0
    return hidden > _HIDDEN_SHARE * border


def _is_one(scraps: Sequence[Part], widest_px: float) -> bool:
    left, right = min(scrap.box[0] for scrap in scraps), max(scrap.box[2] for scrap in scraps)
    alike = abs(scraps[0].relief.level - scraps[-1].relief.level) < _SAME_DEPTH
    return alike and right - left <= widest_px


def _is_tall(scraps: Sequence[Part], owners: Sequence[Part], head: float) -> bool:
    """Whether they reach over more rows than an arm of those in front of them, or nearly half where it can be none."""
    top, bottom = min(scrap.box[1] for scrap in scraps), max(scrap.box[3] for scrap in scraps)
    hiding = [owner for owner in owners if any(not scrap.gap_px(owner) for scrap in scraps)]
    nearest = max((owner.relief.level for owner in hiding), default=0.0)
    far = nearest - max(scrap.relief.level for scrap in scraps) > CLEAR_JUMP
    least = _SHORT if far and not _is_on_top(scraps[0], hiding) and _is_covered(scraps, owners) else _ARM
    return bottom - top > least * head * nearest


def _is_on_top(scrap: Part, hiding: Sequence[Part]) -> bool:
    """Whether a scrap stands on somebody nearer, whose own head it then is."""
    x, y, level = scrap.relief.centre_x, scrap.relief.centre_y, scrap.relief.level
    nearer = [owner for owner in hiding if owner.relief.level > level and owner.box[0] < x < owner.box[2]]
    return any(y < head.y for owner in nearer for head in owner.heads)


def _is_covered(scraps: Sequence[Part], owners: Sequence[Part]) -> bool:
    """Whether people clearly nearer go along much of the scraps' outline."""
    mask = np.logical_or.reduce([scrap.mask for scrap in scraps])
    outline = (cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0) & ~mask
    nearer = [owner for owner in owners if owner.relief.level > scraps[0].relief.level + _STEP]
    covered = sum(int(np.count_nonzero(outline & owner.mask)) for owner in nearer)
    return covered > _COVERED * int(np.count_nonzero(outline))


def with_slivers(people: Sequence[Part], depth: FloatMap) -> list[Part]:
    """The same people, each with what others have of him: what is farther than they are, and as far as he and his.

    Args:
        people: parts that do not overlap.
        depth: float32 (h, w), relative inverse depth.
    """
    if len(people) < 2:
        return list(people)
    masks = [person.mask.copy() for person in people]
    farthest = np.zeros(depth.shape, np.float32)  # what a pixel may be and still be its owner's
    for person in people:
        off = max(_SLIVER_OFF, _SLIVER_OFF_SPREADS * person.relief.spread)
        farthest[person.mask] = person.relief.level - off
    strange = np.logical_or.reduce(masks) & (depth < farthest)
    for index, person in enumerate(people):
        like = max(_SLIVER_LIKE, _SLIVER_LIKE_SPREADS * person.relief.spread)
        place = _room(person)
        his = np.zeros(depth.shape, np.uint8)
        his[place] = (strange & ~person.mask & (np.abs(depth - person.relief.level) < like))[place]
        count, labels, stats, _ = cv2.connectedComponentsWithStats(his, connectivity=8)
        large = [label for label in range(1, count) if stats[label, cv2.CC_STAT_AREA] >= _SLIVER_PX]
        taken = np.isin(labels, large)
        for mask in masks:
            mask &= ~taken
        masks[index] |= taken
        strange &= ~taken
    return [replace(person, mask=mask) for person, mask in zip(people, masks, strict=True) if mask.any()]


def _room(person: Part) -> tuple[slice, slice]:
    """Rows and columns where more of a person may be."""
    left, top, right, bottom = person.box
    reach = round(_SLIVER_BESIDE * min(max(person.largest, 2.0), float(person.mask.shape[1])))
    left, right = (
        min([left, *(head.x - reach for head in person.heads)]),
        max([right, *(head.x + reach for head in person.heads)]),
    )
    return slice(max(0, top - 2), bottom + reach), slice(max(0, left), right + 1)


def _may_be(scrap: Part, owner: Part) -> bool:
    """Whether a scrap is as far as a person and near enough to one of his heads, across, to be his."""
    if abs(scrap.relief.level - owner.relief.level) >= _SAME_DEPTH:
        return False
    beside = [abs(scrap.relief.centre_x - head.x) <= _BESIDE * max(head.radius, 1.0) for head in owner.heads]
    return any(beside) or not beside
