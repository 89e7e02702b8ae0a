"""Crowds of cut-out people over photographs, with everybody's chest and height: people are told apart by them.

Copy-paste as Ghiasi et al., arXiv:2012.07177, but people stand on one floor, so that the smaller stand higher and
farther, and they are placed to be confused: side by side in rows, and one half behind the other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from service.contract import Size
from service.imaging import depth, matte
from training.data.pasting import Cutout

PHOTO_SIZE: Size = (512, 768)
"""(height, width) in pixels of a composed photo."""

_CHEST = 0.235  # from the top of the head, share of the height
_MOST_PEOPLE = 8
_SOLID = 0.5  # of alpha: who owns a pixel
_ALPHA = (0.35, 0.85)  # of a cut-out that become 0 and 1: outlines of masks are wide and show what was behind

Floats = npt.NDArray[np.float32]
Background = Callable[[], npt.NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class Crowd:
    """A composed photo with its truth.

    Attributes:
        photo: uint8 (H, W, 3) RGB.
        mattes: float32 (N, H, W), 0..1, what is seen of each person, farthest first; their sum is at most 1.
        inverse_depth: float32 (H, W), larger = nearer, in a unit of its own.
        people: float32 (N, 3): x and y of each chest, which may be hidden or outside, and the height of the whole
            figure, pixels.
    """

    photo: npt.NDArray[np.uint8]
    mattes: Floats
    inverse_depth: Floats
    people: Floats

    @property
    def owner(self) -> npt.NDArray[np.uint8]:
        """Whose pixel it is, uint8 (H, W): 0 nobody's, else the person's place in `people` plus 1."""
        owner = np.zeros(self.photo.shape[:2], np.uint8)
        for number, seen in enumerate(self.mattes, 1):
            owner[seen > _SOLID] = number
        return owner


@dataclass(frozen=True, slots=True)
class NetworksView:
    """Maps of a crowd as the service has them of a photo, at the photo's size.

    Attributes:
        person: float32 (H, W), 0..1.
        inverse_depth: float32 (H, W), relative, 0..1, 1 = nearest.
    """

    person: Floats
    inverse_depth: Floats


@dataclass(frozen=True, slots=True)
class _Floor:
    """The camera's view of the floor: who stands on it at inverse depth d is d * `size_px` tall."""

    horizon_px: float
    eye: float
    size_px: float


