"""What the service would be given for a scene: a network's map and matte, small, soft, displaced and biased.

Sizes follow the served network. On ten portraits with known outlines its map of depth, and of people, climbs a step
from 25 to 75 % within 2 to 2.5 of its own pixels, displaced by 1.1 of them (standard deviation along the outline, 0.9
to 1.7); the same measure of what is made here gives 2.25 and 1.1.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from service.imaging import depth, matte, people
from service.imaging.geometry import Letterbox, resize

from .scenes import HEIGHT, WIDTH, Visible
from .textures import fractal

NETWORK = Letterbox.of(HEIGHT, WIDTH).content_size
"""(height, width) of the network's map without padding: two photo pixels are one of its own."""

_EDGE_SIGMA = 1.3  # network pixels
_SHIFT_SIGMA = 1.05  # network pixels by which edges wander, every 25 pixels or so
_THIN = 5  # network pixels: what is thinner is not seen
_BIAS = 0.025  # inverse depth, over distances of a third of the picture
_WOBBLE = 0.012  # inverse depth, inside objects, over 40 network pixels
_NOISE = 0.002


@dataclass(frozen=True, slots=True)
class NetworkOutput:
    """Inverse depth and person probability as a network gives them: float32, `NETWORK` in size, 0..1."""

    inverse_depth: np.ndarray
    person: np.ndarray


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a renderer is given: float32 (H, W) and (N, H, W).

    Attributes:
        inverse_depth: in the scene's own unit, or stretched to 0..1 as the service does.
        mattes: one per person.
        scale: the scene's inverse depth is inverse_depth * scale + offset, as far as the network is right.
        offset: see scale.
    """

    inverse_depth: np.ndarray
    mattes: np.ndarray
    scale: float = 1.0
    offset: float = 0.0


def network_output(seen: Visible, seed: int) -> NetworkOutput:
    """A network's map and matte of what is seen; the same seed gives the same faults."""
    rng = np.random.default_rng((seed, 77))
    small = cv2.resize(seen.inverse_depth, NETWORK[::-1], interpolation=cv2.INTER_AREA)
    small = cv2.medianBlur(small, _THIN)
    anyone = (1 - np.prod(1 - seen.mattes, axis=0)).astype(np.float32)
    person = cv2.resize(anyone, NETWORK[::-1], interpolation=cv2.INTER_AREA)
    window = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    person = cv2.morphologyEx(cv2.morphologyEx(person, cv2.MORPH_CLOSE, window), cv2.MORPH_OPEN, window)
    shift = [fractal(rng, *NETWORK, 25, 0.4) * np.float32(_SHIFT_SIGMA * 2) for _ in range(2)]
    x, y = np.meshgrid(np.arange(NETWORK[1], dtype=np.float32), np.arange(NETWORK[0], dtype=np.float32))
    places = (x + shift[0], y + shift[1])
    small, person = (
        cv2.remap(values, *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for values in (small, person)
    )
    small = cv2.GaussianBlur(small, (0, 0), _EDGE_SIGMA)
    person = cv2.GaussianBlur(person, (0, 0), _EDGE_SIGMA)
    small = small + _BIAS * fractal(rng, *NETWORK, 130, 0.3) + _WOBBLE * fractal(rng, *NETWORK, 40, 0.5)
    small = small + rng.normal(0, _NOISE, NETWORK)
    return NetworkOutput(small.clip(0, None).astype(np.float32), person.clip(0, 1).astype(np.float32))


def exact(seen: Visible) -> Inputs:
    return Inputs(seen.inverse_depth, seen.mattes)


def as_served(output: NetworkOutput, photo: np.ndarray) -> Inputs:
    """A network's output made into the renderer's inputs as `service.pipeline` does it."""
    relative, scale, offset = depth.normalise(output.inverse_depth)
    inverse_depth = depth.upsample_guided(relative, photo)
    person = matte.upsample_guided(output.person, photo)
    return Inputs(inverse_depth, people.split(person, inverse_depth, photo), scale, offset)


def plainly(output: NetworkOutput) -> Inputs:
    """A network's output merely enlarged: what a renderer without a service round it works with; one matte for all."""
    relative, scale, offset = depth.normalise(output.inverse_depth)
    person = resize(output.person, (HEIGHT, WIDTH))
    return Inputs(resize(relative, (HEIGHT, WIDTH)), person[None], scale, offset)
