"""Depth labels for photos without truth: of a METER network, of a trained checkpoint, or of a Depthlens service.

A checkpoint labels with the mean of what it says of five sizes of a photo and of their mirror images: better than any
of them alone, so that a network can learn from itself (as in Xie et al., "Self-training with Noisy Student",
arXiv:1911.04252; the mean over scales and mirror images: Radosavovic et al., "Data Distillation", arXiv:1712.04440).
"""

import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from service.imaging.geometry import Letterbox
from training.checkpoint import load_checkpoint
from training.data import taught
from training.data.sample import BrokenSampleError, read_rgb
from training.errors import TrainingError
from training.evaluation import predictor
from training.export import served_network
from training.labelling import write_png
from training.models.focus_on_depth import STRIDE
from training.teachers import METERS, meter_predictor

_ANSWER_TIMEOUT_S = 120
_SHARES = (0.6, 0.75, 1.0, 1.25, 1.5)  # of the served size, at which a checkpoint looks at a photo
_PHOTO_REFUSED = (400, 413, 415, 422)
_EXPECTED = (
    "expected what POST /depth of a Depthlens service answers: a 16-bit PNG of the photo's size with X-Depth-Kind "
    "relative-inverse, X-Depth-Scale and X-Depth-Offset"
)


@dataclass(frozen=True)
class DepthTeacher:
    """Who labels.

    Attributes:
        name: For the folder's `depth.json`.
        shift_known: Whether inverse depth 0 is infinitely far for it.
        see: A photo's file and its pixels, RGB uint8 (H, W, 3) -> inverse depth, float32 (H, W).
    """

    name: str
    shift_known: bool
    see: Callable[[Path, npt.NDArray[np.uint8]], npt.NDArray[np.float32]]


def depth_teacher(which: str, weights: Path | None, threads: int) -> DepthTeacher:
    """The teacher of a name or an address.

    Args:
        which: `meter_kitti`, `meter_nyu`, the `.pt` file of a checkpoint, or `http://host:port` of a running service.
        weights: Folder of the METER networks.
        threads: Of a METER network.

    Raises:
        TrainingError: No such teacher, or its weights are missing.
    """
    if which.startswith(("http://", "https://")):
        return DepthTeacher(
            which.rstrip("/"), False, lambda photo, _: ask_service(which.rstrip("/"), photo.read_bytes())
        )
    if which.endswith(".pt"):
        return DepthTeacher(which, False, _many_looks(Path(which)))
    meters = {name.lower().replace("-", "_"): meter for name, meter in METERS.items()}
    if which not in meters:
        names = ", ".join(sorted(meters))
        raise TrainingError(
            f"no depth teacher {which!r}: give {names}, a checkpoint's .pt file or the http:// address of a "
            "Depthlens service"
        )
    if weights is None:
        raise TrainingError(f"the teacher {which} is a file, {meters[which].file}; give its folder with --weights")
    predict = meter_predictor(meters[which], weights, threads)
    # metric depth: its inverse is 0 at infinity
    return DepthTeacher(which, True, lambda _, image: predict(image)[0])


def _many_looks(checkpoint: Path) -> Callable[[Path, npt.NDArray[np.uint8]], npt.NDArray[np.float32]]:
    served = served_network(load_checkpoint(checkpoint), f"checkpoint {checkpoint}")

    def see(_: Path, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        height, width = Letterbox.of(image.shape[0], image.shape[1]).network
        looks = []
        for share in _SHARES:
            size = max(1, round(height * share / STRIDE)) * STRIDE, max(1, round(width * share / STRIDE)) * STRIDE
            predict = predictor(served, size)
            looks += [predict(image)[0], predict(np.ascontiguousarray(image[:, ::-1]))[0][:, ::-1]]
        mean: npt.NDArray[np.float32] = np.mean(looks, axis=0, dtype=np.float32)
        return mean

    return see


def ask_service(url: str, photo: bytes, kind: str = "image/jpeg") -> npt.NDArray[np.float32]:
    """What a service sees in a photo, in the values of its network.

    Args:
        url: Of the service.
        photo: The photo's file.
        kind: Media type of that file.

    Raises:
        BrokenSampleError: The service refuses the photo.
        TrainingError: No service answers there, or something else than one.
    """
    request = urllib.request.Request(f"{url}/depth?format=png16", photo, {"Content-Type": kind})
    try:
        # The address is what the command was given.
        with urllib.request.urlopen(request, timeout=_ANSWER_TIMEOUT_S) as answer:  # nosec B310
            said, content = answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in _PHOTO_REFUSED:
            raise BrokenSampleError(f"{url} answered {error.code}") from error
        raise TrainingError(f"depth teacher {url} answered {error.code}; {_EXPECTED}") from error
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise TrainingError(f"depth teacher {url} does not answer: {reason}") from error
    stored = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if content else None
    try:
        scale, offset = float(said["X-Depth-Scale"]), float(said["X-Depth-Offset"])
    except (TypeError, ValueError) as error:
        raise TrainingError(f"depth teacher {url} does not say its scale and offset; {_EXPECTED}") from error
    if stored is None or stored.dtype != np.uint16 or stored.ndim != 2 or said["X-Depth-Kind"] != "relative-inverse":
        found = "no picture" if stored is None else f"{stored.dtype} {stored.shape}, {said['X-Depth-Kind']}"
        raise TrainingError(f"depth teacher {url} answered {found}; {_EXPECTED}")
    return (stored * np.float32(scale) + np.float32(offset)).astype(np.float32)


def label_depth(pictures: Iterable[Path], root: Path, teacher: DepthTeacher, out: Path) -> dict[str, int]:
    """Writes the teacher's inverse depth of every picture under `out`, at its path relative to `root`.

    Args:
        pictures: JPEG files below `root`.
        root: Data folder.
        teacher: Who labels.
        out: Folder for the labels; existing ones are kept, so that a stopped run goes on where it stopped.

    Returns:
        Counts: `labelled`, `kept`, `broken`.

    Raises:
        TrainingError: No pictures, the teacher fails, or `out` holds labels of another one.
    """
    counts = {"labelled": 0, "kept": 0, "broken": 0}
    paths = list(pictures)
    if not paths:
        raise TrainingError(f"no pictures to label below {root}")
    taught.describe(out, teacher.name, teacher.shift_known)
    for path in tqdm(paths, desc="depth", unit="photo"):
        target = (out / path.relative_to(root)).with_suffix(taught.SUFFIX)
        if target.is_file():
            counts["kept"] += 1
            continue
        try:
            image = read_rgb(path)
            inverse = teacher.see(path, image)
            if inverse.shape != image.shape[:2]:
                raise BrokenSampleError(f"depth of {inverse.shape} for a photo of {image.shape[:2]}")
            stored = taught.encode(inverse)
        except BrokenSampleError as error:
            counts["broken"] += 1
            tqdm.write(f"left out {path}: {error}", file=sys.stderr)
            continue
        write_png(target, stored)
        counts["labelled"] += 1
    return counts
