"""Does a click pick the person that was clicked? Drawn crowds with known people, inputs like a network's.

`python -m tests.benchmarks.refocus.picking` prints the intersection over union of the matte picked by each click with
what is visible of the person clicked; a click that picks nobody counts 0. People stand on one floor under one
perspective: the deeper in the picture, the smaller. A third of them is placed clear of all others, where there is room;
of the groups that make up the rest, 35 in 75 are rows of two or three shoulder to shoulder at one depth, 40 in 75 are
two behind one another, and groups fall on one another as they may. As seen, of the 62 people in crowds 0 to 11, 15 are
apart, 32 overlap with somebody at another depth and 15 touch only people at their own.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from service.imaging import people, refocus

from . import truth
from .degrade import Inputs, as_served, exact, network_output
from .scenes import HEIGHT, WIDTH, Layer, Stage, Visible, visible
from .score import dilated

_SIZE_PX = 640  # height of a person at inverse depth 1
_EYE_LEVEL = 0.85  # of a person's height: where the camera is
_ROWS = 35 / 75  # of the groups: rows; the others are two behind one another
_HALF_WIDTH = 0.36  # of a person's height: an arm stretched out, at the tallest
_AIR_PX = 8  # between one who stands alone and anybody
_TRIES = 400  # to place those who stand alone; where there is no room for them, there are fewer people
_LEAST_SHARE = 0.004  # of the frame: smaller visible parts of people are not clicked on
_MOSTLY = 0.5  # of a person: what others hide less of is mostly seen
_SAME_DEPTH = 0.05  # inverse depth: people nearer to one another than this cannot be told apart by it
CROWDS = 48
CLICKS = 20
"""In each crowd."""
KINDS = ("apart", "overlapping", "same depth")
"""Of a person: touching nobody; touching someone in the picture; touching only people at its own depth."""


@dataclass(frozen=True, slots=True)
class Click:
    """One click and what it gave; `seen_share` is what others leave of the clicked person, of what the frame holds."""

    crowd: int
    kind: str
    seen_share: float
    picked: bool
    iou: float
    possible: float


def crowd(seed: int) -> tuple[Layer, ...]:
    """Four to eight people: rows at one depth, people behind one another, and a third by themselves."""
    stage = Stage(np.random.default_rng((seed, 4)))
    rng = stage.rng
    stage.wall(str(rng.choice(["plaster", "foliage", "bricks", "posters", "planks", "stripes"])), (0.03, 0, 0))
    horizon = int(rng.integers(130, 230))
    slope = 1 / (_EYE_LEVEL * _SIZE_PX)
    top = horizon + round(0.12 / slope)
    stage.floor(str(rng.choice(["plaster", "planks", "bricks"])), top, 0.12, (HEIGHT - horizon) * slope)
    places: list[tuple[float, float]] = []
    wanted = int(rng.integers(4, 9))
    alone = round(wanted / 3)
    while len(places) < wanted - alone:
        depth, x = rng.uniform(0.28, 0.85), rng.uniform(0.08, 0.92) * WIDTH
        size = depth * _SIZE_PX
        if rng.random() < _ROWS:  # shoulder to shoulder
            step = size * rng.uniform(0.24, 0.34)
            group = [(depth + rng.normal() * 0.008, x + step * index) for index in range(int(rng.integers(2, 4)))]
        else:  # one behind the other
            group = [(depth, x), (max(0.2, depth - rng.uniform(0.08, 0.3)), x + size * rng.normal() * 0.2)]
        places += [place for place in group if 20 < place[1] < WIDTH - 20]
    places = places[: wanted - alone]
    for _ in range(_TRIES):
        if len(places) == wanted:
            break
        depth, x = rng.uniform(0.2, 0.85), rng.uniform(0.04, 0.96) * WIDTH
        if all(abs(x - other) > (depth + near) * _SIZE_PX * _HALF_WIDTH + _AIR_PX for near, other in places):
            places.append((depth, x))
    for depth, x in sorted(places):
        size = depth * _SIZE_PX
        stage.figure(round(x), round(horizon + _EYE_LEVEL * size), size * rng.uniform(0.9, 1.08), depth)
    return tuple(stage.layers)


def kinds(seen: Visible) -> list[str]:
    """One of `KINDS` for each person."""
    masks = seen.mattes > 0.5
    depths = [float(np.median(seen.inverse_depth[mask])) if mask.any() else 0.0 for mask in masks]
    found = []
    for index, mask in enumerate(masks):
        near = dilated(mask, 4)
        others = [other for other in range(len(masks)) if other != index and (near & masks[other]).any()]
        same = [abs(depths[other] - depths[index]) < _SAME_DEPTH for other in others]
        found.append("apart" if not others else "same depth" if all(same) else "overlapping")
    return found


def seen_shares(layers: tuple[Layer, ...], seen: Visible) -> list[float]:
    """Of each person within the frame, the share that nobody hides."""
    figures = {layer.person: layer for layer in layers if layer.person is not None}
    alone = [float(visible((layers[0], figures[number])).mattes.sum()) for number in seen.people]
    return [float(matte.sum()) / max(whole, 1.0) for matte, whole in zip(seen.mattes, alone, strict=True)]


def iou(first: np.ndarray, second: np.ndarray) -> float:
    either = int((first | second).sum())
    return int((first & second).sum()) / either if either else 0.0


def best_split(anyone: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The matte of all people divided with knowledge of the truth, each pixel given to the nearest person."""
    away = np.stack([cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5) for mask in masks])
    return (away.argmin(axis=0)[None] == np.arange(len(masks))[:, None, None]) & anyone


