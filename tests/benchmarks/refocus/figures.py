"""Seeded figures like people: limbs with gaps between them, faces, clothes, hair that ends in single strands.

A figure is drawn part by part on a canvas `_FINE` times as fine, in units of its own height: x to the right, y down,
the origin between the feet, so that the top of the head is near (0, -1).
"""

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from .srgb import decode
from .textures import cloth, fractal

_FINE = 3
_ARMS = {
    "down": ((0.150, -0.640), (0.165, -0.490)),
    "akimbo": ((0.225, -0.670), (0.095, -0.555)),
    "raised": ((0.205, -0.880), (0.150, -1.020)),
    "out": ((0.210, -0.700), (0.330, -0.740)),
    "folded": ((0.150, -0.660), (0.020, -0.660)),
}
_HAIR = ("short", "long", "curls", "bun", "wild", "hat")
ABOVE, BELOW = 1.18, 0.04
"""Of a figure's sprite, above and below the ground it stands on, in heights of the figure."""

_SKIN = ((0.95, 0.80, 0.69), (0.87, 0.67, 0.53), (0.70, 0.50, 0.37), (0.45, 0.30, 0.22))
_LOCKS = ((0.10, 0.08, 0.07), (0.30, 0.19, 0.11), (0.62, 0.46, 0.24), (0.55, 0.55, 0.57), (0.48, 0.20, 0.10))


@dataclass(frozen=True, slots=True)
class Sprite:
    """Premultiplied linear light and coverage, float32 (h, w, 4), and where its own origin lies in it, in pixels."""

    pixels: np.ndarray
    origin_x: float
    origin_y: float


@dataclass(frozen=True, slots=True)
class Pose:
    """How a figure stands; None is drawn at random.

    Attributes:
        arms: keys of `_ARMS`, left and right.
        hair: one of `_HAIR`.
        tilt: radians by which the whole figure leans sideways.
    """

    arms: tuple[str, str] | None = None
    hair: str | None = None
    tilt: float = 0.0


class Canvas:
    """A sprite in the making."""

    def __init__(self, height_px: float, left: float, right: float, top: float, bottom: float, tilt: float) -> None:
        self.unit = height_px
        self.origin = np.array((-left * height_px, -top * height_px))
        self.size = (int(np.ceil((bottom - top) * height_px)), int(np.ceil((right - left) * height_px)))
        self.pixels = np.zeros((*self.size, 4), np.float32)
        self.turn = np.array(((np.cos(tilt), -np.sin(tilt)), (np.sin(tilt), np.cos(tilt))))

    def blank(self) -> np.ndarray:
        return np.zeros((self.size[0] * _FINE, self.size[1] * _FINE), np.uint8)

    def places(self, points: np.ndarray | list[tuple[float, float]]) -> np.ndarray:
        """Pixels of the fine canvas, in sixteenths, int32 (n, 2)."""
        pixels = (np.asarray(points, np.float64) @ self.turn.T * self.unit + self.origin) * _FINE - 0.5
        return np.rint(pixels * 16).astype(np.int32)

    def lay(self, mask: np.ndarray, surface: np.ndarray, rounding: float = 0.45) -> None:
        """Put a part over what is there: fine mask uint8, surface linear (h, w, 3), darker towards its outline."""
        cover = cv2.resize(mask, self.size[::-1], interpolation=cv2.INTER_AREA).astype(np.float32)[..., None] / 255
        inside = cv2.distanceTransform((cover[..., 0] > 0.3).astype(np.uint8), cv2.DIST_L2, 5)
        thickness = max(1.0, float(np.percentile(inside[inside > 0], 90)) if (inside > 0).any() else 1.0)
        shade = 1 - rounding * (1 - np.sqrt(np.clip(inside / thickness, 0, 1)))
        self.pixels *= 1 - cover
        self.pixels[..., :3] += cover * surface * cv2.GaussianBlur(shade, (0, 0), 1.0)[..., None]
        self.pixels[..., 3:] += cover

    def polygon(self, points: np.ndarray | list[tuple[float, float]]) -> np.ndarray:
        mask = self.blank()
        cv2.fillPoly(mask, [self.places(points)], 255, cv2.LINE_8, 4)
        return mask

    def ellipse(
        self, x: float, y: float, width: float, height: float, start: float = 0, end: float = 360
    ) -> np.ndarray:
        angle = np.radians(np.linspace(start, end, 60))
        return self.polygon(np.stack([x + width * np.cos(angle), y + height * np.sin(angle)], axis=1))

    def limb(self, joints: list[tuple[float, float]], widths: list[float]) -> np.ndarray:
        """A tapered, rounded tube through `joints`; widths are radii at the joints."""
        mask = self.blank()
        for (start, end), (first, last) in zip(pairwise(joints), pairwise(widths), strict=True):
            for share in np.linspace(0, 1, 40):
                centre = self.places([tuple(np.array(start) * (1 - share) + np.array(end) * share)])[0]
                radius = (first * (1 - share) + last * share) * self.unit * _FINE
                cv2.circle(mask, tuple(int(value) for value in centre), round(radius * 16), 255, -1, cv2.LINE_8, 4)
        return mask

    def tinted(
        self, rng: np.random.Generator, colour: tuple[float, float, float], contrast: float = 0.08
    ) -> np.ndarray:
        noise = fractal(rng, *self.size, max(4.0, self.unit / 10))[..., None]
        return decode(np.clip(np.float32(colour) * (1 + contrast * noise), 0, 1))

    def cloth(self, rng: np.random.Generator) -> np.ndarray:
        return cloth(rng, *self.size, self.unit)


