"""Every system on the same pictures by the same protocols; scores are kept beside the checkpoint they belong to."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from service.contract import Size
from service.imaging.geometry import Letterbox
from training.data.bank import is_held_out
from training.data.sample import Sample
from training.data.synthetic.dataset import read_scene, read_scenes
from training.data.truth import depth_truth
from training.errors import TrainingError
from training.metric_depth import mean_over_pictures
from training.protocols import PROTOCOLS, DepthPredictor, Output, depth_m_of

REAL = ("nyu", "planes", "redkitchen", "tum", "unidepth_demo")
"""Sources of `truth_depth` with depth in metres whose truth ends within 10 m: rooms, by depth cameras. Of the others,
four KITTI sets lie mostly beyond 10 m, leres_demo has no scale, and Middlebury, Scene Flow and KITTI 2015 hold
disparity."""

SETS = ("scenes", "real")
IN_METRES, MEDIAN, RELATIVE = "indoor", "indoor_median", "zero_shot"
"""Protocols of the page."""


@dataclass(frozen=True)
class Picture:
    """One picture judged by one protocol.

    Attributes:
        set: `scenes` or `real`.
        source: Of the picture.
        name: Of the picture.
        protocol: Name in `PROTOCOLS`.
        errors: By metric.
    """

    set: str
    source: str
    name: str
    protocol: str
    errors: dict[str, float]


@dataclass(frozen=True)
class Judged:
    """A system's scores.

    Attributes:
        checkpoint_sha256: Of what was judged.
        truth: What it was judged on (`truth_of`).
        output: What the network gives.
        parameters: How many it has.
        gigaflop: Of one picture; multiplication and addition counted apart.
        pictures: Scores.
    """

    checkpoint_sha256: str
    truth: str
    output: Output
    parameters: int
    gigaflop: float
    pictures: list[Picture]

    def of(self, kind: str, protocol: str) -> dict[str, dict[str, float]]:
        """Errors by picture of one set."""
        return {p.name: p.errors for p in self.pictures if p.set == kind and p.protocol == protocol}

    def mean(self, kind: str, protocol: str) -> dict[str, float]:
        """Means over the pictures of each source, then over sources with equal weight; empty without pictures."""
        sources: dict[str, list[dict[str, float]]] = defaultdict(list)
        for picture in self.pictures:
            if picture.set == kind and picture.protocol == protocol:
                sources[picture.source].append(picture.errors)
        rows = [mean_over_pictures(rows) for rows in sources.values()]
        if not rows:
            return {}
        return mean_over_pictures(rows) | {"pictures": sum(row["pictures"] for row in rows)}

    def write(self, path: Path) -> None:
        """As JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Judged | None":
        """What `write` wrote; None if there is nothing that can be read."""
        try:
            found = json.loads(path.read_text())
            return cls(**(found | {"pictures": [Picture(**picture) for picture in found["pictures"]]}))
        except (OSError, ValueError, TypeError, KeyError):
            return None


def truth(data: Path, scenes: Path, most: int) -> dict[str, list[Sample]]:
    """Pictures to judge on, by set, with depth in metres.

    Args:
        data: Data folder.
        scenes: Folder of rendered scenes; those held out are judged.
        most: Scenes at most; 0 for all.

    Raises:
        TrainingError: Either has none.
    """
    paths = [path for path in read_scenes(scenes) if is_held_out(path.stem)]
    if not paths:
        raise TrainingError(f"no held-out scene below {scenes}: one in ten is, by its name; render more with `synth`")
    chosen = paths[:: max(1, len(paths) // most)][:most] if most else paths
    real = [sample for sample in depth_truth(data) if sample.source in REAL]
    if not real:
        raise TrainingError(f"no depth in metres of {', '.join(REAL)} below {data / 'truth_depth'}")
    return {"scenes": [read_scene(path) for path in chosen], "real": real}


def metres_share(sample: Sample) -> float:
    """Share of a picture's pixels that are judged in metres."""
    return float(PROTOCOLS[IN_METRES].valid(depth_m_of(sample)).mean())


def truth_of(samples: dict[str, list[Sample]], size: Size) -> str:
    """What scores depend on beside the network, in words: they are made anew when it changes."""
    said = [f"{len(found)} of {kind}: {found[0].name} to {found[-1].name}" for kind, found in samples.items()]
    return f"{'; '.join(said)}; at {size[0]} x {size[1]}"


def depth_predictor(network: nn.Module, size: Size) -> DepthPredictor:
    """The network on a picture of any size, letterboxed to `size` and back as the service does it."""
    network.eval()

    def predict(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        letterbox = Letterbox.of(image.shape[0], image.shape[1], size)
        with torch.inference_mode():
            result = network(torch.from_numpy(letterbox.fit(image)[None]))
        depth: npt.NDArray[np.float32] = depth_of(result)[0].float().numpy()
        return letterbox.unfit(depth)

    return predict


def depth_of(result: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
    """The depth among a network's outputs: the first."""
    return result if isinstance(result, torch.Tensor) else result[0]


def output_of(network: nn.Module) -> Output:
    """What a network says it gives; inverse depth where it says nothing."""
    said = getattr(network, "output", "inverse_depth")
    return "depth_m" if said == "depth_m" else "inverse_depth"


def protocols_for(kind: str, output: Output) -> tuple[str, ...]:
    """Names of the protocols a set is judged by; only networks that give metres are judged in metres."""
    if output == "inverse_depth":
        return (RELATIVE,)
    return (IN_METRES, RELATIVE) if kind == "scenes" else (IN_METRES, MEDIAN, RELATIVE)


def judge_network(
    network: nn.Module, samples: dict[str, list[Sample]], size: Size, checkpoint_sha256: str, title: str = ""
) -> Judged:
    """Scores of one network on every set by every protocol.

    Args:
        network: To judge.
        samples: See `truth`.
        size: (height, width) of its input.
        checkpoint_sha256: To know the scores by.
        title: Of the progress bar; none without.
    """
    output, predict = output_of(network), depth_predictor(network, size)
    pictures = []
    everything = [(kind, sample) for kind, found in samples.items() for sample in found]
    for kind, sample in tqdm(everything, desc=title, unit="picture", disable=not title):
        prediction, target = predict(sample.image), depth_m_of(sample)
        for name in protocols_for(kind, output):
            errors = PROTOCOLS[name].errors(prediction, target, output)
            if errors is not None:
                pictures.append(Picture(kind, sample.source, sample.name, name, errors))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Judged(checkpoint_sha256, truth_of(samples, size), output, parameters, gigaflop(network, size), pictures)


def gigaflop(network: nn.Module, size: Size) -> float:
    """10^9 floating point operations of one picture of `size`, multiply and add counted apart."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, *size, 3, dtype=torch.uint8))
    return float(counter.get_total_flops()) / 1e9
