"""How sharp and how well placed depth edges are after each way of enlarging a network's map, and what that costs.

`python -m tests.benchmarks.edges --data ../shared/data` writes `docs/results/edges.md`.

Maps to enlarge: truth made as small as the network's output and blurred by a Gaussian of 0, 1.5 and 3 of its pixels
(networks blur); the served network's own output; and cut-outs, real photos laid over one another at 0.7 megapixels,
whose depth is exact to the pixel. Measure: `training.metrics.boundary_f1`.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

from service.benchmark import clock
from service.benchmark.page import Table
from service.benchmark.pictures import photo as noise_photo
from service.benchmark.refocus import depth_scene
from service.imaging.geometry import Letterbox, resize
from service.imaging.sharpening import sharp_upsample
from training.data.truth import depth_truth
from training.metrics import STRICT, TOLERANT, boundary_f1

from . import upsamplers
from .__main__ import ROOT, machine

Method = Callable[[np.ndarray, np.ndarray], np.ndarray]

METHODS: dict[str, Method] = {
    "plain (`edges=raw`)": upsamplers.plain,
    "guided filter": upsamplers.guided_filter,
    "joint bilateral": upsamplers.joint_bilateral,
    "domain transform": upsamplers.domain_transform,
    "snapped, photo unseen": upsamplers.snapped,
    "snapped and guided (before)": upsamplers.snapped_and_guided,
    "ours (`edges=sharp`)": sharp_upsample,
}
SOURCES = ("middlebury", "sceneflow", "leres_demo", "unidepth_demo", "nyu", "redkitchen", "tum", "planes")
BLURS_PX = (0.0, 1.5, 3.0)

ABOUT = """F1, precision and recall of depth contours, means over sources: within 2 pixels and thinned, and *strict*:
pixel for pixel as Depth Pro's authors compute it (arXiv 2410.02073); both are `training.metrics.boundary_f1`. *Texture*
is what an upsampler adds to flat parts, per mille of the map's range from pixel to pixel. One thread for everything.
"""


@dataclass(frozen=True, slots=True)
class Case:
    """A photo with its true inverse depth, 0 = unknown, and the small map to enlarge."""

    source: str
    photo: np.ndarray
    truth: np.ndarray
    small: np.ndarray


def filled(inverse_depth: np.ndarray) -> np.ndarray:
    """Holes take the value of the nearest pixel that has one."""
    known = inverse_depth > 0
    if known.all():
        return inverse_depth
    _, nearest = cv2.distanceTransformWithLabels(
        (~known).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    values = np.zeros(nearest.max() + 1, np.float32)
    values[nearest[known]] = inverse_depth[known]
    return values[nearest]


def shrunk(truth: np.ndarray, blur_px: float) -> np.ndarray:
    """Truth at the size the network would give, and half the photo's where that is hardly smaller."""
    size = Letterbox.of(*truth.shape).content_size
    if min(truth.shape) < 1.2 * min(size):
        size = (truth.shape[0] // 2, truth.shape[1] // 2)
    small = resize(filled(truth), size)
    return np.ascontiguousarray(cv2.GaussianBlur(small, (0, 0), blur_px) if blur_px else small)


def truths(data: Path, per_source: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Source, photo and truth of the dense sets."""
    seen: dict[str, int] = defaultdict(int)
    for sample in depth_truth(data):
        seen[sample.source] += 1
        if sample.source in SOURCES and seen[sample.source] <= per_source:
            yield sample.source, sample.image, sample.inverse_depth


def cut_out(photos: list[Path], seed: int, height: int = 720, width: int = 960) -> tuple[np.ndarray, np.ndarray]:
    """Photo textures on four to seven smooth shapes and posts before one another: the picture, its inverse depth."""
    rng = np.random.default_rng(seed)

    def texture() -> np.ndarray:
        image = cv2.imread(str(photos[rng.integers(len(photos))]))[..., ::-1]
        scale = max(height / image.shape[0], width / image.shape[1]) + 1e-3
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        return image[:height, :width].astype(np.float32)

    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / max(height, width)
    picture, inverse = texture(), (0.15 + 0.35 * y * rng.uniform(0.3, 1)).astype(np.float32)
    for level in np.sort(rng.uniform(0.35, 1, rng.integers(4, 8))):
        mask = np.zeros((height, width), np.float32)
        if rng.random() < 0.75:
            angle = np.linspace(0, 2 * np.pi, 720, endpoint=False)
            radius, rough = np.ones_like(angle), rng.uniform(0.1, 0.6)
            for wave in range(2, 14):
                radius += rough / wave * rng.normal() * np.cos(wave * angle + rng.uniform(0, 7))
            radius = np.maximum(radius, 0.25) * height * rng.uniform(0.12, 0.28)
            centre = rng.uniform(0.15, 0.85) * width, rng.uniform(0.25, 0.85) * height
            points = np.stack([centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle)], axis=1)
            cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], 1.0, cv2.LINE_AA, 4)
        else:
            top = rng.uniform(0.1, 0.9) * width
            ends = (int(top), 0), (int(top + rng.normal() * 0.15 * width), height)
            cv2.line(mask, *ends, 1.0, max(3, int(rng.uniform(0.006, 0.03) * width)), cv2.LINE_AA)
        picture = picture * (1 - mask[..., None]) + texture() * mask[..., None]
        plane = level + rng.normal() * 0.08 * (x - 0.5) + rng.normal() * 0.08 * (y - 0.5)
        inverse = np.where(mask > 0.5, np.maximum(plane, 0.05), inverse).astype(np.float32)
    picture = cv2.GaussianBlur(picture, (0, 0), 0.6) + rng.normal(0, 2, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8), inverse


def measure(cases: list[Case]) -> dict[str, np.ndarray]:
    """Per method: F1, precision, recall (tolerant), F1 (strict), error in flat parts; means over sources of means."""
    rows = {}
    for name, method in METHODS.items():
        by_source: dict[str, list[list[float]]] = defaultdict(list)
        for case in cases:
            result, valid = method(case.small, case.photo), case.truth > 0
            tolerant = boundary_f1(result, case.truth, valid, TOLERANT)
            strict = boundary_f1(result, case.truth, valid, STRICT)
            if tolerant is None or strict is None:
                continue
            texture = roughness_added(result, case)
            by_source[case.source].append([tolerant.f1, tolerant.precision, tolerant.recall, strict.f1, texture])
        rows[name] = np.mean([np.mean(values, axis=0) for values in by_source.values()], axis=0)
    return rows


def roughness_added(result: np.ndarray, case: Case) -> float:
    """Texture in flat parts: mean change from pixel to pixel that plain enlargement has not, per mille of range.

    Flat: farther than 8 pixels of the map from every true step of more than a tenth.
    """
    truth, window = filled(case.truth), np.ones((3, 3), np.uint8)
    step = (cv2.dilate(truth, window) > 1.1 * cv2.erode(truth, window)).astype(np.uint8)
    side = 2 * round(8 * case.photo.shape[1] / case.small.shape[1]) + 1
    flat = cv2.dilate(step, np.ones((side, side), np.uint8))[:, 1:] == 0
    added = np.abs(np.diff(result, axis=1) - np.diff(upsamplers.plain(case.small, case.photo), axis=1))
    return float(added[flat].mean() / np.ptp(case.small) * 1000) if flat.any() else 0.0


def table(title: str, note: str, rows: dict[str, np.ndarray]) -> str:
    """Markdown."""
    lines = [f"## {title}", "", note, "", "| method | F1 | precision | recall | F1, strict | texture ‰ |"]
    lines.append("|---|---|---|---|---|---|")
    lines += [
        f"| {name} | " + " | ".join(f"{value:.3f}" for value in values[:4]) + f" | {values[4]:.3f} |"
        for name, values in rows.items()
    ]
    return "\n".join(lines) + "\n"


def timings(rounds: int) -> list[Table]:
    """One core, maps of 288 x 384."""
    sections = []
    cv2.setNumThreads(1)
    for name, size, times in (("2 Mpx", (1152, 1728), rounds), ("12 Mpx", (3000, 4000), max(3, rounds // 3))):
        picture = noise_photo(*size)
        small = np.ascontiguousarray(shrunk(0.1 + depth_scene(*size), 1.5))
        contenders = {
            "cv2.resize": lambda s=small, p=picture: upsamplers.opencv_linear(s, p),
            "snapped and guided (before)": lambda s=small, p=picture: upsamplers.snapped_and_guided(s, p),
            "ours": lambda s=small, p=picture: sharp_upsample(s, p),
        }
        sections.append(clock.table(f"Time, {name}", clock.interleave(contenders, rounds=times)))
    return sections


def network_maps(model: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The served network: photo to its map without padding."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def predict(photo: np.ndarray) -> np.ndarray:
        letterbox = Letterbox.of(*photo.shape[:2])
        (inverse_depth,) = session.run(["inverse_depth"], {"image": letterbox.fit(photo)[None]})
        return np.ascontiguousarray(letterbox.crop(inverse_depth[0]))

    return predict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with truth_depth/ and photos/")
    parser.add_argument("--model", type=Path, default=ROOT / "model_repository/focus_on_depth/1/model.onnx")
    parser.add_argument("--per-source", type=int, default=2, help="pictures of each source at most")
    parser.add_argument("--cut-outs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=9, help="of the timing")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/edges.md")
    options = parser.parse_args()
    said = machine()
    cv2.setNumThreads(1)
    measured = list(truths(options.data, options.per_source))
    textures = sorted(
        path for folder in ("bsds", "urban100", "moge") for path in (options.data / "photos" / folder).glob("*")
    )
    cut_outs = [cut_out(textures, seed) for seed in range(options.cut_outs)]
    parts = []
    for blur_px in BLURS_PX:
        blurred = f"blurred by {blur_px:g} of its pixels" if blur_px else "not blurred"
        cases = [Case(source, photo, truth, shrunk(truth, blur_px)) for source, photo, truth in measured]
        parts.append(table(f"Measured truth, made small, {blurred}", f"{len(cases)} pictures.", measure(cases)))
        cases = [Case("cut-outs", photo, truth, shrunk(truth, blur_px)) for photo, truth in cut_outs]
        parts.append(table(f"Cut-outs, made small, {blurred}", f"{len(cases)} pictures, seeds from 0.", measure(cases)))
    predict = network_maps(options.model)
    cases = [Case(source, photo, truth, predict(photo)) for source, photo, truth in measured]
    parts.append(table("The served network's own maps", "Aligned to truth by scale and shift.", measure(cases)))
    parts += [section.markdown() for section in timings(options.rounds)]
    command = f"--data ../shared/data --per-source {options.per_source} --cut-outs {options.cut_outs}"
    head = (
        f"# Depth edges\n\n`python -m tests.benchmarks.edges {command} --rounds {options.rounds}`: {said}.\n\n{ABOUT}\n"
    )
    options.out.write_text(head + "\n".join(parts))
    print(options.out.read_text())


if __name__ == "__main__":
    main()
