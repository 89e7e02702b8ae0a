"""Votes for each person's chest and height, and who is alike (`training.models.person_votes`), from composed crowds."""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from service.imaging import votes as served
from training.config_votes import VotesConfig
from training.data.bank import Batch
from training.data.sample import Sample
from training.data.transforms import warp, whole_map
from training.distributed import share
from training.errors import TrainingError
from training.models.person_votes import REFERENCE_HEIGHT_PX, STRIDE, UNIT_PX, network_input
from training.tasks.task import Surroundings

_FEWEST_PIXELS = 20  # of a person who counts: whoever is hidden but for a speck cannot be told from noise
_MOST_PEOPLE = 256  # in a picture: their numbers are stored in 8 bits
_CHEST_RADIUS_PX = 3
_AREA_POWER = 0.25  # of the pixels seen: how much a person counts; who hardly shows is the hardest to tell apart
_FAR = 20.0  # squared distance beyond which a vote is hardly worse for being farther off


class PersonVotesTask:
    """Smooth L1 of the votes; every person counts by the fourth root of the area seen, the taller the less."""

    def __init__(self, config: VotesConfig, surroundings: Surroundings) -> None:
        self._config = config

    def wants(self, sample: Sample) -> bool:
        """Crowds in which somebody is seen."""
        return sample.votes is not None and bool(sample.votes[..., 2].any())

    def forward(self, network: nn.Module) -> nn.Module:
        """The network itself."""
        return network

    def losses(self, forward: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """`loss`; `offset`, the mean of dx and dy's, and `height`."""
        config, device, votes = self._config, batch.image.device, batch.votes
        if votes is None:
            raise TrainingError("task person_votes: a batch without votes; sources must hold crowds alone")
        with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
            found = forward(network_input(batch.image, batch.person, batch.inverse_depth))
        error = F.smooth_l1_loss(found[:, :3].float(), target(votes), reduction="none", beta=config.beta)
        weight = weights(votes)
        total = weight.sum().clamp(min=1e-9)
        across, down, height = ((channel * weight).sum() / total for channel in error.unbind(1))
        wrong = confusion(found.float(), votes, weight)
        loss = across + down + config.height_weight * height + config.owner_weight * wrong
        pictures = int((weight > 0).flatten(1).any(1).sum())
        return {
            "loss": share(pictures, device) * loss,
            "offset": (across + down) / 2,
            "height": height,
            "owner": wrong,
        }

    def metrics(self, network: nn.Module, samples: Sequence[Sample]) -> dict[str, float]:
        """Means over all people, by the loss's weights.

        `vote_error`: how far votes lie from the chest, in heights of the person; `height_error`: |found / true - 1|.
        """
        sums = np.zeros(3)
        for sample in samples:
            batch = _whole(sample)
            assert batch.votes is not None  # `wants` says so
            found, weight = predict(network, batch), weights(batch.votes)
            height = batch.votes[:, 2].clamp(min=1)
            missed = torch.linalg.vector_norm(found[:, :2] - batch.votes[:, :2], dim=1) / height
            taller = (found[:, 2] / height - 1).abs()
            sums += [float((value * weight).sum()) for value in (missed, taller, torch.ones_like(weight))]
        return dict(zip(("vote_error", "height_error"), (sums[:2] / sums[2]).tolist(), strict=True)) if sums[2] else {}

    def panel(self, network: nn.Module, sample: Sample) -> npt.NDArray[np.uint8]:
        """Photo with true chests (green), then every person's pixels where they vote, in a colour for each."""
        batch = _whole(sample)
        assert batch.votes is not None  # `wants` says so
        truth, found = batch.votes[0].numpy(), predict(network, batch)[0].numpy()
        photo: npt.NDArray[np.uint8] = batch.image[0].numpy().copy()
        voted = photo // 4
        for number in np.unique(truth[3][truth[3] > 0]):
            rows, columns = np.nonzero(truth[3] == number)
            chest = int(columns[0] + truth[0, rows[0], columns[0]]), int(rows[0] + truth[1, rows[0], columns[0]])
            cv2.circle(photo, chest, _CHEST_RADIUS_PX, (0, 255, 0), -1)
            x, y = columns + found[0, rows, columns], rows + found[1, rows, columns]
            inside = (x >= 0) & (y >= 0) & (x < photo.shape[1] - 0.5) & (y < photo.shape[0] - 0.5)
            colour = np.random.default_rng(int(number)).integers(96, 256, 3)
            voted[np.rint(y[inside]).astype(int), np.rint(x[inside]).astype(int)] = colour
        return np.hstack([photo, voted])


def target(votes: Tensor) -> Tensor:
    """What the network should give: votes float32 (B, 4, H, W) as in `Batch` -> (B, 3, H, W); 0 where nobody is."""
    height = torch.where(votes[:, 2] > 0, votes[:, 2], REFERENCE_HEIGHT_PX)
    return torch.cat([votes[:, :2] / UNIT_PX, torch.log(height / REFERENCE_HEIGHT_PX)[:, None]], 1)


def weights(votes: Tensor) -> Tensor:
    """How much each pixel counts, float32 (B, H, W).

    A person's pixels together count by the fourth root of their number, or else tall people alone would; an error of a
    pixel counts in shares of the person's height, which is what it costs the grouping. Specks count nothing.
    """
    owner = votes[:, 3].round().long()
    pictures = torch.arange(len(owner), device=owner.device)[:, None, None] * _MOST_PEOPLE
    numbered = (owner + pictures).flatten()
    area = torch.bincount(numbered, minlength=len(owner) * _MOST_PEOPLE)[numbered].view(owner.shape)
    counts = (owner > 0) & (votes[:, 2] > 0) & (area >= _FEWEST_PIXELS)
    weight = area.clamp(min=1).float().pow(_AREA_POWER - 1) * REFERENCE_HEIGHT_PX / votes[:, 2].clamp(min=1e-3)
    return torch.where(counts, weight, 0.0)


def confusion(found: Tensor, votes: Tensor, weight: Tensor) -> Tensor:
    """How far pixels vote for others than their owner: what costs a person pixels, where errors alone may not.

    Cross-entropy over the people seen in the picture, the nearer a vote falls and the more alike the pixel is to the
    person's others the likelier, in the units in which the service tells votes apart (`service.imaging.votes`); far
    misses count less than their square.

    Args:
        found: float32 (B, 3 or more, H, W), what the network gives: votes and, behind them, likeness.
        votes: float32 (B, 4, H, W), as in `Batch`.
        weight: float32 (B, H, W), of `weights`.

    Returns:
        Scalar: weighted mean over the pixels of pictures that show two people or more.
    """
    y, x = (torch.arange(side, device=found.device, dtype=torch.float32) for side in found.shape[2:])
    total, counted = found.sum() * 0.0, weight.new_zeros(())
    for said, true, counts in zip(found, votes, weight, strict=True):
        inside = counts > 0
        owners, first = _first_of_each(true[3][inside])
        if len(owners) < 2:
            continue
        places = (x.expand_as(counts)[inside], y[:, None].expand_as(counts)[inside])
        chest = [(places[axis] + true[axis][inside])[first, None] for axis in (0, 1)]
        height = true[2][inside][first, None]
        pointed = [places[axis] + said[axis][inside] * UNIT_PX for axis in (0, 1)]
        apart = ((pointed[0] - chest[0]) / (served.ACROSS * height)).square()
        apart = apart + ((pointed[1] - chest[1]) / (served.DOWN * height)).square()
        tall = said[2][inside] - torch.log(height / REFERENCE_HEIGHT_PX)
        apart = apart + (tall / served.HEIGHT).square()
        own = torch.searchsorted(owners, true[3][inside])
        likeness = said[3:, inside].T
        sums = likeness.new_zeros(len(owners), likeness.shape[1]).index_add(0, own, likeness)
        typical = sums / torch.bincount(own, minlength=len(owners))[:, None]
        apart = apart + (typical[:, None] - likeness).square().sum(2)
        nearness = -apart / (1 + apart / _FAR)
        error = F.cross_entropy(nearness.T, own, reduction="none")
        total = total + (error * counts[inside]).sum()
        counted = counted + counts[inside].sum()
    return total / counted.clamp(min=1e-9)


def _first_of_each(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """The different numbers (n,), ascending, and where each stands first."""
    owners, place = torch.unique(numbers, return_inverse=True)
    order = torch.arange(len(numbers), device=numbers.device)
    first = torch.full((len(owners),), len(numbers), device=numbers.device).scatter_reduce(0, place, order, "amin")
    return owners, first


def predict(network: nn.Module, batch: Batch) -> Tensor:
    """Votes in pixels by a network in eval mode, float32 (B, 3, H, W): dx, dy, height."""
    with torch.inference_mode():
        found = network(network_input(batch.image, batch.person, batch.inverse_depth)).float()
    return torch.cat([found[:, :2] * UNIT_PX, torch.exp(found[:, 2:3]) * REFERENCE_HEIGHT_PX], 1)


def _whole(sample: Sample) -> Batch:
    """A crowd seen whole at the nearest size that the network takes."""
    height, width = sample.image.shape[:2]
    size = max(STRIDE, round(height / STRIDE) * STRIDE), max(STRIDE, round(width / STRIDE) * STRIDE)
    return Batch.of([warp(sample, whole_map((height, width), size), size)])
