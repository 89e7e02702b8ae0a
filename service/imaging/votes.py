"""Where each pixel of a person says that this person's chest is, and how tall the person is: votes of a small network.

Pixels of one person vote for one place, so people are told apart by where votes fall, as in Panoptic-DeepLab (Cheng et
al. 2020, arXiv:1911.10194) and in Neven et al. 2019 (arXiv:1906.11109). `training/models/person_votes.py` has the
network, `training/configs/person_votes*.yaml` how it was trained; it is small enough for the gateway and sees only what
the gateway holds anyhow, so it runs here, by OpenCV, and no server is asked.
"""

import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

FloatMap = NDArray[np.float32]

LONG_SIDE: Final = 320
"""Pixels of the longer side that the network was trained on; larger pictures are reduced to it before."""

ACROSS: Final = 0.16
"""Heights of a person: how far to the side votes for one chest fall."""
DOWN: Final = 0.32
"""Likewise up and down: where a chest is hidden, its row is the less certain."""
HEIGHT: Final = 0.5
"""Of the logarithm of the height: how far votes for one person differ in it."""

_FILE: Final = Path(__file__).with_name("person_votes.onnx")
_STRIDE: Final = 32  # sides of the network's input are multiples of it
_UNIT_PX: Final = 64.0  # a vote of 1 points so far
_REFERENCE_HEIGHT_PX: Final = 128.0  # of a person whose vote for the height is 0
_RUNNING: Final = threading.Lock()  # a network of OpenCV's is used by one thread at a time


@dataclass(frozen=True, slots=True)
class Votes:
    """What each pixel says, float32 (h, w), pixels of the same picture; without meaning where nobody is.

    Attributes:
        x: column of the chest of the person seen here.
        y: its row.
        height: of the whole person, hidden or cut off parts included.
        likeness: (h, w, 4), numbers that are alike where one person is seen; two who differ by 1 are as far apart as
            votes that lie `ACROSS`.
    """

    x: FloatMap
    y: FloatMap
    height: FloatMap
    likeness: FloatMap


def cast(person: FloatMap, inverse_depth: FloatMap, image: NDArray[np.uint8]) -> Votes:
    """Ask every pixel.

    Args:
        person: (h, w) in 0..1, matte of all people; longer side at most `LONG_SIDE`.
        inverse_depth: (h, w) in 0..1, 1 = nearest.
        image: uint8 (h, w, 3), RGB.
    """
    height, width = person.shape
    room = (-(-height // _STRIDE) * _STRIDE, -(-width // _STRIDE) * _STRIDE)
    given = np.full((1, 5, *room), -1, np.float32)
    wide = cv2.copyMakeBorder(image, 0, room[0] - height, 0, room[1] - width, cv2.BORDER_REPLICATE)
    given[0, :3] = wide.transpose(2, 0, 1) * np.float32(1 / 127.5) - 1
    given[0, 3, :height, :width] = 2 * person - 1
    given[0, 4, :height, :width] = 2 * inverse_depth - 1
    with _RUNNING:
        network = _network()
        network.setInput(given)
        across, down, tall, *alike = network.forward()[0, :, :height, :width]
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    limited = np.clip(tall, -6, 6)
    tall_px = _REFERENCE_HEIGHT_PX * np.exp(limited)
    return Votes(x + _UNIT_PX * across, y + _UNIT_PX * down, tall_px, np.stack(alike, axis=-1))


@cache
def _network() -> Any:
    return cv2.dnn.readNetFromONNX(str(_FILE))
