"""Textures of the layered worlds, drawn once per process: what networks learn on, and what they have never seen."""

import functools
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from training.data.synthetic.textures import drawn_picture, drawn_tiles, noise

Bytes = npt.NDArray[np.uint8]
Style = Literal["plain", "other"]

SIDE_PX = 512
_LEVELS = 6
_COUNT = 48


@functools.lru_cache(maxsize=2)
def texture_bank(style: Style) -> tuple[tuple[Bytes, ...], ...]:
    """Textures of a style, each uint8 (512, 512, 3) with its halvings down to 16.

    `plain`: bricks, wood, plaster and the like under large stains, and posters. `other`: camouflage, stripes, dots and
    checks in strong colours.
    """
    rng = np.random.default_rng(20190613 if style == "plain" else 20190614)
    if style == "other":
        return tuple(_halvings(_other(rng, number)) for number in range(_COUNT))
    tiles, _ = drawn_tiles(rng, 2)
    return tuple(_halvings(_plain(rng, number, tiles)) for number in range(_COUNT))


def _halvings(texture: Bytes) -> tuple[Bytes, ...]:
    levels = [texture]
    for _ in range(_LEVELS - 1):
        levels.append(cv2.resize(levels[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA).astype(np.uint8))
    return tuple(levels)


def _plain(rng: np.random.Generator, number: int, tiles: list[Bytes]) -> Bytes:
    if number % 4 == 3:
        return cv2.resize(drawn_picture(rng), (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    tile = tiles[int(rng.integers(len(tiles)))]
    ground = np.tile(tile, (SIDE_PX // tile.shape[0], SIDE_PX // tile.shape[1], 1)).astype(np.float32)
    # stains, or else every repetition of the tile would look the same to a matcher
    stains = noise(rng, SIDE_PX, octaves=7, roughness=float(rng.uniform(0.6, 0.95)))[..., None]
    tint = rng.uniform(0.6, 1.4, 3)
    plain: Bytes = np.clip(ground * (0.45 + 1.1 * stains) * tint, 0, 255).astype(np.uint8)
    return plain


def _other(rng: np.random.Generator, number: int) -> Bytes:
    field = noise(rng, SIDE_PX, octaves=6, roughness=0.8)
    kind = number % 4
    colours = rng.integers(0, 256, (5, 3))
    if kind == 0:  # camouflage
        picture = colours[np.digitize(field, [0.35, 0.5, 0.6, 0.7])]
    elif kind == 1:  # bent stripes
        across = np.arange(SIDE_PX) / SIDE_PX
        picture = colours[(np.sin(2 * np.pi * (rng.integers(6, 20) * across[None] + 4 * field)) > 0).astype(int)]
    elif kind == 2:  # dots
        canvas = np.full((SIDE_PX, SIDE_PX, 3), colours[0], np.uint8)
        for _ in range(int(rng.integers(80, 400))):
            x, y, radius = (int(value) for value in rng.integers((0, 0, 3), (SIDE_PX, SIDE_PX, 22)))
            colour = [int(value) for value in rng.integers(0, 256, 3)]
            cv2.circle(canvas, (x, y), radius, colour, -1, cv2.LINE_AA)
        picture = canvas.astype(np.int64)
    else:  # uneven checks
        edges = np.sort(rng.random((2, int(rng.integers(12, 40)))), axis=1)
        rows, columns = (np.searchsorted(edge, np.arange(SIDE_PX) / SIDE_PX) for edge in edges)
        picture = colours[(rows[:, None] * 7 + columns[None] * 3) % 5]
    return np.clip(picture * (0.8 + 0.4 * field[..., None]), 0, 255).astype(np.uint8)