def inputs_of(seen: Visible, photo: np.ndarray, seed: int, track: str) -> Inputs:
    """As the service would have them, from a network's output or from exact depth and the exact matte of all."""
    if track == "pred":
        return as_served(network_output(seen, seed), photo)
    anyone = (1 - np.prod(1 - exact(seen).mattes, axis=0)).astype(np.float32)
    return Inputs(seen.inverse_depth, people.split(anyone, seen.inverse_depth, photo))


def measure(number: int, track: str, clicks: int, pictures: Path | None = None) -> list[Click]:
    layers = crowd(number)
    seen = visible(layers)
    photo = truth.srgb.photo(truth.expose(layers, focus=0, strength_px=0))
    inputs = inputs_of(seen, photo, number, track)
    mattes = refocus.prepare(photo, inputs.inverse_depth, inputs.mattes).mattes
    masks = seen.mattes > 0.5
    anyone = (mattes > 127).any(axis=0) if len(mattes) else np.zeros((HEIGHT, WIDTH), bool)
    ideal = best_split(anyone, masks)
    named, shares = kinds(seen), seen_shares(layers, seen)
    clear = [cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0 for mask in seen.mattes > 0.9]
    shown = [index for index, mask in enumerate(masks) if mask.mean() > _LEAST_SHARE and clear[index].any()]
    rng, given = np.random.default_rng((number, 9)), []
    for index in rng.choice(shown, clicks):
        rows, columns = np.nonzero(clear[index])
        spot = rng.integers(len(rows))
        at_click = mattes[:, rows[spot], columns[spot]]
        person = int(at_click.argmax()) if at_click.size and at_click.max() > 127 else None  # as routes.focus does
        agreement = iou(mattes[person] > 127, masks[index]) if person is not None else 0.0
        possible = iou(ideal[index], masks[index])
        given.append(Click(number, named[index], shares[index], person is not None, agreement, possible))
    if pictures is not None:
        _picture(pictures / f"crowd-{number:02}-{track}.png", photo, masks, mattes > 127, inputs.inverse_depth)
    return given


def _picture(path: Path, photo: np.ndarray, true: np.ndarray, found: np.ndarray, depth: np.ndarray) -> None:
    """Photo, true people, people found, inverse depth."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colours = np.random.default_rng(1).integers(60, 256, (64, 3))

    def painted(masks: np.ndarray) -> np.ndarray:
        canvas = photo // 4
        for index, mask in enumerate(masks):
            canvas[mask] = canvas[mask] + colours[index] // 2
        return canvas.astype(np.uint8)

    turbo = cv2.applyColorMap((depth.clip(0, 1) * 255).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    sheet = np.vstack([np.hstack([photo, painted(true)]), np.hstack([turbo, painted(found)])])
    cv2.imwrite(str(path), sheet[..., ::-1])


def table(clicks: list[Click]) -> str:
    """Markdown: by kind, and all together."""
    lines = [
        "| people | clicks | IoU | at least 0.5 | nobody picked | IoU of the best split |",
        "|---|---|---|---|---|---|",
    ]
    groups = {
        "all": clicks,
        **{kind: [click for click in clicks if click.kind == kind] for kind in KINDS},
        "all who touch": [click for click in clicks if click.kind != "apart"],
        "at least half seen": [click for click in clicks if click.seen_share >= _MOSTLY],
        "less than half seen": [click for click in clicks if click.seen_share < _MOSTLY],
    }
    for name, of in groups.items():
        if of:
            agreement, possible = np.mean([click.iou for click in of]), np.mean([click.possible for click in of])
            half, nobody = np.mean([click.iou >= 0.5 for click in of]), np.mean([not click.picked for click in of])
            lines.append(f"| {name} | {len(of)} | {agreement:.3f} | {half:.1%} | {nobody:.1%} | {possible:.3f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crowds", default=f"0-{CROWDS - 1}", help="numbers, first-last")
    parser.add_argument("--clicks", type=int, default=CLICKS, help="in each crowd")
    parser.add_argument("--track", choices=("exact", "pred"), default="pred")
    parser.add_argument("--pictures", type=Path, help="folder for PNGs: photo, true people; depth, people found")
    parser.add_argument("--each", action="store_true", help="print each crowd's mean")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    first, last = map(int, options.crowds.split("-"))
    clicks = []
    for number in range(first, last + 1):
        clicks += measure(number, options.track, options.clicks, options.pictures)
        if options.each:
            mean = np.mean([click.iou for click in clicks if click.crowd == number])
            print(f"crowd {number:2}: {mean:.3f}", flush=True)
    print(table(clicks))


if __name__ == "__main__":
    main()
