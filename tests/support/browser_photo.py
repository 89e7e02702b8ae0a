"""Where things are in the page's example photo, in shares of its size, and how sharp a part of a picture is."""

import numpy as np

WOMAN, MAN, WALL = (0.30, 0.45), (0.665, 0.55), (0.60, 0.28)
FRONT = {"woman": (0.24, 0.40, 0.22, 0.34), "man": (0.655, 0.69, 0.46, 0.60)}
"""Left, right, top, bottom of parts with much detail: the woman's headscarf, the man's straps."""


def sharpness(pixels: np.ndarray, part: tuple[float, float, float, float]) -> float:
    """Mean step between neighbours in a part of a picture (H, W, 3 or 4)."""
    height, width = pixels.shape[:2]
    left, right, top, bottom = part
    gray = pixels[int(top * height) : int(bottom * height), int(left * width) : int(right * width), :3].mean(axis=2)
    return float(np.abs(np.diff(gray, axis=1)).mean() + np.abs(np.diff(gray, axis=0)).mean())
