"""The thin lens over flat layers, traced: what a camera would have taken.

out(p) = mean over points (u, v) of the lens of the front-to-back composite of all layers, each seen at
p + strength_px * (d - focus) * (u, v), d its own inverse depth; light is linear, the sensor clips the mean at white.
On a tilted layer d varies with the place seen, d(q) = d0 + g . q, so q = p + strength_px * (d(q) - focus) * w is
solved: (I - strength_px * w g^T) q = p + strength_px * (d0 - focus) * w, an affine map of p.
"""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from . import scenes, srgb
from .scenes import HEIGHT, MARGIN_PX, WIDTH, Layer, LayeredScene, View

POINTS, NIGHT_FACTOR = 1024, 4
VERSION = 2


def lens_points(count: int, seed: int, blades: int = 0) -> np.ndarray:
    """(count, 2), strewn evenly over the aperture like the seeds of a sunflower, turned by `seed`.

    The disc has radius 1 (Vogel, 1979); a polygon has the disc's area and a corner at the top, each circle drawn out
    to it with equal areas. 256 such points are as good as 1024 strewn at random in the cells of a grid.
    """
    index = np.arange(count) + 0.5
    out = np.sqrt(index / count)[:, None]
    turn = (index * (3 - np.sqrt(5)) / 2 + np.random.default_rng(seed).random()) % 1
    if not blades:
        return out * np.stack([np.cos(2 * np.pi * turn), np.sin(2 * np.pi * turn)], axis=1)
    circumradius = np.sqrt(2 * np.pi / (blades * np.sin(2 * np.pi / blades)))
    sector, along = np.divmod(turn * blades, 1)
    first, last = (2 * np.pi * (sector + step) / blades - np.pi / 2 for step in (0, 1))
    start, end = (np.stack([np.cos(angle), np.sin(angle)], axis=1) for angle in (first, last))
    return circumradius * out * (start + along[:, None] * (end - start))


class _Pane:
    """A layer ready to be seen through one point of the lens after another."""

    def __init__(self, layer: Layer, focus: float, strength_px: float, in_focus: bool) -> None:
        self.light = np.ascontiguousarray(layer.light[..., :3])
        self.opaque = bool((layer.light[..., 3] == 1).all())
        self.through = np.repeat(1 - layer.light[..., 3:], 3, axis=2)
        self.corner = np.array((layer.left, layer.top), np.float64)
        self.far_corner = self.corner + layer.light.shape[1::-1] - 1
        constant, *gradient = layer.plane
        self.gradient = np.zeros(2) if in_focus else strength_px * np.array(gradient)
        self.offset = 0.0 if in_focus else strength_px * (constant - focus)

    def put(self, canvas: np.ndarray, point: np.ndarray) -> None:
        """Lay the layer over `canvas` (H, W, 3) as seen through `point`."""
        inverse = np.eye(2) - np.outer(point, self.gradient)
        corners = np.array(
            [(x, y) for x in (self.corner[0], self.far_corner[0]) for y in (self.corner[1], self.far_corner[1])]
        )
        places = corners @ inverse.T - self.offset * point
        low = np.maximum(np.floor(places.min(axis=0)).astype(int), 0)
        high = np.minimum(np.ceil(places.max(axis=0)).astype(int) + 1, canvas.shape[1::-1])
        if (high <= low).any():
            return
        size = (int(high[0] - low[0]), int(high[1] - low[1]))
        target = canvas[low[1] : high[1], low[0] : high[0]]
        if not self.gradient.any():
            self._put_shifted(target, low + self.offset * point - self.corner)
            return
        forward = np.linalg.inv(inverse)
        shift = forward @ (low + self.offset * point) - self.corner
        affine = np.column_stack([forward, shift])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        light = cv2.warpAffine(self.light, affine, size, flags=flags, borderValue=(0, 0, 0))
        through = cv2.warpAffine(self.through, affine, size, flags=flags, borderValue=(1, 1, 1))
        _over(target, light, through)

    def _put_shifted(self, target: np.ndarray, start: np.ndarray) -> None:
        """As above for a layer without tilt: `start` is the place on the layer of the target's first pixel."""
        whole = np.floor(start).astype(int)
        share = start - whole
        height, width = target.shape[:2]
        rows, columns = _reach(whole[1], height, self.light.shape[0]), _reach(whole[0], width, self.light.shape[1])
        padding = (rows[1], rows[2], columns[1], columns[2])
        light = _shifted(self.light[rows[0], columns[0]], padding, share, 0)
        if self.opaque and not any(padding):
            target[:] = light
        else:
            _over(target, light, _shifted(self.through[rows[0], columns[0]], padding, share, 1))


