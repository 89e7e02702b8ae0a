"""`make bench-refocus`: refocused pictures against ray-traced truth, beside the plain ways of doing it.

`python -m tests.benchmarks.refocus --only ours --scenes 1,2` measures our renderer alone on two of the twelve scenes.
Truths are made on the first run, 9 seconds of processor time each and half a minute by night, and kept in `--cache`.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from service.imaging.refocus import focus_depth_at

from . import baselines, renderers, scenes, truth
from .degrade import Inputs, as_served, exact, network_output, plainly
from .renderers import Order, Renderer
from .scenes import LayeredScene, View, Visible
from .score import Score, Summary, regions, row, score, summary

ROOT = Path(__file__).parents[3]
RENDERERS: dict[str, Renderer] = {
    "unchanged": renderers.unchanged,
    "gaussian": baselines.mask_and_gaussian,
    "gather": baselines.gather,
    "scatter": baselines.scatter,
    "layered": baselines.layered,
    "ours": renderers.ours,
}
TRACKS = ("exact", "pred")
HEADINGS = tuple(Summary.__dataclass_fields__)


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


def measure(
    scene: LayeredScene, options: argparse.Namespace, chosen: dict[str, Renderer]
) -> dict[tuple[str, str], list[Score]]:
    """Scores of the scene's views by (renderer, track)."""
    seen, photo = scenes.visible(scene.layers), truth.pinhole(scene)
    truths = truth.cached(scene, options.cache, options.seed, options.points)
    output = network_output(seen, options.seed * 100 + scene.number)
    given = {
        "exact": (exact(seen), exact(seen)),
        "pred": (as_served(output, photo), plainly(output)) if "pred" in options.tracks else None,
    }
    scores = defaultdict(list)
    for index, (view, true) in enumerate(zip(scene.views, truths, strict=True)):
        where = regions(seen, view)
        for track in options.tracks:
            served, plain = given[track]
            for name, render in chosen.items():
                inputs = served if name == "ours" else plain
                result = render(photo, inputs, order_of(view, seen, inputs, track))
                scores[name, track].append(score(result, true, where))
                if options.pictures:
                    pictures(options.pictures, f"{scene.number:02}-{index}-{track}-{name}", photo, true, result)
                if options.views:
                    figures = " ".join(f"{one:>6}" for one in row(scores[name, track][-1]))
                    print(f"{scene.number:2} {scene.name:10} {index} {track:5} {name:12} {figures}", flush=True)
    return scores


def table(scores: dict[tuple[str, str], list[Score]]) -> str:
    """Markdown: means over views."""
    lines = [f"| renderer | track | {' | '.join(HEADINGS)} |", "|---|---|" + "---|" * len(HEADINGS)]
    lines += [f"| {name} | {track} | {' | '.join(row(summary(of)))} |" for (name, track), of in scores.items()]
    return "\n".join(lines) + "\n"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--only", help="renderers, separated by commas: " + ", ".join(RENDERERS))
    made.add_argument("--scenes", default=",".join(map(str, range(1, 13))), help="numbers, separated by commas")
    made.add_argument("--tracks", default=",".join(TRACKS), help="exact, pred or both")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--points", type=int, default=truth.POINTS, help="of the lens")
    made.add_argument("--cache", type=Path, default=ROOT / ".cache" / "refocus", help="where truths are kept")
    made.add_argument("--pictures", type=Path, help="folder for PNGs: input, truth, result, four times the error")
    made.add_argument("--views", action="store_true", help="print every view's figures")
    made.add_argument("--out", type=Path, help="Markdown file for the table")
    return made


def main() -> None:
    options = parser().parse_args()
    options.tracks = options.tracks.split(",")
    cv2.setNumThreads(1)
    chosen = {name: RENDERERS[name] for name in (options.only.split(",") if options.only else RENDERERS)}
    scores: dict[tuple[str, str], list[Score]] = defaultdict(list)
    for number in tqdm([int(one) for one in options.scenes.split(",")], desc="scenes", disable=options.views):
        for key, of in measure(scenes.scene(number, options.seed), options, chosen).items():
            scores[key] += of
    text = table(scores)
    if options.out:
        options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
