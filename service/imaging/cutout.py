"""People cut out of a photo: their colours without what was behind them, and how much of each pixel they cover."""

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from service.imaging.errors import InvalidMap

_RADII_PX: Final = (90, 6)  # of the two rounds of the paper
_STRIP_ROWS: Final = 512  # a photo of 50 megapixels at once would take several gigabytes
_LEAST: Final = np.float32(1e-5)


def cut_out(photo: NDArray[np.uint8], matte: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGBA, straight alpha, of what a matte keeps; (H, W, 4). Where nothing is kept the colour is black.

    At borders a photo shows person and background mixed. The person's own colour is estimated by fast blur fusion (M.
    Forte, Approximate fast foreground colour estimation, ICIP 2021), so that no fringe of the old background is left.

    Args:
        photo: uint8 (H, W, 3).
        matte: uint8 (H, W), 255 = kept.

    Raises:
        InvalidMap: sizes that do not agree.
    """
    if photo.shape[:2] != matte.shape:
        raise InvalidMap(f"The matte is {matte.shape}, the photo {photo.shape[:2]}.", value=list(matte.shape))
    result = np.zeros((*matte.shape, 4), np.uint8)
    result[..., 3] = matte
    rows = np.flatnonzero(matte.any(axis=1))
    if rows.size == 0:
        return result
    columns = np.flatnonzero(matte.any(axis=0))
    reach = sum(_RADII_PX)
    left, right = max(0, int(columns[0]) - reach), int(columns[-1]) + 1 + reach
    for top in range(int(rows[0]), int(rows[-1]) + 1, _STRIP_ROWS):
        bottom = min(top + _STRIP_ROWS, int(rows[-1]) + 1)
        above = min(reach, top)
        window = (slice(top - above, bottom + reach), slice(left, right))
        colours = _own_colours(photo[window], matte[window])[above : above + bottom - top]
        result[top:bottom, left:right, :3] = colours
    result[matte == 0, :3] = 0
    return result


def _own_colours(photo: NDArray[np.uint8], matte: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if matte.min() == 255:
        return photo
    image = photo.astype(np.float32) * np.float32(1 / 255)
    alpha = (matte.astype(np.float32) * np.float32(1 / 255))[..., None]
    front = back = image
    for radius in _RADII_PX:
        front, back = _fused(image, alpha, front, back, radius)
    colours: NDArray[np.uint8] = np.rint(np.clip(front, 0, 1) * np.float32(255)).astype(np.uint8)
    colours[matte == 255] = photo[matte == 255]
    return colours


def _fused(image: Any, alpha: Any, front: Any, back: Any, radius: int) -> tuple[Any, Any]:
    """One round: smooth estimates of both sides, and what the pixel itself adds to the front's."""
    blurred = _blurred(alpha, radius)
    front = _blurred(front * alpha, radius) / (blurred + _LEAST)
    back = _blurred(back * (1 - alpha), radius) / (1 - blurred + _LEAST)
    front = np.clip(front + alpha * (image - alpha * front - (1 - alpha) * back), 0, 1)
    return front, back


def _blurred(values: Any, radius: int) -> Any:
    size = 2 * radius + 1
    return cv2.blur(values, (size, size), borderType=cv2.BORDER_REPLICATE).reshape(values.shape)
