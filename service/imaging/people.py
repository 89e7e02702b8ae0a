"""One matte per person out of one matte of all people.

First by connected pieces, then, inside a piece, where the depth jumps: people who overlap in the picture stand at
different depths. Found on a reduced copy; the soft borders of the full-size matte are kept.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from service.imaging import heads, seams
from service.imaging.depth import finite
from service.imaging.errors import InvalidMap
from service.imaging.geometry import resize
from service.imaging.matte import THRESHOLD, Box, bounding_box, probability

FloatMap = NDArray[np.float32]
Labels = NDArray[np.int32]
Mask = NDArray[np.bool_]

MAX_PEOPLE: Final = 8
"""Most mattes returned, the largest people first; each costs a whole float map."""

_SPLIT_LONG_SIDE: Final = 320
_SPECK_SHARE: Final = 0.0008  # of the picture: smaller pieces are specks
_PART_SHARE: Final = 0.1  # of a connected piece: smaller parts (a hand stretched out) stay with it
_DEPTH_JUMP: Final = 0.08  # relative inverse depth: the least step between two people who overlap
_JUMP_WINDOW: Final = 5  # pixels of the reduced copy over which a network's soft depth edge climbs
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
    people = [part for piece in _pieces(mask) for part in _people(piece, depth, cost)]
    labels = np.zeros(mask.shape, np.int32)
    for label, part in enumerate(people, start=1):
        labels[part] = label
    return labels, len(people)


def _people(piece: Mask, depth: FloatMap, cost: FloatMap) -> list[Mask]:
    """The people of one connected piece."""
    found = []
    for layer in _layers(piece, depth):
        found += _side_by_side(layer, cost)
    return found


def _side_by_side(layer: Mask, cost: FloatMap) -> list[Mask]:
    """Those who stand at one depth, told apart by their heads."""
    found = []
    for part in _pieces(layer):
        tops = heads.find(part)
        if len(tops) < 2:
            found.append(part)
            continue
        rest = part.copy()
        columns = np.arange(part.shape[1])
        for left, right in pairwise(tops):
            line = seams.cheapest(cost, left.x, right.x)
            before = rest & (columns[None] < line[:, None])
            rest &= ~before
            found.append(before)
        found.append(rest)
    return found


def _pieces(mask: Mask) -> list[Mask]:
    count, labels, _ = _components(mask)
    return [labels == piece for piece in range(1, count)]


def _layers(piece: Mask, depth: FloatMap) -> list[Mask]:
    """The piece cut along its depth jumps, nearest first; a layer without a head of its own is no layer."""
    element = np.ones((_JUMP_WINDOW, _JUMP_WINDOW), np.uint8)
    calm = cv2.dilate(depth, element) - cv2.erode(depth, element) < _DEPTH_JUMP
    return _parts(piece, piece & calm, depth, int(piece.sum()))


def _components(mask: NDArray[np.bool_]) -> tuple[int, Labels, NDArray[np.int32]]:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas: NDArray[Any] = stats[:, cv2.CC_STAT_AREA]
    found: NDArray[Any] = labels
    return count, found, areas


def _parts(inside: NDArray[np.bool_], calm: NDArray[np.bool_], depth: FloatMap, area: int) -> list[NDArray[np.bool_]]:
    """The piece whole, or its parts on either side of a depth jump, each pixel with the one nearest to it."""
    count, cores, areas = _components(calm)
    least = max(_PART_SHARE * area, _SPECK_SHARE * inside.size)
    seeds = [cores == core for core in range(1, count) if areas[core] >= least]
    medians = [float(np.median(depth[seed])) for seed in seeds]
    groups: list[tuple[float, NDArray[np.bool_]]] = []
    for median, seed in sorted(zip(medians, seeds, strict=True), key=lambda pair: -pair[0]):
        if groups and groups[-1][0] - median < _DEPTH_JUMP:  # two halves of one person, parted by an arm
            groups[-1] = (groups[-1][0], groups[-1][1] | seed)
        else:
            groups.append((median, seed))
    if len(groups) < 2:
        return [inside]
    costs = []
    for median, seed in groups:
        apart = cv2.distanceTransform((~seed).astype(np.uint8), cv2.DIST_L2, 5)
        costs.append(apart / _JUMP_WINDOW + np.abs(depth - np.float32(median)) / np.float32(_DEPTH_JUMP))
    nearest = np.argmin(np.stack(costs), axis=0)
    return [inside & (nearest == index) for index in range(len(groups))]


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
