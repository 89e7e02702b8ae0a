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
_FINE_UP_TO_PX = 6.0  # discs half a pixel apart up to here, one pixel beyond


def signed_coc(inputs: Inputs, order: Order) -> np.ndarray:
    """float32 (H, W), positive in front of the focal plane."""
    return (inputs.inverse_depth - np.float32(order.focus)) * np.float32(order.strength_px)


def _offsets(radius_px: float) -> tuple[np.ndarray, np.ndarray]:
    reach = np.arange(-int(np.ceil(radius_px)) - 1, int(np.ceil(radius_px)) + 2, dtype=np.float32)
    return reach[None, :], reach[:, None]


def _convolved(values: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return cv2.filter2D(values, -1, kernel.astype(np.float32), borderType=cv2.BORDER_REFLECT_101)


def _levels(radius: np.ndarray) -> Iterator[tuple[float, np.ndarray]]:
    """Radii, and each pixel's share of them: between two radii, linearly, of both."""
    largest = float(radius.max())
    steps = np.arange(0, _FINE_UP_TO_PX, 0.5).tolist() + np.arange(_FINE_UP_TO_PX, largest + 2).tolist()
    for before, size, after in zip([-1.0, *steps[:-2]], steps[:-1], steps[1:], strict=True):
        share = np.clip(np.minimum((radius - before) / (size - before), (after - radius) / (after - size)), 0, 1)
        if share.any():
            yield size, share.astype(np.float32)


def _box(mask: np.ndarray, reach: int) -> tuple[slice, slice]:
    """Rows and columns of what is not 0, and `reach` more."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (
        slice(max(0, int(rows[0]) - reach), int(rows[-1]) + reach + 1),
        slice(max(0, int(columns[0]) - reach), int(columns[-1]) + reach + 1),
    )


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
    """(b) Each pixel is the mean of the disc of its own radius round it, linear light."""
    light, radius = srgb.decode(photo / np.float32(255)), np.abs(signed_coc(inputs, order))
    total = np.zeros_like(light)
    for size, share in _levels(radius):
        x, y = _offsets(size)
        kernel = np.clip(size + 0.5 - np.hypot(x, y), 0, 1)
        part = _box(share, kernel.shape[0])
        total[part] += share[part][..., None] * _convolved(light[part], kernel / kernel.sum())
    return srgb.photo(total)


def scatter(photo: np.ndarray, inputs: Inputs, order: Order) -> np.ndarray:
    """(d) Each pixel strews its light over its disc, with BokehMe's weights (Peng et al., CVPR 2022), linear light.

    w = (0.5 + 0.5 tanh(4 (r - distance))) / (r^2 + 0.2), out = sum(w I) / sum(w); radii between two half pixels strew
    a share over either disc. No occlusion.
    """
    light, radius = srgb.decode(photo / np.float32(255)), np.abs(signed_coc(inputs, order))
    weighted = np.dstack([light, np.ones(radius.shape, np.float32)])
    total = np.zeros((*radius.shape, 4), np.float32)
    for size, share in _levels(radius):
        x, y = _offsets(size)
        kernel = (0.5 + 0.5 * np.tanh(4 * (size - np.hypot(x, y)))) / (size**2 + 0.2)
        part = _box(share, kernel.shape[0])
        total[part] += _convolved(weighted[part] * share[part][..., None], kernel)
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
        part = _box(mask, kernel.shape[0])
        blurred = _convolved(opaque[part] * mask[part][..., None], kernel / kernel.sum())
        out[part] *= 1 - blurred[..., 3:]
        out[part] += blurred
    return srgb.photo(out[..., :3] / np.maximum(out[..., 3:], 1e-6))
