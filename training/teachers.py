"""Published networks as peers: predictors that are judged like our own.

Depth: METER-XXS (Papa et al., IEEE TCSVT 2023, github.com/lorenzopapa5/METER, MIT), trained on KITTI and on NYU.
People: the three teachers of `training.labelling`, each on its own. Their weights and licences are listed in the
MANIFEST.tsv of the weights folder.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from service.contract import Size
from service.imaging.geometry import resize
from training.errors import TrainingError
from training.evaluation import Prediction, Predictor
from training.labelling import PersonTeachers, Votes

_NEAREST_M = 0.1  # nearer than any of its training: keeps a stray depth of 0 from becoming an infinite inverse


@dataclass(frozen=True)
class Meter:
    """One METER network.

    Attributes:
        file: In the weights folder.
        size: (height, width) of its input; the photo is stretched to it.
        unit_m: What one unit of its output is, in metres.
    """

    file: str
    size: Size
    unit_m: float


METERS = MappingProxyType(
    {
        "METER-KITTI": Meter("meter_xxs_kitti.onnx", (192, 640), 0.1),
        "METER-NYU": Meter("meter_xxs_nyu.onnx", (192, 256), 0.01),
    }
)
"""By the name that tables show."""


def depth_teachers(weights: Path, threads: int) -> dict[str, Predictor]:
    """Predictors of the METER networks by name.

    Raises:
        TrainingError: A file is not in the folder.
    """
    return {name: meter_predictor(meter, weights, threads) for name, meter in METERS.items()}


def meter_predictor(meter: Meter, weights: Path, threads: int) -> Predictor:
    """Metric depth of one METER network as inverse depth in 1/m; nobody anywhere. OpenVINO, float32."""
    import openvino

    path = weights / meter.file
    if not path.is_file():
        raise TrainingError(f"teacher weights not found: {path}; give their folder with --weights")
    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    network = core.compile_model(core.read_model(path), "CPU", settings)

    def predict(image: npt.NDArray[np.uint8]) -> Prediction:
        fitted = resize(image, meter.size).astype(np.float32) / 255
        depth_m = network(fitted.transpose(2, 0, 1)[None])[0][0, 0] * np.float32(meter.unit_m)
        inverse = 1 / np.maximum(depth_m, np.float32(_NEAREST_M))
        return resize(inverse, (image.shape[0], image.shape[1])), np.zeros(image.shape[:2], np.float32)

    return predict


def person_teachers(weights: Path) -> dict[str, Predictor]:
    """Predictors of the person teachers by name; everything equally far.

    Raises:
        TrainingError: A file is not in the folder.
    """
    return split_votes(PersonTeachers(weights))


def split_votes(teachers: Callable[[npt.NDArray[np.uint8]], Votes]) -> dict[str, Predictor]:
    """One predictor for each of three votes, which are asked for once a picture as long as pictures come in turn."""
    last: dict[str, tuple[npt.NDArray[np.uint8], Votes]] = {}

    def votes(image: npt.NDArray[np.uint8]) -> Votes:
        if "one" not in last or last["one"][0] is not image:
            last["one"] = (image, teachers(image))
        return last["one"][1]

    def of(name: str) -> Predictor:
        def predict(image: npt.NDArray[np.uint8]) -> Prediction:
            mask: npt.NDArray[np.bool_] = getattr(votes(image), name)
            return np.ones(image.shape[:2], np.float32), mask.astype(np.float32)

        return predict

    return {"DeepLabV3": of("deeplab"), "BodyPix": of("bodypix"), "selfie": of("selfie")}
