"""The parts of a photo that something is done in: rectangles round what is there, those that would meet made one."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

CELL_PX: Final = 16
"""A multiple of it: how finely places are told."""


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a photo, in pixels."""

    top: int
    bottom: int
    left: int
    right: int

    def meets(self, other: "Window") -> bool:
        """Whether the two have a pixel in common."""
        return (
            self.top < other.bottom and other.top < self.bottom and self.left < other.right and other.left < self.right
        )

    def with_(self, other: "Window") -> "Window":
        """The smallest one that holds both."""
        return Window(
            min(self.top, other.top),
            max(self.bottom, other.bottom),
            min(self.left, other.left),
            max(self.right, other.right),
        )

    def strips(self, rows: int) -> Iterator["Window"]:
        """The window from top to bottom, so many of its rows at a time."""
        for top in range(self.top, self.bottom, rows):
            yield Window(top, min(top + rows, self.bottom), self.left, self.right)

    def at(self, scale: int) -> tuple[slice, slice]:
        """Rows and columns of the photo shrunk by `scale`, which must divide all sides."""
        return slice(self.top // scale, self.bottom // scale), slice(self.left // scale, self.right // scale)


def any_in_cells(bits: NDArray[Any]) -> NDArray[Any]:
    """The bits that are set anywhere in each cell, (ceil(H / 16), ceil(W / 16)), of unsigned numbers (H, W)."""
    height, width = bits.shape
    whole = height - height % CELL_PX
    rows = np.bitwise_or.reduce(bits[:whole].reshape(-1, CELL_PX, width), axis=1)
    if whole < height:
        rows = np.concatenate([rows, np.bitwise_or.reduce(bits[whole:], axis=0)[None]])
    rows = np.pad(rows, ((0, 0), (0, -width % CELL_PX)))
    result: NDArray[Any] = np.bitwise_or.reduce(rows.reshape(len(rows), -1, CELL_PX), axis=2)
    return result


def pieces(cells: NDArray[np.bool_], window: Window) -> Iterator[Window]:
    """The columns of a window in which a cell is marked, those side by side together; its sides are whole cells."""
    first = window.left // CELL_PX
    rows, columns = (
        slice(window.top // CELL_PX, -(-window.bottom // CELL_PX)),
        slice(first, -(-window.right // CELL_PX)),
    )
    there = np.concatenate([[False], cells[rows, columns].any(axis=0), [False]])
    for start, stop in np.flatnonzero(there[1:] != there[:-1]).reshape(-1, 2) + first:
        yield Window(window.top, window.bottom, int(start) * CELL_PX, min(window.right, int(stop) * CELL_PX))


def widened(cells: NDArray[np.bool_], reach_px: int) -> NDArray[np.bool_]:
    """The marked cells and those within reach of them."""
    reach = -(-reach_px // CELL_PX)
    wide = cv2.dilate(cells.astype(np.uint8), np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
    return wide > 0


def rectangles(cells: NDArray[np.bool_], size: tuple[int, ...]) -> list[Window]:
    """Windows that hold all marked cells of a photo of `size`."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(cells.astype(np.uint8), connectivity=8)
    found = merged(
        Window(int(top), int(top + down), int(left), int(left + across)) for left, top, across, down, _ in stats[1:]
    )
    return [
        Window(
            one.top * CELL_PX,
            min(size[0], one.bottom * CELL_PX),
            one.left * CELL_PX,
            min(size[1], one.right * CELL_PX),
        )
        for one in found
    ]


def merged(windows: Iterable[Window]) -> list[Window]:
    """The windows with those that meet made one, until none do."""
    found: list[Window] = []
    for window in windows:
        while meeting := next((other for other in found if window.meets(other)), None):
            found.remove(meeting)
            window = window.with_(meeting)
        found.append(window)
    return found
