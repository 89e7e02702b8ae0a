"""All samples of a recipe in memory, split by scene, and batches drawn from them by step number."""

import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from service.contract import Size
from training.data import person, rgbd, stereo, taught
from training.data.pasting import cut_out, paste
from training.data.sample import BrokenSampleError, Sample, checked
from training.data.synthetic.dataset import read_scene, read_scenes
from training.data.transforms import Augmentation, Item, jittered, moved_votes, view, whole_map
from training.errors import TrainingError

LONG_SIDE = 448
"""Pixels; larger pictures are reduced on loading: a little more than the largest served size, 416."""

_SMALLEST = 1e-6  # 1/m: what is farther than 1000 km is as far as that
_ATTEMPTS = 10  # samples drawn in the place of one that fails
Part = Literal["train", "held_out", "test"]

_HELD_OUT = 10  # one scene in ten is for validation


@dataclass
class Bank:
    """Samples by source and scene.

    Attributes:
        train: source -> scene -> samples.
        held_out: Samples of the scenes kept for validation.
        broken: Messages of the samples that could not be read.
    """

    train: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)
    held_out: list[Sample] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def only(self, wanted: Callable[[Sample], bool]) -> "Bank":
        """The samples that are `wanted`, in the same order."""
        train: dict[str, dict[str, list[Sample]]] = {}
        for source, scenes in self.train.items():
            kept = {scene: [sample for sample in samples if wanted(sample)] for scene, samples in scenes.items()}
            train |= {source: kept_scenes} if (kept_scenes := {k: v for k, v in kept.items() if v}) else {}
        return Bank(train, [sample for sample in self.held_out if wanted(sample)], self.broken)

    def counts(self) -> dict[str, int]:
        """Number of training samples of each source."""
        return {source: sum(map(len, scenes.values())) for source, scenes in self.train.items()}


def is_held_out(scene: str) -> bool:
    """Whether a scene is kept for validation: a fixed tenth, by checksum of its name."""
    return zlib.crc32(scene.encode()) % _HELD_OUT == 0


def part_of(scene: str, split: Sequence[int] = ()) -> Part:
    """The part a scene belongs to, by checksum of its name, so that frames of a scene stay together.

    Args:
        scene: Its name.
        split: Percent for training, for validation and for a later test; empty = one in ten is held out.
    """
    if not split:
        return "held_out" if is_held_out(scene) else "train"
    percent = zlib.crc32(scene.encode()) % 100
    return "train" if percent < split[0] else "held_out" if percent < split[0] + split[1] else "test"


def reduce(sample: Sample, long_side: int = LONG_SIDE) -> Sample:
    """`sample` with its longer side at most `long_side` pixels."""
    height, width = sample.image.shape[:2]
    scale = long_side / max(height, width)
    if scale >= 1:
        return sample
    size = (round(width * scale), round(height * scale))
    image = cv2.resize(sample.image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    depth, label, right = sample.inverse_depth, sample.person, sample.right
    disparity, proxy, confidence = (
        None if values is None else cv2.resize(values, size, interpolation=cv2.INTER_NEAREST) * np.float32(factor)
        for values, factor in ((sample.disparity_px, scale), (sample.proxy_px, scale), (sample.confidence, 1.0))
    )
    if right is not None:
        right = cv2.resize(right, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    votes, small = sample.votes, (size[1], size[0])
    if votes is not None:
        votes = moved_votes(votes, whole_map((height, width), small), small)
    if depth is not None:
        depth = cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST).astype(np.float32, copy=False)
    if label is not None:
        label = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST).astype(np.uint8, copy=False)
    return replace(
        sample,
        image=image,
        inverse_depth=depth,
        person=label,
        right=right,
        disparity_px=disparity,
        proxy_px=proxy,
        confidence=confidence,
        votes=votes,
    )


