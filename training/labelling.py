"""Labels from teachers: disparity by stereo matching, and people, whom three published networks vote on.

Only what they agree on becomes a label. Teachers, run with OpenVINO: DeepLabV3 on MobileNetV2 (Chen et al.,
arXiv:1706.05587; Pascal class 15 is person), BodyPix (Papandreou et al., PersonLab, arXiv:1803.08225) and MediaPipe
selfie segmentation. Their weights and licences are listed in the MANIFEST.tsv of the weights folder.

A label is uint8 (H, W): 255 person, 0 not, 127 ignore, the convention of `data/truth_person`.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from training.data.person import IGNORE, PERSON
from training.data.sample import BrokenSampleError, read_rgb
from training.data.stereo import SCALE, proxy_disparity, read_pair
from training.errors import TrainingError

DEEPLAB = "deeplabv3_mnv2_pascal_quant.tflite"
BODYPIX = "bodypix_mnv1_050_s8_480x640.onnx"
SELFIE = "selfie_segmentation.onnx"
_PASCAL_PERSON = 15
_SEEN_SHARE = 0.001  # DeepLab must see a person on this share of the pixels before the other two may call one
_SAME_PEOPLE = 0.75  # intersection over union from which the selfie network is taken to see what the others see
_BORDER = 0.03  # share of the longer side by which outlines may differ

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Votes:
    """What each teacher says, bool (H, W) each."""

    deeplab: Array
    bodypix: Array
    selfie: Array


def combine(votes: Votes) -> npt.NDArray[np.uint8]:
    """Label from votes: two agreeing teachers make a person, one alone makes the pixel unknown.

    The selfie network alone counts for nothing, because it expects one near person and finds one in most pictures.
    The pair without DeepLab counts only where DeepLab sees somebody in the picture: both others see people in bears
    and camels.

    Args:
        votes: Three masks of one picture.

    Returns:
        uint8 (H, W): 255 person, 127 ignore, 0 not.
    """
    count = votes.deeplab.astype(np.uint8) + votes.bodypix + votes.selfie
    label = np.zeros(count.shape, np.uint8)
    label[votes.deeplab | votes.bodypix] = IGNORE
    pair_without_deeplab = votes.bodypix & votes.selfie & ~votes.deeplab
    agreed = count >= 2
    if votes.deeplab.mean() < _SEEN_SHARE:
        agreed &= ~pair_without_deeplab
    label[agreed] = PERSON
    return _outlined(label, votes)


def _outlined(label: npt.NDArray[np.uint8], votes: Votes) -> npt.NDArray[np.uint8]:
    """Where the selfie network sees the same people as the majority, the outline is its: it is much the sharpest.

    It draws around near people better than the other two (`docs/results/default_network.md`), and sees nobody far away;
    so what the others agree on beyond its outline stays a person, and what one of them alone sees farther than a
    border's width from it stays unknown.
    """
    agreed = label == PERSON
    union = (agreed | votes.selfie).sum()
    if union == 0 or (agreed & votes.selfie).sum() / union < _SAME_PEOPLE:
        return label
    radius = max(1, round(_BORDER * max(label.shape)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    near = cv2.dilate(votes.selfie.astype(np.uint8), kernel) > 0
    result = np.where(near, 0, label).astype(np.uint8)
    result[votes.selfie] = PERSON
    both = (votes.deeplab & votes.bodypix).astype(np.uint8)
    # not the thin rim by which both are wider than the outline, but whole people beyond it
    beyond = cv2.dilate(cv2.erode(both & ~near, np.ones((3, 3), np.uint8)), kernel) > 0
    result[beyond & (both > 0)] = PERSON
    return result


def _fit(image: Array, height: int, width: int) -> tuple[Array, int, int]:
    """`image` scaled to fit and padded right and below with mid grey; also the used height and width."""
    scale = min(height / image.shape[0], width / image.shape[1])
    used_h = min(height, round(image.shape[0] * scale))
    used_w = min(width, round(image.shape[1] * scale))
    canvas = np.full((height, width, 3), 127, np.uint8)
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    canvas[:used_h, :used_w] = cv2.resize(image, (used_w, used_h), interpolation=interpolation)
    return canvas, used_h, used_w


class PersonTeachers:
    """The three networks, compiled once; call with one picture."""

    def __init__(self, weights: Path) -> None:
        import openvino

        core = openvino.Core()
        self._networks = {}
        for name in (DEEPLAB, BODYPIX, SELFIE):
            path = weights / name
            if not path.is_file():
                raise TrainingError(f"teacher weights not found: {path}; give their folder with --weights")
            self._networks[name] = core.compile_model(core.read_model(path), "CPU")

    def __call__(self, image: npt.NDArray[np.uint8]) -> Votes:
        """Votes of the teachers for RGB uint8 (H, W, 3)."""
        height, width = image.shape[:2]

        canvas, used_h, used_w = _fit(image, 513, 513)
        classes = self._networks[DEEPLAB](canvas[None])[0][0, :used_h, :used_w]
        deeplab = cv2.resize((classes == _PASCAL_PERSON).astype(np.float32), (width, height))

        canvas, used_h, used_w = _fit(image, 480, 640)
        result = self._networks[BODYPIX](canvas[None].astype(np.float32) / 127.5 - 1)
        logits = cv2.resize(result["float_segments"][0, :, :, 0], (640, 480))[:used_h, :used_w]
        bodypix = cv2.resize(logits, (width, height))

        # MediaPipe stretches the picture to the square; so do we.
        square = cv2.resize(image, (256, 256), interpolation=cv2.INTER_AREA)
        selfie = self._networks[SELFIE](square.transpose(2, 0, 1)[None].astype(np.float32) / 255)[0][0, 0]
        selfie = cv2.resize(selfie, (width, height))
        return Votes(deeplab > 0.5, bodypix > 0, selfie > 0.5)


def label_pictures(pictures: Iterable[Path], root: Path, weights: Path, out: Path) -> dict[str, int]:
    """Writes one label PNG per picture under `out`, at the picture's path relative to `root`.

    Args:
        pictures: JPEG or PNG files below `root`.
        root: Data folder.
        weights: Folder of the teachers' weights.
        out: Folder for the labels; existing labels are kept, so that a stopped run goes on where it stopped.

    Returns:
        Counts: `labelled`, `kept`, `with_person`, `broken`.
    """
    counts = {"labelled": 0, "kept": 0, "with_person": 0, "broken": 0}
    paths = list(pictures)
    if not paths:
        raise TrainingError(f"no pictures to label below {root}")
    teachers = PersonTeachers(weights)
    for path in tqdm(paths, desc="label", unit="photo"):
        target = (out / path.relative_to(root)).with_suffix(".png")
        if target.is_file():
            counts["kept"] += 1
            continue
        try:
            image = read_rgb(path)
        except BrokenSampleError:
            counts["broken"] += 1
            continue
        label = combine(teachers(image))
        write_png(target, label)
        counts["labelled"] += 1
        counts["with_person"] += int((label == PERSON).mean() > _SEEN_SHARE)
    (out / "counts.json").write_text(json.dumps(counts, indent=2) + "\n")
    return counts


def label_stereo(frames: Iterable[tuple[Path, Path]], root: Path, out: Path) -> dict[str, int]:
    """Writes the disparity of every pair's left picture under `out`, uint16 PNG, 256 a pixel, 0 = none.

    Args:
        frames: (left, right) pictures below `root`.
        root: Data folder.
        out: Folder for the labels; existing ones are kept.

    Returns:
        Counts: `labelled`, `kept`, `broken`.
    """
    counts = {"labelled": 0, "kept": 0, "broken": 0}
    for left, right in tqdm(list(frames), desc="stereo", unit="pair"):
        target = (out / left.relative_to(root)).with_suffix(".png")
        if target.is_file():
            counts["kept"] += 1
            continue
        try:
            disparity = proxy_disparity(*read_pair(left, right))
        except BrokenSampleError:
            counts["broken"] += 1
            continue
        write_png(target, np.rint(disparity * SCALE).astype(np.uint16))
        counts["labelled"] += 1
    return counts


def write_png(path: Path, array: Array) -> None:
    """Writes a picture whole or not at all; its folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".tmp.png")
    cv2.imwrite(str(partial), array)
    partial.rename(path)
