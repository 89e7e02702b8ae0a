"""The lens: how large its circle of confusion is, what shape, and a blur of that shape.

Radius of the circle of confusion in pixels: r = strength_px * |inverse depth - focus|, linear in inverse depth because
a thin lens has r = f^2 / (2 N p (1 - f / z_f)) * |1/z - 1/z_f| (f focal length, N f-number, p pixel pitch, z depth);
relative inverse depth leaves one free factor, `strength_px`, proportional to 1 / N.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from service.contract import Size
from service.imaging.geometry import resize

FloatMap = NDArray[np.float32]

_REFERENCE_SHARE: Final = 0.04  # of the long side: the strength at the reference f-number; 31 px at 768
_REFERENCE_F_NUMBER: Final = 2.8
_WIDEST_F_NUMBER: Final = 1.4
MAX_COC_SHARE: Final = 0.06  # of the long side: a cap for time and taste
_SHARP_PX: Final = 0.4  # circles of confusion up to this radius stay within a pixel: left as they are
_SHARP_END_PX: Final = 1.2  # from here on the radius is the lens's own again
_TRANSFORMED_FROM: Final = (
    130  # entries of a kernel: OpenCV goes by Fourier transforms, which two halves beat up to 225
)
_SUBSAMPLES: Final = 8  # per kernel pixel and axis: the edge of a disc is smooth to 1/64 of a pixel's area


def strength_from_f_number(f_number: float, long_side_px: int) -> float:
    """CoC radius in pixels per unit of relative inverse depth: 0.04 * long side * 2.8 / N, capped at 0.06 * long side.

    Raises:
        ValueError: an f-number that is not positive and finite.
    """
    if not (math.isfinite(f_number) and f_number > 0):
        raise ValueError(f"the f-number must be positive, not {f_number}")
    return long_side_px * min(_REFERENCE_SHARE * _REFERENCE_F_NUMBER / f_number, MAX_COC_SHARE)


def strength_from_blur(blur: float, long_side_px: int) -> float:
    """CoC radius per unit of relative inverse depth for a share 0..1 of the strongest blur: 0 is none, 1 is f/1.4.

    Raises:
        ValueError: a share outside 0..1.
    """
    if not 0 <= blur <= 1:
        raise ValueError(f"blur must be within 0..1, not {blur}")
    return blur * strength_from_f_number(_WIDEST_F_NUMBER, long_side_px)


@dataclass(frozen=True, slots=True)
class Aperture:
    """The lens's opening.

    Attributes:
        blades: corners, 3 or more; 0 for a disc.
        rotation_deg: turn against the clock; at 0 a corner points up.
        curvature: 0 straight blades .. 1 a disc.
    """

    blades: int = 0
    rotation_deg: float = 0.0
    curvature: float = 0.0

    @property
    def is_disc(self) -> bool:
        """Whether nothing of the blades shows."""
        return self.blades < 3 or self.curvature >= 1


DISC: Final = Aperture()


@dataclass(frozen=True, slots=True)
class Lens:
    """Focus and strengths in pixels per unit of inverse depth, in front of the focal plane and behind it."""

    focus: float
    depth_range: float
    front_px: float
    back_px: float

    @classmethod
    def of(
        cls, short_side_px: int, focus: float, strength_px: float, front: float, back: float, depth_range: float
    ) -> "Lens":
        """A lens for a photo of that short side, which its circles never exceed.

        Raises:
            ValueError: a number that is not finite, or negative beside the focus.
        """
        numbers = {"strength_px": strength_px, "front": front, "back": back, "depth_range": depth_range}
        if not (math.isfinite(focus) and all(math.isfinite(value) and value >= 0 for value in numbers.values())):
            raise ValueError(f"focus {focus}, {numbers}: finite, and not negative beside the focus")
        strength_px = min(strength_px, short_side_px)
        return cls(focus, depth_range, strength_px * front, strength_px * back)

    def circles(self, inverse_depth: FloatMap, in_focus: NDArray[np.bool_] | None = None) -> FloatMap:
        """Signed circles of confusion; 0 up to `_SHARP_PX`, the lens's own from `_SHARP_END_PX`, linear between."""
        circles = inverse_depth - np.float32(self.focus)
        if self.depth_range:
            circles -= np.clip(circles, -np.float32(self.depth_range), np.float32(self.depth_range))
        if self.front_px == self.back_px:
            circles *= np.float32(self.front_px)
        else:
            circles *= np.where(circles > 0, np.float32(self.front_px), np.float32(self.back_px))
        radius = np.abs(circles)
        eased: FloatMap = (radius - np.float32(_SHARP_PX)) * np.float32(_SHARP_END_PX / (_SHARP_END_PX - _SHARP_PX))
        np.clip(eased, 0, radius, out=eased)
        np.copysign(eased, circles, out=eased)
        if in_focus is not None:
            eased[in_focus] = 0
        return eased


