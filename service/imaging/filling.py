"""Continuing what is seen into what is hidden: push-pull interpolation.

Gortler et al. 1996, The Lumigraph, section 3.4: averages of the known pixels over growing blocks (pull), then unknown
pixels take the value of the smallest block that knows enough (push).
"""

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from service.imaging.geometry import resize

_ENOUGH: Final = 0.15  # share of known area from which a block's own average is trusted fully


def push_pull(weighted: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fill a picture from where its weight is positive.

    Args:
        weighted: float32 (h, w, C), values times weight.
        weight: float32 (h, w), 0..1.

    Returns:
        float32 (h, w, C): the values where the weight is 1, a smooth continuation where it is 0; zeros when no pixel
        has weight.
    """
    height, width = weight.shape
    if height <= 1 and width <= 1:
        alone: NDArray[np.float32] = weighted / np.maximum(weight, np.float32(1e-6))[..., None]
        return alone
    coarse_size = ((height + 1) // 2, (width + 1) // 2)
    coarse = push_pull(resize(weighted, coarse_size), resize(weight, coarse_size))
    trust = np.minimum(weight * np.float32(1 / _ENOUGH), np.float32(1))
    # trust * weighted / weight, without a division by nothing
    own = _times(weighted, np.reciprocal(np.maximum(weight, np.float32(_ENOUGH))))
    filled: NDArray[Any] = cv2.add(_times(resize(coarse, (height, width)), np.float32(1) - trust), own)
    return filled.reshape(weighted.shape)


def _times(values: NDArray[np.float32], factor: NDArray[np.float32]) -> NDArray[Any]:
    """Values (h, w, C) times a map (h, w): OpenCV multiplies in a third of NumPy's broadcasting time."""
    product: NDArray[Any] = cv2.multiply(values, cv2.merge([factor] * values.shape[2]))
    return product
