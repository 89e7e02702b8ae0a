"""Display values to linear light and back, in floats: the benchmark's own, so that it shares no table with the service.

sRGB transfer function of IEC 61966-2-1.
"""

import numpy as np


def decode(display: np.ndarray) -> np.ndarray:
    """Linear light float32 of display values 0..1."""
    display = np.asarray(display, np.float32)
    return np.where(display <= 0.04045, display / 12.92, ((np.maximum(display, 0) + 0.055) / 1.055) ** 2.4).astype(
        np.float32
    )


def encode(linear: np.ndarray) -> np.ndarray:
    """Display values float32 0..1 of linear light; the sensor clips at white."""
    linear = np.clip(np.asarray(linear, np.float32), 0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055).astype(np.float32)


def photo(linear: np.ndarray) -> np.ndarray:
    """uint8 sRGB (H, W, 3) of linear light: what the camera stores."""
    return np.rint(encode(linear) * 255).astype(np.uint8)
