"""Stereo worlds of flat layers: quick to draw, exact in disparity and occlusion, with a camera that moves.

A layer is a textured parallelogram. Its picture is a homography of its texture, and its inverse depth is linear in the
pixel's coordinates, so a view of a hundred layers takes some hundredths of a second. Rendered scenes
(`training.data.synthetic`) look better and cost a second each; here whole sequences come from a seed.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from service.contract import Size
from training.data.layered_textures import Style, texture_bank

Floats = npt.NDArray[np.float32]
Vector = npt.NDArray[np.float64]
Kind = Literal["street", "clutter"]

LARGEST_DISPARITY_PX = 64.0
"""Of worlds that are 320 pixels wide; in proportion otherwise."""

_SAMPLES = 2  # per pixel and axis, of colours; depth is that of the pixel's centre
_REFERENCE_WIDTH = 320
_SKY_M = 150.0


@dataclass(frozen=True, slots=True)
class Layer:
    """A textured parallelogram; x is right, y down, z forward, metres.

    Attributes:
        corner: float64 (3,), where the texture's first pixel lies.
        along: float64 (3,), from there along a row of the texture.
        across: float64 (3,), from there along a column.
        texture: Number of its texture in the bank of the world's style.
        shade: Factor on its colours.
    """

    corner: Vector
    along: Vector
    across: Vector
    texture: int
    shade: float


@dataclass(frozen=True, slots=True)
class World:
    """Layers and a way through them.

    Attributes:
        layers: All of them, in no order.
        style: Of the textures.
        field: Focal length, as a share of the picture's width.
        baseline_m: Distance of the right camera.
        step_m: float64 (3,), how far the camera goes from frame to frame.
        sway: float64 (3,), metres, its slow swing about that way.
        turn_rad: Its slow swing to the sides.
    """

    layers: tuple[Layer, ...]
    style: Style
    field: float
    baseline_m: float
    step_m: Vector
    sway: Vector
    turn_rad: float


@dataclass(frozen=True, slots=True)
class Pose:
    """A camera: where it is (metres) and its axes right, down, forward, the rows of a float64 (3, 3)."""

    position: Vector
    axes: Vector

    def moved_right(self, baseline_m: float) -> "Pose":
        """The right camera of a rectified pair."""
        return Pose(self.position + self.axes[0] * baseline_m, self.axes)


def pose(world: World, frame: int) -> Pose:
    """The left camera at a frame, from 0."""
    phase = 2 * np.pi * frame / 60
    position = world.step_m * frame + world.sway * np.sin(phase * np.array([0.7, 1.3, 0.5]))
    yaw = world.turn_rad * np.sin(phase * 0.6)
    axes = np.array([[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]])
    return Pose(position, axes)


def build_world(seed: int, frames: int, kind: Kind | None = None, style: Style = "plain") -> World:
    """The world of a seed, long enough for a camera that goes through it for `frames` frames; a street or clutter."""
    rng = np.random.default_rng([seed, 7])
    kind = kind or ("street" if rng.random() < 0.5 else "clutter")
    textures = len(texture_bank(style))
    return _street(rng, frames, style, textures) if kind == "street" else _clutter(rng, frames, style, textures)


def _nearest_m(field: float, baseline_m: float) -> float:
    return field * _REFERENCE_WIDTH * baseline_m / LARGEST_DISPARITY_PX


def _street(rng: np.random.Generator, frames: int, style: Style, textures: int) -> World:
    field, baseline_m, speed = rng.uniform(0.75, 1.05), rng.uniform(0.4, 0.55), rng.uniform(0.1, 0.3)
    nearest, length, half = _nearest_m(field, baseline_m), frames * speed + 45.0, rng.uniform(4.5, 8.0)
    layers = []

    def add(corner: tuple[float, ...], along: tuple[float, ...], across: tuple[float, ...], shade: float) -> None:
        layers.append(_layer(rng, corner, along, across, textures, shade))

    floor = rng.uniform(1.3, 1.9)
    for start in np.arange(-4.0, length, 8.0):  # pieces, so that a near one keeps its detail
        for side in (-half - 4, 0.0):
            add((side, floor, float(start)), (half + 4, 0, 0), (0, 0, 8.0), rng.uniform(0.8, 1.0))
    for side in (-1, 1):
        start = -4.0
        while start < length:
            deep, x, top = rng.uniform(3, 9), side * (half + rng.uniform(0, 3)), -rng.uniform(2, 6)
            add((x, top, start), (0, 0, deep), (0, floor - top, 0), rng.uniform(0.55, 0.9))
            add((x, top, start), (side * 5.0, 0, 0), (0, floor - top, 0), rng.uniform(0.7, 1.0))
            start += deep + (rng.uniform(0, 3) if rng.random() < 0.4 else 0)
    add((-160.0, -90.0, length + _SKY_M), (320.0, 0, 0), (0, 110.0, 0), 1.15)
    for _ in range(int(length * 0.45)):
        x, z = rng.uniform(1.6, half) * rng.choice([-1, 1]), rng.uniform(nearest, length)
        size = rng.uniform(0.4, 1.8, 3)
        _box(rng, layers, np.array([x, floor - size[1] / 2, z]), size, rng.uniform(-0.6, 0.6), textures)
    return World(
        tuple(layers),
        style,
        field,
        baseline_m,
        np.array([0.0, 0.0, speed]),
        np.array([0.4, 0.05, 0.0]),
        rng.uniform(0.02, 0.1),
    )


def _clutter(rng: np.random.Generator, frames: int, style: Style, textures: int) -> World:
    field, baseline_m = rng.uniform(0.75, 1.05), rng.uniform(0.15, 0.3)
    nearest = _nearest_m(field, baseline_m)
    back = nearest * rng.uniform(4, 9)
    layers = [_layer(rng, (-3 * back, -3 * back, back), (6 * back, 0, 0), (0, 6 * back, 0), textures, 1.0)]
    if rng.random() < 0.6:
        tilt, low = rng.uniform(-0.3, 0.3), rng.uniform(0.5, 1.2)
        layers.append(
            _layer(rng, (-2 * back, low, 0.1), (4 * back, tilt * back, 0), (0, 0.1 * back, 2 * back), textures, 0.9)
        )
    for _ in range(int(rng.integers(8, 24))):
        z = nearest * np.exp(rng.uniform(np.log(1.3), np.log(back / nearest)))
        place = np.array([rng.uniform(-0.6, 0.6) * z / field, rng.uniform(-0.4, 0.4) * z / field, z])
        size = rng.uniform(0.04, 0.28, 3) * z / field
        _box(rng, layers, place, size, rng.uniform(-1.2, 1.2), textures, rng.uniform(-0.8, 0.8))
    return World(
        tuple(layers),
        style,
        field,
        baseline_m,
        rng.uniform(-0.2, 0.2, 3) * nearest / max(frames, 1),
        np.array([0.12, 0.08, 0.1]) * nearest,
        rng.uniform(0.02, 0.12),
    )


def _layer(
    rng: np.random.Generator,
    corner: tuple[float, ...],
    along: tuple[float, ...],
    across: tuple[float, ...],
    textures: int,
    shade: float,
) -> Layer:
    place, one, other = (np.asarray(vector, np.float64) for vector in (corner, along, across))
    return Layer(place, one, other, int(rng.integers(textures)), shade)


def _box(
    rng: np.random.Generator,
    layers: list[Layer],
    centre: Vector,
    size: Vector,
    yaw: float,
    textures: int,
    roll: float = 0.0,
) -> None:
    """Adds the six sides of a box, each with its own shade."""
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    tilt = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    edges = (turn @ tilt * size).T
    texture = int(rng.integers(textures))
    for axis in range(3):
        along, across, normal = edges[(axis + 1) % 3], edges[(axis + 2) % 3], edges[axis]
        for side in (-0.5, 0.5):
            corner = centre + side * normal - along / 2 - across / 2
            layers.append(Layer(corner, along, across, texture, float(rng.uniform(0.6, 1.1))))


@dataclass(frozen=True, slots=True)
class View:
    """What a camera sees.

    Attributes:
        image: uint8 (H, W, 3), sRGB.
        inverse_depth: float32 (H, W), 1/m at the pixels' centres; 0 where there is nothing.
    """

    image: npt.NDArray[np.uint8]
    inverse_depth: Floats


def render(world: World, camera: Pose, size: Size) -> View:
    """The picture and its exact inverse depth.

    Args:
        world: What is there.
        camera: From where.
        size: Height and width in pixels.
    """
    height, width = size
    nearest = _nearest_m(world.field, world.baseline_m)
    inverse, owner = np.zeros(size, np.float32), np.full(size, -1, np.int32)
    for number, layer in enumerate(world.layers):
        box = _box_in_view(layer, camera, size, world.field)
        mapping = None if box is None else _image_to_texture(layer, camera, size, world.field, 1)
        if box is None or mapping is None:
            continue
        seen, w = _seen(mapping, box, inverse)
        seen &= w < 1 / nearest
        inverse[box][seen], owner[box][seen] = w[seen], number
    image = np.zeros((height * _SAMPLES, width * _SAMPLES, 3), np.uint8)
    best = np.zeros(image.shape[:2], np.float32)
    for number in np.unique(owner[owner >= 0]):
        _paint(world, int(number), camera, owner, image, best)
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return View(small, inverse)


def _image_to_texture(layer: Layer, camera: Pose, size: Size, field: float, samples: int) -> Vector | None:
    """(3, 3): pixel (x, y, 1) -> (s w, t w, w), place in the texture (0..1) and inverse depth; None when edge-on."""
    height, width = size[0] * samples, size[1] * samples
    focal = field * width
    inner = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    local = camera.axes @ np.stack([layer.along, layer.across, layer.corner - camera.position], 1)
    forth = inner @ local
    if abs(np.linalg.det(forth)) < 1e-9 * focal * focal:
        return None
    return np.asarray(np.linalg.inv(forth))


Box = tuple[slice, slice]


def _box_in_view(layer: Layer, camera: Pose, size: Size, field: float) -> Box | None:
    """Rows and columns that the layer can show in; None when it is behind the camera or beside the picture."""
    corners = layer.corner + np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) @ np.stack([layer.along, layer.across])
    local = (corners - camera.position) @ camera.axes.T
    if local[:, 2].max() <= 0:
        return None
    if local[:, 2].min() <= 1e-3:
        return slice(0, size[0]), slice(0, size[1])
    middle = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2])
    places = local[:, :2] / local[:, 2:] * field * size[1] + middle
    low = np.clip(np.floor(places.min(0)), 0, size[::-1]).astype(int)
    high = np.clip(np.ceil(places.max(0)) + 1, 0, size[::-1]).astype(int)
    if (high <= low).any():
        return None
    return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))


def _seen(mapping: Vector, box: Box, nearest: Floats) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Pixels of the box where the layer is and is nearer than `nearest`, and its inverse depth there."""
    x = np.arange(box[1].start, box[1].stop, dtype=np.float64)
    y = np.arange(box[0].start, box[0].stop, dtype=np.float64)[:, None]
    s, t, w = ((x * row[0] + row[2]).astype(np.float32) + (y * row[1]).astype(np.float32) for row in mapping)
    return (w > nearest[box]) & (s >= 0) & (s <= w) & (t >= 0) & (t <= w), w


