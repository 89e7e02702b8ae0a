"""A sheet of photos beside what a running gateway makes of them: depth, person, focus near, focus far.

    python tests/benchmarks/contact_sheet.py --url http://127.0.0.1:8080 -o sheet.png photo.jpg ...

With --people each row is the photo, where its people are, up to four of them in focus in turn, and the farthest region
in focus. For looking at: metrics do not show a flipped axis or a halo.
"""

import argparse
import io
import json
import urllib.request
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

CELL = 320
PEOPLE = 4  # shown of one photo
COLORS = ((230, 60, 60), (60, 200, 80), (70, 110, 240), (240, 200, 50))


def post(url: str, body: bytes) -> bytes:
    request = urllib.request.Request(url, body, {"Content-Type": "application/octet-stream"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return bytes(answer.read())


def cell(picture: Image.Image) -> Image.Image:
    picture = picture.convert("RGB")
    picture.thumbnail((CELL, CELL))
    sheet = Image.new("RGB", (CELL, CELL), (32, 32, 32))
    sheet.paste(picture, ((CELL - picture.width) // 2, (CELL - picture.height) // 2))
    return sheet


def clicks(depth: np.ndarray, person: np.ndarray) -> list[tuple[float, float]]:
    """On the largest person (or the nearest region), then on the farthest region."""
    blurred = np.asarray(Image.fromarray(depth).resize((16, 16), Image.Resampling.BOX))
    far = np.unravel_index(blurred.argmin(), blurred.shape)
    near = np.unravel_index(blurred.argmax(), blurred.shape)
    mask = np.asarray(Image.fromarray(person).resize((16, 16), Image.Resampling.BOX))
    if mask.max() > 200:
        near = np.unravel_index(mask.argmax(), mask.shape)
    return [((column + 0.5) / 16, (row + 0.5) / 16) for row, column in (near, far)]


def row(url: str, path: Path) -> Image.Image:
    body = path.read_bytes()
    cells = [Image.open(io.BytesIO(body))]
    cells.append(Image.open(io.BytesIO(post(f"{url}/depth?format=preview&colormap=inferno", body))))
    person = Image.open(io.BytesIO(post(f"{url}/segmentation", body)))
    cells.append(person)
    depth = np.load(io.BytesIO(post(f"{url}/depth?format=npy", body)))
    for rx, ry in clicks(depth, np.asarray(person)):
        cells.append(Image.open(io.BytesIO(post(f"{url}/focus?rx={rx}&ry={ry}&f_number=1.8&format=png", body))))
    return strip_of(cells)


def people_row(url: str, path: Path) -> Image.Image:
    body = path.read_bytes()
    photo = Image.open(io.BytesIO(body)).convert("RGB")
    found = json.loads(post(f"{url}/focus?output=people", body))["people"]
    overlay = np.asarray(ImageOps.exif_transpose(photo), np.float32).copy()
    cells = [photo]
    for person, color in zip(found[:PEOPLE], COLORS, strict=False):
        alpha = Image.open(io.BytesIO(post(f"{url}/focus?person={person['id']}&output=alpha", body)))
        share = 0.6 * np.asarray(alpha, np.float32)[..., None] / 255
        overlay += share * (np.float32(color) - overlay)
    cells.append(Image.fromarray(overlay.astype(np.uint8)))
    for person in found[:PEOPLE]:
        cells.append(Image.open(io.BytesIO(post(f"{url}/focus?person={person['id']}&f_number=1.8&format=png", body))))
    cells += [Image.new("RGB", (CELL, CELL))] * (PEOPLE - len(found[:PEOPLE]))
    depth = np.load(io.BytesIO(post(f"{url}/depth?format=npy", body)))
    nobody = np.zeros(depth.shape, np.uint8)
    rx, ry = clicks(depth, nobody)[1]
    background = post(f"{url}/focus?rx={rx}&ry={ry}&mode=plane&f_number=1.8&format=png", body)
    return strip_of([*cells, Image.open(io.BytesIO(background))])


def strip_of(cells: list[Image.Image]) -> Image.Image:
    strip = Image.new("RGB", (CELL * len(cells), CELL))
    for index, picture in enumerate(cells):
        strip.paste(cell(picture), (index * CELL, 0))
    return strip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--people", action="store_true", help="each person in focus in turn")
    options = parser.parse_args()
    rows = [(people_row if options.people else row)(options.url, path) for path in options.photos]
    sheet = Image.new("RGB", (rows[0].width, CELL * len(rows)))
    for index, strip in enumerate(rows):
        sheet.paste(strip, (0, index * CELL))
    sheet.save(options.output)
    print(json.dumps({"photos": [str(path) for path in options.photos], "sheet": str(options.output)}))


if __name__ == "__main__":
    main()
