"""Lamps, the sun, the sky and fog. Radiance is linear RGB without unit: the exposure is chosen afterwards."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Colour = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Light:
    """A lamp at a place, or the sun.

    Attributes:
        place: Position in metres of a lamp, or unit direction towards the sun.
        colour: Linear RGB: irradiance at one metre of a lamp, irradiance of the sun.
        radius: Radius of a lamp in metres, or of the sun's disk in radians.
        sun: Whether it is infinitely far.
    """

    place: tuple[float, float, float]
    colour: Colour
    radius: float
    sun: bool

    def towards(self, points: Floats, jitter: npt.NDArray[np.floating[Any]]) -> tuple[Floats, Floats]:
        """Vectors from `points` (n, 3) to the light, unnormalised for lamps; irradiance (n, 3) when facing it.

        `jitter` (n, 3) has normal deviates that choose a point of the light.
        """
        place = np.array(self.place, np.float32) + (jitter * (self.radius * 0.6)).astype(np.float32)
        colour = np.array(self.colour, np.float32)
        if self.sun:
            return place, np.broadcast_to(colour, points.shape)
        vectors = place - points
        squared = (vectors * vectors).sum(axis=1, keepdims=True)
        return vectors, colour / (0.25 + squared)


@dataclass(frozen=True, slots=True)
class Sky:
    """What rays see that hit nothing, and the light that comes from there.

    Attributes:
        zenith: Linear RGB overhead.
        horizon: Linear RGB at the horizon; the colour of the fog.
        ground: Linear RGB from below.
        fog_per_m: Extinction; 0 is clear air.
        cloud_cover: 0..1.
        cloud_scale: Size of the clouds, about 0.3..3.
        cloud_colour: Linear RGB.
        clouds: float32 (S, S), tileable noise 0..1.
        glow_towards: Unit direction of the sun's glow; None without.
    """

    zenith: Colour
    horizon: Colour
    ground: Colour
    fog_per_m: float
    cloud_cover: float
    cloud_scale: float
    cloud_colour: Colour
    clouds: Floats
    glow_towards: tuple[float, float, float] | None

    def seen(self, directions: Floats) -> Floats:
        """Radiance along unit `directions` (n, 3), with clouds and glow, float32 (n, 3)."""
        height = directions[:, 1].clip(0)[:, None]
        colour = _mix(self.horizon, self.zenith, height**0.5)
        if self.cloud_cover > 0:
            side = len(self.clouds)
            plane = directions[:, [0, 2]] / (height + 0.12) * (self.cloud_scale * side / 8)
            column, row = np.floor(plane).astype(np.int64).T
            fx, fy = (plane - np.floor(plane)).T
            x0, y0, x1, y1 = column % side, row % side, (column + 1) % side, (row + 1) % side
            value = (self.clouds[y0, x0] * (1 - fx) + self.clouds[y0, x1] * fx) * (1 - fy) + (
                self.clouds[y1, x0] * (1 - fx) + self.clouds[y1, x1] * fx
            ) * fy
            amount = ((value - (1 - self.cloud_cover)) * 4).clip(0, 1)[:, None] * (height * 8).clip(0, 1)
            shade = (1.1 - 0.4 * value[:, None]) * np.array(self.cloud_colour, np.float32)
            colour = colour * (1 - amount) + shade * amount
        if self.glow_towards is not None:
            facing = (directions @ np.array(self.glow_towards, np.float32)).clip(0)[:, None]
            colour = colour * (1 + 0.6 * facing**8 + 4 * facing**400)
        return colour.astype(np.float32)

    def ambient(self, directions: Floats) -> Floats:
        """Smooth radiance along unit `directions` (n, 3), from below too, float32 (n, 3)."""
        height = directions[:, 1:2]
        above = _mix(self.horizon, self.zenith, height.clip(0))
        return np.where(height < 0, np.array(self.ground, np.float32), above).astype(np.float32)


def _mix(low: Colour, high: Colour, amount: Floats) -> Floats:
    first, second = np.array(low, np.float32), np.array(high, np.float32)
    return np.asarray(first + (second - first) * amount, np.float32)
