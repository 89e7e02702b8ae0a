"""A shot: how a built stage is lit and photographed; lamps, weather and night."""

from dataclasses import dataclass

import numpy as np

from training.data.synthetic.light import Colour, Light, Sky
from training.data.synthetic.soup import Vector
from training.data.synthetic.stage import Stage
from training.data.synthetic.textures import noise


@dataclass(frozen=True, slots=True)
class Shot:
    """Where the camera of a scene stands, and its light.

    Attributes:
        position: float64 (3,), metres.
        yaw_rad: 0 looks along -z, positive to the right.
        pitch_rad: Positive looks up.
        field_deg: Horizontal field of view.
        lights: Lamps or the sun.
        sky: What lies behind everything.
        baseline_m: Distance of the right camera of a stereo pair.
        nearest_m: A picture whose median depth is below is rejected.
    """

    position: Vector
    yaw_rad: float
    pitch_rad: float
    field_deg: float
    lights: tuple[Light, ...]
    sky: Sky
    baseline_m: float
    nearest_m: float = 0.7


def warmth(stage: Stage, power: float = 1.0) -> Colour:
    """The colour of a lamp, from warm to cool, times `power`."""
    red, green, blue = np.array([1.15, 1.0, 0.8]) ** stage.uniform(-0.7, 1.5) * power
    return float(red), float(green), float(blue)


def indoor_sky(stage: Stage) -> Sky:
    """The dim light that stands for all bounces but the first."""
    red, green, blue = np.array(warmth(stage, stage.uniform(0.1, 0.4)))
    level = (float(red), float(green), float(blue))
    return Sky(level, level, level, 0.0, 0.0, 1.0, level, np.zeros((2, 2), np.float32), None)


def lamp(stage: Stage, place: Vector, power: float) -> Light:
    """A lamp or a bright window at `place`."""
    x, y, z = (float(value) for value in place)
    return Light((x, y, z), warmth(stage, power), stage.uniform(0.06, 0.5), sun=False)


def outdoor(stage: Stage, fog: bool = True) -> tuple[tuple[Light, ...], Sky]:
    """Sun and sky: clear, cloudy, overcast, dusk, or night with the moon."""
    weather = stage.rng.random()
    elevation = stage.uniform(0.2, 1.3)
    azimuth = stage.uniform(0, 2 * np.pi)
    clouds = noise(stage.rng, 128, octaves=5)
    fog_per_m = stage.pick([0.0, 0.0008, 0.002, 0.004, 0.01]) if fog else 0.0
    grey = stage.uniform(0.7, 1.0)
    if weather < 0.52:  # clear or with clouds
        zenith, horizon = np.array([0.22, 0.42, 0.85]), np.array([0.72, 0.82, 0.95])
        sun, cover = np.array([1.2, 1.08, 0.9]) * stage.uniform(1.6, 3.0), stage.pick([0.0, 0.3, 0.5, 0.7])
    elif weather < 0.8:  # overcast
        zenith, horizon = np.full(3, 0.85), np.full(3, 0.9)
        sun, cover = np.array([1.0, 1.0, 1.0]) * stage.uniform(0.05, 0.5), stage.pick([0.0, 0.5, 0.8])
    elif weather < 0.93:  # low sun
        elevation = stage.uniform(0.08, 0.3)
        zenith, horizon = np.array([0.25, 0.33, 0.6]), np.array([0.95, 0.66, 0.45])
        sun, cover = np.array([1.5, 0.95, 0.55]) * stage.uniform(0.8, 2.0), stage.pick([0.0, 0.4, 0.6])
    else:  # night
        zenith, horizon = np.array([0.02, 0.03, 0.07]), np.array([0.08, 0.08, 0.12])
        sun, cover, grey = np.array([0.8, 0.9, 1.1]) * stage.uniform(0.02, 0.15), 0.3, 0.1
    tint = 1 + 0.06 * stage.rng.normal(size=3)
    zenith, horizon = zenith * tint * stage.uniform(0.7, 1.2), horizon * tint * stage.uniform(0.8, 1.15)
    direction = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(elevation), np.sin(azimuth) * np.cos(elevation)])
    place = (float(direction[0]), float(direction[1]), float(direction[2]))
    light = Light(place, _colour(sun), stage.uniform(0.01, 0.06), sun=True)
    ground = _colour((zenith + horizon) * stage.uniform(0.1, 0.2))
    glow = place if weather < 0.52 or 0.8 <= weather < 0.93 else None
    sky = Sky(
        _colour(zenith), _colour(horizon), ground, fog_per_m, cover, stage.uniform(0.3, 1.5), (grey,) * 3, clouds, glow
    )
    return (light,), sky


def _colour(values: Vector) -> Colour:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