def person(rng: np.random.Generator, height_px: float, pose: Pose | None = None) -> Sprite:
    """One figure of `height_px` from the ground to the crown of its head."""
    pose = pose or Pose()
    names = list(_ARMS)
    arms = pose.arms or (names[rng.integers(len(names))], names[rng.integers(len(names))])
    style = pose.hair or _HAIR[rng.integers(len(_HAIR))]
    reach = 0.40 + abs(np.sin(pose.tilt)) * 1.1
    canvas = Canvas(height_px, -reach, reach, -ABOVE, BELOW, pose.tilt)
    skin = canvas.tinted(rng, _SKIN[rng.integers(len(_SKIN))])
    locks = canvas.tinted(rng, _LOCKS[rng.integers(len(_LOCKS))], 0.35)
    if style in ("long", "wild"):
        _hair_behind(canvas, rng, locks, style)
    _legs(canvas, rng, skin)
    shirt = canvas.cloth(rng)
    _torso(canvas, shirt)
    sleeves = shirt if rng.random() < 0.6 else skin
    for side, arm in zip((-1, 1), arms, strict=True):
        _arm(canvas, side, arm, sleeves, skin, shirt)
    canvas.lay(canvas.limb([(0, -0.86), (0, -0.81)], [0.030, 0.036]), skin)
    _head(canvas, rng, skin, locks)
    _hair(canvas, rng, locks, style)
    canvas.pixels[:] = np.clip(cv2.GaussianBlur(canvas.pixels, (0, 0), 0.5), 0, None)
    return Sprite(canvas.pixels, float(canvas.origin[0]), float(canvas.origin[1]))


def _legs(canvas: Canvas, rng: np.random.Generator, skin: np.ndarray) -> None:
    stance, shoe = rng.uniform(0.0, 0.06), canvas.tinted(rng, tuple(rng.uniform(0.05, 0.5, 3)))
    trousers, kind = canvas.cloth(rng), rng.choice(["trousers", "trousers", "shorts", "skirt"])
    for side in (-1, 1):
        hip, knee = (side * 0.045, -0.49), (side * (0.052 + stance / 2), -0.27)
        ankle = (side * (0.055 + stance), -0.035)
        canvas.lay(canvas.limb([hip, knee, ankle], [0.055, 0.040, 0.026]), skin if kind != "trousers" else trousers)
        canvas.lay(canvas.ellipse(ankle[0] + side * 0.018, -0.015, 0.042, 0.018), shoe)
        if kind == "shorts":
            canvas.lay(canvas.limb([hip, knee], [0.062, 0.055]), trousers)
    if kind == "skirt":
        flare = rng.uniform(0.10, 0.17)
        canvas.lay(canvas.polygon([(-0.08, -0.53), (0.08, -0.53), (flare, -0.26), (-flare, -0.26)]), trousers)


def _torso(canvas: Canvas, shirt: np.ndarray) -> None:
    half = [
        (0.035, -0.825),
        (0.085, -0.812),
        (0.115, -0.785),
        (0.108, -0.70),
        (0.088, -0.62),
        (0.092, -0.53),
        (0.09, -0.47),
    ]
    outline = half + [(-x, y) for x, y in half[::-1]]
    canvas.lay(canvas.polygon(outline), shirt)


def _arm(canvas: Canvas, side: int, arm: str, sleeve: np.ndarray, skin: np.ndarray, shirt: np.ndarray) -> None:
    shoulder = (side * 0.100, -0.780)
    elbow, wrist = ((side * x, y) for x, y in _ARMS[arm])
    canvas.lay(canvas.limb([shoulder, elbow, wrist], [0.036, 0.029, 0.021]), sleeve, 0.6)
    if sleeve is skin:
        middle = ((shoulder[0] + elbow[0]) / 2, (shoulder[1] + elbow[1]) / 2)
        canvas.lay(canvas.limb([shoulder, middle], [0.041, 0.037]), shirt, 0.6)
    canvas.lay(
        canvas.limb([wrist, (wrist[0] * 1.04, wrist[1] + (0.012 if arm != "raised" else -0.02))], [0.022, 0.020]), skin
    )


