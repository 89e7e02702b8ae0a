import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import training
from training.confidence import MEASURES, left_right, median, optimal_area, sparsification_area, texture, uniqueness
from training.config import load_config
from training.data.bank import Batch
from training.data.stereo_pairs import layered_sequence
from training.data.transforms import Item
from training.errors import TrainingError
from training.models import create_model
from training.models.ccnn import CCNN
from training.proxies import Match, semi_global, with_outliers
from training.tasks import make_task

RECIPE = Path(training.__file__).parent / "configs" / "confidence_ccnn.yaml"


@pytest.fixture(scope="module")
def doubtful():
    """A drawn pair, its labels, a fifth of them made wrong, and which are wrong."""
    frame = next(layered_sequence("clean", 11, 1))
    match = with_outliers(semi_global(frame.left, frame.right), 0.2, 26, np.random.default_rng(0))
    return frame, match, np.abs(match.disparity_px - frame.disparity_px) > 1


def test_area_of_sparsification_by_hand():
    # errors among the best one, two, three, four: 0, 1/2, 1/3, 2/4
    assert sparsification_area([0.9, 0.8, 0.7, 0.6], [0, 1, 0, 1]) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert sparsification_area([0.6, 0.7, 0.8, 0.9], [0, 1, 0, 1]) == pytest.approx((1 + 1 / 2 + 2 / 3 + 1 / 2) / 4)
    # the order is of the confidences, not of the labels, and equal ones share their errors
    assert sparsification_area([0.6, 0.9, 0.7, 0.8], [1, 0, 0, 1]) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert sparsification_area([0.3] * 4, [1, 0, 0, 1]) == pytest.approx(0.5)
    assert sparsification_area([0.9, 0.3, 0.3], [0, 1, 0]) == pytest.approx((0 + 1 / 4 + 1 / 3) / 3)
    with pytest.raises(ValueError, match="0 confidences of 0 labels"):
        sparsification_area([], [])


def test_the_optimal_area_is_that_of_a_measure_that_knows():
    assert optimal_area(0.5) == pytest.approx(0.5 + 0.5 * math.log(0.5))
    assert optimal_area(0) == 0
    assert optimal_area(1) == 1
    wrong = np.arange(4000) < 1200
    assert sparsification_area(~wrong, wrong) > optimal_area(0.3)  # it knows them, but not in any order
    assert sparsification_area(-np.arange(4000.0)[::-1], wrong) == pytest.approx(optimal_area(0.3), abs=1e-3)


def test_measures_by_hand():
    blank = np.zeros((1, 6, 3), np.uint8)
    match = Match(np.array([[0, 2, 2, 2, 2.5, 1]], np.float32), np.array([[2, 2.5, 0, 0, 2, 9]], np.float32))
    assert left_right(blank, blank, match)[0].tolist() == [0, 0, 1, 0.75, 0, 0.5]
    spot = np.full((7, 7), 10, np.float32)
    spot[3, 3], spot[0, 6] = 11, 0
    found = median(blank, blank, Match(spot, spot))
    assert found[3, 3] == 0.5
    assert found[0, 6] == 0  # no label
    assert found[3, 2] == 1
    ramp = np.repeat(np.arange(0, 80, 8, dtype=np.uint8)[None], 8, 0)
    assert texture(ramp, ramp, match)[4, 5] == pytest.approx(0.5)  # eight levels a column
    assert texture(blank, blank, match).max() == 0


def test_a_label_that_another_beats_is_not_unique():
    wide = np.random.default_rng(0).integers(0, 256, (24, 71, 3), np.uint8)
    left, right = wide[:, :64].copy(), wide[:, 7:].copy()
    true, false = (np.full((24, 64), value, np.float32) for value in (7, 3))
    inner = np.s_[4:-4, 20:-8]
    assert uniqueness(left, right, Match(true, true))[inner].min() > 0.9
    assert uniqueness(left, right, Match(false, false))[inner].max() == 0


