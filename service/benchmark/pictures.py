"""Seeded pictures like photographs in what matters to codecs: 1/f noise, objects, grain."""

import io

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image


def photo(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """uint8 RGB (height, width, 3)."""
    rng = np.random.default_rng(seed)
    canvas = np.zeros((height, width, 3), np.float32)
    size, weight = 4, 1.0
    while size < max(height, width):
        octave = rng.random((max(2, size * height // max(height, width)), size, 3), np.float32)
        canvas += weight * cv2.resize(octave, (width, height), interpolation=cv2.INTER_CUBIC)
        size, weight = size * 2, weight * 0.5
    canvas = (canvas - canvas.min()) / np.ptp(canvas) * 255
    for _ in range(12):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        radius = int(rng.integers(min(height, width) // 20, min(height, width) // 5))
        colour = tuple(float(value) for value in rng.integers(0, 255, 3))
        cv2.circle(canvas, centre, radius, colour, -1, cv2.LINE_AA)
    canvas += rng.normal(0, 3, canvas.shape).astype(np.float32)
    picture: NDArray[np.uint8] = canvas.clip(0, 255).astype(np.uint8)
    return picture


def jpeg(pixels: NDArray[np.uint8], quality: int = 90) -> bytes:
    """The picture as a camera would store it."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
