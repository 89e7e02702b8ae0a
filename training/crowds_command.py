"""`python -m training crowds` composes crowds for the task person_votes, `export-votes` writes its network."""

import argparse
import functools
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.errors import TrainingError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from training.data.pasting import Cutout

_TALLEST_PX = 640  # cut-outs are not kept larger: nobody in a crowd is much taller
_LEAST_PHOTO_PX = 120  # height of a photographed person worth showing
_LEAST_RENDERED_PX = 90
_LEAST_SHARE = 0.01  # of the photo
_CHUNK = 4


def add_commands(commands: Any) -> None:
    """Declares `crowds` and `export-votes`; `commands` is argparse's collection of commands."""
    command = commands.add_parser(
        "crowds", help="compose crowds", description="Compose crowds of cut-out people, for the task person_votes."
    )
    command.add_argument("--count", type=int, required=True, help="crowds to compose: seeds SEED to SEED + COUNT - 1")
    command.add_argument("--seed", type=int, default=0, help="first seed (default 0)")
    command.add_argument("--out", type=Path, required=True, help="folder for the crowds, e.g. runs/votes/crowds")
    command.add_argument("--people", type=Path, nargs="+", default=(), help="folders of NAME.jpg with NAME_mask.png")
    command.add_argument("--scenes", type=Path, help="scenes that `synth` rendered, whose people are cut out too")
    command.add_argument("--backgrounds", type=Path, nargs="+", required=True, help="folders of photos, .jpg")
    command.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    command.set_defaults(run=_crowds)

    command = commands.add_parser(
        "export-votes",
        help="write the network that tells people apart",
        description="Write person votes as ONNX, compared with torch in OpenCV, which runs it in the gateway.",
    )
    command.add_argument("--checkpoint", type=Path, required=True, help="e.g. runs/person_votes/best.pt")
    command.add_argument("--out", type=Path, required=True, help="ONNX file")
    command.set_defaults(run=_export)


def _export(arguments: argparse.Namespace) -> None:
    from training.votes_export import export_votes

    difference = export_votes(arguments.checkpoint, arguments.out)
    size_mb = arguments.out.stat().st_size / 1e6
    print(f"{arguments.out}: {size_mb:.1f} MB, OpenCV at most {difference:.1e} off torch")


@dataclass(frozen=True, slots=True)
class Order:
    """What to compose crowds from, and where to put them.

    Attributes:
        out: Folder of the crowds.
        people: Folders of photographed people with masks.
        scenes: Folder of rendered scenes; None without.
        backgrounds: Folders of photos.
    """

    out: Path
    people: tuple[Path, ...]
    scenes: Path | None
    backgrounds: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class _Material:
    people: "tuple[list[Cutout], ...]"
    backgrounds: tuple[Path, ...]


def _crowds(arguments: argparse.Namespace) -> None:
    if arguments.count < 1 or arguments.seed < 0 or arguments.jobs < 1:
        raise TrainingError("--count and --jobs must be at least 1, --seed at least 0")
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # parallel work is done by processes
        os.environ.setdefault(variable, "1")
    import cv2
    from tqdm import tqdm

    cv2.setNumThreads(1)
    order = Order(arguments.out, tuple(arguments.people), arguments.scenes, tuple(arguments.backgrounds))
    seeds = range(arguments.seed, arguments.seed + arguments.count)
    written = 0
    with tqdm(total=len(seeds), unit="crowd", mininterval=5) as bar:
        for made in compose(order, seeds, arguments.jobs):
            written += made
            bar.update()
    print(f"{arguments.out}: {written} crowds composed, {len(seeds) - written} were there")


def compose(order: Order, seeds: range, jobs: int = 1) -> Iterator[bool]:
    """Composes the crowds that are not in `order.out` yet; for each seed whether it was composed now.

    Raises:
        TrainingError: A folder is missing or of a set that is kept for judging, or shows nobody.
    """
    from concurrent.futures import ProcessPoolExecutor

    from training.data.crowd_files import crowd_name

    try:
        order.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"cannot write {order.out}: {error.strerror}") from error
    waiting = [seed for seed in seeds if not (order.out / crowd_name(seed)).is_file()]
    yield from (False for _ in range(len(seeds) - len(waiting)))
    if not waiting:
        return
    _material(order)  # errors of the folders show before any process starts, and the processes share what is read
    if jobs == 1:
        yield from (_compose_one(order, seed) for seed in waiting)
        return
    with ProcessPoolExecutor(jobs, get_context("fork")) as pool:
        yield from pool.map(functools.partial(_compose_one, order), waiting, chunksize=_CHUNK)