def draw_crowd(seed: int, people: Sequence[Sequence[Cutout]], backgrounds: Sequence[Background]) -> Crowd:
    """The crowd of a seed: one to eight people; the same seed and material give the same bytes.

    Args:
        seed: Not below 0.
        people: Cut-outs by kind, such as photographed and rendered ones; every kind has the same chance.
        backgrounds: Each reads a picture, uint8 (h, w, 3) RGB of any size.

    Raises:
        BrokenSampleError: The background cannot be read.
        ValueError: No cut-out or no background.
    """
    kinds = [kind for kind in people if kind]
    if not kinds or not backgrounds:
        raise ValueError("a crowd needs people and a background")
    rng = np.random.default_rng((seed, 5))
    photo = _background(rng, backgrounds[int(rng.integers(len(backgrounds)))]())
    height, width = PHOTO_SIZE
    floor = _Floor(rng.uniform(0.15, 0.5) * height, rng.uniform(0.75, 1.05), rng.uniform(480, 900))
    rows = np.arange(height, dtype=np.float32)[:, None]
    farthest = 0.03 + 0.05 * rng.random()
    inverse = np.maximum((rows - floor.horizon_px) / (floor.eye * floor.size_px), farthest) * np.ones((1, width))
    inverse = inverse.astype(np.float32)
    if rng.random() < 0.3:  # a wall instead of a floor
        inverse[:] = rng.uniform(0.02, 0.15)
    mattes: list[Floats] = []
    truth = []
    for nearness, x in _places(rng, floor, width):
        kind = kinds[int(rng.integers(len(kinds)))]
        image, alpha, tall = _figure(rng, kind[int(rng.integers(len(kind)))], nearness * floor.size_px)
        top = round(floor.horizon_px + floor.eye * nearness * floor.size_px - tall)
        left = round(x - image.shape[1] / 2)
        seen = np.zeros(PHOTO_SIZE, np.float32)
        to, own = _overlap(top, left, alpha.shape, PHOTO_SIZE)
        part = alpha[own]
        photo[to] += part[..., None] * (image[own] - photo[to])
        seen[to] = part
        relief = (rng.normal() * 0.004 * np.linspace(-1, 1, tall)).astype(np.float32)[own[0], None]
        inverse[to] = np.where(part > _SOLID, np.float32(nearness) + relief, inverse[to])
        for farther in mattes:
            farther *= 1 - seen
        mattes.append(seen)
        # the head's middle: arms reach out to one side, heads stand over chests
        head = alpha[: max(2, tall // 8)].sum(0)
        chest_x = left + float((head * np.arange(head.size)).sum() / max(head.sum(), 1e-3))
        truth.append((chest_x, top + _CHEST * tall, tall))
    return Crowd(np.clip(photo, 0, 255).astype(np.uint8), np.stack(mattes), inverse, np.array(truth, np.float32))


def _background(rng: np.random.Generator, picture: npt.NDArray[np.uint8]) -> Floats:
    """A random part of a picture, float32 of `PHOTO_SIZE`."""
    height, width = PHOTO_SIZE
    scale = 1.01 * max(height / picture.shape[0], width / picture.shape[1])
    large = (max(width, round(picture.shape[1] * scale)), max(height, round(picture.shape[0] * scale)))
    resized: npt.NDArray[Any] = cv2.resize(picture, large, interpolation=cv2.INTER_CUBIC)
    top = int(rng.integers(resized.shape[0] - height + 1))
    left = int(rng.integers(resized.shape[1] - width + 1))
    return resized[top : top + height, left : left + width].astype(np.float32)


def _places(rng: np.random.Generator, floor: _Floor, width: int) -> list[tuple[float, float]]:
    """(inverse depth, x in pixels) of one to eight people, farthest first."""
    wanted = int(rng.integers(1, _MOST_PEOPLE + 1))
    places: list[tuple[float, float]] = []
    while len(places) < wanted:
        nearness, x = rng.uniform(0.22, 0.9), rng.uniform(0.03, 0.97) * width
        tall, form = nearness * floor.size_px, rng.random()
        if form < 0.35:  # a row, shoulder to shoulder
            count, step = int(rng.integers(2, 4)), tall * rng.uniform(0.18, 0.36)
            places += [(nearness + rng.normal() * 0.01, x + step * index) for index in range(count)]
        elif form < 0.75:  # one half behind the other
            behind = max(0.15, nearness - rng.uniform(0.04, 0.3))
            places += [(nearness, x), (behind, x + tall * rng.normal() * 0.2)]
        else:
            places.append((nearness, x))
    kept = [place for place in places[:wanted] if -20 < place[1] < width + 20]
    return sorted(kept) or [(rng.uniform(0.3, 0.6), width / 2)]


def _figure(rng: np.random.Generator, cutout: Cutout, about_px: float) -> tuple[Floats, Floats, int]:
    """A cut-out about so tall, mirrored and recoloured by chance: RGB float32 (h, w, 3), alpha (h, w), and h."""
    tall = max(8, round(about_px * rng.uniform(0.82, 1.1)))
    wide = max(4, round(tall * cutout.image.shape[1] / cutout.image.shape[0] * rng.uniform(0.9, 1.15)))
    picture: npt.NDArray[Any] = cv2.resize(cutout.image, (wide, tall), interpolation=cv2.INTER_AREA)
    alpha: npt.NDArray[Any] = cv2.resize(cutout.alpha, (wide, tall), interpolation=cv2.INTER_AREA)
    if rng.random() < 0.5:
        picture, alpha = picture[:, ::-1], alpha[:, ::-1]
    if rng.random() < 0.6:
        hsv = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2HSV).astype(np.float32)
        hsv[..., 0] = (hsv[..., 0] + rng.integers(180)) % 180
        hsv[..., 1] = np.clip(hsv[..., 1] * rng.uniform(0.6, 2.2) + rng.uniform(0, 40), 0, 255)
        picture = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)
    lit = 255 * (picture.astype(np.float32) / 255) ** np.float32(1 / rng.uniform(0.7, 1.9))
    low, high = _ALPHA
    return lit.astype(np.float32), np.clip((alpha - low) / (high - low), 0, 1).astype(np.float32), tall