def fill(readers: Iterable[tuple[str, Callable[[], Sample]]], progress: bool = True, split: Sequence[int] = ()) -> Bank:
    """Reads every sample; a broken one is noted and left out.

    Args:
        readers: (source, function that reads one sample) pairs; `source` is the name weights refer to, empty where
            the sample itself says it.
        progress: Whether to show a bar.
        split: See `part_of`; scenes of the test part are left out.

    Raises:
        TrainingError: Nothing to train on was read.
    """
    bank = Bank()
    train: dict[str, dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for source, read in tqdm(list(readers), desc="read", unit="sample", disable=not progress):
        try:
            sample = reduce(checked(read()))
        except BrokenSampleError as error:
            bank.broken.append(str(error))
            continue
        part = part_of(sample.scene, split)
        if part == "held_out":
            bank.held_out.append(sample)
        elif part == "train":
            train[source or sample.source][sample.scene].append(sample)
    bank.train = {source: dict(scenes) for source, scenes in train.items()}
    if not bank.train:
        raise TrainingError(f"no readable training sample; {len(bank.broken)} broken, first: {bank.broken[:1]}")
    return bank


def readers(
    root: Path | None, labels: Path | None, scenes: Path | None = None, only: Collection[str] | None = None
) -> Iterator[tuple[str, Callable[[], Sample]]]:
    """Readers of everything this package trains on below the data folder `root` and in the folder `scenes`.

    Sources are the folders of `rgbd/` and `stereo_seq/`, the training sets of `truth_person/`, `photos_permissive`
    (the folders of `photos/` whose repositories' licences are permissive), `photos` (the others), and `synthetic_cc0`
    and `synthetic_photo` of the folder `scenes`. Teacher labels from `labels` join the pairs and the photos: people,
    and depth where there is no truth. A photo or stereo frame without any is of no use and is not listed. `only` names
    the sources of `root` to read, where not all are wanted.
    """
    if root is None and scenes is None:
        raise TrainingError("nothing to train on: give --data, --scenes or both")
    if root is not None:
        for source, read in _real_readers(root, labels):
            if only is None or source in only:
                yield source, read
    for path in read_scenes(scenes) if scenes is not None else ():
        yield "", partial(read_scene, path)


def _real_readers(root: Path, labels: Path | None) -> Iterator[tuple[str, Callable[[], Sample]]]:
    if not root.is_dir():
        raise TrainingError(f"data folder not found: {root}; give it with --data")
    for source in rgbd.RGBD_SETS:
        for photo in rgbd.read_pairs(root, source):
            yield source, partial(_labelled, rgbd.read_sample, root, photo, labels)
    for photo, mask, source in person.read_masks(root, person.PERSON_TRAIN_SETS):
        yield source, partial(person.read_masked, root, photo, mask, source)
    for folder in person.TRAIN_PHOTO_SETS:
        for photo in sorted((root / "photos" / folder).glob("*.jpg")):
            label = labels / photo.relative_to(root) if labels else None
            if label and any(label.with_suffix(end).is_file() for end in (".png", taught.SUFFIX)):
                source = "photos_permissive" if folder in person.PERMISSIVE_PHOTO_SETS else "photos"
                yield source, partial(_labelled, person.read_photo, root, photo, labels)
    for source in stereo.STEREO_SETS:
        for left, _ in stereo.read_frames(root, source):
            if labels and (labels / left.relative_to(root)).with_suffix(".png").is_file():
                yield source, partial(stereo.read_sample, root, left, labels)


def _labelled(read: Callable[[Path, Path], Sample], root: Path, photo: Path, labels: Path | None) -> Sample:
    return taught.attach_depth(person.attach_label(read(root, photo), labels), labels)


@dataclass(frozen=True)
class Batch:
    """Tensors of one step.

    Attributes:
        image: uint8 (B, H, W, 3).
        inverse_depth: float32 (B, H, W), as in `Item`.
        person: float32 (B, H, W), as in `Item`.
        shift_known: bool (B,), as in `Item`.
        metric: bool (B,), as in `Item`.
        base_depths_m: float32 (B, K, H, W), as in `Item`; None unless all of them have some.
        right: uint8 (B, H, W, 3), as in `Item`; None unless all of them have one.
        disparity_px: float32 (B, H, W), as in `Item`; None unless all of them have some.
        proxy_px: The same of the proxy.
        confidence: float32 (B, H, W), as in `Item`; None unless all of them have one.
        votes: float32 (B, 4, H, W), as in `Item`; None unless all of them have some.
    """

    image: Tensor
    inverse_depth: Tensor
    person: Tensor
    shift_known: Tensor
    metric: Tensor
    base_depths_m: Tensor | None = None
    right: Tensor | None = None
    disparity_px: Tensor | None = None
    proxy_px: Tensor | None = None
    confidence: Tensor | None = None
    votes: Tensor | None = None

    @property
    def depth_m(self) -> Tensor:
        """Depth in metres, float32 (B, H, W), 0 = no data: everywhere in pictures whose unit is unknown."""
        known = (self.inverse_depth > 0) & self.metric[:, None, None]
        return torch.where(known, 1 / self.inverse_depth.clamp(min=_SMALLEST), 0.0)

    def to(self, device: str) -> "Batch":
        """The same on `device`."""
        optional = (self.base_depths_m, self.right, self.disparity_px, self.proxy_px, self.confidence, self.votes)
        return Batch(
            self.image.to(device),
            self.inverse_depth.to(device),
            self.person.to(device),
            self.shift_known.to(device),
            self.metric.to(device),
            *(None if value is None else value.to(device) for value in optional),
        )

    @classmethod
    def of(cls, items: list[Item]) -> "Batch":
        """Items of one size, stacked."""
        bases = [item.base_depths_m.transpose(2, 0, 1) for item in items if item.base_depths_m is not None]
        rights = [item.right for item in items if item.right is not None]
        disparities = [item.disparity_px for item in items if item.disparity_px is not None]
        proxies = [item.proxy_px for item in items if item.proxy_px is not None]
        confidences = [item.confidence for item in items if item.confidence is not None]
        votes = [item.votes.transpose(2, 0, 1) for item in items if item.votes is not None]
        return cls(
            torch.from_numpy(np.stack([item.image for item in items])),
            torch.from_numpy(np.stack([item.inverse_depth for item in items])),
            torch.from_numpy(np.stack([item.person for item in items])),
            torch.tensor([item.shift_known for item in items]),
            torch.tensor([item.metric for item in items]),
            *(
                torch.from_numpy(np.stack(arrays)) if len(arrays) == len(items) else None
                for arrays in (bases, rights, disparities, proxies, confidences, votes)
            ),
        )


class Sampler:
    """Batches by step number: the same seed and step give the same batch, so a resumed run misses nothing.

    Args:
        bank: Samples.
        weights: Chance of each source; within a source every scene has the same chance, then every frame. A weighted
            source that the bank does not hold is an error.
        seed: Of all randomness.
        strength: Of the augmentation.
        paste: Share of the pictures with person labels that get figures pasted in.
        cutout_sources: Sources the figures are cut out of.

    Attributes:
        failed: Samples of which no view could be made, and why.
    """

    def __init__(
        self,
        bank: Bank,
        weights: Mapping[str, float],
        seed: int,
        strength: Augmentation,
        paste: float = 0.0,
        cutout_sources: tuple[str, ...] = person.PERSON_TRAIN_SETS,
    ) -> None:
        missing = sorted(set(weights) - set(bank.train))
        if missing:
            raise TrainingError(f"sources without samples: {', '.join(missing)}; there are {', '.join(bank.train)}")
        self._sources = [[samples for _, samples in sorted(bank.train[name].items())] for name in weights]
        chances = np.array(list(weights.values()), np.float64)
        self._chances = chances / chances.sum()
        self._seed = seed
        self._strength = strength
        self._paste = paste
        self.failed: dict[str, str] = {}
        scenes = [samples for name in cutout_sources if name in weights for samples in bank.train[name].values()]
        self._cutouts = cut_out(sample for samples in scenes for sample in samples) if paste > 0 else []
        if paste > 0 and not self._cutouts:
            raise TrainingError(f"paste is {paste}, but no whole figure is in {', '.join(cutout_sources)}")

    def batch(self, step: int, count: int, sizes: tuple[Size, ...], rank: int = 0, world_size: int = 1) -> Batch:
        """`count` samples of step `step`, all at one of `sizes`; of these, every `world_size`-th from `rank` on."""
        size = sizes[int(np.random.default_rng((self._seed, step)).integers(len(sizes)))]
        # a generator for each, so that no process needs to make the samples of the others
        generators = [np.random.default_rng((self._seed, step, index)) for index in range(rank, count, world_size)]
        return Batch.of([self._item(rng, size) for rng in generators])

    def _item(self, rng: np.random.Generator, size: Size) -> Item:
        """A random view of a random sample; one that cannot be made is noted, and another sample drawn."""
        for _ in range(_ATTEMPTS):
            scenes = self._sources[int(rng.choice(len(self._sources), p=self._chances))]
            samples = scenes[int(rng.integers(len(scenes)))]
            sample = samples[int(rng.integers(len(samples)))]
            try:
                item = view(rng, sample, size, self._strength)
                if self._cutouts and (item.person >= 0).any() and rng.random() < self._paste:
                    item = paste(rng, item, self._cutouts)
                recoloured = self._strength.colour_share >= 1 or rng.random() < self._strength.colour_share
                return jittered(rng, item) if recoloured else item
            except (cv2.error, ValueError) as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                self.failed[sample.name] = reason
        raise TrainingError(f"{_ATTEMPTS} samples in a row cannot be used, last: {sample.name}: {reason}")
