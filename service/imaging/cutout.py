"""People cut out of a photo: their colours without what was behind them, and how much of each pixel they cover."""

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from service.imaging.errors import InvalidMap
from service.imaging.geometry import resize

_RADII_PX: Final = (90, 6)  # of the two rounds of the paper
_WORKING_PX: Final = (
    1024  # longest side at which colours are estimated: they are smooth, and 50 megapixels cost a minute
)
_LEAST: Final = np.float32(1e-5)

FloatMap = NDArray[np.float32]


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
    shown: NDArray[Any] = cv2.bitwise_and(photo, photo, mask=matte)  # black where the matte is 0
    result: NDArray[Any] = cv2.merge([*cv2.split(shown), matte])
    mixed = (matte > 0) & (matte < 255)
    found = cv2.findNonZero(mixed.astype(np.uint8))
    if found is not None:
        columns, rows = found[:, 0, 0].astype(np.int64), found[:, 0, 1].astype(np.int64)
        result[rows, columns, :3] = _own_colours(photo, matte, rows, columns)
    return result


def _own_colours(
    photo: NDArray[np.uint8], matte: NDArray[np.uint8], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Of mixed pixels: the smooth colours of both sides, and what the pixel itself adds to the person's; (n, 3)."""
    height, width = matte.shape
    shrink = max(1.0, max(height, width) / _WORKING_PX)
    size = max(1, round(height / shrink)), max(1, round(width / shrink))
    image = resize(photo, size).astype(np.float32) * np.float32(1 / 255)
    alpha = (resize(matte, size).astype(np.float32) * np.float32(1 / 255))[..., None]
    front = back = smooth_front = smooth_back = image
    for radius in _RADII_PX:
        smooth_front, smooth_back = _smooth(alpha, front, back, radius)
        front, back = _with_detail(image, alpha, smooth_front, smooth_back), smooth_back
    place = rows * size[0] // height, columns * size[1] // width
    kept = matte[rows, columns].astype(np.float32)[:, None] * np.float32(1 / 255)
    seen = photo[rows, columns].astype(np.float32) * np.float32(1 / 255)
    own = _with_detail(seen, kept, smooth_front[place], smooth_back[place])
    colours: NDArray[np.uint8] = np.rint(own * np.float32(255)).astype(np.uint8)
    return colours


def _smooth(alpha: FloatMap, front: FloatMap, back: FloatMap, radius: int) -> tuple[FloatMap, FloatMap]:
    weight = _blurred(alpha, radius)
    smooth_front: FloatMap = _blurred(front * alpha, radius) / (weight + _LEAST)
    smooth_back: FloatMap = _blurred(back * (1 - alpha), radius) / (1 - weight + _LEAST)
    return smooth_front, smooth_back


def _with_detail(image: FloatMap, alpha: FloatMap, front: FloatMap, back: FloatMap) -> FloatMap:
    detailed: FloatMap = np.clip(front + alpha * (image - alpha * front - (1 - alpha) * back), 0, 1)
    return detailed


def _blurred(values: FloatMap, radius: int) -> FloatMap:
    size = 2 * radius + 1
    blurred: NDArray[Any] = cv2.blur(values, (size, size), borderType=cv2.BORDER_REPLICATE)
    return blurred.reshape(values.shape)
