"""Teachers that look at the very views their student sees: crops, turned and recoloured, batch by batch.

Labels made beforehand (`training.teaching.label_depth`) are of whole photos and hold no features; these are not stored.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from training.checkpoint import adopt, load_checkpoint, load_weights
from training.data.sample import BrokenSampleError
from training.distillation import tapped
from training.errors import TrainingError
from training.models import create_model
from training.teaching import ask_service, depth_teacher

_NEAREST_M = 1e-3  # of a metric teacher: keeps its inverse finite


@dataclass(frozen=True)
class Lesson:
    """What a teacher says of a batch; nothing of it has a gradient.

    Attributes:
        inverse_depth: float32 (B, H, W), relative, larger = nearer; the same everywhere in a picture it refused.
        features: The teacher's encoder's, (B, C_i, h_i, w_i), fine to coarse; empty where it is not a network of ours.
    """

    inverse_depth: Tensor
    features: list[Tensor] = field(default_factory=list)


BatchTeacher = Callable[[Tensor], Lesson]
"""uint8 (B, H, W, 3) sRGB -> lesson, on the same device."""


class NetworkTeacher:
    """A network of this package.

    Args:
        network: Gives inverse depth, or depth in metres if its `output` says so; it is frozen and set to evaluation.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network.requires_grad_(False).eval()

    def __call__(self, image: Tensor) -> Lesson:
        """See `BatchTeacher`."""
        encoder = self.network.get_submodule("encoder")
        with torch.no_grad(), tapped(encoder) as features:
            result = self.network(image)
        # networks with several heads begin with depth
        depth = (result[0] if isinstance(result, tuple) else result).float()
        if getattr(self.network, "output", "inverse_depth") == "depth_m":
            depth = 1 / depth.clamp(min=_NEAREST_M)
        return Lesson(depth, features)


class PictureTeacher:
    """Whatever labels one picture at a time.

    Args:
        see: RGB uint8 (H, W, 3) -> inverse depth, float32 (H, W). It may refuse a picture by BrokenSampleError.
    """

    def __init__(self, see: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]) -> None:
        self._see = see

    def __call__(self, image: Tensor) -> Lesson:
        """See `BatchTeacher`."""
        seen = [self._look(picture) for picture in image.cpu().numpy()]
        return Lesson(torch.from_numpy(np.stack(seen)).to(image.device))

    def _look(self, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        try:
            return self._see(picture)
        except BrokenSampleError:
            return np.zeros(picture.shape[:2], np.float32)


def batch_teacher(
    which: str, weights: Path | None, device: str = "cpu", threads: int = 1, sha256: str = ""
) -> BatchTeacher:
    """The teacher of a name, a file or an address.

    Args:
        which: A network of this package, as the `.pt` file of a checkpoint or a `.safetensors` file of weights alone,
            of `training/weights` for instance; `meter_kitti`, `meter_nyu`; `http://host:port` of a running service.
        weights: Folder of the METER networks, and of files whose path does not lead to them.
        device: `cpu` or `cuda`; of a network of this package.
        threads: Of a METER network.
        sha256: Of a `.safetensors` file.

    Raises:
        TrainingError: No such teacher, or its weights are missing or others.
    """
    if which.endswith(".pt"):
        checkpoint = load_checkpoint(_found(which, weights))
        network = create_model(checkpoint.config.model)
        adopt(network, checkpoint.ema, f"checkpoint {which}")
        return NetworkTeacher(network.to(device))
    if which.endswith(".safetensors"):
        path = _found(which, weights)
        network = create_model(_model_of(path))
        load_weights(network, path, sha256)
        return NetworkTeacher(network.to(device))
    if which.startswith(("http://", "https://")):
        return PictureTeacher(lambda picture: _ask(which.rstrip("/"), picture))
    see = depth_teacher(which, weights, threads).see
    return PictureTeacher(lambda picture: see(Path(), picture))


def _found(which: str, weights: Path | None) -> Path:
    """The file of that path, of that name in `training/weights` or in the folder `weights`, whichever there is."""
    places = [Path(which), Path(__file__).parent / "weights" / which]
    places += [weights / which] if weights is not None else []
    return next((path for path in places if path.is_file()), places[-1])


def _model_of(path: Path) -> str:
    """Name of the network whose weights a file of `save_weights` holds."""
    import safetensors

    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return str((file.metadata() or {}).get("model"))
    except (OSError, safetensors.SafetensorError) as error:
        raise TrainingError(f"teacher weights {path}: not readable: {str(error).splitlines()[0]}") from error


def _ask(url: str, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    written, content = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if not written:
        raise TrainingError(f"depth teacher {url}: a view of {picture.shape} cannot be written as PNG")
    seen = ask_service(url, content.tobytes(), "image/png")
    if seen.shape != picture.shape[:2]:
        raise BrokenSampleError(f"{url}: depth of {seen.shape} for a view of {picture.shape[:2]}")
    return seen
