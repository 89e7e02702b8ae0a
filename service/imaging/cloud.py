"""Depth as points in space: a camera's view, what of it hangs together, and its triangles.

Axes are OpenCV's: x to the right, y down, z forward, the camera at the origin; a pixel (u, v) at depth z is at
z * ((u - cx) / f, (v - cy) / f, 1), with the optical axis through the middle of the photo and square pixels.

Where the photo steps from one thing to another the surface between them was not seen. Neighbours whose depths differ by
more than a share of the nearer one are therefore not joined, as in MoGe (Wang et al., CVPR 2025), which calls that a
depth edge; and a point that has such a step on both of its sides, in front and behind, floats in the air and is
dropped.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.contract import Size
from service.imaging import depth

FloatMap = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A grid of points as a camera saw them.

    Attributes:
        z: float32 (h, w), > 0, along the optical axis.
        values: float32 (h, w), the network's own, which `z` was made from.
        colours: uint8 (h, w, 3), sRGB.
        focal_share: focal length as a share of the photo's longer side.
        photo_size: (height, width) of the photo, which the grid covers.
        notes: what is to be known of it, by name, for the file.
    """

    z: FloatMap
    values: FloatMap
    colours: NDArray[np.uint8]
    focal_share: float
    photo_size: Size
    notes: dict[str, str]

    def points(self) -> FloatMap:
        """Places in space: float32 (h, w, 3), x to the right, y down, z forward, in the unit of `z`."""
        height, width = self.z.shape
        focal_px = self.focal_share * max(self.photo_size)
        across = (np.arange(width) + 0.5) * (self.photo_size[1] / width) - self.photo_size[1] / 2
        down = (np.arange(height) + 0.5) * (self.photo_size[0] / height) - self.photo_size[0] / 2
        points = np.empty((height, width, 3), np.float32)
        points[..., 0] = self.z * (across / focal_px).astype(np.float32)
        points[..., 1] = self.z * (down / focal_px).astype(np.float32)[:, None]
        points[..., 2] = self.z
        return points


def grid_size(size: Size, most: int) -> Size:
    """The largest (height, width) of the same aspect with no more than `most` points; `size` itself where that fits."""
    height, width = size
    if height * width <= most:
        return size
    shrink = math.sqrt(most / (height * width))
    rows = min(max(1, int(height * shrink)), most)
    return rows, min(max(1, int(width * shrink)), most // rows)


def distance(inverse_depth: FloatMap, far_ratio: float) -> FloatMap:
    """Relative inverse depth as distance: 1 for the nearest, `far_ratio` for the farthest; float32 (H, W).

    Relative depth knows neither scale nor shift. The scale is set by the nearest point, the shift by the ratio.
    """
    relative, _, _ = depth.normalise(inverse_depth)
    relative *= np.float32(1 - 1 / far_ratio)
    relative += np.float32(1 / far_ratio)
    return np.reciprocal(relative, out=relative)


def is_floating(z: FloatMap, depth_edge: float) -> NDArray[np.bool_]:
    """Points between two things: a step to something nearer on one side, and to something farther on the other.

    Args:
        z: float32 (h, w), > 0.
        depth_edge: least difference of two neighbours' depths that makes a step, as a share of the nearer one.
    """
    ratio = np.float32(1 + depth_edge)
    floating = np.zeros(z.shape, np.bool_)
    for along, marked in ((z, floating), (z.T, floating.T)):
        before, here, after = along[:-2], along[1:-1], along[2:]
        rises = (here > before * ratio) & (after > here * ratio)
        falls = (before > here * ratio) & (here > after * ratio)
        marked[1:-1] |= rises | falls
    return floating


def triangles(z: FloatMap, depth_edge: float) -> NDArray[np.uint32]:
    """Triangles between neighbouring points of a grid, none of them across a step.

    Each cell of four points is cut along the diagonal whose ends are nearer to each other in depth, so that one point
    beyond a step costs one triangle and not two.

    Args:
        z: float32 (h, w), > 0.
        depth_edge: see `is_floating`.

    Returns:
        (n, 3), indices into the flattened grid; counter-clockwise as the camera sees them.
    """
    height, width = z.shape
    index = np.arange(height * width, dtype=np.uint32).reshape(height, width)
    corners = [(slice(None, -1), slice(None, -1)), (slice(None, -1), slice(1, None))]
    corners += [(slice(1, None), slice(None, -1)), (slice(1, None), slice(1, None))]
    a, b, c, d = (index[corner].ravel() for corner in corners)
    za, zb, zc, zd = (z[corner].ravel() for corner in corners)
    falling = np.maximum(za, zd) * np.minimum(zb, zc) <= np.maximum(zb, zc) * np.minimum(za, zd)  # a to d
    third, z_third = np.where(falling, d, b), np.where(falling, zd, zb)
    first, z_first = np.where(falling, a, c), np.where(falling, za, zc)
    ratio = np.float32(1 + depth_edge)
    kept: list[NDArray[Any]] = []
    for corners_of, depths in (
        ((a, c, third), (za, zc, z_third)),
        ((first, d, b), (z_first, zd, zb)),
    ):
        low = np.minimum(np.minimum(depths[0], depths[1]), depths[2])
        high = np.maximum(np.maximum(depths[0], depths[1]), depths[2])
        joined = high <= low * ratio
        kept.append(np.stack([corner[joined] for corner in corners_of], axis=1))
    return np.concatenate(kept)