def _reach(start: int, length: int, available: int) -> tuple[slice, int, int]:
    """The `length` + 1 pixels from `start` on: those there are, and how many are missing before and behind."""
    first, last = max(start, 0), min(start + length + 1, available)
    return slice(first, max(first, last)), first - start, start + length + 1 - max(first, last)


def _shifted(source: np.ndarray, padding: tuple[int, int, int, int], share: np.ndarray, beyond: float) -> np.ndarray:
    """Linear interpolation between each pixel and the next in both axes; exact, where warpAffine has 1/32 steps."""
    if any(padding):
        source = cv2.copyMakeBorder(source, *padding, cv2.BORDER_CONSTANT, value=(beyond, beyond, beyond))
    height, width = source.shape[0] - 1, source.shape[1] - 1
    across = _buffer(0, height + 1, width)
    cv2.addWeighted(source[:, :-1], 1 - share[0], source[:, 1:], share[0], 0, dst=across)
    down = _buffer(1 + int(beyond), height, width)
    return cv2.addWeighted(across[:-1], 1 - share[1], across[1:], share[1], 0, dst=down)


_SCRATCH = [np.empty(3 * (HEIGHT + 2 * MARGIN_PX + 1) * (WIDTH + 2 * MARGIN_PX + 1), np.float32) for _ in range(3)]


def _buffer(use: int, height: int, width: int) -> np.ndarray:
    """The same memory for the same use every time: fresh pages cost more than the arithmetic."""
    return _SCRATCH[use][: 3 * height * width].reshape(height, width, 3)


def _over(target: np.ndarray, light: np.ndarray, through: np.ndarray) -> None:
    cv2.multiply(target, through, dst=target)
    cv2.add(target, light, dst=target)


def expose(
    layers: Iterable[Layer],
    *,
    focus: float,
    strength_px: float,
    subject: int | None = None,
    blades: int = 0,
    points: int = POINTS,
    seed: int = 0,
    size: tuple[int, int] = (HEIGHT, WIDTH),
) -> np.ndarray:
    """Mean linear light at the sensor, not clipped: float32 (H, W, 3)."""
    panes = [_Pane(layer, focus, strength_px, subject is not None and layer.person == subject) for layer in layers]
    if strength_px == 0:
        points = 1
    total, canvas = np.zeros((*size, 3), np.float64), np.empty((*size, 3), np.float32)
    batch = np.zeros((*size, 3), np.float32)
    for index, point in enumerate(lens_points(points, seed, blades)):
        canvas[:] = 0
        for pane in panes:
            pane.put(canvas, point)
        np.add(batch, canvas, out=batch)
        if index % 32 == 31 or index == points - 1:
            total += batch
            batch[:] = 0
    return (total / points).astype(np.float32)


def pinhole(scene: LayeredScene) -> np.ndarray:
    """The photo that is to be refocused: everything sharp, uint8 sRGB (H, W, 3)."""
    return srgb.photo(expose(scene.layers, focus=0, strength_px=0))


def photograph(scene: LayeredScene, view: View, lens_seed: int = 0, points: int = POINTS) -> np.ndarray:
    """The view through the lens, uint8 sRGB (H, W, 3); four times the points by night, when lamps outshine white."""
    return srgb.photo(
        expose(
            scene.layers,
            focus=view.focus,
            strength_px=view.strength_px,
            subject=view.subject,
            blades=view.blades,
            points=points * NIGHT_FACTOR if scene.night else points,
            seed=lens_seed,
        )
    )


def cached(scene: LayeredScene, cache: Path, seed: int, points: int = POINTS, kind: str = "") -> list[np.ndarray]:
    """The truths of a scene's views; made once and kept in `cache` as PNG, named by the versions of the code."""
    cache.mkdir(parents=True, exist_ok=True)
    truths = []
    for index, view in enumerate(tqdm(scene.views, desc=f"truth {scene.number} {scene.name}", leave=False)):
        version = f"{scenes.VERSION}.{VERSION}"
        path = cache / f"truth{kind}-v{version}-seed{seed}-points{points}-{scene.number:02}-{index}.png"
        if not path.exists():
            cv2.imwrite(str(path), photograph(scene, view, points=points)[..., ::-1])
        truths.append(np.ascontiguousarray(cv2.imread(str(path))[..., ::-1]))
    return truths