def _head(canvas: Canvas, rng: np.random.Generator, skin: np.ndarray, locks: np.ndarray) -> None:
    canvas.lay(canvas.ellipse(0, -0.922, 0.054, 0.072), skin, 0.3)
    turn = rng.uniform(-0.012, 0.012)
    white, dark = canvas.tinted(rng, (0.93, 0.92, 0.9)), canvas.tinted(rng, (0.12, 0.09, 0.08))
    for side in (-1, 1):
        canvas.lay(canvas.ellipse(side * 0.052, -0.918, 0.010, 0.018), skin, 0.3)
        canvas.lay(canvas.ellipse(turn + side * 0.022, -0.928, 0.010, 0.006), white, 0.1)
        canvas.lay(canvas.ellipse(turn + side * 0.022, -0.928, 0.0048, 0.0055), dark, 0.0)
        canvas.lay(
            canvas.limb([(turn + side * 0.011, -0.943), (turn + side * 0.033, -0.942)], [0.0026, 0.0020]), locks, 0
        )
    canvas.lay(canvas.limb([(turn, -0.925), (turn + 0.004, -0.904)], [0.0025, 0.0050]), skin * 0.72, 0)
    lips = canvas.tinted(rng, (0.68, 0.32, 0.30))
    canvas.lay(
        canvas.limb([(turn - 0.017, -0.883), (turn, -0.880), (turn + 0.017, -0.883)], [0.002, 0.0045, 0.002]), lips, 0
    )


def _hair_behind(canvas: Canvas, rng: np.random.Generator, locks: np.ndarray, style: str) -> None:
    length = rng.uniform(0.06, 0.17) if style == "long" else 0.05
    outline = [
        (-0.066, -0.94),
        (-0.078, -0.86),
        (-0.082, -0.84 + length),
        (0.082, -0.84 + length),
        (0.078, -0.86),
        (0.066, -0.94),
    ]
    canvas.lay(canvas.polygon(outline), locks, 0.3)


def _hair(canvas: Canvas, rng: np.random.Generator, locks: np.ndarray, style: str) -> None:
    if style == "hat":
        felt = canvas.cloth(rng)
        canvas.lay(canvas.ellipse(0, -0.962, 0.056, 0.062, 180, 360), felt)
        canvas.lay(canvas.limb([(-0.085, -0.962), (0.085, -0.962)], [0.007, 0.007]), felt)
        return
    cap = canvas.ellipse(0, -0.940, 0.060, 0.066, 180, 360)
    fringe = canvas.ellipse(rng.uniform(-0.03, 0.03), -0.965, 0.044, 0.026)
    canvas.lay(cap | fringe, locks, 0.25)
    if style == "bun":
        canvas.lay(canvas.ellipse(rng.uniform(-0.02, 0.02), -1.015, 0.027, 0.025), locks, 0.4)
    if style == "curls":
        mask = canvas.blank()
        for angle in np.radians(np.linspace(165, 375, 17)):
            mask |= canvas.ellipse(0.062 * np.cos(angle), -0.945 + 0.066 * np.sin(angle), 0.020, 0.020)
        canvas.lay(mask, locks, 0.3)
    strands = {"short": 40, "long": 90, "curls": 110, "bun": 50, "wild": 220}[style]
    _strands(canvas, rng, locks, strands, 0.03 if style in ("short", "bun") else 0.055)


def _strands(canvas: Canvas, rng: np.random.Generator, locks: np.ndarray, count: int, length: float) -> None:
    """Single hairs, a third of a pixel wide or a little more, from the crown outwards and down."""
    mask = canvas.blank()
    width = max(1, round(canvas.unit * _FINE / 1100))
    for _ in range(count):
        angle = np.radians(rng.uniform(170, 370))
        root = np.array((0.056 * np.cos(angle), -0.942 + 0.062 * np.sin(angle)))
        out = np.array((np.cos(angle), np.sin(angle))) * rng.uniform(0.3, 1) * length
        bend = rng.normal(0, 0.35, 2) * length + (0, 0.3 * length)
        share = np.linspace(0, 1, 12)[:, None]
        points = canvas.places(root + out * share + bend * share**2)
        cv2.polylines(mask, [points], False, 255, width, cv2.LINE_8, 4)
    canvas.lay(mask, locks, 0.0)
