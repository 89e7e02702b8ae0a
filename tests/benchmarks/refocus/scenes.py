"""Twelve seeded scenes of flat layers, three views each: pictures whose blur through a lens can be worked out exactly.

Every scene is 768 x 512 and goes on 64 pixels beyond each side of the frame. Light is linear, depth inverse and within
0..1, 1 = nearest. A view is a focus and an aperture. Apertures are the service's default and a stop to either side, and
`strength_px` is what the service makes of them: so many pixels between the scene's farthest and its nearest.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import cv2
import numpy as np

from service.imaging.lens import strength_from_f_number

from . import props, textures
from .figures import Pose, Sprite, person

HEIGHT, WIDTH, MARGIN_PX = 512, 768, 64
F_NUMBERS = (2.8, 2.0, 4.0)  # of the three views of every scene
VERSION = 3
"""Raised when a change here, in figures, props or textures changes a pixel: truths in a cache are kept by it."""


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A flat thing.

    Attributes:
        light: premultiplied linear light and coverage, float32 (h, w, 4).
        left: column of the frame in which its first pixel lies; negative is beyond the frame.
        top: row likewise.
        plane: inverse depth d = plane[0] + plane[1] * x + plane[2] * y, in pixels of the frame.
        person: number of the person that it shows, or None.
    """

    light: np.ndarray
    left: int
    top: int
    plane: tuple[float, float, float]
    person: int | None = None

    def inverse_depth(self) -> np.ndarray:
        """float32 (h, w)."""
        height, width = self.light.shape[:2]
        x, y = np.arange(width) + self.left, np.arange(height)[:, None] + self.top
        return (self.plane[0] + self.plane[1] * x + self.plane[2] * y).astype(np.float32)


@dataclass(frozen=True, slots=True)
class View:
    """What was clicked, and the aperture.

    Attributes:
        click: column and row of the click.
        focus: inverse depth in focus.
        strength_px: radius of the circle of confusion per unit of inverse depth.
        subject: number of the person that counts as lying in the focal plane, or None.
        blades: corners of the aperture, 0 for a disc.
    """

    click: tuple[int, int]
    focus: float
    strength_px: float
    subject: int | None = None
    blades: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class LayeredScene:
    """Layers from far to near, and its three views."""

    number: int
    name: str
    layers: tuple[Layer, ...]
    views: tuple[View, ...]
    night: bool = False


@dataclass(frozen=True, slots=True)
class Visible:
    """What the frame shows: all float32, `mattes` one per person in the order of `people`, hidden parts left out."""

    inverse_depth: np.ndarray
    mattes: np.ndarray
    people: tuple[int, ...]
    owner: np.ndarray
    """int (H, W): index of the layer that covers more than half of the pixel."""


@dataclass(slots=True)
class Stage:
    """A scene in the making: things are put in from far to near."""

    rng: np.random.Generator
    backdrop: Callable[[np.random.Generator, int, int], np.ndarray] | None = None
    layers: list[Layer] = field(default_factory=list)
    people: int = 0

    def wall(self, kind: str, plane: tuple[float, float, float] = (0.05, 0, 0)) -> None:
        surface = (self.backdrop or textures.WALLS[kind])(self.rng, HEIGHT + 2 * MARGIN_PX, WIDTH + 2 * MARGIN_PX)
        opaque = np.dstack([surface, np.ones(surface.shape[:2], np.float32)])
        self.layers.append(Layer(opaque, -MARGIN_PX, -MARGIN_PX, plane))

    def floor(self, kind: str, horizon: int, far: float, near: float) -> None:
        """From `far` at the horizon to `near` at the bottom of the frame."""
        rows = HEIGHT + MARGIN_PX - horizon
        surface = textures.WALLS[kind](self.rng, rows, WIDTH + 2 * MARGIN_PX)
        slope = (near - far) / (HEIGHT - horizon)
        opaque = np.dstack([surface, np.ones(surface.shape[:2], np.float32)])
        self.layers.append(Layer(opaque, -MARGIN_PX, horizon, (far - slope * horizon, 0, slope)))

    def put(self, sprite: Sprite, x: int, y: int, depth: float, slope: float = 0.0, person: int | None = None) -> None:
        """With its origin at (x, y), where it has `depth`; `slope` is inverse depth per row."""
        left, top = round(x - sprite.origin_x), round(y - sprite.origin_y)
        plane = (depth - slope * y, 0.0, slope)
        # cut off what lies beyond the margin, which no lens can show
        inner = (
            slice(max(0, -MARGIN_PX - top), HEIGHT + MARGIN_PX - top),
            slice(max(0, -MARGIN_PX - left), WIDTH + MARGIN_PX - left),
        )
        light = np.ascontiguousarray(sprite.pixels[inner])
        self.layers.append(Layer(light, max(left, -MARGIN_PX), max(top, -MARGIN_PX), plane, person))

    def figure(
        self, x: int, feet: int, height_px: float, depth: float, pose: Pose | None = None, slope: float = 0.0
    ) -> int:
        """A person; returns its number. A slope of inverse depth makes it lean towards or away from the camera."""
        number = self.people
        self.put(person(self.rng, height_px, pose), x, feet, depth, slope, number)
        self.people += 1
        return number