# the median does not see through patches that are wider than its window
@pytest.mark.parametrize(
    ("name", "most"), [("left_right", 0.8), ("uniqueness", 0.8), ("median", 0.97), ("combined", 0.8)]
)
def test_measures_find_wrong_labels(name, most, doubtful):
    frame, match, wrong = doubtful
    found = MEASURES[name](frame.left, frame.right, match)
    assert found.shape == wrong.shape
    assert 0 <= found.min() <= found.max() <= 1
    known = match.disparity_px > 0
    area, share = sparsification_area(found[known], wrong[known]), wrong[known].mean()
    assert optimal_area(share) < area < most * share


def test_ccnn_has_its_number_of_parameters():
    assert sum(parameter.numel() for parameter in create_model("ccnn").parameters()) == 128_125


def test_ccnn_sees_nine_by_nine_pixels():
    torch.manual_seed(0)
    disparity = (torch.rand(1, 21, 21) * 30).requires_grad_()
    CCNN()(disparity)[0, 10, 10].backward()
    rows, columns = np.nonzero(disparity.grad[0].numpy())
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (6, 14, 6, 14)


def batch_of(match, truth, confidence=None):
    size = match.shape
    item = Item(np.zeros((*size, 3), np.uint8), np.zeros(size, np.float32), np.zeros(size, np.float32))
    return Batch.of([dataclasses.replace(item, disparity_px=truth, proxy_px=match, confidence=confidence)])


def test_the_loss_counts_known_labels_of_pixels_with_truth():
    class Known(torch.nn.Module):
        def logits(self, disparity_px):
            return torch.full_like(disparity_px, math.log(3)).requires_grad_()  # a probability of 3/4

    proxy = np.array([[5, 5, 0, 5]], np.float32)
    truth = np.array([[5.5, 9, 5, 0]], np.float32)
    task = make_task(load_config(RECIPE))
    parts = task.losses(task.forward(Known()), batch_of(proxy, truth))
    # one right, one wrong, one without label, one without truth
    assert parts["loss"].item() == pytest.approx((-math.log(0.75) - math.log(0.25)) / 2)
    assert parts["right"].item() == 0.5
    agreed = dataclasses.replace(load_config(RECIPE), target="confidence", confidence="left_right")
    parts = make_task(agreed).losses(
        task.forward(Known()), batch_of(proxy, None, np.array([[0.5, 0.4, 0.9, 1]], np.float32))
    )
    assert parts["right"].item() == pytest.approx(2 / 3)


# first weights of these seeds put wrong labels first; others find some of them by luck
@pytest.mark.parametrize("seed", [0, 5])
def test_ccnn_learns_to_find_wrong_labels(seed, doubtful):
    frame, match, wrong = doubtful
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    network, task = CCNN(), make_task(load_config(RECIPE))
    forward, optimizer = task.forward(network), torch.optim.Adam(network.parameters(), 3e-3)
    learned, unseen = np.s_[:32, :64], np.s_[:, 72:]
    known = (match.disparity_px > 0)[unseen]

    def area():
        with torch.no_grad():
            found = network(torch.from_numpy(match.disparity_px[None]))[0].numpy()
        return sparsification_area(found[unseen][known], wrong[unseen][known])

    share = wrong[unseen][known].mean()
    assert area() > 1.2 * share
    batch = batch_of(*(np.ascontiguousarray(array[learned]) for array in (match.disparity_px, frame.disparity_px)))
    for _ in range(30):
        optimizer.zero_grad()
        task.losses(forward, batch)["loss"].backward()
        optimizer.step()
    assert area() < 0.93 * share


def test_recipes_that_cannot_work_are_refused():
    recipe = load_config(RECIPE)
    for changes, said in (
        ({"target": "confidence"}, "needs a measure"),
        ({"confidence": "ccnn"}, "one needs the other"),
        ({"outliers": 1.0}, "outliers is 1.0"),
        ({"pairs": ()}, "pairs needs an entry"),
    ):
        with pytest.raises(TrainingError, match=said):
            dataclasses.replace(recipe, **changes)
