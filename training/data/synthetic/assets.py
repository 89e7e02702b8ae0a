"""The library of a generator: textures by category, models by group, characters, pictures, cut-out people.

Models and textures come from an assets folder (glTF, sheets of tiles, all CC0); without one they are made by rule.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.data.person import UNSEEN_PHOTO_SETS
from training.data.sample import BrokenSampleError, read_rgb
from training.data.synthetic import procedural
from training.data.synthetic.cutouts import Cutout, read_cutouts
from training.data.synthetic.gltf import BrokenModelError, GltfFile, Model, read_gltf
from training.data.synthetic.textures import (
    PICTURE_PX,
    TILE_PX,
    Atlas,
    Bytes,
    build_atlas,
    drawn_leaves,
    drawn_picture,
    drawn_tiles,
    read_sheets,
    square_picture,
    stacked,
)
from training.errors import TrainingError

PEOPLE_FREE_SETS = ("imagenet", "slam")
"""Photo sets that show hardly any people."""

LIBRARY_SEED = 20261121
"""Seed of everything in a library that is made by rule."""

GROUPS = {
    "animal": r"animals_pack/",
    "bed": r"/Bed_|/bed_|Bathtub",
    "building": r"kaykit_city/building_",
    "bush": r"nature_pack/(Bush|Plant_|Grass|Corn)|kaykit_city/bush",
    "cabinet": r"Drawer_|Kitchen_|WashingMachine|/cabinet_|Fireplace",
    "car": r"/car_",
    "chair": r"/Chair_|/chair_|/Stool|/armchair",
    "column": r"/Column",
    "door": r"/Door_",
    "house": r"buildings_pack",
    "lamp": r"Light_(Floor|Stand)|lamp_standing",
    "plant": r"Houseplant|cactus_medium",
    "pole": r"[Ss]treetlight|[Tt]raffic[Ll]ight|/Sign_",
    "rock": r"/Rock_|TreeStump",
    "shelf": r"Bookshelf|Shelf_Large|/shelf_[AB]",
    "small": r"rpg_items|survival_pack/(?!Tent)|/book_|lamp_table|/pillow|Light_(Desk|Cube|Icosa)|frame_standing"
    r"|cactus_small|/Plate|/Trashcan|Toilet$|Houseplant",
    "sofa": r"/Couch_|/couch",
    "street": r"kaykit_city/(bench|firehydrant|dumpster|trash|box)|survival_pack/Trashcan|WoodLog",
    "table": r"/Table_|/table_|/NightStand",
    "tree": r"(Tree_|TreeAutumn|Tree_Autumn|Willow|Cactus_)",
}
"""Group of models -> which files of the assets folder belong to it."""


@dataclass(frozen=True, slots=True)
class Library:
    """Everything scenes are made of.

    Attributes:
        atlas: All textures.
        tiles: Category -> layers of tileable textures.
        pictures: Layers of posters, screens, pages, photographs.
        backdrops: Those pictures that show no people, or hardly any: for large surfaces, whose label is "no person".
        leaves: Layers of twigs with alpha.
        cutouts: Photographed people; empty without a folder of people.
        models: Group -> models.
        characters: Rigged people; empty without an assets folder.
        origins: Layer -> photo set, for layers that are not CC0.
    """

    atlas: Atlas
    tiles: dict[str, list[int]]
    pictures: list[int]
    backdrops: list[int]
    leaves: list[int]
    cutouts: list[Cutout]
    models: dict[str, list[Model]]
    characters: list[GltfFile]
    origins: dict[int, str]


def load_library(
    assets: Path | None = None, photos: tuple[Path, ...] = (), people: tuple[Path, ...] = (), drawn: int = 6
) -> Library:
    """Reads the folders; what is not given is made by rule, `drawn` of each sort.

    Raises:
        TrainingError: A folder is missing or holds nothing usable.
    """
    rng = np.random.default_rng(LIBRARY_SEED)
    tiles, categories = _tiles(assets, rng, drawn)
    pictures = [drawn_picture(rng) for _ in range(10 * drawn)]
    if assets is not None:
        pictures += [square_picture(read_rgb(path), PICTURE_PX) for path in sorted(assets.glob("textures384/*.jpg"))]
    sets: list[str] = []
    if photos:
        found, sets = _photos(photos)
        pictures = found + pictures[: 4 * drawn]
    leaves = [drawn_leaves(rng) for _ in range(2 * drawn)]
    cutouts, figures, figure_sets = read_cutouts(people)
    groups = [stacked(tiles), stacked(pictures), stacked(leaves)] + ([stacked(figures)] if figures else [])
    starts = np.cumsum([0, *(len(group) for group in groups)])
    by_category: dict[str, list[int]] = {}
    for layer, category in enumerate(categories):
        by_category.setdefault(category, []).append(layer)
    models = procedural.drawn_models(rng, max(drawn // 2, 1))
    if assets is not None:
        models = _read_models(assets, models)
    return Library(
        build_atlas(groups),
        by_category,
        list(range(starts[1], starts[2])),
        [int(starts[1]) + k for k in range(len(pictures)) if k >= len(sets) or sets[k] in PEOPLE_FREE_SETS],
        list(range(starts[2], starts[3])),
        [cutout.at_layer(int(starts[3]) + index) for index, cutout in enumerate(cutouts)],
        models,
        _read_characters(assets) if assets is not None else [],
        {int(starts[1]) + index: name for index, name in enumerate(sets)}
        | {int(starts[3]) + index: name for index, name in enumerate(figure_sets)},
    )


def _tiles(assets: Path | None, rng: np.random.Generator, drawn: int) -> tuple[list[Bytes], list[str]]:
    if assets is None:
        return drawn_tiles(rng, drawn)
    if not assets.is_dir():
        raise TrainingError(f"assets folder not found: {assets}")
    tiles, categories = read_sheets(assets / "textures128")
    if not tiles:
        raise TrainingError(f"no texture sheets (*.webp) in {assets / 'textures128'}")
    for path in sorted(assets.glob("textures384/*.jpg")):
        tiles.append(square_picture(read_rgb(path), TILE_PX))
        category = next((c for c, word in (("Asphalt", "asphalt"), ("Bricks", "brick")) if word in path.stem), "Ground")
        categories.append(category)
    return tiles, categories


def _photos(folders: tuple[Path, ...]) -> tuple[list[Bytes], list[str]]:
    """Squares of all photos, and the set (folder) of each."""
    pictures: list[Bytes] = []
    sets: list[str] = []
    for folder in folders:
        if not folder.is_dir():
            raise TrainingError(f"photo folder not found: {folder}")
        if folder.name in UNSEEN_PHOTO_SETS:
            raise TrainingError(f"photos of {folder.name} are kept unseen, for judging; take another set")
        for path in sorted(folder.glob("*.jpg")):
            try:
                image = read_rgb(path)
            except BrokenSampleError:
                continue
            if min(image.shape[:2]) >= 120:
                pictures.append(square_picture(image, PICTURE_PX))
                sets.append(folder.name)
    if not pictures:
        raise TrainingError(f"no readable photos (*.jpg) in {', '.join(map(str, folders))}")
    return pictures, sets


def _read_models(assets: Path, drawn: dict[str, list[Model]]) -> dict[str, list[Model]]:
    """Models of the folder by group; drawn ones for groups without files, and some more small things."""
    models: dict[str, list[Model]] = {group: [] for group in GROUPS}
    for path in sorted([*assets.glob("*/*.glb"), *assets.glob("*/*.gltf")]):
        name = f"{path.parent.name}/{path.stem}"
        groups = [group for group, pattern in GROUPS.items() if re.search(pattern, name)]
        if not groups:
            continue
        try:
            model = read_gltf(path).model()
        except BrokenModelError:
            continue
        for group in groups:
            models[group].append(model)
    mixed = {"small", "rock", "shelf", "cabinet"}
    return {group: found + drawn[group] if group in mixed or not found else found for group, found in models.items()}


def _read_characters(assets: Path) -> list[GltfFile]:
    characters = []
    for path in sorted(assets.glob("modular_*men/*.glb")):
        try:
            character = read_gltf(path)
            character.model()
        except BrokenModelError:
            continue
        characters.append(character)
    return characters