def visible(layers: tuple[Layer, ...]) -> Visible:
    """Depth, people and owners as the frame shows them through a pinhole."""
    depth, owner = np.zeros((HEIGHT, WIDTH), np.float32), np.zeros((HEIGHT, WIDTH), np.int32)
    mattes: dict[int, np.ndarray] = {}
    for index, layer in enumerate(layers):
        rows, columns, part = framed(layer)
        cover, values = layer.light[part][..., 3], layer.inverse_depth()[part]
        solid = cover > 0.5
        depth[rows, columns] = np.where(solid, values, depth[rows, columns])
        owner[rows, columns] = np.where(solid, index, owner[rows, columns])
        for matte in mattes.values():
            matte[rows, columns] *= 1 - cover
        if layer.person is not None:
            matte = np.zeros((HEIGHT, WIDTH), np.float32)
            matte[rows, columns] = cover
            mattes[layer.person] = matte
    stack = np.stack(list(mattes.values())) if mattes else np.zeros((0, HEIGHT, WIDTH), np.float32)
    return Visible(depth, stack.clip(0, 1), tuple(mattes), owner)


def framed(layer: Layer) -> tuple[slice, slice, tuple[slice, slice]]:
    """Rows and columns of the frame that a layer lies on, and the same part of the layer."""
    height, width = layer.light.shape[:2]
    rows = slice(min(max(0, layer.top), HEIGHT), max(0, min(HEIGHT, layer.top + height)))
    columns = slice(min(max(0, layer.left), WIDTH), max(0, min(WIDTH, layer.left + width)))
    part = (
        slice(rows.start - layer.top, rows.stop - layer.top),
        slice(columns.start - layer.left, columns.stop - layer.left),
    )
    return rows, columns, part


def spot_on(mask: np.ndarray) -> tuple[int, int]:
    """Column and row of the pixel deepest inside a mask, where one would click."""
    inside = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    row, column = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(column), int(row)


def _views(layers: tuple[Layer, ...], wanted: tuple[tuple[str, int, int], ...]) -> tuple[View, ...]:
    """Each wanted: ("person", number) or ("layer", index), and blades."""
    seen, views = visible(layers), []
    for (kind, index, blades), f_number in zip(wanted, F_NUMBERS, strict=True):
        mask = seen.mattes[seen.people.index(index)] > 0.9 if kind == "person" else seen.owner == index % len(layers)
        click = spot_on(mask)
        core = seen.inverse_depth[mask]
        focus = float(np.median(core)) if kind == "person" else float(seen.inverse_depth[click[1], click[0]])
        strength_px = strength_from_f_number(f_number, WIDTH) / float(np.ptp(seen.inverse_depth))
        views.append(View(click, focus, strength_px, index if kind == "person" else None, blades))
    return tuple(views)


