"""Keys of the objectives on rectified pairs."""

from dataclasses import dataclass

from training.recipe import TrainConfig


@dataclass(frozen=True, kw_only=True)
class StereoConfig(TrainConfig):
    """Disparity (`training.tasks.stereo`): weights of the scales, coarsest first; how many `layered` worlds to draw."""

    scale_weights: tuple[float, ...]
    layered: int = 600