def _compose_one(order: Order, seed: int) -> bool:
    import numpy as np

    from training.data.crowd_files import crowd_name, stored_arrays, write_crowd
    from training.data.crowds import draw_crowd, networks_view
    from training.data.sample import read_rgb

    material = _material(order)
    crowd = draw_crowd(seed, material.people, [functools.partial(read_rgb, path) for path in material.backgrounds])
    seen = networks_view(crowd, np.random.default_rng((seed, 6)))
    write_crowd(order.out / crowd_name(seed), *stored_arrays(crowd, seen))
    return True


@functools.lru_cache(maxsize=1)
def _material(order: Order) -> _Material:
    from training.data.person import PERSON_TRUTH_SETS, UNSEEN_PHOTO_SETS

    kept_back = {*PERSON_TRUTH_SETS, *UNSEEN_PHOTO_SETS}
    for folder in order.backgrounds:
        if folder.name in kept_back:
            raise TrainingError(f"photos of {folder.name} are kept for judging; give other --backgrounds")
        if not folder.is_dir():
            raise TrainingError(f"backgrounds not found: {folder}")
    backgrounds = tuple(
        path for folder in order.backgrounds for path in sorted(folder.rglob("*.jpg")) if ".right" not in path.name
    )
    if not backgrounds:
        raise TrainingError(f"no photo (.jpg) in {', '.join(map(str, order.backgrounds))}")
    photographed = [cut for folder in order.people for cut in _photographed(folder)]
    rendered = list(_rendered(order.scenes)) if order.scenes else []
    if not photographed and not rendered:
        folders = [*order.people, *([order.scenes] if order.scenes else [])]
        raise TrainingError(
            f"nobody to cut out in {', '.join(map(str, folders)) or 'no folder'}: see --people, --scenes"
        )
    return _Material((photographed, rendered), backgrounds)


def _photographed(folder: Path) -> "Iterator[Cutout]":
    from training.data.sample import BrokenSampleError, read_gray, read_rgb
    from training.data.synthetic.cutouts import ALLOWED_SETS

    if folder.name not in ALLOWED_SETS:
        raise TrainingError(f"people of {folder.name} are not for training; allowed: {', '.join(ALLOWED_SETS)}")
    for path in sorted(folder.glob("*_mask.png")):
        photo = path.with_name(re.sub(r"_mask\.png$", ".jpg", path.name))
        try:
            image, mask = read_rgb(photo), read_gray(path)
        except BrokenSampleError:
            continue
        yield from each_person(image, mask, _LEAST_PHOTO_PX)


def _rendered(scenes: Path) -> "Iterator[Cutout]":
    from training.data.sample import BrokenSampleError
    from training.data.synthetic.dataset import SOURCE_CC0, read_scene, read_scenes

    for path in read_scenes(scenes):
        try:
            sample = read_scene(path)
        except BrokenSampleError:
            continue
        # what photographs people may be of sets that are kept for judging; drawn ones are of none
        if sample.person is not None and sample.source == SOURCE_CC0:
            yield from each_person(sample.image, sample.person, _LEAST_RENDERED_PX)


def each_person(
    image: "npt.NDArray[np.uint8]", mask: "npt.NDArray[np.uint8] | npt.NDArray[np.uint16]", least_px: int
) -> "Iterable[Cutout]":
    """Everybody in a photo (H, W, 3) who stands whole and apart from others in the mask (H, W) and is tall enough."""
    import cv2
    import numpy as np

    from training.data.pasting import Cutout, cut_out
    from training.data.sample import Sample

    if mask.shape != image.shape[:2]:
        return
    count, labels, boxes, _ = cv2.connectedComponentsWithStats((mask > 127).astype(np.uint8))
    for index in range(1, count):
        tall, area = boxes[index, cv2.CC_STAT_HEIGHT], boxes[index, cv2.CC_STAT_AREA]
        if tall < least_px or area < _LEAST_SHARE * mask.size:
            continue
        alone = np.where(labels == index, mask, 0).astype(np.uint8)
        for cut in cut_out([Sample("", "", "", image, person=alone)]):
            scale = min(1.0, _TALLEST_PX / cut.image.shape[0])
            picture, alpha = (
                cv2.resize(layer, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
                for layer in (cut.image, cut.alpha)
            )
            yield Cutout(picture.astype(np.uint8, copy=False), alpha.astype(np.float32, copy=False))
