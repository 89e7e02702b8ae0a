"""Seeded things that are no people: wire fences, branches, balls, boxes, posts, lamps. All `Sprite`s."""

import cv2
import numpy as np

from .figures import Sprite
from .srgb import decode
from .textures import bricks, cloth, fractal, planks, soften, stripes

_FINE = 3


def _sprite(mask: np.ndarray, surface: np.ndarray, rounding: float = 0.0) -> Sprite:
    """Fine uint8 mask and linear surface (h, w, 3); the origin is the top left corner."""
    height, width = surface.shape[:2]
    cover = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)[..., None] / 255
    if rounding:
        inside = cv2.distanceTransform((cover[..., 0] > 0.3).astype(np.uint8), cv2.DIST_L2, 5)
        thickness = max(1.0, float(np.percentile(inside[inside > 0], 90)))
        surface = surface * (1 - rounding * (1 - np.sqrt(np.clip(inside / thickness, 0, 1))))[..., None]
    pixels = np.concatenate([surface * cover, cover], axis=2).astype(np.float32)
    return Sprite(cv2.GaussianBlur(pixels, (0, 0), 0.5), 0.0, 0.0)


def fence(rng: np.random.Generator, height: int, width: int, mesh_px: int = 46, wire_px: float = 2.2) -> Sprite:
    """Chain link: wires that cross, much thinner than any depth network's pixel, on posts."""
    mask = np.zeros((height * _FINE, width * _FINE), np.uint8)
    reach, mesh = (height + width) * _FINE, mesh_px * _FINE
    for offset in range(-reach, reach, mesh):
        wobble = rng.integers(-4, 5)
        for slope in (1, -1):
            ends = (offset + wobble, 0), (offset + wobble + slope * height * _FINE, height * _FINE)
            cv2.line(mask, *ends, 255, max(1, round(wire_px * _FINE)))
    for post in range(mesh_px * 2, width, mesh_px * 8):
        cv2.rectangle(mask, ((post - 5) * _FINE, 0), ((post + 5) * _FINE, height * _FINE), 255, -1)
    steel = decode(np.float32((0.62, 0.64, 0.66)) * (1 + 0.15 * fractal(rng, height, width, 30)[..., None]))
    return _sprite(mask, steel)


def branches(rng: np.random.Generator, height: int, width: int, twigs: int = 5) -> Sprite:
    """Boughs from the left or right edge, forking down to twigs of a pixel, with leaves."""
    wood, leaves = (np.zeros((height * _FINE, width * _FINE), np.uint8) for _ in range(2))

    def grow(x: float, y: float, angle: float, length: float, thick: float, level: int) -> None:
        end = x + length * np.cos(angle), y + length * np.sin(angle)
        a, b = (round(x * _FINE), round(y * _FINE)), (round(end[0] * _FINE), round(end[1] * _FINE))
        cv2.line(wood, a, b, 255, max(1, round(thick * _FINE)))
        if thick < 2:
            for _ in range(2):
                axes = tuple(int(_FINE * value) for value in (rng.uniform(4, 8), rng.uniform(2, 3.5)))
                spot = (int(b[0] + rng.normal() * 6 * _FINE), int(b[1] + rng.normal() * 6 * _FINE))
                cv2.ellipse(leaves, spot, axes, float(rng.uniform(0, 180)), 0, 360, 255, -1)
        if level:
            for _ in range(int(rng.integers(2, 4))):
                turned = angle + rng.normal() * 0.5
                grow(*end, turned, length * rng.uniform(0.6, 0.9), thick * 0.62, level - 1)

    for _ in range(twigs):
        left = rng.random() < 0.5
        start = (0.0 if left else float(width), rng.uniform(0, height * 0.7))
        grow(*start, (0 if left else np.pi) + rng.normal() * 0.4, width * rng.uniform(0.12, 0.2), rng.uniform(5, 9), 4)
    bark = decode(np.clip(np.float32((0.36, 0.27, 0.2)) * (1 + 0.3 * fractal(rng, height, width, 12)[..., None]), 0, 1))
    green = decode(
        np.clip(np.float32((0.36, 0.55, 0.2)) * (1 + 0.4 * fractal(rng, height, width, 20)[..., None]), 0, 1)
    )
    return over(_sprite(wood, bark), _sprite(leaves, green))


