import math
from itertools import pairwise

import pytest

from training.errors import TrainingError
from training.lr_range import Curve, plot, range_test
from training.start import FirstWeights


def test_the_steepest_rate_is_where_the_loss_falls_fastest():
    rates = [10.0**-k for k in range(7, 0, -1)]
    assert Curve(rates, [1.0, 1.0, 0.9, 0.5, 0.1, 0.05, 3.0]).steepest == pytest.approx(1e-4)
    with pytest.raises(TrainingError, match="made 2 steps: at least 3"):
        _ = Curve(rates[:2], [1.0, 1.0]).steepest


def test_chance_in_the_first_losses_and_between_two_steps_is_not_taken_for_learning():
    rates = [10 ** (-6 + k / 10) for k in range(60)]
    # falls from step 30 to 40, by 0.05 a step
    losses = [4.0 - 0.05 * min(max(k - 30, 0), 10) for k in range(60)]
    losses[0], losses[1] = 6.0, 5.0
    losses[50] += 0.1
    assert rates[29] < Curve(rates, losses).steepest < rates[41]


def test_rates_grow_by_a_factor_and_too_much_ends_the_test(tiny, bank, tmp_path):
    curve = range_test(tiny, bank, FirstWeights(), lowest=1e-6, highest=1e6, steps=7)
    assert 3 <= len(curve.rates) <= 7
    assert all(b / a == pytest.approx(100) for a, b in pairwise(curve.rates))
    assert math.isfinite(curve.losses[0])
    plot(curve, "tiny", tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(TrainingError, match=r"cannot write .*curve\.nothing"):
        plot(curve, "tiny", tmp_path / "curve.nothing")
