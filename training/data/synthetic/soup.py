"""Triangle soups: arrays with one row per triangle, and the primitives that make them. Metres, y up."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Vector = npt.NDArray[np.float64]

PLAIN = -1
"""Texture layer of surfaces without texture."""


@dataclass(frozen=True, slots=True)
class Material:
    """How a surface looks.

    Attributes:
        tint: Linear RGB that multiplies the texture, or the colour itself without texture.
        layer: Layer of the atlas, or PLAIN.
        tile_m: Width in metres of one repetition of the texture; 0 stretches it over the surface once.
        gloss: Strength of the highlight, 0..1.
        emission: Light of its own: linear radiance = colour x emission. 0 for all but lamps, screens and windows.
    """

    tint: tuple[float, float, float] = (0.6, 0.6, 0.6)
    layer: int = PLAIN
    tile_m: float = 1.0
    gloss: float = 0.0
    emission: float = 0.0


@dataclass(frozen=True, slots=True)
class Soup:
    """T triangles.

    Attributes:
        corners: float32 (T, 3, 3), metres.
        normals: float32 (T, 3, 3), unit length, one per corner.
        uv: float32 (T, 3, 2), texture co-ordinates, v down.
        colours: float32 (T, 3), linear tint.
        layers: int32 (T,), texture layer or PLAIN.
        gloss: float32 (T,).
        emission: float32 (T,).
        objects: int32 (T,), which object it belongs to, from 1.
        people: bool (T,), whether it is part of a person.
    """

    corners: Floats
    normals: Floats
    uv: Floats
    colours: Floats
    layers: npt.NDArray[np.int32]
    gloss: Floats
    emission: Floats
    objects: npt.NDArray[np.int32]
    people: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.corners)


def join(soups: list[Soup]) -> Soup:
    """All triangles of `soups`, in order."""
    return Soup(*(np.concatenate([getattr(soup, entry.name) for soup in soups]) for entry in fields(Soup)))


def make_soup(
    corners: npt.NDArray[np.floating[Any]],
    uv: npt.NDArray[np.floating[Any]],
    material: Material,
    identity: int,
    normals: npt.NDArray[np.floating[Any]] | None = None,
    person: bool = False,
) -> Soup:
    """Triangles (T, 3, 3) of one material; flat normals unless `normals` (T, 3, 3) are given."""
    count = len(corners)
    if normals is None:
        normals = np.repeat(face_normals(corners)[:, None], 3, axis=1)
    return Soup(
        corners.astype(np.float32),
        normals.astype(np.float32),
        uv.astype(np.float32),
        np.tile(np.array(material.tint, np.float32), (count, 1)),
        np.full(count, material.layer, np.int32),
        np.full(count, material.gloss, np.float32),
        np.full(count, material.emission, np.float32),
        np.full(count, identity, np.int32),
        np.full(count, person, np.bool_),
    )


def face_normals(corners: npt.NDArray[np.floating[Any]]) -> Vector:
    """Unit normals, float64 (T, 3), of triangles (T, 3, 3)."""
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).astype(np.float64)
    return np.asarray(across / np.linalg.norm(across, axis=1, keepdims=True).clip(1e-12))


def planar_uv(corners: npt.NDArray[np.floating[Any]], normals: npt.NDArray[np.floating[Any]], tile_m: float) -> Vector:
    """Texture co-ordinates (T, 3, 2) by projection along the dominant axis of each triangle's normal (T, 3)."""
    axis = np.abs(normals).argmax(axis=1)
    first, second = np.array([2, 0, 0])[axis], np.array([1, 2, 1])[axis]
    rows = np.arange(len(corners))[:, None]
    u = corners[rows, np.arange(3)[None], first[:, None]]
    v = -corners[rows, np.arange(3)[None], second[:, None]]
    return np.asarray(np.stack([u, v], axis=-1) / tile_m)


