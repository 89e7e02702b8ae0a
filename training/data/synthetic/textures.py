"""Textures of all kinds in one mip-mapped atlas: tiles, pictures, cut-outs; drawn ones when no files are given."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

GAMMA = 2.2
TILE_PX = 128
PICTURE_PX = 256
_LINEAR = (np.arange(256, dtype=np.float32) / 255) ** GAMMA

# Where a tile lies on a contact sheet of `textures128/`.
_SHEET_MARGIN_PX, _SHEET_STEP_X_PX, _SHEET_STEP_Y_PX, _SHEET_COLUMNS = 16, 144, 176, 7

DRAWN_CATEGORIES = {
    "Asphalt": (70, 70, 72),
    "Bark": (88, 68, 50),
    "Bricks": (150, 84, 66),
    "Carpet": (120, 96, 110),
    "Concrete": (142, 140, 134),
    "Fabric": (120, 130, 160),
    "Grass": (86, 110, 52),
    "Gravel": (128, 122, 112),
    "Ground": (112, 92, 66),
    "Metal": (160, 162, 166),
    "Paint": (206, 200, 188),
    "PavingStones": (134, 128, 122),
    "Plaster": (214, 208, 196),
    "Rock": (120, 114, 106),
    "Tiles": (200, 204, 206),
    "Wood": (150, 108, 70),
    "WoodFloor": (140, 98, 60),
}
"""Category -> mean sRGB colour of the drawn tiles that stand in for the sheets."""


@dataclass(frozen=True, slots=True)
class Atlas:
    """Square RGBA textures with all their mip levels in one flat array.

    Attributes:
        texels: uint8 (N, 4), sRGB and alpha.
        offsets: int64 (layers, levels), where a level of a layer starts in `texels`.
        sizes_px: int64 (layers,), side of the largest level.
        means: float32 (layers, 3), mean linear colour.
        cutout: bool (layers,), whether alpha below 128 lets rays through.
    """

    texels: Bytes
    offsets: npt.NDArray[np.int64]
    sizes_px: npt.NDArray[np.int64]
    means: Floats
    cutout: npt.NDArray[np.bool_]

    def sample(self, layers: npt.NDArray[np.int32], uv: Floats, footprint: Floats) -> Floats:
        """Linear RGB, float32 (n, 3): bilinear, on the mip level that fits `footprint` (texture widths per pixel)."""
        sizes = self.sizes_px[layers]
        top = np.log2(sizes).astype(np.int64)
        level = np.rint(np.log2(np.maximum(footprint * sizes, 1.0))).astype(np.int64)
        level = np.minimum(level, top)
        side = sizes >> level
        offset = self.offsets[layers, level]
        x, y = uv[:, 0] * side - 0.5, uv[:, 1] * side - 0.5
        column, row = np.floor(x), np.floor(y)
        fx, fy = (x - column)[:, None].astype(np.float32), (y - row)[:, None].astype(np.float32)
        left, up = column.astype(np.int64) & (side - 1), row.astype(np.int64) & (side - 1)
        right, down = (left + 1) & (side - 1), (up + 1) & (side - 1)

        def at(rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> Floats:
            return np.asarray(_LINEAR[self.texels[offset + rows * side + columns, :3]])

        above = at(up, left) * (1 - fx) + at(up, right) * fx
        below = at(down, left) * (1 - fx) + at(down, right) * fx
        return np.asarray(above * (1 - fy) + below * fy, np.float32)

    def opaque(self, layers: npt.NDArray[np.int32], uv: Floats) -> npt.NDArray[np.bool_]:
        """Whether the largest level has alpha of at least 128 at `uv`, bool (n,)."""
        side = self.sizes_px[layers]
        column = np.clip((uv[:, 0] * side).astype(np.int64), 0, side - 1)
        row = np.clip((uv[:, 1] * side).astype(np.int64), 0, side - 1)
        return np.asarray(self.texels[self.offsets[layers, 0] + row * side + column, 3] >= 128)


def build_atlas(groups: Sequence[Bytes]) -> Atlas:
    """Atlas of groups of textures, each uint8 (n, S, S, 3 or 4) with S a power of two; layers in order."""
    texels: list[Bytes] = []
    offsets, sizes, means, cutouts = [], [], [], []
    start, levels = 0, 1 + max(int(np.log2(group.shape[1])) for group in groups)
    for group in groups:
        count, side = len(group), group.shape[1]
        alpha = group[..., 3:] if group.shape[3] == 4 else np.full((*group.shape[:3], 1), 255, np.uint8)
        level = np.concatenate([group[..., :3], alpha], axis=3)
        place = np.zeros((count, levels), np.int64)
        for index in range(levels):
            if index and level.shape[1] > 1:
                level = _halved(level)
            if not index or level.shape[1] < side >> (index - 1):
                place[:, index] = start + np.arange(count) * level.shape[1] ** 2
                texels.append(level.reshape(-1, 4))
                start += count * level.shape[1] ** 2
            else:
                place[:, index] = place[:, index - 1]
        offsets.append(place)
        sizes += [side] * count
        means.append(_LINEAR[level[:, 0, 0, :3]])
        cutouts += [group.shape[3] == 4] * count
    return Atlas(
        np.concatenate(texels),
        np.concatenate(offsets),
        np.array(sizes, np.int64),
        np.concatenate(means).clip(0.02),
        np.array(cutouts, bool),
    )


def _halved(textures: Bytes) -> Bytes:
    """Half as large; the colour of a 2x2 block is weighted by its alpha, in linear light."""
    count, side = len(textures), textures.shape[1] // 2
    result = np.empty((count, side, side, 4), np.uint8)
    for begin in range(0, count, 64):  # in pieces, to keep the float copies small
        block = textures[begin : begin + 64].reshape(-1, side, 2, side, 2, 4)
        alpha = block[..., 3:].astype(np.float32)
        weight = alpha + 1.0
        colour = (_LINEAR[block[..., :3]] * weight).sum(axis=(2, 4)) / weight.sum(axis=(2, 4))
        result[begin : begin + 64, ..., :3] = np.rint(colour ** (1 / GAMMA) * 255)
        result[begin : begin + 64, ..., 3:] = np.rint(alpha.mean(axis=(2, 4)))
    return result


def read_sheets(folder: Path) -> tuple[list[Bytes], list[str]]:
    """Tiles uint8 (128, 128, 3) of the contact sheets in `folder`, and the category (file name) of each."""
    tiles: list[Bytes] = []
    categories: list[str] = []
    for path in sorted(folder.glob("*.webp")):
        with Image.open(path) as picture:
            sheet = np.asarray(picture.convert("RGB"))
        for top in range(_SHEET_MARGIN_PX, sheet.shape[0] - TILE_PX // 3, _SHEET_STEP_Y_PX):
            for column in range(_SHEET_COLUMNS):
                left = _SHEET_MARGIN_PX + column * _SHEET_STEP_X_PX
                tile = sheet[top : top + TILE_PX, left : left + TILE_PX]
                used = (tile.min(axis=2) <= 250).any(axis=1)
                height = int(used.sum())
                if tile.shape[1] != TILE_PX or height < 40:
                    continue
                if height < TILE_PX:
                    tile = cv2.resize(tile[:height], (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA).astype(np.uint8)
                tiles.append(tile)
                categories.append(path.stem)
    return tiles, categories


def square_picture(image: Bytes, side_px: int) -> Bytes:
    """The middle square of `image` (H, W, 3), resized to (side_px, side_px, 3)."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    interpolation = cv2.INTER_AREA if side > side_px else cv2.INTER_CUBIC
    return cv2.resize(square, (side_px, side_px), interpolation=interpolation).astype(np.uint8)


