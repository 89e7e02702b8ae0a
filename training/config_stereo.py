"""Keys of the objectives on rectified pairs."""

from dataclasses import dataclass
from typing import Literal

from training.confidence import MeasureName
from training.errors import TrainingError
from training.proxies import Matcher
from training.recipe import TrainConfig

Confidence = Literal["none", "ccnn", MeasureName]


@dataclass(frozen=True, kw_only=True)
class StereoConfig(TrainConfig):
    """Disparity (`training.tasks.stereo`): weights of the scales, coarsest first; how many `layered` worlds to draw."""

    scale_weights: tuple[float, ...]
    layered: int = 600


@dataclass(frozen=True, kw_only=True)
class PairsConfig(TrainConfig):
    """Pairs that a matcher labels (`training.data.proxy_pairs`), from the source `pairs`.

    Attributes:
        pairs: Folders of rectified pairs, as `training.data.stereo_pairs.read_folder` knows them, or drawn ones:
            `DOMAIN:SEED`, or `DOMAIN:FIRST-LAST` for several worlds.
        frames: Of each folder or world, at most.
        width: Larger frames are reduced to it.
        matcher: Makes the labels.
        confidence: How far they can be trusted: a measure of `training.confidence`, `ccnn`, or `none` for 1 everywhere.
        ccnn: Checkpoint of a trained CCNN, seen from the run's folder.
        outliers: Share of the labels that are made wrong, for experiments.
    """

    pairs: tuple[str, ...]
    frames: int = 50
    width: int = 640
    matcher: Matcher = "sgm"
    confidence: Confidence = "none"
    ccnn: str = ""
    outliers: float = 0.0

    def __post_init__(self) -> None:
        """Refuses values that cannot work together."""
        super().__post_init__()
        if not self.pairs or self.frames < 1 or self.width < 1:
            raise TrainingError(f"pairs needs an entry, frames ({self.frames}) and width ({self.width}) at least 1")
        if (self.confidence == "ccnn") != bool(self.ccnn):
            raise TrainingError(f"confidence is {self.confidence}, ccnn is {self.ccnn!r}: one needs the other")
        if not 0 <= self.outliers < 1:
            raise TrainingError(f"outliers is {self.outliers}: it must be at least 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class ConfidenceConfig(PairsConfig):
    """A confidence network (`training.tasks.confidence`).

    Attributes:
        target: What is called right: labels near the `truth`, or those whose `confidence` by the recipe's measure is
            at least a half, where there is no truth.
        right_px: How near, pixels.
    """

    target: Literal["truth", "confidence"] = "truth"
    right_px: float = 1.0

    def __post_init__(self) -> None:
        """Refuses values that cannot work together."""
        super().__post_init__()
        if self.target == "confidence" and self.confidence in ("none", "ccnn"):
            raise TrainingError("target confidence needs a measure to learn from, such as confidence: left_right")


@dataclass(frozen=True, kw_only=True)
class ProxyConfig(PairsConfig):
    """Offline adaptation to labels of a matcher (`training.tasks.proxy_adaptation`).

    Attributes:
        guidance: `none`: every label counts alike; `fixed`: those whose confidence is above the threshold, each by its
            confidence; `learned`: the threshold is learned with the network.
        threshold: tau, 0..1; where it begins, if it is learned.
        threshold_lr: Rate at which the logit of a learned one moves.
        threshold_penalty: Of -log(1 - tau), which keeps a learned one below 1.
        smoothness_weight: Of the disparity's gradients where the picture has none.
        photometric_weight: Of how badly the right picture explains the left.
        disparity_share: Disparity that an inverse depth of 1 stands for, as a share of the picture's width; of
            monocular networks. For those that give metres: focal length in picture widths times baseline in metres.
    """

    guidance: Literal["none", "fixed", "learned"] = "fixed"
    threshold: float = 0.8
    threshold_lr: float = 0.01
    threshold_penalty: float = 0.1
    smoothness_weight: float = 0.1
    photometric_weight: float = 0.1
    disparity_share: float = 0.3

    def __post_init__(self) -> None:
        """Refuses values that cannot work together."""
        super().__post_init__()
        if not 0 <= self.threshold < 1 or (self.guidance == "learned" and not self.threshold):
            raise TrainingError(f"threshold is {self.threshold}: it must be at least 0 and below 1, above 0 if learned")
        if min(self.smoothness_weight, self.photometric_weight, self.threshold_penalty) < 0:
            raise TrainingError("smoothness_weight, photometric_weight and threshold_penalty must be at least 0")
        if self.disparity_share <= 0 or self.threshold_lr <= 0:
            raise TrainingError("disparity_share and threshold_lr must be above 0")
