"""Continuing what repeats: tiles, bricks, stripes, the windows of a house behind who stands before them.

A smooth continuation behind a nearer thing is the right guess where nothing is known but the surroundings' mean. Where
they repeat at some shift (He and Sun 2012, Statistics of Patch Offsets for Image Completion), what is hidden shows a
shift farther on: there the guess is the local mean, and what the shifted pixel differs from its own mean by, as far as
the two places correlate round about.
"""

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from service.imaging.geometry import resize

FloatMap = NDArray[np.float32]

_LONG_SIDE: Final = 192  # pixels of the copy that is looked at: what is added gets blurred
_LONGEST: Final = 48  # of its pixels: a shift, to each side
_WINDOW: Final = (33, 33)  # of its pixels: round about
_LEAST_WANTED: Final = 16  # of its pixels: fewer hidden ones are not worth looking
_LEAST_KNOWN: Final = 64
_LEAST_CONTRAST: Final = 0.02  # standard deviation of linear light: below, there is no pattern
_OVERLAP: Final = 0.1  # of what is known, and of a window, that a shift has to bring upon itself
_REPEATS: Final = 0.6  # correlation of all that is known from which a shift is tried
_BELIEVED: Final = (0.65, 0.95)  # correlation round about from which a shift is believed at all, and fully
_BETTER: Final = 0.02  # correlation by which a shift has to surpass those before it
_SOFT: Final = (5, 5)  # pixels, over which belief comes and goes: a border of it would show as a line
_SHIFTS: Final = 8  # tried at most, best first
_PEAK_PX: Final = 2  # half width of a peak of the correlation


