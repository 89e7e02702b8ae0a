"""Seeds to rendered pictures, and many of them to a folder, with several processes."""

import functools
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from training.data.synthetic.assets import Library, load_library
from training.data.synthetic.camera import develop, exposure
from training.data.synthetic.people import Cast
from training.data.synthetic.render import Tracer, View
from training.data.synthetic.scene import ATTEMPTS, Scene, acceptable, build_scene
from training.data.synthetic.stereo import occluded
from training.data.synthetic.writer import is_written, write_scene


@dataclass(frozen=True, slots=True)
class Rendering:
    """A scene with its pictures.

    Attributes:
        scene: What was rendered.
        image: uint8 (H, W, 3), sRGB, left.
        view: Depth, people and objects of the left camera.
        right: uint8 (H, W, 3), sRGB; None without stereo.
        occluded: bool (H, W), left pixels that the right camera does not see; None without stereo.
    """

    scene: Scene
    image: npt.NDArray[np.uint8]
    view: View
    right: npt.NDArray[np.uint8] | None = None
    occluded: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """What to render and from what.

    Attributes:
        out: Folder of the scenes.
        size: Height and width in pixels.
        stereo: Whether to render pairs.
        assets: Folder of models and textures; None for drawn ones.
        photos: Folders of photographs.
        people: Folders of photographed people with masks.
    """

    out: Path
    size: tuple[int, int] = (240, 320)
    stereo: bool = False
    assets: Path | None = None
    photos: tuple[Path, ...] = ()
    people: tuple[Path, ...] = ()


def render_scene(
    seed: int, library: Library, cast: Cast, size: tuple[int, int], stereo: bool = False, kind: str | None = None
) -> Rendering:
    """The picture (or pair) of `seed`; views that show nothing are drawn anew, the last attempt is kept."""
    for attempt in range(ATTEMPTS):
        scene = build_scene(seed, library, cast, size, attempt, kind)
        tracer = Tracer(scene.soup, library.atlas, scene.shot.lights, scene.shot.sky)
        view = tracer.view(scene.camera, np.random.default_rng([seed, 100 + attempt]))
        if acceptable(scene, view):
            break
    gain = exposure(view.radiance)
    image = develop(view.radiance, gain, scene.finish, np.random.default_rng([seed, 200]))
    if not stereo:
        return Rendering(scene, image, view)
    other = scene.camera.moved_right(scene.shot.baseline_m)
    right = tracer.view(other, np.random.default_rng([seed, 300]))
    right_image = develop(right.radiance, gain, scene.finish, np.random.default_rng([seed, 400]))
    hidden = occluded(view.inverse_depth, right.inverse_depth, scene.camera.focal_px * scene.shot.baseline_m)
    return Rendering(scene, image, view, right_image, hidden)


@functools.lru_cache(maxsize=1)
def _workshop(assets: Path | None, photos: tuple[Path, ...], people: tuple[Path, ...]) -> tuple[Library, Cast]:
    library = load_library(assets, photos, people)
    return library, Cast(library.characters)


def _render_one(order: Order, seed: int) -> tuple[str, float]:
    """Renders and writes one seed; its kind and the CPU seconds it took."""
    library, cast = _workshop(order.assets, order.photos, order.people)
    start = time.process_time()
    rendering = render_scene(seed, library, cast, order.size, order.stereo)
    write_scene(order.out, rendering)
    return rendering.scene.kind, time.process_time() - start


def generate(order: Order, seeds: range, workers: int = 1) -> Iterator[tuple[str, float]]:
    """Renders the seeds that are not in `order.out` yet; yields kind and CPU seconds of each.

    Raises:
        TrainingError: A folder is missing or unusable.
    """
    order.out.mkdir(parents=True, exist_ok=True)
    waiting = [seed for seed in seeds if not is_written(order.out, seed)]
    if waiting:
        _workshop(order.assets, order.photos, order.people)  # errors of the folders show before any process starts
    if workers <= 1:
        yield from (_render_one(order, seed) for seed in waiting)
        return
    with ProcessPoolExecutor(workers, get_context("fork")) as pool:
        yield from pool.map(functools.partial(_render_one, order), waiting, chunksize=4)


def render_all(order: Order, seeds: range, workers: int = 1) -> str:
    """Renders with a progress bar; a sentence on number, speed and shares of the kinds."""
    start, seconds = time.perf_counter(), 0.0
    kinds: dict[str, int] = {}
    with tqdm(total=len(seeds), unit="scene", mininterval=5) as bar:
        for kind, spent in generate(order, seeds, workers):
            kinds[kind] = kinds.get(kind, 0) + 1
            seconds += spent
            bar.update()
    count = sum(kinds.values())
    if not count:
        return f"nothing to render: all {len(seeds)} seeds are in {order.out}"
    wall = time.perf_counter() - start
    shares = ", ".join(f"{kind} {number / count:.0%}" for kind, number in sorted(kinds.items()))
    return (
        f"{count} scenes in {wall:.0f} s: {count / wall:.2f} scenes/s, {seconds / count:.2f} CPU s/scene "
        f"({len(seeds) - count} were there); {shares}"
    )