def quad(
    origin: Vector, along: Vector, up: Vector, material: Material, identity: int, uv_offset: Vector | None = None
) -> Soup:
    """A parallelogram: `origin` is its lower left corner, `along` and `up` its edges."""
    a, b, c, d = origin, origin + along, origin + along + up, origin + up
    corners = np.array([[a, b, c], [a, c, d]])
    tile = material.tile_m
    width, height = (np.linalg.norm(along) / tile, np.linalg.norm(up) / tile) if tile else (1.0, 1.0)
    uv = np.array([[[0, height], [width, height], [width, 0]], [[0, height], [width, 0], [0, 0]]])
    if tile and uv_offset is not None:
        uv = uv + uv_offset
    return make_soup(corners, uv, material, identity)


_BOX_CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
_BOX_SIDES = np.array([[0, 1, 3, 2], [5, 4, 6, 7], [4, 5, 1, 0], [3, 7, 6, 2], [1, 5, 7, 3], [4, 0, 2, 6]])
_BOX_UV = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], np.float64)


def box(middle: Vector, size: Vector, rotation: Vector, material: Material, identity: int) -> Soup:
    """A box of `size` (3,) metres around `middle`, turned by `rotation` (3, 3)."""
    sides = (_BOX_CORNERS * size)[_BOX_SIDES]
    corners = np.concatenate([sides[:, [0, 1, 2]], sides[:, [0, 2, 3]]])
    if material.tile_m:
        uv = planar_uv(corners, face_normals(corners), material.tile_m)
    else:
        uv = np.concatenate([np.tile(_BOX_UV[[0, 1, 2]], (6, 1, 1)), np.tile(_BOX_UV[[0, 2, 3]], (6, 1, 1))])
    return make_soup(corners @ rotation.T + middle, uv, material, identity)


def lathe(
    radii: Vector, heights: Vector, material: Material, identity: int, position: Vector, rotation: Vector
) -> Soup:
    """A surface of revolution about y through the points (radius, height); 20 sides, smooth."""
    sides = 20
    angles = np.linspace(0, 2 * np.pi, sides + 1)
    ring = np.stack([np.cos(angles), np.zeros(sides + 1), np.sin(angles)], axis=-1)
    points = radii[:, None, None] * ring + heights[:, None, None] * np.array([0.0, 1.0, 0.0])
    slope = np.stack([np.gradient(heights), -np.gradient(radii)], axis=-1)
    slope /= np.linalg.norm(slope, axis=1, keepdims=True).clip(1e-9)
    normals = slope[:, None, :1] * ring + slope[:, None, 1:] * np.array([0.0, 1.0, 0.0])
    length = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(radii), np.diff(heights)))])
    tile = material.tile_m or max(float(length[-1]), 1e-6)
    around = max(1.0, float(np.rint(2 * np.pi * radii.max() / tile))) if material.tile_m else 1.0
    uv = np.stack(np.broadcast_arrays(angles / (2 * np.pi) * around, -length[:, None] / tile), axis=-1)
    return grid(points @ rotation.T + position, normals @ rotation.T, uv, material, identity)


def grid(
    points: npt.NDArray[np.floating[Any]],
    normals: npt.NDArray[np.floating[Any]],
    uv: npt.NDArray[np.floating[Any]],
    material: Material,
    identity: int,
) -> Soup:
    """A surface of (R, C) points with normals (R, C, 3) and texture co-ordinates (R, C, 2)."""
    rows, columns = points.shape[:2]
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1].ravel(), index[:-1, 1:].ravel(), index[1:, 1:].ravel(), index[1:, :-1].ravel()
    faces = np.concatenate([np.stack([a, b, c], axis=1), np.stack([a, c, d], axis=1)])
    return make_soup(
        points.reshape(-1, 3)[faces], uv.reshape(-1, 2)[faces], material, identity, normals.reshape(-1, 3)[faces]
    )


def turn_x(angle_rad: float) -> Vector:
    """Rotation about x, (3, 3)."""
    cosine, sine = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])


def turn_y(angle_rad: float) -> Vector:
    """Rotation about y (up), (3, 3)."""
    cosine, sine = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])


def turn_z(angle_rad: float) -> Vector:
    """Rotation about z, (3, 3)."""
    cosine, sine = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])


def random_turn(rng: np.random.Generator) -> Vector:
    """A random rotation, (3, 3)."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q *= np.sign(np.diag(r))
    if np.linalg.det(q) < 0:
        q[:, 0] *= -1
    return np.asarray(q)
