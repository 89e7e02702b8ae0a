"""Seeded surfaces in linear light: walls, floors, cloth, bark; float32 (height, width, 3), softened as a lens does."""

from collections.abc import Callable

import cv2
import numpy as np

from .srgb import decode

Colour = tuple[float, float, float]
"""Display values 0..1, RGB."""

_LENS_SIGMA_PX = 0.6  # the camera's own softness: no photograph is sharp to the single pixel


def fractal(
    rng: np.random.Generator, height: int, width: int, coarsest_px: float = 200, decay: float = 0.55
) -> np.ndarray:
    """Noise of all sizes from `coarsest_px` down to two pixels: float32 (height, width), mean 0, about -1..1."""
    canvas = np.zeros((height, width), np.float32)
    period, weight, total = coarsest_px, 1.0, 0.0
    while period >= 2:
        size = (max(2, round(width / period) + 1), max(2, round(height / period) + 1))
        octave = rng.standard_normal((size[1], size[0])).astype(np.float32)
        canvas += weight * cv2.resize(octave, (width, height), interpolation=cv2.INTER_CUBIC)
        total += weight**2
        period, weight = period / 2, weight * decay
    return canvas / np.float32(1.6 * np.sqrt(total))


def soften(surface: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(surface, (0, 0), _LENS_SIGMA_PX)


def tinted(levels: np.ndarray, colour: Colour, contrast: float) -> np.ndarray:
    """A colour made lighter and darker by `levels` (-1..1): linear light (height, width, 3)."""
    display = np.asarray(colour, np.float32) * (1 + np.float32(contrast) * levels[..., None])
    return decode(np.clip(display, 0, 1))


def plaster(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    colour = tuple(rng.uniform(0.35, 0.8, 3))
    return soften(tinted(fractal(rng, height, width), colour, 0.35))


def foliage(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Leaves in light and shade: strong contrast at every size."""
    coarse, fine = fractal(rng, height, width, 160, 0.7), fractal(rng, height, width, 24, 0.9)
    light = np.clip(0.42 + 0.3 * coarse + 0.42 * fine, 0.02, 1)
    hue = np.clip(0.5 + 0.5 * fractal(rng, height, width, 60), 0, 1)[..., None]
    green, yellow = np.float32((0.35, 0.62, 0.22)), np.float32((0.80, 0.78, 0.36))
    return soften(decode(np.clip(light[..., None] * (green + hue * (yellow - green)) * 1.35, 0, 1)))


def checkerboard(rng: np.random.Generator, height: int, width: int, tile_px: int = 28) -> np.ndarray:
    rows, columns = np.arange(height)[:, None] // tile_px, np.arange(width)[None, :] // tile_px
    dark = (rows + columns) % 2 == 0
    display = np.where(dark[..., None], np.float32(rng.uniform(0.08, 0.2, 3)), np.float32(rng.uniform(0.82, 0.97, 3)))
    return soften(decode(display * (1 + 0.06 * fractal(rng, height, width)[..., None])))


def stripes(rng: np.random.Generator, height: int, width: int, period_px: float = 34) -> np.ndarray:
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    angle = rng.uniform(0, np.pi)
    phase = (x * np.cos(angle) + y * np.sin(angle)) / period_px
    first, second = np.float32(rng.uniform(0.5, 0.95, 3)), np.float32(rng.uniform(0.1, 0.5, 3))
    share = np.clip(np.sin(2 * np.pi * phase) * 6 + 0.5, 0, 1)[..., None].astype(np.float32)
    return soften(decode(second + share * (first - second)) * (1 + 0.1 * fractal(rng, height, width)[..., None]))


def bricks(rng: np.random.Generator, height: int, width: int, course_px: int = 22) -> np.ndarray:
    row = np.arange(height)[:, None] // course_px
    length = course_px * 2.6
    place = np.arange(width)[None, :] + (row % 2) * length / 2
    column = (place // length).astype(int)
    tone = rng.uniform(-1, 1, (row.max() + 1, column.max() + 2)).astype(np.float32)[row, column]
    display = np.float32((0.58, 0.33, 0.25)) * (1 + 0.22 * tone + 0.22 * fractal(rng, height, width, 40))[..., None]
    joint = (np.arange(height)[:, None] % course_px < 3) | (place % length < 3)
    return soften(decode(np.clip(np.where(joint[..., None], np.float32((0.72, 0.7, 0.66)), display), 0, 1)))


def posters(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A wall of posters with writing: small dark letters on light paper, hard contrast."""
    wall = plaster(rng, height, width)
    for top in range(-20, height, 150):
        for left in range(-30, width, 170):
            paper = rng.uniform(0.6, 0.98, 3) if rng.random() < 0.7 else rng.uniform(0.1, 0.5, 3)
            ink = tuple(float(value) for value in decode(rng.uniform(0, 0.2, 3) if paper.mean() > 0.5 else paper + 0.5))
            corner, size = (left + int(rng.integers(30)), top + int(rng.integers(30))), (120, 115)
            far = (corner[0] + size[0], corner[1] + size[1])
            cv2.rectangle(wall, corner, far, tuple(float(value) for value in decode(paper)), -1)
            for line in range(6):
                text = "".join(chr(int(code)) for code in rng.integers(65, 91, int(rng.integers(4, 11))))
                place = (corner[0] + 6, corner[1] + 18 + 18 * line)
                cv2.putText(wall, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, ink, 1, cv2.LINE_AA)
    return soften(wall)


def planks(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    board = np.cumsum(rng.integers(30, 60, width // 30 + 2))
    index = np.searchsorted(board, np.arange(width))
    tone = rng.uniform(-1, 1, index.max() + 1).astype(np.float32)[index]
    grain = cv2.resize(fractal(rng, max(2, height // 8), width, 12), (width, height), interpolation=cv2.INTER_LINEAR)
    display = np.float32((0.62, 0.46, 0.32)) * (1 + 0.18 * tone[None, :] + 0.2 * grain)[..., None]
    display[:, np.diff(index, prepend=0) > 0] *= 0.35
    return soften(decode(np.clip(display, 0, 1)))


def night(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A dark street: dim facades and windows; no lamps, which are layers of their own light."""
    light = tinted(fractal(rng, height, width, 300), (0.16, 0.17, 0.24), 0.5)
    for left in range(0, width, 90):
        roof = int(rng.integers(height // 8, height // 2))
        light[roof:, left : left + 84] = tinted(
            fractal(rng, height - roof, 84, 60), tuple(rng.uniform(0.1, 0.25, 3)), 0.3
        )[:, : light[roof:, left : left + 84].shape[1]]
        for top in range(roof + 12, height - 20, 34):
            for window in range(left + 8, min(left + 76, width - 16), 24):
                if rng.random() < 0.35:
                    glow = decode(np.float32((0.85, 0.68, 0.38)) * rng.uniform(0.4, 1))
                    light[top : top + 18, window : window + 13] = glow
    return soften(light)


WALLS: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "plaster": plaster,
    "foliage": foliage,
    "checkerboard": checkerboard,
    "stripes": stripes,
    "bricks": bricks,
    "posters": posters,
    "planks": planks,
    "night": night,
}


def cloth(rng: np.random.Generator, height: int, width: int, scale_px: float) -> np.ndarray:
    """A garment's surface: plain, striped, checked or dotted; `scale_px` is the figure's height."""
    colour = tuple(rng.uniform(0.12, 0.9, 3))
    base = tinted(fractal(rng, height, width, max(4.0, scale_px / 6)), colour, 0.16)
    kind = rng.choice(["plain", "plain", "stripes", "checks", "dots", "columns"])
    period = max(4.0, scale_px * rng.uniform(0.02, 0.045))
    x, y = np.meshgrid(np.arange(width) / period, np.arange(height) / period)
    horizontal, vertical = np.sin(2 * np.pi * y) > 0.2, np.sin(2 * np.pi * x) > 0.2
    pattern = {
        "plain": np.zeros((height, width), bool),
        "stripes": horizontal,
        "columns": vertical,
        "checks": horizontal ^ vertical,
        "dots": np.hypot(x % 1 - 0.5, y % 1 - 0.5) < 0.28,
    }[str(kind)]
    second = decode(np.float32(rng.uniform(0.1, 0.95, 3)))
    return soften(np.where(pattern[..., None], second * 0.8 + base * 0.2, base).astype(np.float32))
