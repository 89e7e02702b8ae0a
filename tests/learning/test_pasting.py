from dataclasses import replace

import numpy as np
import pytest
import torch

from training.data.bank import Bank, Sampler
from training.data.pasting import Cutout, cut_out, paste
from training.data.person import IGNORE
from training.data.sample import Sample
from training.data.transforms import NO_LABEL, Augmentation, Item
from training.errors import TrainingError

WHITE = Cutout(np.full((60, 20, 3), 255, np.uint8), np.ones((60, 20), np.float32))


def standing(top=10, bottom=80, left=40, right=64, height=96, width=128):
    mask = np.zeros((height, width), np.uint8)
    mask[top:bottom, left:right] = 255
    image = np.where(mask[..., None] > 0, np.uint8(200), np.uint8(30)).repeat(3, axis=2)
    return Sample("a", "humanseg", "a", image, person=mask)


def grey(height=120, width=160, label=0.0):
    return Item(
        np.full((height, width, 3), 60, np.uint8),
        np.full((height, width), 0.5, np.float32),
        np.full((height, width), label, np.float32),
    )


def test_a_whole_standing_figure_is_cut_out_with_its_soft_edge():
    sample = standing()
    sample.person[10:80, 39] = 100  # a soft edge is part of the figure, not of its extent
    (cutout,) = cut_out([sample])
    assert cutout.image.shape == (72, 26, 3)
    assert cutout.alpha.shape == (72, 26)
    assert cutout.alpha[1:-1, 1:-1].min() == 1
    assert cutout.alpha[1:-1, 0] == pytest.approx(100 / 255)
    assert not cutout.alpha[0].any()
    assert (cutout.image[1:-1, 1:-1] == 200).all()


@pytest.mark.parametrize(
    "sample",
    [
        standing(top=0),
        standing(bottom=96),
        standing(left=0, right=24),
        standing(left=104, right=128),
        standing(left=20, right=90),  # seated, lying, or several
        standing(top=40, bottom=70, left=40, right=50),  # too small
        replace(standing(), person=None),
        replace(standing(), person=np.zeros((96, 128), np.uint8)),
    ],
    ids=["head cut off", "feet cut off", "at the left", "at the right", "wide", "small", "no label", "nobody"],
)
def test_other_figures_are_left(sample):
    assert cut_out([sample]) == []


def test_unlabelled_pixels_are_no_part_of_a_figure():
    sample = standing()
    sample.person[:, :40] = IGNORE
    (cutout,) = cut_out([sample])
    assert not cutout.alpha[:, 0].any()


def test_the_same_seed_pastes_the_same():
    first, second = (paste(np.random.default_rng(3), grey(), [WHITE]) for _ in range(2))
    other = paste(np.random.default_rng(4), grey(), [WHITE])
    for name in ("image", "inverse_depth", "person"):
        assert np.array_equal(getattr(first, name), getattr(second, name))
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("seed", range(8))
def test_figures_are_people_and_hide_the_depth_behind_and_beside_them(seed):
    before = grey()
    after = paste(np.random.default_rng(seed), before, [WHITE])
    assert (before.image == 60).all()
    assert (before.inverse_depth == 0.5).all()
    changed = (after.image != 60).any(2)
    people = after.person > 0.5
    assert people.any()
    assert people.mean() < 0.6
    assert (after.person[~changed] == 0).all()
    assert (people[changed] | (after.person[changed] < 1)).all()
    # no depth where a figure is nor within two pixels of it, and depth everywhere else
    known = after.inverse_depth > 0
    assert not known[people].any()
    near = np.zeros_like(people)
    rows, columns = np.nonzero(people)
    for down in range(-2, 3):
        for right in range(-2, 3):
            near[np.clip(rows + down, 0, 119), np.clip(columns + right, 0, 159)] = True
    assert not known[near].any()
    assert (known | near).all()


def test_half_transparent_edges_mix_the_picture_and_the_label():
    half = Cutout(WHITE.image, np.full((60, 20), 0.4, np.float32))
    after = paste(np.random.default_rng(0), grey(), [half])
    seen = after.person > 0
    # never more than it shows, however many lie upon one another
    assert after.person.max() == pytest.approx(0.4)
    assert after.image[seen].max() < 200
    assert after.image[seen].min() > 60
    assert not after.inverse_depth[seen].any()


def test_pixels_without_label_get_one_only_under_a_figure():
    after = paste(np.random.default_rng(1), grey(label=NO_LABEL), [WHITE])
    covered = (after.image != 60).any(2)
    assert after.person[covered] == pytest.approx(1)
    assert (after.person[~covered] == NO_LABEL).all()
    assert covered.any()
    assert not covered.all()


def test_the_sampler_pastes_into_labelled_pictures_only(bank):
    people = {"a": [standing()]}
    rooms = {name: [replace(s, person=None) for s in samples] for name, samples in bank.train["rooms"].items()}
    mixed = Bank(train={"rooms": rooms, "humanseg": people})
    plain = Augmentation(1, 1, 1, 0)
    sizes = ((96, 128),)
    sources = {"rooms": 1.0, "humanseg": 1.0}
    pasted, bare = Sampler(mixed, sources, 5, plain, 1.0), Sampler(mixed, sources, 5, plain, 0.0)
    changed = []
    for step in range(12):
        with_figures, without = pasted.batch(step, 1, sizes), bare.batch(step, 1, sizes)
        labelled = bool((without.person >= 0).any())
        changed.append((labelled, not torch.equal(with_figures.person, without.person)))
    assert set(changed) == {(True, True), (False, False)}


def test_pasting_needs_a_figure(bank):
    with pytest.raises(TrainingError, match=r"paste is 0\.3, but no whole figure is in humanseg, p3m"):
        Sampler(bank, {"rooms": 1}, 0, Augmentation(), 0.3)
