"""Joint random transforms: one affine map moves the picture and its truth together, then only colours change.

All randomness comes from the generator that is passed in, so that a step of training can be repeated exactly.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from service.contract import Size
from service.imaging.geometry import Letterbox
from training.data.person import IGNORE, PERSON
from training.data.sample import Sample

NO_LABEL = -1.0
"""Person target of a pixel without label."""

_DEPTH_GAIN, _DEPTH_OFFSET, _DEPTH_NOISE = (0.7, 1.0), (0.0, 0.1), 0.004  # of relative inverse depth, 0..1
_DEPTH_BENT, _DEPTH_GAMMA = 0.5, (0.7, 1.4)  # how often, and by which power
_PHOTO_UNKNOWN = 0.08  # how often there is no photo beside the maps, as when a caller gives maps alone
_DEPTH_WOBBLE, _WOBBLES = 0.06, (6, 8)  # most that a network errs by from part to part of a picture; rows and columns


@dataclass(frozen=True, slots=True)
class Item:
    """A sample at the size of its batch.

    Attributes:
        image: uint8 (H, W, 3) RGB.
        inverse_depth: float32 (H, W), 0 = no data.
        person: float32 (H, W), probability 0..1, -1 = no label.
        shift_known: As in `Sample`.
        metric: As in `Sample`.
        base_depths_m: float32 (H, W, K), as in `Sample`; None without.
        right: uint8 (H, W, 3), as in `Sample`; None without.
        disparity_px: float32 (H, W), as in `Sample`, in pixels of this size; None without.
        proxy_px: The same of the proxy.
        confidence: float32 (H, W), as in `Sample`; None without.
        votes: float32 (H, W, 4), as in `Sample`, in pixels of this size; None without.
    """

    image: npt.NDArray[np.uint8]
    inverse_depth: npt.NDArray[np.float32]
    person: npt.NDArray[np.float32]
    shift_known: bool = False
    metric: bool = False
    base_depths_m: npt.NDArray[np.float32] | None = None
    right: npt.NDArray[np.uint8] | None = None
    disparity_px: npt.NDArray[np.float32] | None = None
    proxy_px: npt.NDArray[np.float32] | None = None
    confidence: npt.NDArray[np.float32] | None = None
    votes: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Augmentation:
    """Strength of the random transforms.

    Attributes:
        min_crop: Smallest side of a crop, as a share of the largest crop of the wanted aspect.
        max_crop: Largest; above 1 the crop reaches beyond the picture, where there is no truth.
        stretch: Largest change of the aspect, as a factor.
        rotation_deg: Largest rotation, of a third of the samples.
        letterbox: Share of the samples that are seen whole, letterboxed as the service does it.
        geometry: `photo`: crops keep the picture's proportions and may reach beyond it; `square`: the picture is first
            stretched to the batch's proportions, and no view reaches beyond it, as FocusOnDepth's code has it;
            `stereo`: crops as `photo`'s, of both pictures of a pair alike, neither mirrored nor turned.
        crop_share: Of the samples that are cropped, in `square`.
        rotation_share: Of the samples that are turned.
        colour_share: Of the samples whose colours are changed.
    """

    min_crop: float = 0.55
    max_crop: float = 1.1
    stretch: float = 1.2
    rotation_deg: float = 8.0
    letterbox: float = 0.0
    geometry: Literal["photo", "square", "stereo"] = "photo"
    crop_share: float = 1.0
    rotation_share: float = 1 / 3
    colour_share: float = 1.0


def random_map(rng: np.random.Generator, source: Size, target: Size, strength: Augmentation) -> npt.NDArray[np.float64]:
    """Random crop, stretch, rotation and mirror as one affine map.

    Args:
        rng: Source of randomness.
        source: (height, width) of the picture in pixels.
        target: (height, width) of the result.
        strength: Limits.

    Returns:
        (2, 3): target pixel (x, y, 1) -> source pixel (x, y), for `cv2.WARP_INVERSE_MAP`.
    """
    stretch = strength.stretch ** rng.uniform(-1, 1)
    aspect = target[1] / target[0] * stretch
    height = min(source[0], source[1] / aspect) * rng.uniform(strength.min_crop, strength.max_crop)
    width = height * aspect
    # the free play of the crop; negative when it is larger than the picture, and then it is centred
    x = source[1] / 2 + rng.uniform(-0.5, 0.5) * max(0.0, source[1] - width)
    y = source[0] / 2 + rng.uniform(-0.5, 0.5) * max(0.0, source[0] - height)
    rectified = strength.geometry == "stereo"  # a row of one picture must stay a row of the other, left must stay left
    turned = rng.random() < strength.rotation_share and not rectified
    angle = np.deg2rad(rng.uniform(-strength.rotation_deg, strength.rotation_deg)) if turned else 0.0
    mirror = -1.0 if rng.random() < 0.5 and not rectified else 1.0

    scale_x, scale_y = mirror * width / target[1], height / target[0]
    cos, sin = np.cos(angle), np.sin(angle)
    linear = np.array([[cos * scale_x, -sin * scale_y], [sin * scale_x, cos * scale_y]])
    centre = np.array([(target[1] - 1) / 2, (target[0] - 1) / 2])
    offset = np.array([x - 0.5, y - 0.5]) - linear @ centre
    return np.hstack([linear, offset[:, None]])


def square_map(rng: np.random.Generator, source: Size, target: Size, strength: Augmentation) -> npt.NDArray[np.float64]:
    """The picture stretched to the target's proportions, then mirrored, cropped and turned within its borders.

    Turned views are enlarged until no corner shows what lies beyond the picture. Arguments and result as `random_map`.
    """
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    share = rng.uniform(strength.min_crop, strength.max_crop) if rng.random() < strength.crop_share else 1.0
    place = rng.uniform(-0.5, 0.5, 2) * (1 - share)
    turned = rng.random() < strength.rotation_share
    angle = np.deg2rad(rng.uniform(-strength.rotation_deg, strength.rotation_deg)) if turned else 0.0
    height, width = target
    cos, sin = np.cos(angle), np.sin(angle)
    inside = min(
        width / (width * cos + height * abs(sin)), height / (width * abs(sin) + height * cos)
    )  # of the largest upright view in a turned one
    unit = np.array([[source[1] / width, 0], [0, source[0] / height]])  # source pixels per target pixel
    linear = unit @ np.array([[cos * mirror, -sin], [sin * mirror, cos]]) * (inside * share)
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    middle = (place + 0.5) * np.array([source[1], source[0]]) - 0.5
    return np.hstack([linear, (middle - linear @ centre)[:, None]])


def letterbox_map(rng: np.random.Generator, source: Size, target: Size) -> npt.NDArray[np.float64]:
    """The whole picture as the service fits it into the network's input, by chance mirrored.

    Args:
        rng: Source of randomness.
        source: (height, width) of the picture in pixels.
        target: (height, width) of the result.

    Returns:
        (2, 3), as `random_map`.
    """
    box = Letterbox.of(*source, target)
    sy, sx = source[0] / box.content_size[0], source[1] / box.content_size[1]
    mapping = np.array([[sx, 0, (0.5 - box.left) * sx - 0.5], [0, sy, (0.5 - box.top) * sy - 0.5]])
    if rng.random() < 0.5:
        mapping[0] = -mapping[0]
        mapping[0, 2] += source[1] - 1
    return mapping


def whole_map(source: Size, target: Size) -> npt.NDArray[np.float64]:
    """The whole picture stretched to the target: `random_map` without chance."""
    sx, sy = source[1] / target[1], source[0] / target[0]
    return np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2]])


def warp(sample: Sample, mapping: npt.NDArray[np.float64], target: Size) -> Item:
    """`sample` through `mapping`; beyond its border the picture repeats its edge pixels, as in the service, truth ends.

    Depth takes the nearest pixel, because a mean of near and far is neither and a mean with "no data" is wrong.
    Person labels become probabilities, and any touch of an unlabelled pixel makes the result unlabelled. Maps that come
    with votes are no truth: they are interpolated, and beyond the border there is nobody and nothing near.
    """
    size = (target[1], target[0])
    inverse = cv2.WARP_INVERSE_MAP

    def move(array: npt.NDArray[np.generic], flags: int, border: int, fill: float = 0.0) -> npt.NDArray[np.float32]:
        source: npt.NDArray[Any] = array  # OpenCV's own types know no generic arrays
        moved: npt.NDArray[Any] = cv2.warpAffine(
            source, mapping, size, flags=flags | inverse, borderMode=border, borderValue=(fill, fill, fill, fill)
        )
        result: npt.NDArray[np.float32] = moved
        return result

    image = move(sample.image, cv2.INTER_LINEAR, cv2.BORDER_REPLICATE).astype(np.uint8, copy=False)
    depth = np.zeros(target, np.float32)
    if sample.inverse_depth is not None:
        sampling = cv2.INTER_NEAREST if sample.votes is None else cv2.INTER_LINEAR
        depth = move(sample.inverse_depth, sampling, cv2.BORDER_CONSTANT)
    person = np.full(target, NO_LABEL, np.float32)
    if sample.person is not None:
        person = move(sample.person / np.float32(PERSON), cv2.INTER_LINEAR, cv2.BORDER_CONSTANT)
        if sample.votes is None:
            unknown = move((sample.person == IGNORE).astype(np.float32), cv2.INTER_LINEAR, cv2.BORDER_CONSTANT, 1.0)
            person = np.where(unknown > 0.01, np.float32(NO_LABEL), person)
    bases = None
    if sample.base_depths_m is not None:
        bases = move(sample.base_depths_m.astype(np.float32), cv2.INTER_LINEAR, cv2.BORDER_REPLICATE)
    right = None
    if sample.right is not None:
        right = move(sample.right, cv2.INTER_LINEAR, cv2.BORDER_REPLICATE).astype(np.uint8, copy=False)
    # only maps that leave rows alone reach a pair; a column is as many pixels wide as the first entry says
    disparity, proxy, confidence = (
        None if values is None else move(values, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT) / np.float32(scale)
        for values, scale in (
            (sample.disparity_px, mapping[0, 0]),
            (sample.proxy_px, mapping[0, 0]),
            (sample.confidence, 1.0),
        )
    )
    votes = None if sample.votes is None else moved_votes(sample.votes, mapping, target)
    return Item(
        image, depth, person, sample.shift_known, sample.metric, bases, right, disparity, proxy, confidence, votes
    )


def moved_votes(
    votes: npt.NDArray[np.float32], mapping: npt.NDArray[np.float64], target: Size
) -> npt.NDArray[np.float32]:
    """Votes through an affine map: places, arrows and heights.

    Args:
        votes: float32 (H, W, 4), as in `Sample`.
        mapping: (2, 3), as of `random_map`.
        target: (height, width) of the result.

    Returns:
        float32 (height, width, 4), in pixels of the result; every arrow still ends at the same chest.
    """
    # as places and not as arrows: the nearest pixel lies up to half a pixel off the one that is asked for
    placed = votes.copy()
    placed[..., 0] += np.arange(votes.shape[1], dtype=np.float32)
    placed[..., 1] += np.arange(votes.shape[0], dtype=np.float32)[:, None]
    source: npt.NDArray[Any] = placed
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    moved: npt.NDArray[Any] = cv2.warpAffine(source, mapping, (target[1], target[0]), flags=flags)
    back = np.linalg.inv(mapping[:, :2]).astype(np.float32)
    right, down = (moved[..., axis] - np.float32(mapping[axis, 2]) for axis in (0, 1))
    found = np.empty((*target, 4), np.float32)
    found[..., 0] = back[0, 0] * right + back[0, 1] * down - np.arange(target[1], dtype=np.float32)
    found[..., 1] = back[1, 0] * right + back[1, 1] * down - np.arange(target[0], dtype=np.float32)[:, None]
    found[..., 2] = moved[..., 2] * np.hypot(*back[:, 1])  # people stand upright in the picture
    found[..., 3] = moved[..., 3]
    found[moved[..., 2] <= 0] = 0
    return found


def jittered(rng: np.random.Generator, item: Item) -> Item:
    """The item in other colours; both pictures of a pair alike; depth as given (with votes) with another range too."""
    if item.votes is not None:
        item = replace(item, inverse_depth=_rescaled(rng, item.inverse_depth))
        if rng.random() < _PHOTO_UNKNOWN:
            return replace(item, image=np.full_like(item.image, 127))
    if item.right is None:
        return replace(item, image=jitter(rng, item.image))
    left, right = np.split(jitter(rng, np.concatenate([item.image, item.right])), 2)
    return replace(item, image=left, right=right)


def _rescaled(rng: np.random.Generator, given: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Relative inverse depth stretched as in a photo that shows nearer and farther things too, and a little noisy."""
    low, high = rng.uniform(*_DEPTH_OFFSET), rng.uniform(*_DEPTH_GAIN)
    changed = given * np.float32(high) + np.float32(low)
    if rng.random() < _DEPTH_BENT:
        changed = np.maximum(changed, 0) ** np.float32(rng.uniform(*_DEPTH_GAMMA))
    wobble = (rng.standard_normal(_WOBBLES, np.float32) * np.float32(rng.uniform(0, _DEPTH_WOBBLE))).clip(-0.1, 0.1)
    smooth = cv2.resize(wobble, given.shape[::-1], interpolation=cv2.INTER_CUBIC)
    noise = rng.standard_normal(given.shape, np.float32) * np.float32(_DEPTH_NOISE)
    rescaled: npt.NDArray[np.float32] = np.maximum(changed, 0) + smooth * (given > 0) + noise
    return rescaled


