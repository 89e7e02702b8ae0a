"""Plain ways of refocusing, written from their equations, to stand beside ours. All take what a `Renderer` takes.

Circle of confusion r = strength_px * |d - focus|; those that know no subject use the depth map alone.
"""

from collections.abc import Iterator

import cv2
import numpy as np

from . import srgb
from .degrade import Inputs
from .renderers import Order

_SHARP_RANGE = 0.1  # inverse depth to both sides of the focus that a mask of depth keeps
_GATHER_STEP_PX = 0.5
_SCATTER_STEP_PX = 0.5


def signed_coc(inputs: Inputs, order: Order) -> np.ndarray:
    """float32 (H, W), positive in front of the focal plane."""
    return (inputs.inverse_depth - np.float32(order.focus)) * np.float32(order.strength_px)


def _offsets(radius_px: float) -> tuple[np.ndarray, np.ndarray]:
    reach = np.arange(-int(np.ceil(radius_px)) - 1, int(np.ceil(radius_px)) + 2, dtype=np.float32)
    return reach[None, :], reach[:, None]


def _convolved(values: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return cv2.filter2D(values, -1, kernel.astype(np.float32), borderType=cv2.BORDER_REFLECT_101)


def mask_and_gaussian(photo: np.ndarray, inputs: Inputs, order: Order) -> np.ndarray:
    """(a) One Gaussian behind the mask, in display values, as FocusOnDepth's authors did it.

    The mask is the subject's matte, else what is near the focus in depth. The Gaussian is as wide as the mean disc
    outside the mask (a disc of radius r has a standard deviation of r / 2 along each axis).
    """
    coc = np.abs(signed_coc(inputs, order))
    if order.subject is not None:
        mask = inputs.mattes[order.subject]
    else:
        mask = (np.abs(inputs.inverse_depth - order.focus) < _SHARP_RANGE).astype(np.float32)
    outside = coc[mask < 0.5]
    sigma = max(0.3, float(outside.mean()) / 2 if outside.size else 0.0)
    blurred = cv2.GaussianBlur(photo, (0, 0), sigma).astype(np.float32)
    return np.rint(blurred + mask[..., None] * (photo - blurred)).astype(np.uint8)


def gather(photo: np.ndarray, inputs: Inputs, order: Order) -> np.ndarray:
    """(b) Each pixel is the mean of the disc of its own radius round it, linear light, between two half pixels."""
    light, radius = srgb.decode(photo / np.float32(255)), np.abs(signed_coc(inputs, order))
    level = radius / _GATHER_STEP_PX
    total = np.zeros_like(light)
    for index in range(int(np.ceil(level.max())) + 1):
        weight = np.clip(1 - np.abs(level - index), 0, 1)
        if weight.any():
            x, y = _offsets(index * _GATHER_STEP_PX)
            kernel = np.clip(index * _GATHER_STEP_PX + 0.5 - np.hypot(x, y), 0, 1)
            total += weight[..., None] * _convolved(light, kernel / kernel.sum())
    return srgb.photo(total)


def scatter(photo: np.ndarray, inputs: Inputs, order: Order) -> np.ndarray:
    """(d) Each pixel strews its light over its disc, with BokehMe's weights (Peng et al., CVPR 2022), linear light.

    w = (0.5 + 0.5 tanh(4 (r - distance))) / (r^2 + 0.2), out = sum(w I) / sum(w); radii between two half pixels strew
    a share over either disc. No occlusion.
    """
    light, radius = srgb.decode(photo / np.float32(255)), np.abs(signed_coc(inputs, order))
    weighted = np.dstack([light, np.ones(radius.shape, np.float32)])
    level, total = radius / _SCATTER_STEP_PX, np.zeros((*radius.shape, 4), np.float32)
    for index in range(int(np.ceil(level.max())) + 1):
        share = np.clip(1 - np.abs(level - index), 0, 1)
        if share.any():
            size = index * _SCATTER_STEP_PX
            x, y = _offsets(size)
            kernel = (0.5 + 0.5 * np.tanh(4 * (size - np.hypot(x, y)))) / (size**2 + 0.2)
            total += _convolved(weighted * share[..., None], kernel)
    return srgb.photo(total[..., :3] / np.maximum(total[..., 3:], 1e-6))


def _layers(coc: np.ndarray) -> Iterator[tuple[float, np.ndarray]]:
    """Signed radius and mask of layers one pixel of radius thick, from far to near."""
    index = np.round(coc).astype(np.int32)
    for level in np.unique(index):
        yield float(level), (index == level).astype(np.float32)


def layered(photo: np.ndarray, inputs: Inputs, order: Order) -> np.ndarray:
    """(c) MPIB's recursion (Peng et al., ECCV 2022) on hard layers 1 pixel of radius thick, linear light.

    From far to near out = out (1 - B(a)) + B(a I), divided by the same recursion of I = 1; B is convolution with
    0.5 + 0.5 tanh(0.25 (r^2 - x^2 - y^2) + 0.5), normalised.
    """
    light = srgb.decode(photo / np.float32(255))
    opaque = np.dstack([light, np.ones(light.shape[:2], np.float32)])
    out = np.zeros_like(opaque)
    for radius, mask in _layers(signed_coc(inputs, order)):
        x, y = _offsets(abs(radius))
        kernel = 0.5 + 0.5 * np.tanh(0.25 * (radius**2 - x**2 - y**2) + 0.5)
        if abs(radius) < 0.5:
            kernel = ((x == 0) & (y == 0)).astype(np.float32)  # in focus: the recursion's own kernel would blur it
        blurred = _convolved(opaque * mask[..., None], kernel / kernel.sum())
        out *= 1 - blurred[..., 3:]
        out += blurred
    return srgb.photo(out[..., :3] / np.maximum(out[..., 3:], 1e-6))
