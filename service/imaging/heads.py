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
_CHIN: Final = 1.4  # radii from the crown to where a head has shown its full radius and the shoulders not yet begun
_RISE: Final = 0.8  # radii that a head rises above the saddle to its neighbour, at least
_ALIKE: Final = 0.6  # radius over that of the larger neighbour: below, it is an arm or a bag


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
    rise: float = np.inf
    open: bool = True

    def grow(self, row: int, thickness: float) -> None:
        if self.open and row - self.y <= _CHIN * max(self.radius, _LEAST_RADIUS_PX):
            self.radius = max(self.radius, thickness)


def find(mask: NDArray[np.bool_]) -> list[Head]:
    """Heads of all pieces of a mask, left to right; each piece of some size has one at least, its highest top.

    Args:
        mask: bool (H, W); meant for some hundred pixels a side, the sweep is in Python.
    """
    rows, starts, ends, thickness = _runs(mask)
    tops: dict[int, list[_Top]] = {}
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
            parent.append(run)
            met = sorted(
                {_root(parent, other) for other in above if starts[other] <= ends[run] and ends[other] >= starts[run]}
            )
            owned = _meet([tops.pop(root) for root in met], row)
            for root in met:
                parent[root] = run
            tops[run] = owned or [_Top(int(starts[run] + ends[run]) // 2, row)]
            for top in tops[run]:
                top.grow(row, float(thickness[run]))
        above = range(first, last)
        first = last
    return sorted(
        (Head(top.x, top.y, top.radius) for owned in tops.values() for top in _lasting(owned)), key=lambda head: head.x
    )


def _runs(mask: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Row, first column, end column and largest distance to the outline of every run of mask, row by row."""
    inside = mask.astype(np.uint8)
    steps = np.diff(np.pad(inside.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    rows, starts = np.nonzero(steps == 1)
    ends = np.nonzero(steps == -1)[1]
    if not rows.size:
        return rows, starts, ends, np.zeros(0, np.float32)
    apart = cv2.distanceTransform(inside, cv2.DIST_L2, 5)[mask]  # the picture's border is no outline
    lengths = ends - starts
    return rows, starts, ends, np.maximum.reduceat(apart, np.cumsum(lengths) - lengths)


def _root(parent: list[int], run: int) -> int:
    while parent[run] != run:
        parent[run] = parent[parent[run]]
        run = parent[run]
    return run


def _meet(pieces: list[list[_Top]], row: int) -> list[_Top]:
    """The tops of pieces that join in `row`: the best of each rose above this saddle only so far."""
    if len(pieces) < 2:
        return pieces[0] if pieces else []
    tops = [top for piece in pieces for top in piece]
    best = [max(piece, key=lambda top: (top.radius, -top.y)) for piece in pieces]
    winner = max(best, key=lambda top: (top.radius, -top.y))
    for top in best:
        if top is not winner:
            top.rise = min(top.rise, row - top.y)
    kept = [top for top in tops if top is winner or _stands(top, winner.radius)]
    for top in kept:
        top.open = top.open and len(kept) == 1  # below, the two are as thick as both
    return kept


def _stands(top: _Top, largest: float) -> bool:
    return top.radius >= max(_LEAST_RADIUS_PX, _ALIKE * largest) and top.rise >= _RISE * top.radius


def _lasting(tops: list[_Top]) -> list[_Top]:
    """Those whose radius, known only now, is a head's beside the others', and that rose by enough of it."""
    largest = max(top.radius for top in tops)
    return [top for top in tops if _stands(top, largest)]