def add_patterns(continued: FloatMap, rgba: FloatMap, wanted: NDArray[np.bool_]) -> None:
    """Add to a layer's smooth continuation, in place, what repeats in the layer; nothing where nothing does.

    Args:
        continued: float32 (h, w, 4), premultiplied linear light, continued to everywhere.
        rgba: float32 (h, w, 4), what is seen of the layer.
        wanted: bool (h, w), where it is to be continued.
    """
    factor = -(-max(wanted.shape) // _LONG_SIDE)
    size = (-(-wanted.shape[0] // factor), -(-wanted.shape[1] // factor))
    small = resize(rgba, size)
    alpha = np.ascontiguousarray(small[..., 3])
    seen = alpha > 0.5
    hidden = (resize(wanted.astype(np.float32), size) > 0.5) & ~seen
    if np.count_nonzero(hidden) < _LEAST_WANTED or np.count_nonzero(seen) < _LEAST_KNOWN:
        return
    colour = np.minimum(small[..., :3] / np.maximum(alpha, np.float32(0.05))[..., None], 1)
    softened: NDArray[Any] = cv2.dilate(hidden.astype(np.uint8), np.ones(_SOFT, np.uint8))
    found = _continued(colour, seen.astype(np.float32), softened > 0)
    if found is None:
        return
    light, belief = found
    belief = np.asarray(cv2.blur(belief, _SOFT))
    np.clip(light, colour[seen].min(axis=0), colour[seen].max(axis=0), out=light)
    belief[~hidden] = 0
    if not belief.any():
        return
    full = (wanted.shape[0], wanted.shape[1])
    light, belief = resize(light, full), resize(belief, full)
    box = _box(belief > 0, (0, 0))
    light, belief, shown = light[box], belief[box][..., None], continued[box]
    shown[..., :3] += belief * (light * shown[..., 3:] - shown[..., :3])


def _continued(colour: FloatMap, seen: FloatMap, wanted: NDArray[np.bool_]) -> tuple[FloatMap, FloatMap] | None:
    """Colours (h, w, 3) as the pattern has them, and how far to believe it, (h, w) in 0..1; None without a pattern."""
    share = np.maximum(_sums(seen), np.float32(1e-3))[..., None]
    mean = _sums(colour * seen[..., None]) / share
    differs = (colour - mean) * seen[..., None]
    grey = differs.sum(axis=2) * np.float32(1 / 3)
    if float((grey * grey).sum()) < _LEAST_CONTRAST**2 * float(seen.sum()):
        return None
    shifts = _shifts(grey, seen)
    if not shifts:
        return None
    best = np.full(seen.shape, _BELIEVED[0], np.float32)
    pattern = np.zeros_like(differs)
    around = _box(wanted, (_WINDOW[1] // 2, _WINDOW[0] // 2))
    grey_here, seen_here, wanted_here = grey[around], seen[around], wanted[around]
    squares = grey_here * grey_here
    for down, right in shifts:
        ahead, known_ahead = _shifted(grey, down, right, around), _shifted(seen, down, right, around)
        both = seen_here * known_ahead
        products: NDArray[Any] = cv2.merge([grey_here * ahead, squares * known_ahead, ahead * ahead * seen_here, both])
        alike, own, theirs, count = cv2.split(_sums(products))
        local = alike / np.sqrt(np.maximum(own * theirs, np.float32(1e-8)))
        enough = (count >= _OVERLAP * _WINDOW[0] * _WINDOW[1]) & (known_ahead > 0) & wanted_here
        better = enough & (local > best[around] + np.float32(_BETTER))
        rows, columns = np.nonzero(better)
        best[around][better] = local[better]
        rows, columns = rows + around[0].start, columns + around[1].start
        pattern[rows, columns] = differs[rows + down, columns + right]
    belief = np.clip((best - np.float32(_BELIEVED[0])) * np.float32(1 / (_BELIEVED[1] - _BELIEVED[0])), 0, 1)
    return mean + belief[..., None] * pattern, belief


def _box(marked: NDArray[np.bool_], reach: tuple[int, int]) -> tuple[slice, slice]:
    """The box that holds all that is marked, of which there must be some, and what is within reach down and across."""
    rows, columns = (
        slice(max(0, int(inside[0]) - far), min(length, int(inside[-1]) + far + 1))
        for inside, far, length in zip(
            (np.flatnonzero(marked.any(axis=1)), np.flatnonzero(marked.any(axis=0))), reach, marked.shape, strict=True
        )
    )
    return rows, columns


def _shifted(values: FloatMap, down: int, right: int, part: tuple[slice, slice]) -> FloatMap:
    """What lies so far ahead of each pixel of a part, 0 beyond the border."""
    rows, columns = part
    result = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.float32)
    top, left = max(0, rows.start + down), max(0, columns.start + right)
    found = values[top : max(top, rows.stop + down), left : max(left, columns.stop + right)]
    top, left = top - rows.start - down, left - columns.start - right
    result[top : top + found.shape[0], left : left + found.shape[1]] = found
    return result


def _sums(values: FloatMap) -> FloatMap:
    """Over the window round each pixel, beyond the border nothing."""
    summed: NDArray[Any] = cv2.boxFilter(values, -1, _WINDOW, normalize=False, borderType=cv2.BORDER_CONSTANT)
    return summed


def _shifts(values: FloatMap, weight: FloatMap) -> list[tuple[int, int]]:
    """Shifts (down, right) at which `values`, (h, w), 0 where `weight` is 0, are alike, the best first."""
    height, width = values.shape
    far = min(_LONGEST, height // 2), min(_LONGEST, width // 2)
    size = cv2.getOptimalDFTSize(height + far[0]), cv2.getOptimalDFTSize(width + far[1])

    def transformed(plane: FloatMap) -> NDArray[Any]:
        room = np.zeros(size, np.float32)
        room[:height, :width] = plane
        return cv2.dft(room, flags=cv2.DFT_COMPLEX_OUTPUT)

    def products(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
        """Sums of first at a place times second a shift farther on, for all shifts up to `far`."""
        spectrum = cv2.mulSpectrums(second, first, 0, conjB=True)
        sums = np.roll(cv2.idft(spectrum, flags=cv2.DFT_SCALE | cv2.DFT_REAL_OUTPUT), far, (0, 1))
        return sums[: 2 * far[0] + 1, : 2 * far[1] + 1]

    own, squares, known = transformed(values), transformed(values * values), transformed(weight)
    alike, power, overlap = products(own, own), products(squares, known), products(known, known)
    alike /= np.sqrt(np.maximum(power * power[::-1, ::-1], np.float32(1e-8)))
    alike[overlap < _OVERLAP * overlap[far]] = 0
    alike[max(0, far[0] - _PEAK_PX) : far[0] + _PEAK_PX + 1, max(0, far[1] - _PEAK_PX) : far[1] + _PEAK_PX + 1] = 0
    side = 2 * _PEAK_PX + 1
    peak = (alike >= cv2.dilate(alike, np.ones((side, side), np.uint8))) & (alike > _REPEATS)
    rows, columns = np.nonzero(peak)
    best = np.argsort(-alike[rows, columns], kind="stable")[:_SHIFTS]
    return [(int(rows[one]) - far[0], int(columns[one]) - far[1]) for one in best]
