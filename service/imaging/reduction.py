"""A prepared scene made smaller: quick to render and to send, and otherwise as the large one."""

from collections.abc import Iterable
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from service.contract import Size
from service.imaging.geometry import resize
from service.imaging.refocus import Scene, prepare

_INSIDE: Final = 127  # matte level (of 255) above which a pixel belongs to the person


def reduced(scene: Scene, size: Size, flat: Iterable[tuple[int, float]] = ()) -> Scene:
    """The scene at `size`: colours and mattes averaged, depth taken from one pixel so that its edges stay steps.

    Args:
        scene: prepared.
        size: (height, width), no larger than the scene's.
        flat: (index of a person, inverse depth): people laid into a plane of that depth.
    """
    nearest: NDArray[Any] = cv2.resize(scene.inverse_depth, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
    depth = np.array(nearest, np.float32)  # a copy: at full size OpenCV hands back what it was given
    mattes: NDArray[np.float32] = np.zeros((len(scene.mattes), *size), np.float32)
    for person, levels in enumerate(scene.mattes):
        mattes[person] = resize(levels, size)
    for person, inverse_depth in flat:
        depth[mattes[person] > _INSIDE] = inverse_depth
    return prepare(resize(scene.image, size), depth, mattes / np.float32(255))
