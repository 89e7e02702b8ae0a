"""One scene through all contenders."""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from service.imaging.refocus import focus_depth_at

from . import baselines, renderers, scenes, srgb, truth
from .degrade import Inputs, as_served, exact, network_output, plainly
from .renderers import Order, Renderer
from .report import Costs, Scores
from .scenes import View, Visible
from .score import regions, row, score

RENDERERS: dict[str, Renderer] = {
    "unchanged": renderers.unchanged,
    "gaussian": baselines.mask_and_gaussian,
    "gather": baselines.gather,
    "scatter": baselines.scatter,
    "layered": baselines.layered,
    "ours": renderers.ours,
}
TRACKS = ("exact", "pred")


def order_of(view: View, seen: Visible, inputs: Inputs, track: str) -> Order:
    """What a click on the view's spot asks for; on exact inputs the very focus and subject of the truth."""
    if track == "exact":
        subject = None if view.subject is None else seen.people.index(view.subject)
        return Order(view.focus, view.strength_px, subject, view.blades)
    column, row_ = view.click
    at_click = inputs.mattes[:, row_, column]
    person = int(at_click.argmax()) if at_click.size and at_click.max() > 0.5 else None
    subject = person if view.subject is not None else None
    own = None if subject is None else (inputs.mattes[subject] > 0.5).astype(np.float32)
    focus = focus_depth_at(inputs.inverse_depth, column, row_, own)
    return Order(focus, view.strength_px * inputs.scale, subject, view.blades)


def pictures(folder: Path, name: str, photo: np.ndarray, true: np.ndarray, result: np.ndarray) -> None:
    """Input, truth, result, and the error four times as large, side by side."""
    folder.mkdir(parents=True, exist_ok=True)
    error = np.clip(np.abs(result.astype(np.int16) - true) * 4, 0, 255).astype(np.uint8)
    sheet = np.vstack([np.hstack([photo, true]), np.hstack([result, error])])
    cv2.imwrite(str(folder / f"{name}.png"), sheet[..., ::-1])


def measure(number: int, options: argparse.Namespace) -> tuple[Scores, Costs]:
    """Scores of a scene's views, and processor seconds per megapixel, by (renderer, track)."""
    cv2.setNumThreads(1)
    scores, costs = defaultdict(list), defaultdict(list)
    chosen = {name: RENDERERS[name] for name in options.only}
    if options.photos:
        scene = scenes.build(number, options.seed, backdrops(options.photos, number))
    else:
        scene = scenes.scene(number, options.seed)
    seen, photo = scenes.visible(scene.layers), truth.pinhole(scene)
    truths = truth.cached(scene, options.cache, options.seed, options.points, "-photos" if options.photos else "")
    output = network_output(seen, options.seed * 100 + scene.number)
    given = {
        "exact": (exact(seen), exact(seen)),
        "pred": (as_served(output, photo), plainly(output)) if "pred" in options.tracks else None,
    }
    for index, (view, true) in enumerate(zip(scene.views, truths, strict=True)):
        where = regions(seen, view)
        for track in options.tracks:
            served, plain = given[track]
            for name, render in chosen.items():
                inputs = served if name == "ours" else plain
                order, started = order_of(view, seen, inputs, track), time.process_time()
                result = render(photo, inputs, order)
                costs[name, track].append((time.process_time() - started) / photo[..., 0].size * 1e6)
                scores[name, track].append(score(result, true, where))
                if options.pictures:
                    pictures(options.pictures, f"{scene.number:02}-{index}-{track}-{name}", photo, true, result)
                if options.views:
                    figures = " ".join(f"{one:>6}" for one in row(scores[name, track][-1]))
                    print(f"{scene.number:2} {scene.name:10} {index} {track:5} {name:12} {figures}", flush=True)
    return scores, costs


def backdrops(folder: Path, number: int) -> Callable[[np.random.Generator, int, int], np.ndarray]:
    """A photo of the folder for a scene's wall, enlarged to cover it, with grain; linear light."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))

    def backdrop(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        picture = cv2.imread(str(paths[number * 7 % len(paths)]))[..., ::-1]
        factor = max(height / picture.shape[0], width / picture.shape[1]) + 1e-3
        large = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)[:height, :width]
        return srgb.decode(np.clip(large + rng.normal(0, 2, large.shape), 0, 255) / 255)

    return backdrop
