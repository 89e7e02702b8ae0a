"""Domains that a stereo network meets: the clean one it learned on, others of light, sensor and textures.

Each changes what the cameras see of one and the same world; disparity stays.
"""

from types import MappingProxyType
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from training.data.layered_textures import Style

Domain = Literal["clean", "night", "fog", "noise", "textures", "dusk"]

DOMAINS: tuple[Domain, ...] = ("clean", "night", "fog", "noise", "textures", "dusk")
STYLES: MappingProxyType[Domain, Style] = MappingProxyType(
    {"clean": "plain", "night": "plain", "fog": "plain", "noise": "plain", "textures": "other", "dusk": "plain"}
)
"""Textures of each domain."""

_NIGHT = np.array([0.75, 0.85, 1.1], np.float32)
_LAMP_REACH_M = 8.0
_FOG_GREY = np.array([205.0, 208.0, 212.0], np.float32)
_FOG_PER_M = 0.09
_DUSK = 0.08


def photographed(
    domain: Domain, image: npt.NDArray[np.uint8], inverse_depth: npt.NDArray[np.float32], rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """A view as the camera of a domain has it.

    Args:
        domain: `clean` and `textures`: a little noise. `night`: lit by the sky and a lamp at the camera, noisy. `fog`:
            paler with distance. `noise`: a poor sensor, unsharp and noisy. `dusk`: a good sensor with too short an
            exposure, a twelfth of the light in few levels.
        image: uint8 (H, W, 3), sRGB.
        inverse_depth: float32 (H, W), 1/m; 0 = far away.
        rng: Of the noise; each camera has its own.
    """
    light = image.astype(np.float32)
    sigma = 1.5
    if domain == "night":
        depth = 1 / np.maximum(inverse_depth, 1e-3)
        lit = 0.09 + 0.55 * np.exp(-((depth / _LAMP_REACH_M) ** 2))
        light = 255 * (light / 255) ** 1.3 * lit[..., None] * _NIGHT
        sigma = 4.0
    elif domain == "fog":
        clear = np.exp(-_FOG_PER_M / np.maximum(inverse_depth, 1e-3))[..., None]
        light = light * clear + _FOG_GREY * (1 - clear)
    elif domain == "noise":
        light = cv2.GaussianBlur(light, (0, 0), 0.9).astype(np.float32)
        sigma = 14.0
    elif domain == "dusk":
        light, sigma = light * _DUSK, 0.0
    grain = rng.standard_normal(light.shape, dtype=np.float32) * np.float32(sigma)
    return np.clip(np.rint(light + grain), 0, 255).astype(np.uint8)