def noise(rng: np.random.Generator, side_px: int, octaves: int = 5, roughness: float = 0.6) -> Floats:
    """Tileable fractal noise, float32 (side_px, side_px), 0..1."""
    total = np.zeros((side_px, side_px), np.float32)
    for octave in range(octaves):
        cells = min(3 * 2**octave, side_px)
        grid = np.pad(rng.random((cells, cells), dtype=np.float32), 2, mode="wrap")
        scale = side_px / cells
        at = (np.arange(side_px, dtype=np.float32) / scale + 1.5).astype(np.float32)
        total += roughness**octave * cv2.remap(
            grid, np.tile(at, (side_px, 1)), np.tile(at[:, None], (1, side_px)), cv2.INTER_CUBIC
        )
    total -= total.min()
    return np.asarray(total / max(float(total.max()), 1e-6), np.float32)


def drawn_tiles(rng: np.random.Generator, per_category: int) -> tuple[list[Bytes], list[str]]:
    """Tiles without any file: noise, planks, bricks and tiles in the mean colour of each category."""
    tiles: list[Bytes] = []
    categories: list[str] = []
    for category, colour in DRAWN_CATEGORIES.items():
        for _ in range(per_category):
            contrast = rng.uniform(0.15, 0.6)
            value = 1 + contrast * (noise(rng, TILE_PX, octaves=6, roughness=rng.uniform(0.5, 0.9)) - 0.5)
            value *= _joints(rng, category)
            tint = np.array(colour) * rng.uniform(0.75, 1.2) * rng.uniform(0.92, 1.08, 3)
            tiles.append(np.clip(value[..., None] * tint, 0, 255).astype(np.uint8))
            categories.append(category)
    return tiles, categories


