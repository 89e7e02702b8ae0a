"""Drawn crowds to learn telling people apart from, of other numbers than those that are judged (`picking.py`).

`python -m tests.benchmarks.refocus.drawn_crowds --count 900 --out DIR/crowds_drawn` writes them as
`python -m training crowds` writes those of photographed people: photo, the maps a network gives, who is where.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from service.imaging import depth, matte
from service.imaging.geometry import resize
from training.data.crowd_files import LONG_SIDE_PX, crowd_name, write_crowd

from . import truth
from .degrade import network_output
from .figures import ABOVE, BELOW
from .picking import crowd
from .scenes import HEIGHT, WIDTH, visible

FIRST = 10_000
"""Number of the first crowd to learn from; below, they are for choosing limits and for judging."""

_CHEST = 0.765  # of a figure's height above the ground


def write(number: int, path: Path) -> None:
    """One crowd, reduced to what the network sees."""
    layers = crowd(number)
    seen = visible(layers)
    photo = truth.srgb.photo(truth.expose(layers, focus=0, strength_px=0))
    output = network_output(seen, number)
    inverse_depth = depth.upsample_guided(depth.normalise(output.inverse_depth)[0], photo)
    person = matte.upsample_guided(output.person, photo)
    scale = LONG_SIDE_PX / max(HEIGHT, WIDTH)
    size = round(HEIGHT * scale), round(WIDTH * scale)
    owner = np.zeros((HEIGHT, WIDTH), np.uint8)
    people = []
    figures = {layer.person: layer for layer in layers if layer.person is not None}
    for place, number_of_person in enumerate(seen.people):
        owner[seen.mattes[place] > 0.5] = place + 1
        layer = figures[number_of_person]
        height_px = layer.light.shape[0] / (ABOVE + BELOW)
        chest_y = layer.top + (ABOVE - _CHEST) * height_px
        people.append((layer.left + layer.light.shape[1] / 2, chest_y, height_px))
    write_crowd(
        path,
        resize(photo, size),
        np.rint(resize(person, size) * 255).astype(np.uint8),
        resize(inverse_depth, size),
        cv2.resize(owner, size[::-1], interpolation=cv2.INTER_NEAREST),
        np.float32(people).reshape(-1, 3) * np.float32(scale),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=900)
    parser.add_argument("--out", type=Path, required=True, help="folder, e.g. runs/crowds/crowds_drawn")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    for number in tqdm(range(FIRST, FIRST + options.count), unit="crowd"):
        path = options.out / crowd_name(number)
        if not path.exists():
            write(number, path)


if __name__ == "__main__":
    main()
