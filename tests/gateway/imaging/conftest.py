"""Pictures made in code, so that every property of theirs is known."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]


@pytest.fixture(scope="session")
def asymmetric() -> Picture:
    """A 24 x 40 picture that no turn or mirror maps to itself; blocks of 8 survive JPEG almost unchanged."""
    rng = np.random.default_rng(7)
    blocks = rng.integers(0, 256, (3, 5, 3), dtype=np.uint8)
    blocks[0, 0] = (255, 0, 0)
    return np.kron(blocks, np.ones((8, 8, 1), np.uint8))


@pytest.fixture(scope="session")
def photo_like() -> Picture:
    """A smooth 96 x 128 scene with some texture."""
    y, x = np.mgrid[0:96, 0:128].astype(np.float64)
    rng = np.random.default_rng(3)
    channels = [
        127 + 100 * np.sin(x / 17 + phase) * np.cos(y / 23 - phase) + rng.normal(0, 4, x.shape) for phase in (0, 1, 2)
    ]
    return np.clip(np.stack(channels, axis=-1), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def saved() -> Callable[..., bytes]:
    """`saved(picture or PIL image, "PNG", **options)`: the bytes Pillow writes."""

    def save(picture: Picture | Image.Image, format: str, **options: Any) -> bytes:
        image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        stream = io.BytesIO()
        image.save(stream, format=format, **options)
        return stream.getvalue()

    return save
