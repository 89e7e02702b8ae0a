"""Heads on the outline of a mask of people, found from the top down.

A row sweeps downwards over the mask. Where it meets a new piece of mask, something begins: a head, a raised hand, the
top of a bag. Where two pieces meet, that row is the saddle between them, and each has risen so far above it (the
persistence of Edelsbrunner et al. 2002, of the height function on the mask). A head is round, so it rises above its
saddle by something like its own radius, which the distance transform gives; a hand is thinner than the head beside it.
"""

from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

_LEAST_RADIUS_PX: Final = 1.9  # smaller bumps are the mask's own noise
_CHIN: Final = 1.2  # radii from the crown to where a head has shown its full radius and the shoulders not yet begun
_SURE_PX: Final = 4  # rows from the crown that are looked at in any case
_LARGE_PX: Final = 160  # rows of mask from which locks of hair are wider
_RISE: Final = 0.7  # radii that a head rises above the saddle to its neighbour, at least
_HEAD_TO_BODY: Final = 0.6  # radius of a head over half the width of a body
_LEAST_RISE_PX: Final = 3
_ALIKE: Final = 0.45  # radius over that of the larger neighbour: below, it is an arm or a bag
_LARGEST: Final = 0.35  # radius over the largest of all: hair and hats differ, heads do not differ by more
_LIMB_LENGTH: Final = 4.5  # half widths: what rises by more and is no wider than a head is an arm


@dataclass(frozen=True, slots=True)
class Head:
    """A place where a person begins.

    Attributes:
        x: column of the crown, pixels.
        y: row of the crown, pixels.
        radius: of the head, pixels.
    """

    x: int
    y: int
    radius: float


@dataclass(slots=True)
class _Top:
    """A head in the making: `rise` is how far it stood above the highest saddle met so far."""

    x: int
    y: int
    radius: float = 0.0
    size: float = 0.0
    rise: float = np.inf

    def grow(self, row: int, thickness: NDArray[np.float32]) -> None:
        """Look at a further row of the distances to the outline, straight below the crown only."""
        below = row - self.y
        if below <= max(_CHIN * self.radius + 1, _SURE_PX):
            reach = 1 + below // 2
            self.radius = max(self.radius, float(thickness[max(0, self.x - reach) : self.x + reach + 1].max()))

    def measure(self, thickness: float) -> None:
        """Judge the radius by the whole piece so far: a bun or a hat's peak is smaller than the head below."""
        self.size = max(self.radius, min(_HEAD_TO_BODY * thickness, 2 * self.radius))


@dataclass(slots=True)
class _Piece:
    """What is connected down to the present row."""

    tops: list[_Top]
    thickness: float = 0.0


def find(mask: NDArray[np.bool_]) -> list[Head]:
    """Heads of all pieces of a mask, left to right; each piece of some size has one at least, its best top.

    Args:
        mask: bool (H, W); meant for some hundred pixels a side, the sweep is in Python.
    """
    mask = _shorn(mask)
    rows, starts, ends = _runs(mask)
    apart = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)  # the picture's border is no outline
    pieces: dict[int, _Piece] = {}
    parent: list[int] = []
    above: range = range(0)
    first = 0
    while first < len(rows):
        row = int(rows[first])
        last = first
        while last < len(rows) and rows[last] == row:
            last += 1
        if len(above) and rows[above.start] != row - 1:
            above = range(0)
        for run in range(first, last):
            start, end = int(starts[run]), int(ends[run])
            parent.append(run)
            met = sorted({_root(parent, other) for other in above if starts[other] <= end and ends[other] >= start})
            piece = _meet([pieces.pop(root) for root in met], row) if met else _Piece([_Top((start + end) // 2, row)])
            for root in met:
                parent[root] = run
            pieces[run] = piece
            piece.thickness = max(piece.thickness, float(apart[row, start:end].max()))
            for top in piece.tops:
                top.grow(row, apart[row])
        above = range(first, last)
        first = last
    found = sorted((head for piece in pieces.values() for head in _lasting(piece)), key=lambda head: head.x)
    return [head for head in found if not any(_above(other, head) for other in found)]


def _shorn(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Without single locks of hair, which would be tops thinner than any head."""
    rows = np.flatnonzero(mask.any(axis=1))
    side = 5 if rows.size > _LARGE_PX else 3
    shorn = cv2.morphologyEx(
        mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((side, side), np.uint8), borderType=cv2.BORDER_REPLICATE
    )
    return shorn.astype(bool)


def _runs(mask: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Row, first column and end column of every run of mask, row by row."""
    steps = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    rows, starts = np.nonzero(steps == 1)
    return rows, starts, np.nonzero(steps == -1)[1]


def _root(parent: list[int], run: int) -> int:
    while parent[run] != run:
        parent[run] = parent[parent[run]]
        run = parent[run]
    return run


def _meet(pieces: list[_Piece], row: int) -> _Piece:
    """The pieces that join in `row` as one: the best top of each rose above this saddle only so far."""
    if len(pieces) < 2:
        return pieces[0]
    for piece in pieces:
        if len(piece.tops) == 1:
            piece.tops[0].measure(piece.thickness)
    ranked = sorted(pieces, key=lambda piece: max((top.size, -top.y) for top in piece.tops))
    joined = ranked.pop()
    for piece in reversed(ranked):
        best = max(piece.tops, key=lambda top: (top.size, -top.y))
        best.rise = min(best.rise, row - best.y)
        beside = min(joined.tops, key=lambda top: abs(top.x - best.x))
        limb = best.rise > _LIMB_LENGTH * piece.thickness and piece.thickness <= beside.size
        if len(piece.tops) == 1 and (limb or not _stands(best, beside.radius)):
            piece.tops.clear()
        joined = _Piece(joined.tops + piece.tops, max(joined.thickness, piece.thickness))
    return joined


def _stands(top: _Top, beside: float) -> bool:
    large = top.size >= max(_LEAST_RADIUS_PX, _ALIKE * beside)
    return large and top.rise >= max(_RISE * top.radius, _LEAST_RISE_PX)


def _lasting(piece: _Piece) -> list[Head]:
    """Those that are as large as a head may be beside the others."""
    if len(piece.tops) == 1:
        piece.tops[0].measure(piece.thickness)
    largest = max(top.radius for top in piece.tops)
    return [
        Head(top.x, top.y, top.size)
        for top in piece.tops
        if top.size >= max(_LEAST_RADIUS_PX, _LARGEST * largest)
        and (top.rise == np.inf or top.rise >= max(_RISE * top.radius, _LEAST_RISE_PX))
    ]


def _above(first: Head, second: Head) -> bool:
    """Whether the second is straight below the first: nobody's head, or one that no upright line could tell apart."""
    return first.y < second.y and abs(first.x - second.x) < first.radius
