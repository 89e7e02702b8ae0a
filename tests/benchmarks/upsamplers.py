"""Peers of `service.imaging.sharpening`: the textbook ways to enlarge a depth map along a photo's edges.

Plain NumPy and OpenCV, written for comparing results; the windows are in pixels of the network's map, as ours are.
All take a map (h, w) float32 and a photo uint8 (H, W, 3), and give float32 (H, W).
"""

import cv2
import numpy as np

from service.imaging.geometry import neighbourhood, resize
from service.imaging.sharpening import working_grid
from service.imaging.snapping import snap_edges


def plain(network_map: np.ndarray, photo: np.ndarray) -> np.ndarray:
    """Linear interpolation: `edges=raw`."""
    return resize(network_map, photo.shape[:2])


def opencv_linear(network_map: np.ndarray, photo: np.ndarray) -> np.ndarray:
    """The same without our wrapper."""
    return cv2.resize(network_map, photo.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def snapped(network_map: np.ndarray, photo: np.ndarray) -> np.ndarray:
    """Plain, then each pixel of a step to the nearer level within 2.5 pixels of the map; the photo is not looked at."""
    values, low, span = _relative(network_map, photo)
    return snap_edges(values, max(1, round(2.5 * _scale(network_map, photo)))) * span + low


def guided_filter(network_map: np.ndarray, photo: np.ndarray, window: float = 4, epsilon: float = 1e-3) -> np.ndarray:
    """He, Sun and Tang 2013 (doi 10.1109/TPAMI.2012.213) at the photo's size, gray guide."""
    values, low, span = _relative(network_map, photo)
    guide = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY).astype(np.float32) / np.float32(255)
    side = 2 * max(1, round(window * _scale(network_map, photo))) + 1

    def mean(array: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(array, -1, (side, side), borderType=cv2.BORDER_REFLECT)

    covariance = mean(guide * values) - mean(guide) * mean(values)
    slope = covariance / (mean(guide * guide) - mean(guide) ** 2 + np.float32(epsilon))
    offset = mean(values) - slope * mean(guide)
    return np.clip(mean(slope) * guide + mean(offset), 0, 1) * span + low


def joint_bilateral(
    network_map: np.ndarray, photo: np.ndarray, reach: int = 4, sigma_px: float = 2, sigma_colour: float = 0.08
) -> np.ndarray:
    """Kopf et al. 2007 (doi 10.1145/1276377.1276497): means of the map weighted by distance and likeness of colour."""
    height, width = photo.shape[:2]
    rows, columns = network_map.shape
    colours = photo.astype(np.float32) / 255
    small = resize(photo, (rows, columns)).astype(np.float32) / 255
    y = (np.arange(height) + 0.5) * rows / height - 0.5
    x = (np.arange(width) + 0.5) * columns / width - 0.5
    y0, x0 = np.rint(y).astype(int), np.rint(x).astype(int)
    total, weights = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            place = np.ix_(np.clip(y0 + down, 0, rows - 1), np.clip(x0 + right, 0, columns - 1))
            square_px = (y0 + down - y)[:, None] ** 2 + (x0 + right - x)[None] ** 2
            unlike = ((colours - small[place]) ** 2).sum(-1)
            weight = np.exp(-square_px / (2 * sigma_px**2) - unlike / (2 * sigma_colour**2)).astype(np.float32) + 1e-8
            total += weight * network_map[place]
            weights += weight
    return total / weights


def domain_transform(
    network_map: np.ndarray, photo: np.ndarray, sigma_px: float = 8, sigma_colour: float = 0.2, rounds: int = 3
) -> np.ndarray:
    """Gastal and Oliveira 2011 (doi 10.1145/2010324.1964964), the recursive form, on the plain map."""
    values = plain(network_map, photo).copy()
    colours = photo.astype(np.float32) / 255
    sigma = sigma_px * _scale(network_map, photo)
    for index in range(rounds):
        share = sigma * 3**0.5 * 2 ** (rounds - index - 1) / (4**rounds - 1) ** 0.5
        for axis in (1, 0):
            distance = 1 + sigma / sigma_colour * np.abs(np.diff(colours, axis=axis)).sum(-1)
            keep = np.moveaxis(np.exp(-(2**0.5) / share * distance).astype(np.float32), axis, 0)
            lines = np.ascontiguousarray(np.moveaxis(values, axis, 0))
            for line in range(1, len(lines)):
                lines[line] += keep[line - 1] * (lines[line - 1] - lines[line])
            for line in range(len(lines) - 2, -1, -1):
                lines[line] += keep[line] * (lines[line + 1] - lines[line])
            values = np.ascontiguousarray(np.moveaxis(lines, 0, axis))
    return values


def _scale(network_map: np.ndarray, photo: np.ndarray) -> float:
    return photo.shape[1] / network_map.shape[1]


def _relative(network_map: np.ndarray, photo: np.ndarray) -> tuple[np.ndarray, np.float32, np.float32]:
    """The plain map in 0..1, and what it was: low and span."""
    low, span = network_map.min(), max(np.ptp(network_map), np.float32(1e-12))
    return (plain(network_map, photo) - low) / span, low, span


def snapped_and_guided(network_map: np.ndarray, photo: np.ndarray) -> np.ndarray:
    """What came before ours: steps made hard, then the fast guided filter (He and Sun 2015, arXiv 1505.00996).

    Gray guide, windows of 3 pixels of the map, held within the values the map has there.
    """
    values, low, span = _relative(network_map, photo)
    size, per_map_px = working_grid(photo.shape[:2], network_map.shape)
    radius = max(1, round(3 * per_map_px))
    side = 2 * min(radius, max(1, min(size) - 1)) + 1
    gray = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    guide = resize(gray, size).astype(np.float32) / np.float32(255)
    target = snap_edges(resize(values, size), max(1, round(2.5 * per_map_px)))

    def mean(array: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(array, -1, (side, side), borderType=cv2.BORDER_REFLECT)

    covariance = mean(guide * target) - mean(guide) * mean(target)
    variance = np.maximum(mean(guide * guide) - mean(guide) ** 2, 0) + np.float32(0.03**2)
    spread = np.maximum(mean(target * target) - mean(target) ** 2, 0) + np.float32(0.005**2)
    slope, trust = covariance / variance, mean(np.clip(covariance**2 / (variance * spread), 0, 1))
    offset = mean(mean(target) - slope * mean(guide)) * trust + (1 - trust) * target
    full = resize(mean(slope) * trust, gray.shape) * gray / np.float32(255) + resize(offset, gray.shape)
    element = neighbourhood(radius)
    least, most = (resize(around(target, element), gray.shape) for around in (cv2.erode, cv2.dilate))
    return np.clip(full, least, most) * span + low