def _portrait(stage: Stage) -> tuple:
    stage.wall("foliage", (0.08, 0, 0))
    stage.floor("planks", 400, 0.10, 0.42)
    stage.put(props.plant(stage.rng, 150, 130), 560, 290, 0.35)
    stage.figure(360, 760, 700, 0.62, Pose(("akimbo", "down"), "long"))
    return ("person", 0, 0), ("layer", 0, 0), ("person", 0, 0)


def _couple(stage: Stage) -> tuple:
    stage.wall("posters", (0.03, 0, 0))
    stage.floor("bricks", 380, 0.05, 0.43)
    stage.figure(330, 505, 400, 0.42, Pose(("raised", "akimbo"), "curls"))
    stage.figure(445, 640, 590, 0.74, Pose(("down", "akimbo"), "short"))
    return ("person", 0, 0), ("person", 1, 0), ("layer", 0, 0)


def _crowd(stage: Stage) -> tuple:
    stage.wall("bricks", (0.04, 0, 0))
    stage.floor("plaster", 300, 0.06, 0.39)
    for x, feet, height, depth in (
        (90, 400, 190, 0.22), (250, 405, 195, 0.23), (520, 410, 200, 0.25), (650, 420, 215, 0.28),
        (170, 460, 300, 0.42), (430, 480, 310, 0.46), (590, 600, 470, 0.70), (300, 680, 560, 0.88),
    ):  # fmt: skip
        stage.figure(x, feet, height, depth)
    return ("person", 5, 0), ("person", 7, 0), ("person", 2, 0)


def _night(stage: Stage) -> tuple:
    stage.wall("night", (0.02, 0, 0))
    for _ in range(40):
        x, y = stage.rng.integers(-50, WIDTH + 50), stage.rng.integers(-40, 330)
        stage.put(props.lamp(stage.rng, 30), x, y, 0.05)
    for _ in range(12):
        x, y = stage.rng.integers(0, WIDTH), stage.rng.integers(40, 400)
        stage.put(props.lamp(stage.rng, 14), x, y, 0.22)
    first = stage.figure(250, 560, 500, 0.66, Pose(("down", "raised"), "wild"))
    stage.figure(520, 480, 350, 0.38, Pose(("akimbo", "akimbo"), "bun"))
    stage.layers = [_dimmed(layer) if layer.person is not None else layer for layer in stage.layers]
    return ("person", first, 0), ("person", 1, 6), ("layer", 0, 0)


def _dimmed(layer: Layer) -> Layer:
    light = layer.light * np.float32((0.22, 0.22, 0.26, 1))
    return Layer(light, layer.left, layer.top, layer.plane, layer.person)


def _fence(stage: Stage) -> tuple:
    stage.wall("foliage", (0.05, 0, 0))
    stage.floor("plaster", 420, 0.08, 0.34)
    stage.figure(300, 520, 430, 0.38, Pose(("out", "down"), "curls"))
    stage.figure(560, 480, 330, 0.26)
    stage.put(props.fence(stage.rng, HEIGHT + 2 * MARGIN_PX, WIDTH + 2 * MARGIN_PX), -MARGIN_PX, -MARGIN_PX, 0.85)
    return ("person", 0, 0), ("layer", -1, 0), ("layer", 0, 0)


def _branches(stage: Stage) -> tuple:
    stage.wall("plaster", (0.06, 0, 0))
    stage.floor("foliage", 390, 0.08, 0.37)
    stage.put(props.branches(stage.rng, 420, WIDTH + 2 * MARGIN_PX, 4), -MARGIN_PX, -MARGIN_PX, 0.2)
    stage.figure(400, 560, 500, 0.5, Pose(("akimbo", "raised"), "long"))
    stage.put(props.branches(stage.rng, HEIGHT + 2 * MARGIN_PX, WIDTH + 2 * MARGIN_PX, 4), -MARGIN_PX, -MARGIN_PX, 0.92)
    return ("person", 0, 0), ("layer", 0, 0), ("layer", -1, 0)


def _leaning(stage: Stage) -> tuple:
    stage.wall("planks", (0.02, 0.00010, 0))
    stage.floor("checkerboard", 370, 0.11, 0.48)
    stage.figure(420, 480, 400, 0.44, Pose(("down", "out"), "short", tilt=0.18), slope=-0.0009)
    stage.figure(200, 560, 480, 0.62, Pose(("folded", "folded"), "bun"), slope=0.0005)
    return ("person", 0, 0), ("person", 1, 0), ("layer", 0, 0)


