"""Depth of one person: the main mode, and a plane for one who leans."""

import numpy as np
import pytest

from service.imaging import relief

MASK = np.ones((60, 40), bool)


def test_main_mode_not_the_mean() -> None:
    depth = np.full(MASK.shape, 0.4, np.float32)
    depth[:15] = 0.9  # an arm stretched out: a quarter of the pixels
    fitted = relief.fit(depth, MASK)
    assert fitted.level == pytest.approx(0.4, abs=0.01)
    assert (fitted.across, fitted.down) == (0, 0)


def test_plane_of_somebody_leaning() -> None:
    depth = 0.3 + 0.005 * np.arange(60, dtype=np.float32)[:, None] + np.zeros(MASK.shape, np.float32)
    fitted = relief.fit(depth, MASK)
    assert fitted.down == pytest.approx(0.005, abs=1e-4)
    assert fitted.at(20, 59) == pytest.approx(0.595, abs=0.002)
    assert fitted.level == pytest.approx(0.3 + 0.005 * 29.5, abs=0.002)  # in its own middle, not in the corner
    assert fitted.spread < 0.01


def test_spread_by_hand() -> None:
    values = np.array([[0.50, 0.52, 0.48, 0.54, 0.46]], np.float32)
    assert relief.fit(values, np.ones(values.shape, bool)).spread == pytest.approx(1.4826 * 0.02, rel=0.01)
