"""The camera: where it stands, how a pixel becomes a ray, and what its electronics do to the picture."""

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Camera:
    """A pinhole camera.

    Attributes:
        position: float64 (3,), metres, y up.
        axes: float64 (3, 3), rows right, down, forward.
        focal_px: Focal length in pixels.
        size: Height and width in pixels. The optical axis meets the middle.
    """

    position: Vector
    axes: Vector
    focal_px: float
    size: tuple[int, int]

    @property
    def centre_px(self) -> tuple[float, float]:
        """Principal point (x, y); pixel (0, 0) spans 0..1 on both axes."""
        return self.size[1] / 2, self.size[0] / 2

    def rays(self, samples: int) -> Floats:
        """Directions float32 (H, samples, W, samples, 3): a step of 1 along one goes 1 m along the optical axis."""
        height, width = self.size
        cx, cy = self.centre_px
        x = ((np.arange(width * samples) + 0.5) / samples - cx) / self.focal_px
        y = ((np.arange(height * samples) + 0.5) / samples - cy) / self.focal_px
        right, down, forward = self.axes
        directions = x[None, :, None] * right + y[:, None, None] * down + forward
        return np.asarray(directions.reshape(height, samples, width, samples, 3), np.float32)

    def project(self, points: npt.NDArray[np.floating[Any]]) -> tuple[Vector, Vector]:
        """Pixel positions (n, 2) and depths in metres (n,) of `points` (n, 3)."""
        local = (points - self.position) @ self.axes.T
        depth = local[:, 2]
        return local[:, :2] / depth[:, None] * self.focal_px + np.array(self.centre_px), depth

    def moved_right(self, baseline_m: float) -> "Camera":
        """The right camera of a rectified pair."""
        return replace(self, position=self.position + self.axes[0] * baseline_m)


def aim(
    position: Vector, yaw_rad: float, pitch_rad: float, roll_rad: float, field_deg: float, size: tuple[int, int]
) -> Camera:
    """A camera that looks along -z at yaw 0, turns right with yaw, up with pitch; `field_deg` is horizontal."""
    forward = np.array(
        [np.sin(yaw_rad) * np.cos(pitch_rad), np.sin(pitch_rad), -np.cos(yaw_rad) * np.cos(pitch_rad)], np.float64
    )
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    cosine, sine = np.cos(roll_rad), np.sin(roll_rad)
    axes = np.stack([cosine * right + sine * down, cosine * down - sine * right, forward])
    focal_px = 0.5 * size[1] / np.tan(np.radians(field_deg) / 2)
    return Camera(np.asarray(position, np.float64), axes, float(focal_px), size)


@dataclass(frozen=True, slots=True)
class Finish:
    """What happens between radiance and file; drawn once per scene, so that a stereo pair shares it.

    Attributes:
        brightness: Factor on the automatic exposure.
        white_balance: Gains of R, G, B.
        shoulder: Whether bright parts are compressed (filmic) or clipped.
        contrast: Exponent around middle grey, about 0.8..1.3.
        saturation: 0 is grey, 1 unchanged.
        vignette: Loss in the corners, 0..0.5.
        blur_px: Standard deviation of the blur; below 0.25 none.
        noise: Standard deviation of the noise at middle grey, 0..1 of full scale.
        jpeg_quality: 40..97.
    """

    brightness: float
    white_balance: tuple[float, float, float]
    shoulder: bool
    contrast: float
    saturation: float
    vignette: float
    blur_px: float
    noise: float
    jpeg_quality: int


def draw_finish(rng: np.random.Generator) -> Finish:
    """A random camera, from clean to poor."""
    tint = 1 + 0.05 * rng.normal(size=3)
    return Finish(
        brightness=float(np.exp(rng.normal(0, 0.22))),
        white_balance=(float(tint[0]), float(tint[1]), float(tint[2])),
        shoulder=bool(rng.random() < 0.6),
        contrast=float(rng.uniform(0.85, 1.25)),
        saturation=float(rng.uniform(0.65, 1.15)) if rng.random() > 0.04 else 0.0,
        vignette=float(rng.uniform(0, 0.35)) if rng.random() < 0.5 else 0.0,
        blur_px=float(rng.uniform(0, 0.9)),
        noise=float(rng.uniform(0, 0.015)) if rng.random() < 0.85 else float(rng.uniform(0.015, 0.045)),
        jpeg_quality=int(rng.integers(55, 97)),
    )


def exposure(radiance: Floats) -> float:
    """Gain that brings the picture's middle tones to a usual level."""
    luminance = radiance.mean(axis=2)
    return float(0.30 / max(0.6 * np.percentile(luminance, 55) + 0.25 * np.percentile(luminance, 92), 1e-4))


def develop(radiance: Floats, gain: float, finish: Finish, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """The sRGB picture, uint8 (H, W, 3), of linear `radiance` (H, W, 3); `rng` gives the noise."""
    height, width = radiance.shape[:2]
    light = radiance * (gain * finish.brightness * np.array(finish.white_balance, np.float32))
    if finish.vignette:
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        light = light * (1 - finish.vignette * (x * x + y * y) / 2)[..., None].astype(np.float32)
    if finish.shoulder:
        light = 1 - np.exp(-1.35 * light)
    grey = light.mean(axis=2, keepdims=True)
    light = (grey + (light - grey) * finish.saturation).clip(0, 1)
    picture = (light ** (1 / 2.2)).astype(np.float32)
    picture = (0.5 + (picture - 0.5) * finish.contrast).astype(np.float32)
    if finish.blur_px >= 0.25:
        picture = cv2.GaussianBlur(picture, (0, 0), finish.blur_px).astype(np.float32)
    shot = 0.6 + 0.8 * picture.clip(0, 1)
    picture = picture + rng.standard_normal(picture.shape, dtype=np.float32) * shot * finish.noise
    return np.asarray(np.rint(picture.clip(0, 1) * 255), np.uint8)