def _paint(
    world: World,
    number: int,
    camera: Pose,
    owner: npt.NDArray[np.int32],
    image: npt.NDArray[np.uint8],
    best: Floats,
) -> None:
    """Draws a layer on the large picture where it is nearest, within the part that it was seen in."""
    layer, size = world.layers[number], (owner.shape[0], owner.shape[1])
    mapping = _image_to_texture(layer, camera, size, world.field, _SAMPLES)
    if mapping is None:
        return
    rows, columns = np.nonzero(owner == number)
    top, left = (max(0, int(values.min()) - 2) * _SAMPLES for values in (rows, columns))
    bottom = min(size[0], int(rows.max()) + 3) * _SAMPLES
    right = min(size[1], int(columns.max()) + 3) * _SAMPLES
    part = (bottom - top, right - left)
    here = (slice(top, bottom), slice(left, right))
    seen, w = _seen(mapping, here, best)
    seen &= w < 1 / _nearest_m(world.field, world.baseline_m)
    middle = len(rows) // 2
    texture = _level(texture_bank(world.style)[layer.texture], mapping, rows[middle], columns[middle])
    side = texture.shape[0]
    shift = np.array([[1, 0, left], [0, 1, top], [0, 0, 1.0]])
    to_texture = np.diag([side, side, 1.0]) @ mapping @ shift
    to_texture[:2] -= 0.5 * to_texture[2]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    drawn = cv2.warpPerspective(texture, to_texture, part[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)
    shaded = cv2.convertScaleAbs(drawn, alpha=layer.shade)
    image[here][seen], best[here][seen] = shaded[seen], w[seen]


def _level(levels: tuple[npt.NDArray[np.uint8], ...], mapping: Vector, row: int, column: int) -> npt.NDArray[np.uint8]:
    """The reduction of a texture that fits its size in the picture about a pixel."""
    at = np.array([[column, row, 1], [column + 1, row, 1], [column, row + 1, 1]], np.float64) * _SAMPLES
    at[:, 2] = 1
    places = at @ mapping.T
    s, t = places[:, 0] / places[:, 2], places[:, 1] / places[:, 2]
    step = np.hypot(s[1:] - s[0], t[1:] - t[0]).mean() / _SAMPLES  # of the texture, per sample
    level = int(np.clip(np.rint(np.log2(max(step * levels[0].shape[0], 1e-6))), 0, len(levels) - 1))
    return levels[level]