@lru_cache(maxsize=256)
def _kernel(radius_20: int, aperture: Aperture = DISC, inverted: bool = False) -> FloatMap:
    """Aperture of `radius_20` twentieths of a pixel, sampled by pixel area, sum 1. Read-only: it is shared.

    A polygon has the disc's area; seen from the other side of the focal plane it is turned by half a turn.
    """
    radius = radius_20 / 20
    reach = radius
    if not aperture.is_disc:
        angle = math.pi / aperture.blades
        reach *= math.sqrt(angle / math.tan(angle)) / math.cos(angle)
    half = math.ceil(max(radius, reach) + 0.5)
    side = 2 * half + 1
    offsets = (np.arange(side * _SUBSAMPLES) + 0.5) / _SUBSAMPLES - side / 2
    x, y = offsets[None, :], offsets[:, None]
    border: Any = radius
    if not aperture.is_disc:
        turn = math.pi / 2 + math.radians(aperture.rotation_deg) + (math.pi if inverted else 0)
        along = np.mod(np.arctan2(-y, x) - turn, 2 * angle) - angle  # from the middle of a blade
        straight = radius * math.sqrt(angle / math.tan(angle)) / np.cos(along)
        border = straight + aperture.curvature * (radius - straight)
    inside = x * x + y * y <= border * border
    kernel = inside.reshape(side, _SUBSAMPLES, side, _SUBSAMPLES).mean(axis=(1, 3), dtype=np.float64)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    kernel.flags.writeable = False
    result: FloatMap = kernel
    return result


def working_scale(radius_px: float) -> int:
    """By how much a layer may be shrunk before it is blurred; costs 0.25 dB in all and bounds the kernel."""
    return 1 if radius_px < 4 else 2 if radius_px < 12 else 4


def blur(layer: FloatMap, radius_px: float, scale: int, aperture: Aperture = DISC, inverted: bool = False) -> Any:
    """Convolve a layer that is already shrunk by `scale` with an aperture of `radius_px` full-size pixels.

    Shrinking by area and enlarging linearly each blur a little themselves (variances s^2/12 and s^2/6 per axis against
    a disc's r^2/4); the disc is made smaller by as much.

    Args:
        layer: float32 (h, w, C), C up to 4.
        radius_px: radius of the circle of confusion at full size.
        scale: 1, 2 or 4.
        aperture: its shape.
        inverted: the aperture's image of what lies on the other side of the focal plane.
    """
    own = radius_px if scale == 1 else math.sqrt(max(radius_px**2 - scale**2, 0.25)) / scale
    kernel = _kernel(max(1, round(own * 20)), aperture, inverted and not aperture.is_disc)
    middle = kernel.shape[0] // 2
    if not kernel.size >= _TRANSFORMED_FROM > kernel[middle:].size:
        return cv2.filter2D(layer, -1, kernel, borderType=cv2.BORDER_REPLICATE)
    above, below = kernel[: middle + 1], kernel[middle:].copy()
    below[0] = 0  # the middle row is in the first half
    blurred = cv2.filter2D(layer, -1, above, anchor=(middle, middle), borderType=cv2.BORDER_REPLICATE)
    rest = cv2.filter2D(layer, -1, below, anchor=(middle, 0), borderType=cv2.BORDER_REPLICATE)
    return cv2.add(blurred, rest, dst=blurred)


def shrink(values: FloatMap, scale: int) -> FloatMap:
    """Area average by a power of two that divides both sides; OpenCV halves twice faster than it makes a fourth."""
    while scale > 1:
        values = resize(values, (values.shape[0] // 2, values.shape[1] // 2))
        scale //= 2
    return values


def enlarge(values: FloatMap, size: Size) -> FloatMap:
    """Linear interpolation to (height, width)."""
    return resize(values, size)
