"""What repeats goes on behind what hides it; what does not, stays smooth."""

import cv2
import numpy as np
import pytest

from service.imaging import layers, lens, light
from service.imaging.filling import push_pull
from service.imaging.patterns import add_patterns
from service.imaging.refocus import prepare, render


def tiles(height: int, width: int, side: int) -> np.ndarray:
    """Checkered, linear light 0.1 and 0.7: float32 (height, width)."""
    y, x = np.mgrid[0:height, 0:width] // side
    return np.where((x + y) % 2, 0.7, 0.1).astype(np.float32)


def hidden(values: np.ndarray, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A layer of those values that is hidden somewhere, and its smooth continuation: (H, W, 4) each."""
    known = (~where).astype(np.float32)
    rgba = np.dstack([values, values, values, np.ones_like(values)]) * known[..., None]
    return rgba, push_pull(rgba, known)


def square() -> np.ndarray:
    where = np.zeros((120, 160), bool)
    where[40:80, 60:100] = True
    return where


@pytest.mark.parametrize("side", [5, 7, 12])
def test_tiles_go_on(side: int) -> None:
    where, truth = square(), tiles(120, 160, side)
    rgba, smooth = hidden(truth, where)
    continued = smooth.copy()
    add_patterns(continued, rgba, where)
    assert np.abs(smooth[where][:, 0] - truth[where]).mean() > 0.25
    assert np.abs(continued[where][:, 0] - truth[where]).mean() < 0.1
    assert (continued[~where] == smooth[~where]).all()
    assert (continued[..., 3] == smooth[..., 3]).all()


def test_not_where_it_is_not_wanted() -> None:
    where = square()
    rgba, smooth = hidden(tiles(120, 160, 7), where)
    continued = smooth.copy()
    add_patterns(continued, rgba, np.zeros_like(where))
    assert (continued == smooth).all()


@pytest.mark.parametrize("kind", ["noise", "plain", "clouds"])
def test_what_does_not_repeat_stays_smooth(kind: str) -> None:
    where, rng = square(), np.random.default_rng(1)
    values = rng.uniform(0, 0.8, where.shape).astype(np.float32)
    if kind == "clouds":
        values = cv2.GaussianBlur(values, (0, 0), 5) * 5 - 1.6
    values = np.full_like(values, 0.4) if kind == "plain" else values.clip(0, 1)
    rgba, smooth = hidden(values, where)
    continued = smooth.copy()
    add_patterns(continued, rgba, where)
    assert np.abs(continued - smooth)[where].mean() < 0.03


def test_tiles_on_one_half_do_not_cross_to_the_plain_other() -> None:
    """The layer as a whole repeats, round about the hidden part nothing does."""
    values = tiles(120, 240, 6)
    values[:, 110:] = 0.4
    where = np.zeros(values.shape, bool)
    where[40:80, 170:210] = True
    rgba, smooth = hidden(values, where)
    continued = smooth.copy()
    add_patterns(continued, rgba, where)
    assert np.abs(continued - smooth).max() < 0.01


def bar_before_tiles() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Photo, inverse depth, the tiles' linear light and where a grey bar stands before them."""
    wall = tiles(192, 288, 24)
    bar = np.zeros(wall.shape, bool)
    bar[:, 128:168] = True
    photo = light.to_display(np.dstack([np.where(bar, np.float32(0.3), wall)] * 3))
    return photo, np.where(bar, np.float32(0.8), np.float32(0.2)), wall, bar


def test_sharp_tiles_show_through_the_rim_of_what_is_blurred_before_them(monkeypatch: pytest.MonkeyPatch) -> None:
    photo, inverse_depth, wall, bar = bar_before_tiles()
    radius, scene = 12, prepare(photo, inverse_depth)
    coverage = lens.blur(np.dstack([bar.astype(np.float32)] * 4), radius, 1)[..., 0]
    truth = light.to_display(np.dstack([coverage * np.float32(0.3) + (1 - coverage) * wall] * 3))[..., 0].astype(int)
    rim = bar & (coverage < 0.95)

    def error() -> float:
        result = render(scene, focus=0.2, strength_px=radius / 0.6)[..., 0]
        return float(np.abs(result - truth)[rim].mean())

    continued = error()
    monkeypatch.setattr(layers, "add_patterns", lambda *_: None)
    assert continued < 0.4 * error()


def test_not_behind_what_is_blurred_behind_the_focus(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lens moves both the same way there, so most of what is hidden is never seen."""
    photo, inverse_depth, _, _ = bar_before_tiles()
    inverse_depth[150:, 20:60] = 1.0
    scene = prepare(photo, inverse_depth)
    result = render(scene, focus=1.0, strength_px=15)[:, 90:]
    monkeypatch.setattr(layers, "add_patterns", lambda *_: None)
    assert (render(scene, focus=1.0, strength_px=15)[:, 90:] == result).all()