def _joints(rng: np.random.Generator, category: str) -> Floats:
    """Darker lines between bricks, tiles or planks, float32 (128, 128); ones for other categories."""
    result = np.ones((TILE_PX, TILE_PX), np.float32)
    rows = {"Bricks": 8, "Tiles": 4, "PavingStones": 4, "WoodFloor": 6, "Wood": 2}.get(category, 0)
    if not rows:
        return result
    columns = max(1, rows // 2) if category != "Tiles" else rows
    height, width = TILE_PX // rows, TILE_PX // columns
    for row in range(rows):
        shift = (row % 2) * width // 2 if category != "Tiles" else 0
        for column in range(columns):
            x = (np.arange(width) + column * width + shift) % TILE_PX
            result[row * height : (row + 1) * height, x] *= rng.uniform(0.85, 1.15)
        line = (np.arange(columns) * width + shift) % TILE_PX
        result[row * height : (row + 1) * height, line] *= 0.7
        result[row * height] *= 0.7
    return result


def drawn_picture(rng: np.random.Generator) -> Bytes:
    """A poster, a screen or a page without any file, uint8 (256, 256, 3)."""
    side = PICTURE_PX
    top, bottom = rng.integers(0, 256, 3), rng.integers(0, 256, 3)
    ramp = np.linspace(0, 1, side)[:, None, None]
    image = np.tile(top * (1 - ramp) + bottom * ramp, (1, side, 1)).astype(np.uint8).copy()
    if rng.random() < 0.5:
        field = noise(rng, side)[..., None]
        image = (image * (1 - field) + rng.integers(0, 256, 3) * field).astype(np.uint8)
    for _ in range(int(rng.integers(0, 14))):
        colour = [int(value) for value in rng.integers(0, 256, 3)]
        x, y, a, b = (int(value) for value in rng.integers(0, side, 4))
        shape = rng.integers(4)
        if shape == 0:
            cv2.circle(image, (x, y), 5 + a // 4, colour, -1, cv2.LINE_AA)
        elif shape == 1:
            cv2.rectangle(image, (x, y), (a, b), colour, -1)
        elif shape == 2:
            cv2.line(image, (x, y), (a, b), colour, 1 + int(rng.integers(12)), cv2.LINE_AA)
        else:
            cv2.ellipse(image, (x, y), (5 + a // 3, 5 + b // 3), float(a), 0, 360, colour, -1, cv2.LINE_AA)
    if rng.random() < 0.5:
        colour = [int(value) for value in rng.integers(0, 256, 3)]
        x, y = (int(value) for value in rng.integers(0, 120, 2))
        step = int(rng.integers(8, 22))
        for row in range(y, min(side, y + step * int(rng.integers(2, 12))), step):
            length = int(rng.integers(40, 150))
            for column in range(x, min(side, x + length), step // 2):
                cv2.rectangle(image, (column, row), (column + step // 3, row + step // 2), colour, -1)
    return image


def drawn_leaves(rng: np.random.Generator) -> Bytes:
    """A twig with leaves on a clear ground, uint8 RGBA (128, 128, 4)."""
    side = TILE_PX
    image = np.zeros((side, side, 4), np.uint8)
    green = np.array([rng.uniform(40, 130), rng.uniform(80, 150), rng.uniform(20, 60)])
    image[..., :3] = green
    length, width = rng.uniform(9, 22), rng.uniform(3, 9)
    for _ in range(int(rng.integers(40, 110))):
        x, y = np.clip(rng.normal(side / 2, side / 4.6, 2), length, side - length)
        colour = np.clip(green * rng.uniform(0.5, 1.4) * rng.uniform(0.9, 1.1, 3), 0, 255)
        cv2.ellipse(
            image,
            (int(x), int(y)),
            (int(length), int(width)),
            float(rng.uniform(0, 360)),
            0,
            360,
            [*(int(value) for value in colour), 255],
            -1,
        )
    return image


def stacked(images: Iterable[Bytes]) -> Bytes:
    """One array (n, S, S, C) of equally large textures."""
    return np.stack(list(images))
