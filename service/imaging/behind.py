"""People of whom something nearer hides so much that no head and chest of theirs show.

What is seen of somebody behind a crowd are scraps: a shoulder beside one person, a bit of leg between two others. Such
a scrap ends where something nearer begins, so most of its border inside the mask is a step up in depth. Scraps that are
equally far and no farther from one another than a person is wide are one person, unless they may belong to one who does
show a head. A sleeve that lies behind its owner's chest looks just so, but is no longer than an arm: what is not taller
in all is nobody.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from service.imaging.parts import Part

FloatMap = NDArray[np.float32]

_STEP: Final = 0.06  # relative inverse depth that what hides a scrap is nearer by, at least
_STEP_SPREADS: Final = 3.0  # of the scrap's own depth: the same
_HIDDEN_SHARE: Final = 0.5  # of the scrap's border with other layers
_LEAST_SHARE: Final = 0.003  # of the picture: all scraps of one person together
_ARM: Final = 6.0  # radii of the head of him who hides them: what is no taller may be his own sleeve or bag
_SAME_DEPTH: Final = 0.05  # relative inverse depth between two scraps of one person
_WIDEST: Final = 7.0  # radii of a head: from one side of a person to the other
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
    """Whether they reach over more rows than an arm of those in front of them."""
    top, bottom = min(scrap.box[1] for scrap in scraps), max(scrap.box[3] for scrap in scraps)
    hiding = [owner.relief.level for owner in owners if any(not scrap.gap_px(owner) for scrap in scraps)]
    return bottom - top > _ARM * head * max(hiding, default=0.0)


def _may_be(scrap: Part, owner: Part) -> bool:
    """Whether a scrap is as far as a person and near enough to one of his heads, across, to be his."""
    if abs(scrap.relief.level - owner.relief.level) >= _SAME_DEPTH:
        return False
    beside = [abs(scrap.relief.centre_x - head.x) <= _BESIDE * max(head.radius, 1.0) for head in owner.heads]
    return any(beside) or not beside