def jitter(rng: np.random.Generator, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Random light, contrast, gamma, colour cast, saturation; at times grey, blur, noise, JPEG blocks."""
    x = image
    if rng.random() < 0.8:
        # all that acts on one channel alone is one table of 256 values per channel
        tone = np.linspace(0, 1, 256)[:, None] ** np.exp(rng.normal(0, 0.25))
        tone = (tone - 0.5) * rng.uniform(0.75, 1.25) + 0.5
        tone = tone * rng.uniform(0.75, 1.25) * rng.uniform(0.9, 1.1, 3)
        x = cv2.LUT(x, (np.clip(tone, 0, 1) * 255 + 0.5).astype(np.uint8)[None]).astype(np.uint8, copy=False)
        x = _saturate(x, rng.uniform(0.5, 1.4))
    if rng.random() < 0.12:
        x = _saturate(x, 0.0)
    if rng.random() < 0.15:
        x = cv2.GaussianBlur(x, (0, 0), rng.uniform(0.4, 1.6)).astype(np.uint8, copy=False)
    if rng.random() < 0.15:
        noise = rng.standard_normal(x.shape, np.float32) * np.float32(rng.uniform(1, 12))
        x = np.clip(x + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.15:
        packed = cv2.imencode(".jpg", x, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 85))])[1]
        x = cv2.imdecode(packed, cv2.IMREAD_COLOR).astype(np.uint8, copy=False)
    return x


def _saturate(image: npt.NDArray[np.uint8], amount: float) -> npt.NDArray[np.uint8]:
    """Mixes every pixel with its grey value (Rec. 601); 0 = grey, 1 = unchanged, above 1 = more colourful."""
    grey = np.array([0.299, 0.587, 0.114])
    matrix = amount * np.eye(3) + (1 - amount) * np.tile(grey, (3, 1))
    return cv2.transform(image, matrix).astype(np.uint8, copy=False)


def view(rng: np.random.Generator, sample: Sample, target: Size, strength: Augmentation) -> Item:
    """A random view of `sample` at `target` size, its colours untouched."""
    size = sample.image.shape[0], sample.image.shape[1]
    if strength.geometry == "square":
        return warp(sample, square_map(rng, size, target, strength), target)
    letterboxed = rng.random() < strength.letterbox and strength.geometry != "stereo"
    mapping = letterbox_map(rng, size, target) if letterboxed else random_map(rng, size, target, strength)
    return warp(sample, mapping, target)
