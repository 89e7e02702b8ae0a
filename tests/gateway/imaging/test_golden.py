"""Pictures compared with those committed: decoding, depth colours, refocus. `--update-golden` rewrites them."""

from collections.abc import Callable

import cv2
import numpy as np

from service.imaging import codec, depth, refocus
from service.imaging.geometry import resize

Golden = Callable[..., None]


def still_life() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A 144 x 192 scene: checkered floor, wall, a near ball, a drawn person in the middle; with depth and his matte."""
    height, width = 144, 192
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    image = np.empty((height, width, 3), np.float32)
    image[:] = (90, 120, 150)
    image[..., 0] += 40 * np.sin(x / 5)
    inverse_depth = np.full((height, width), 0.1, np.float32)
    floor = y > 80
    slope = (y - 80) / 64
    squares = (np.floor((x - 96) / (4 + 12 * np.maximum(slope, 0))) + np.floor(24 / (0.3 + np.maximum(slope, 0)))) % 2
    image[floor] = np.where(squares[floor][:, None] > 0, (200, 190, 170), (60, 50, 40))
    inverse_depth[floor] = 0.1 + 0.6 * slope[floor]
    person = np.zeros((height, width), np.float32)
    cv2.circle(person, (110, 50), 11, 1.0, -1, cv2.LINE_AA)
    cv2.ellipse(person, (110, 92), (18, 33), 0, 0, 360, 1.0, -1, cv2.LINE_AA)
    image = image * (1 - person[..., None]) + np.array([190, 60, 50], np.float32) * person[..., None]
    inverse_depth[person > 0.5] = 0.5
    ball = cv2.circle(np.zeros((height, width), np.float32), (45, 115), 20, 1.0, -1, cv2.LINE_AA)
    image = image * (1 - ball[..., None]) + np.array([40, 160, 70], np.float32) * ball[..., None]
    inverse_depth[ball > 0.5] = 0.95
    return np.clip(image, 0, 255).round().astype(np.uint8), inverse_depth, person * (1 - ball)


def test_depth_colours(golden: Golden) -> None:
    _, inverse_depth, _ = still_life()
    golden(depth.colourise(inverse_depth, "turbo"), "depth_turbo", mean=0.5, largest=6)


def test_depth_in_16_bits(golden: Golden) -> None:
    _, inverse_depth, _ = still_life()
    golden(depth.quantise16(inverse_depth)[0], "depth_png16", mean=1, largest=2)


def test_sharp_depth_edges(golden: Golden) -> None:
    image, inverse_depth, _ = still_life()
    small = resize(cv2.GaussianBlur(inverse_depth, (0, 0), 2), (72, 96))
    golden(depth.colourise(depth.upsample_guided(small, image), "viridis"), "depth_guided", mean=0.7, largest=40)


def test_person_in_focus(golden: Golden) -> None:
    image, inverse_depth, person = still_life()
    scene = refocus.prepare(image, inverse_depth, person[None])
    golden(refocus.render(scene, focus=0.5, strength_px=14, subject=0), "focus_person", mean=0.5, largest=12)


def test_ball_in_focus(golden: Golden) -> None:
    image, inverse_depth, person = still_life()
    scene = refocus.prepare(image, inverse_depth, person[None])
    golden(refocus.render(scene, focus=0.95, strength_px=14), "focus_ball", mean=0.5, largest=12)


def test_wall_in_focus(golden: Golden) -> None:
    image, inverse_depth, person = still_life()
    scene = refocus.prepare(image, inverse_depth, person[None])
    golden(refocus.render(scene, focus=0.1, strength_px=14, blades=6), "focus_wall", mean=0.5, largest=12)


def test_jpeg_decoded(golden: Golden) -> None:
    image, _, _ = still_life()
    golden(codec.decode(codec.encode_image(image, "jpeg", quality=80)).pixels, "jpeg_decoded", mean=0.5, largest=12)
