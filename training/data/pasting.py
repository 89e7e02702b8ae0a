"""Copy-paste of people: whole figures cut out of masked photos, put into other pictures at street distance.

Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation", arXiv:2012.07177.
Few pictures at hand show people who are small; this makes them. Where one is pasted the depth is unknown.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from training.data.person import IGNORE, PERSON
from training.data.sample import Sample
from training.data.transforms import Item

_MIN_PIXELS = 40  # height of a figure worth cutting out
_STANDING = 1.6  # height over width, at least
_HEIGHTS = (0.06, 0.5)  # of a pasted figure, share of the picture's height
_HALO = 5  # pixels, side of the square around each pasted pixel in which depth is not trusted


@dataclass(frozen=True, slots=True)
class Cutout:
    """A standing person: image uint8 (h, w, 3) RGB, alpha float32 (h, w) in 0..1."""

    image: npt.NDArray[np.uint8]
    alpha: npt.NDArray[np.float32]


def cut_out(samples: Iterable[Sample]) -> list[Cutout]:
    """The samples' figures that stand whole in the picture: their mask touches no border and is taller than wide."""
    found = []
    for sample in samples:
        if sample.person is None:
            continue
        mask = np.where(sample.person == IGNORE, 0, sample.person).astype(np.uint8)
        inside = mask > PERSON // 2
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        if rows.size < _MIN_PIXELS or rows.size < _STANDING * columns.size:
            continue
        top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        if min(top, left) < 2 or bottom > mask.shape[0] - 2 or right > mask.shape[1] - 2:
            continue
        box = slice(top - 1, bottom + 1), slice(left - 1, right + 1)
        found.append(Cutout(sample.image[box], mask[box].astype(np.float32) / PERSON))
    return found


def paste(rng: np.random.Generator, item: Item, cutouts: list[Cutout]) -> Item:
    """One to five figures in `item`, feet below the middle, the smaller the nearer to it; far ones first."""
    height, width = item.image.shape[:2]
    image, depth, person = item.image.astype(np.float32), item.inverse_depth.copy(), item.person.copy()
    low, high = np.log(_HEIGHTS)
    sizes = np.sort(np.exp(rng.uniform(low, high, int(rng.integers(1, 6)))))
    horizon = rng.uniform(0.4, 0.6)
    for size in sizes:
        cutout = cutouts[int(rng.integers(len(cutouts)))]
        h = max(8, round(size * height))
        w = max(3, round(h * cutout.image.shape[1] / cutout.image.shape[0] * rng.uniform(0.85, 1.15)))
        figure = cv2.resize(cutout.image, (w, h), interpolation=cv2.INTER_AREA).astype(np.float32)
        alpha = cv2.resize(cutout.alpha, (w, h), interpolation=cv2.INTER_AREA)
        if rng.random() < 0.5:
            figure, alpha = figure[:, ::-1], alpha[:, ::-1]
        # eyes on the horizon: a standing camera sees every head at about its own height
        top = round((horizon - size * rng.uniform(0.0, 0.25)) * height)
        left = int(rng.integers(-w // 3, width - w // 2))
        rows, columns = slice(max(top, 0), min(top + h, height)), slice(max(left, 0), min(left + w, width))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            continue
        own = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
        there = rows, columns
        gain = np.clip((image[there].mean() + 20) / (figure[own].mean() + 20), 0.4, 1.6) ** rng.uniform(0.2, 0.9)
        a = alpha[own]
        image[there] += a[..., None] * (np.clip(figure[own] * gain, 0, 255) - image[there])
        person[there] = np.where(person[there] < 0, person[there], np.maximum(person[there] * (1 - a), a))
        person[there] = np.where(a > 0.5, a, person[there])
        hidden = np.zeros((height, width), np.uint8)
        hidden[there] = a > 0.05
        depth[cv2.dilate(hidden, np.ones((_HALO, _HALO), np.uint8)) > 0] = 0
    return replace(item, image=np.clip(image + 0.5, 0, 255).astype(np.uint8), inverse_depth=depth, person=person)