def _overlap(
    top: int, left: int, figure: tuple[int, ...], photo: Size
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a figure lies in the photo, and which part of the figure that is; both empty when it is outside."""
    starts = [max(at, 0) for at in (top, left)]
    ends = [
        max(start, min(at + side, whole))
        for start, at, side, whole in zip(starts, (top, left), figure, photo, strict=True)
    ]
    to = slice(starts[0], ends[0]), slice(starts[1], ends[1])
    own = slice(starts[0] - top, ends[0] - top), slice(starts[1] - left, ends[1] - left)
    return to, own


_THIN_PX = 5  # what follows is in pixels of the network's map, half the photo's size: what is thinner is not seen
_SHIFT_PX, _SHIFT_OVER_PX = 1.1, 25.0
_EDGE_SIGMA_PX = 1.3
_BIAS, _BIAS_OVER_PX = 0.028, 130.0  # of inverse depth, standard deviation; twice what drawn crowds are judged with
_WOBBLE, _WOBBLE_OVER_PX = 0.0133, 40.0
_NOISE = 0.002
_STRENGTH = (0.6, 1.4)  # of each fault, drawn for each crowd


def networks_view(crowd: Crowd, rng: np.random.Generator) -> NetworksView:
    """The crowd's maps with the faults of a network like ours: half the size, soft, displaced, thin parts lost, biased.

    Then they are brought to the photo's size as the service does it (`service.imaging`), the same for a state of `rng`
    but for the last bits.
    """
    small = crowd.photo.shape[0] // 2, crowd.photo.shape[1] // 2
    shifted, soft, biased, wobbling = rng.uniform(*_STRENGTH, 4)
    anyone = crowd.mattes.sum(0).clip(0, 1).astype(np.float32)
    maps: list[npt.NDArray[Any]] = [
        cv2.resize(values, small[::-1], interpolation=cv2.INTER_AREA) for values in (crowd.inverse_depth, anyone)
    ]
    window = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_THIN_PX, _THIN_PX))
    maps[0] = cv2.medianBlur(maps[0], _THIN_PX)
    maps[1] = cv2.morphologyEx(cv2.morphologyEx(maps[1], cv2.MORPH_CLOSE, window), cv2.MORPH_OPEN, window)
    y, x = np.mgrid[: small[0], : small[1]].astype(np.float32)
    wander = [np.float32(shifted * _SHIFT_PX) * _smooth(rng, small, _SHIFT_OVER_PX) for _ in range(2)]
    places = x + wander[0], y + wander[1]
    inverse, person = (
        cv2.GaussianBlur(
            cv2.remap(values, *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), (0, 0), soft * _EDGE_SIGMA_PX
        )
        for values in maps
    )
    faults = biased * _BIAS * _smooth(rng, small, _BIAS_OVER_PX) + wobbling * _WOBBLE * _smooth(
        rng, small, _WOBBLE_OVER_PX
    )
    wrong = np.clip(inverse + faults + rng.normal(0, _NOISE, small), 0, None).astype(np.float32)
    relative, _, _ = depth.normalise(wrong)
    return NetworksView(
        matte.upsample_guided(np.clip(person, 0, 1), crowd.photo), depth.upsample_guided(relative, crowd.photo)
    )


def _smooth(rng: np.random.Generator, size: Size, over_px: float) -> Floats:
    """Noise of mean 0 and standard deviation about 1 that changes over so many pixels, finer at less strength."""
    total, strength, power = np.zeros(size, np.float32), 1.0, 0.0
    while over_px >= 4:
        coarse = max(2, round(size[1] / over_px) + 1), max(2, round(size[0] / over_px) + 1)
        octave: npt.NDArray[Any] = cv2.resize(
            rng.standard_normal(coarse[::-1], np.float32), size[::-1], interpolation=cv2.INTER_CUBIC
        )
        total += np.float32(strength) * octave
        power, strength, over_px = power + strength**2, strength * 0.4, over_px / 2
    scaled: Floats = total / np.float32(0.9 * np.sqrt(power))  # interpolation between lattice points takes a tenth
    return scaled