def over(behind: Sprite, before: Sprite) -> Sprite:
    """Two sprites of one size and origin as one."""
    through = 1 - before.pixels[..., 3:]
    return Sprite(behind.pixels * through + before.pixels, behind.origin_x, behind.origin_y)


def ball(rng: np.random.Generator, radius_px: int) -> Sprite:
    size = 2 * radius_px + 4
    mask = np.zeros((size * _FINE, size * _FINE), np.uint8)
    centre = size * _FINE // 2
    cv2.circle(mask, (centre, centre), radius_px * _FINE, 255, -1)
    surface = stripes(rng, size, size, rng.uniform(14, 30)) if rng.random() < 0.6 else cloth(rng, size, size, 400)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
    lit = np.clip(1.1 - 1.5 * np.hypot(x + 0.15, y + 0.2), 0.15, 1)
    return _sprite(mask, surface * lit[..., None])


def box(rng: np.random.Generator, height: int, width: int) -> Sprite:
    surface = (planks, bricks, stripes)[rng.integers(3)](rng, height, width)
    mask = np.zeros((height * _FINE, width * _FINE), np.uint8)
    mask[3 * _FINE : -3 * _FINE, 3 * _FINE : -3 * _FINE] = 255
    return _sprite(mask, surface)


def post(rng: np.random.Generator, height: int, width: int) -> Sprite:
    mask = np.zeros((height * _FINE, width * _FINE), np.uint8)
    mask[:, 2 * _FINE : -2 * _FINE] = 255
    colour = np.float32(rng.uniform(0.15, 0.6, 3)) * (1 + 0.2 * fractal(rng, height, width, 40)[..., None])
    return _sprite(mask, soften(decode(np.clip(colour, 0, 1))), rounding=0.5)


def plant(rng: np.random.Generator, height: int, width: int) -> Sprite:
    """A pot with long thin leaves."""
    pot, leaves = (np.zeros((height * _FINE, width * _FINE), np.uint8) for _ in range(2))
    fine = np.array((width, height)) * _FINE
    corners = np.array(((0.32, 0.68), (0.68, 0.68), (0.62, 0.99), (0.38, 0.99))) * fine
    cv2.fillPoly(pot, [corners.astype(np.int32)], 255)
    for _ in range(26):
        tip = np.array((rng.uniform(0.02, 0.98), rng.uniform(0.02, 0.5))) * fine
        root = np.array((rng.uniform(0.4, 0.6), 0.69)) * fine
        side = np.array((root[1] - tip[1], tip[0] - root[0]))
        middle = (tip + root) / 2 + side / np.linalg.norm(side) * rng.normal() * width * _FINE * 0.08
        wide = side / np.linalg.norm(side) * width * _FINE * 0.018
        leaf = np.array((root, middle + wide, tip, middle - wide))
        cv2.fillPoly(leaves, [leaf.astype(np.int32)], 255)
    clay = decode(np.clip(np.float32((0.7, 0.42, 0.3)) * (1 + 0.15 * fractal(rng, height, width, 30)[..., None]), 0, 1))
    green = decode(
        np.clip(np.float32((0.25, 0.5, 0.22)) * (1 + 0.5 * fractal(rng, height, width, 16)[..., None]), 0, 1)
    )
    return over(_sprite(pot, clay, rounding=0.4), _sprite(leaves, green))


def lamp(rng: np.random.Generator, white: float) -> Sprite:
    """A small round lamp, up to `white` times as bright as the sensor can hold; its origin is its middle."""
    side = 9
    glow = np.zeros((side * _FINE, side * _FINE), np.uint8)
    middle = tuple(int(side * _FINE / 2 + value) for value in rng.integers(-2, 3, 2))
    cv2.circle(glow, middle, int(rng.integers(3, 9)), 255, -1)
    cover = cv2.resize(glow, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)[..., None] / 255
    warm = np.float32((1, rng.uniform(0.55, 1), rng.uniform(0.25, 0.9)))
    light = cover * warm * np.float32(white * rng.uniform(0.1, 1) ** 1.5)
    return Sprite(np.concatenate([light, cover], axis=2), side // 2, side // 2)
