"""Drawn stereo pairs: a flat world of rectangles, seen from two places."""

import cv2
import numpy as np
from fakes import encoded
from numpy.typing import NDArray
from PIL import Image

HEIGHT, WIDTH, SHIFT = 120, 160, 6


def world(seed: int = 0) -> NDArray[np.uint8]:
    """Rectangles of all colours, with corners everywhere; wider than a picture of it."""
    rng = np.random.default_rng(seed)
    picture = np.full((HEIGHT + 40, WIDTH + 60, 3), 90, np.uint8)
    for _ in range(260):
        (y, x), (h, w) = rng.integers(0, (HEIGHT + 40, WIDTH + 60)), rng.integers(4, 18, 2)
        picture[y : y + h, x : x + w] = rng.integers(0, 256, 3)
    return cv2.GaussianBlur(picture, (3, 3), 0)


def seen(x: int, y: int = 20, *, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """The world from column x, row y: uint8 (height, width, 3)."""
    return world()[y : y + height, x : x + width]


def cut(x: int, y: int = 20, *, width: int = WIDTH, height: int = HEIGHT) -> bytes:
    """The same as a file."""
    return encoded(Image.fromarray(seen(x, y, width=width, height=height)))


LEFT, RIGHT = cut(20), cut(20 + SHIFT)  # a point lies 6 columns farther left in the right picture
