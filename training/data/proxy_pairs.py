"""Rectified pairs with the labels of a matcher and their confidence: what networks adapt to where no truth is.

Truth that comes with a pair is kept beside them, to judge by, and never learned from by the objectives that take these
labels.
"""

import os
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from training.checkpoint import adopt, load_checkpoint
from training.confidence import MEASURES, Measure
from training.config_stereo import PairsConfig
from training.data.domains import DOMAINS
from training.data.sample import Sample
from training.data.stereo_pairs import StereoFrame, layered_sequence, read_folder, reduced
from training.errors import TrainingError
from training.models import create_model
from training.proxies import MATCHERS, Floats, Match, Pictures, largest_disparity, with_outliers

SOURCE = "pairs"
"""Name of these samples in recipes."""

_TOGETHER = 10  # consecutive frames of a folder are one scene, so that what is held out is not next to what is learned


def proxy_readers(config: PairsConfig, folder: Path = Path()) -> Iterator[tuple[str, Callable[[], Sample]]]:
    """Readers of the recipe's pairs, labelled as it says; the same recipe gives the same labels.

    Args:
        config: Recipe.
        folder: Of the run, where the path of a CCNN begins.

    Raises:
        TrainingError: A folder, a domain or the CCNN cannot be used.
    """
    measure = measure_of(config, folder)
    # a learned measure is asked about the pair alone, so labels are made as their readers are called, one by one
    for place in config.pairs:
        for scene, frame in _frames(place, config):
            yield SOURCE, partial(labelled, frame, scene, config, measure)


def labelled(frame: StereoFrame, scene: str, config: PairsConfig, measure: Measure | None) -> Sample:
    """A pair with its labels and their confidence."""
    match = MATCHERS[config.matcher](frame.left, frame.right)
    if config.outliers:
        rng = np.random.default_rng([config.seed, zlib.crc32(f"{scene}/{frame.name}".encode())])
        match = with_outliers(match, config.outliers, largest_disparity(frame.left.shape[1]), rng)
    known = match.disparity_px > 0
    confidence = known.astype(np.float32) if measure is None else measure(frame.left, frame.right, match) * known
    return Sample(
        frame.name,
        SOURCE,
        scene,
        frame.left,
        shift_known=True,
        right=frame.right,
        disparity_px=frame.disparity_px,
        proxy_px=match.disparity_px,
        confidence=confidence.astype(np.float32),
    )


def _frames(place: str, config: PairsConfig) -> Iterator[tuple[str, StereoFrame]]:
    """Scene and frame of a folder, or of the worlds of `DOMAIN:SEED` and `DOMAIN:FIRST-LAST`."""
    name, _, seeds = place.partition(":")
    domain = next((known for known in DOMAINS if known == name), None)
    first, _, last = seeds.partition("-")
    if domain is not None and first.isdigit() and (last or first).isdigit():
        for seed in range(int(first), int(last or first) + 1):
            for frame in layered_sequence(domain, seed, config.frames):
                yield f"{domain}:{seed}", frame
        return
    if not Path(place).is_dir():
        raise TrainingError(
            f"pairs {place}: neither a folder nor DOMAIN:SEED or DOMAIN:FIRST-LAST with {', '.join(DOMAINS)}"
        )
    for number, frame in zip(range(config.frames), read_folder(Path(place)), strict=False):
        yield f"{place}/{number // _TOGETHER}", reduced(frame, config.width)


def measure_of(config: PairsConfig, folder: Path) -> Measure | None:
    """The recipe's measure; None for 1 everywhere. The path of a CCNN begins in `folder`, or stands by itself.

    Raises:
        TrainingError: The CCNN cannot be read.
    """
    if config.confidence == "none":
        return None
    if config.confidence != "ccnn":
        return MEASURES[config.confidence]
    beside = Path(os.path.normpath(folder / config.ccnn))  # by its text: the run's folder need not exist yet
    return ccnn_measure(beside if beside.is_file() else Path(config.ccnn))


def ccnn_measure(path: Path) -> Measure:
    """The measure of a trained CCNN.

    Raises:
        TrainingError: The checkpoint is missing or another network's.
    """
    checkpoint = load_checkpoint(path)
    if checkpoint.config.model != "ccnn":
        raise TrainingError(f"{path}: {checkpoint.config.model} is no confidence network")
    network = create_model("ccnn")
    adopt(network, checkpoint.ema, f"checkpoint {path}")
    network.eval()

    def measure(left: Pictures, right: Pictures, match: Match) -> Floats:
        with torch.inference_mode():
            found: Floats = network(torch.from_numpy(match.disparity_px[None]))[0].numpy()
        return found

    return measure