def _checkers(stage: Stage) -> tuple:
    stage.wall("checkerboard", (0.05, 0, 0))
    stage.figure(250, 520, 450, 0.45, Pose(("akimbo", "akimbo"), "wild"))
    stage.put(props.ball(stage.rng, 90), 500, 300, 0.7)
    stage.figure(560, 760, 700, 0.85, Pose(("raised", "down"), "short"))
    return ("layer", 0, 0), ("person", 0, 6), ("person", 1, 0)


def _corridor(stage: Stage) -> tuple:
    stage.wall("stripes", (0.05, 0.00025, 0))
    stage.floor("planks", 330, 0.28, 0.53)
    stage.figure(140, 420, 230, 0.41)
    stage.figure(370, 470, 320, 0.48, Pose(("out", "out"), "hat"))
    stage.figure(610, 620, 520, 0.80)
    return ("person", 1, 0), ("person", 0, 0), ("layer", 1, 0)


def _table(stage: Stage) -> tuple:
    stage.wall("stripes", (0.04, 0, 0))
    stage.figure(620, 520, 430, 0.2, Pose(("folded", "raised"), "curls"))
    stage.floor("planks", 280, 0.25, 0.75)
    stage.put(props.box(stage.rng, 150, 170), 90, 200, 0.4)
    stage.put(props.plant(stage.rng, 210, 180), 260, 200, 0.55)
    stage.put(props.ball(stage.rng, 70), 480, 300, 0.72)
    stage.put(props.post(stage.rng, 640, 44), 30, -64, 0.9)
    return ("layer", 4, 0), ("layer", 5, 0), ("person", 0, 0)


def _close_up(stage: Stage) -> tuple:
    stage.wall("posters", (0.06, 0, 0))
    stage.put(props.branches(stage.rng, 400, WIDTH + 2 * MARGIN_PX, 3), -MARGIN_PX, -MARGIN_PX, 0.18)
    stage.figure(600, 560, 480, 0.3)
    stage.figure(300, 1330, 1260, 0.8, Pose(("down", "down"), "wild"))
    return ("person", 1, 0), ("person", 0, 0), ("layer", 0, 0)


def _shoulder(stage: Stage) -> tuple:
    stage.wall("foliage", (0.04, 0.0001, 0))
    stage.floor("bricks", 400, 0.125, 0.40)
    stage.figure(280, 490, 360, 0.36, Pose(("akimbo", "akimbo"), "long"))
    stage.figure(480, 540, 430, 0.48, Pose(("akimbo", "out"), "short"))
    stage.figure(660, 1060, 1000, 0.97, Pose(("down", "down"), "short"))
    return ("person", 0, 0), ("person", 1, 0), ("person", 2, 0)


SCENES: dict[str, Callable[[Stage], tuple]] = {
    "portrait": _portrait,
    "couple": _couple,
    "crowd": _crowd,
    "night": _night,
    "fence": _fence,
    "branches": _branches,
    "leaning": _leaning,
    "checkers": _checkers,
    "corridor": _corridor,
    "table": _table,
    "close-up": _close_up,
    "shoulder": _shoulder,
}


@lru_cache(maxsize=2)
def scene(number: int, seed: int = 0) -> LayeredScene:
    """Scene 1..12; the same number and seed give the same pixels."""
    return build(number, seed)


def build(
    number: int, seed: int, backdrop: Callable[[np.random.Generator, int, int], np.ndarray] | None = None
) -> LayeredScene:
    """Scene 1..12, with `backdrop` on its wall instead of a texture unless it is night."""
    name = list(SCENES)[number - 1]
    stage = Stage(np.random.default_rng((seed, number)), None if name == "night" else backdrop)
    wanted = SCENES[name](stage)
    layers = tuple(stage.layers)
    return LayeredScene(number, name, layers, _views(layers, wanted), night=name == "night")
