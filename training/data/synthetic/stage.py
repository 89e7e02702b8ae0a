"""The stage on which a scene is built: it draws sizes and looks, places things, and collects their triangles."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from training.data.synthetic.assets import Library
from training.data.synthetic.cutouts import Cutout
from training.data.synthetic.gltf import Model
from training.data.synthetic.people import BODY_WORDS, SEATED, UPRIGHT, Cast
from training.data.synthetic.soup import (
    Material,
    Soup,
    Vector,
    box,
    face_normals,
    join,
    lathe,
    make_soup,
    planar_uv,
    quad,
    turn_y,
)

Item = TypeVar("Item")
OBJECT_LOOKS = ("Wood", "Fabric", "Metal", "Planks", "Concrete", "Plaster", "Plastic", "Paint", "Carpet", "Porcelain")
CLOTHES = ("Fabric", "Fabric", "Carpet")
LEAVES = ("Moss", "Grass", "ScatteredLeaves", "PineNeedles")


def vector(x: float, y: float, z: float) -> Vector:
    """float64 (3,)."""
    return np.array([x, y, z], np.float64)


class Stage:
    """Collects the triangles of one scene; all chance comes from `rng`."""

    def __init__(self, rng: np.random.Generator, library: Library, cast: Cast) -> None:
        self.rng, self.library, self._cast = rng, library, cast
        self._soups: list[Soup] = []
        self.origins: set[str] = set()

    def soup(self) -> Soup:
        """All triangles so far."""
        return join(self._soups)

    def uniform(self, low: float, high: float) -> float:
        """A number between `low` and `high`."""
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        """True with `probability`."""
        return bool(self.rng.random() < probability)

    def count(self, low: int, high: int) -> int:
        """An integer from `low` to `high`, both included."""
        return int(self.rng.integers(low, high + 1))

    def pick(self, items: Sequence[Item]) -> Item:
        """One of `items`."""
        return items[int(self.rng.integers(len(items)))]

    def colour(self, low: float = 0.03, high: float = 0.85) -> tuple[float, float, float]:
        """A random linear colour, rarely garish."""
        value = self.uniform(low**0.5, high**0.5) ** 2
        hue = self.rng.random(3)
        strength = self.rng.beta(1.0, 3.5)
        red, green, blue = value * ((1 - strength) + strength * hue / max(hue.mean(), 0.05))
        return float(min(red, 0.9)), float(min(green, 0.9)), float(min(blue, 0.9))

    def textured(
        self, categories: Sequence[str], tile_m: float = 1.0, gloss: float = 0.0, recolour: float = 0.25
    ) -> Material:
        """A material with a tile of one of `categories` (any tile when the library has none of them)."""
        known = [category for category in categories if category in self.library.tiles]
        layer = self.pick(self.library.tiles[self.pick(known or sorted(self.library.tiles))])
        brightness = self.uniform(0.75, 1.3)
        tint = np.full(3, brightness)
        if self.chance(recolour):
            tint = np.array(self.colour(0.1, 0.8)) / self.library.atlas.means[layer]
        red, green, blue = tint.clip(0.05, 4)
        return Material((float(red), float(green), float(blue)), layer, tile_m, gloss)

    def any_texture(self, tile_m: float = 1.0) -> Material:
        """A material with any tile."""
        return self.textured(sorted(self.library.tiles), tile_m, recolour=0.3)

    def picture(self, emission: float = 0.0, backdrop: bool = False) -> Material:
        """A poster, photograph or screen, stretched over the surface once; a `backdrop` shows no people."""
        layer = self.pick(self.library.backdrops if backdrop else self.library.pictures)
        self._note(layer)
        brightness = self.uniform(0.6, 1.0)
        return Material((brightness, brightness, brightness), layer, 0.0, 0.1, emission)

    def plain(self, low: float = 0.03, high: float = 0.85, gloss: float = 0.0, emission: float = 0.0) -> Material:
        """A material without texture."""
        return Material(self.colour(low, high), gloss=gloss, emission=emission)

    def surface(self, tile_m: float) -> Material:
        """The look of some object: tile, plain or picture."""
        choice = self.rng.random()
        if choice < 0.5:
            return self.textured(OBJECT_LOOKS, tile_m, gloss=self.pick([0.0, 0.0, 0.2]), recolour=0.5)
        if choice < 0.7:
            return self.any_texture(tile_m)
        return self.plain(gloss=self.pick([0.0, 0.1, 0.4])) if choice < 0.85 else self.picture(backdrop=True)

    def quad(self, origin: Vector, along: Vector, up: Vector, material: Material) -> None:
        """A parallelogram with its lower left corner at `origin`."""
        self._add(quad(origin, along, up, material, self._identity(), self.rng.random(2)))

    def box(self, middle: Vector, size: Vector, material: Material, rotation: Vector | None = None) -> None:
        """A box around `middle`."""
        turn = np.eye(3) if rotation is None else rotation
        self._add(box(middle, np.asarray(size, np.float64), turn, material, self._identity()))

    def lathe(self, radii: Vector, heights: Vector, material: Material, position: Vector) -> None:
        """An upright turned body."""
        self._add(lathe(radii, heights, material, self._identity(), position, np.eye(3)))

    def add(self, soup: Soup) -> None:
        """Triangles made elsewhere; they become one object."""
        soup.objects[:] = self._identity()
        self._add(soup)

    def model(
        self,
        model: Model,
        position: Vector,
        scale: float | Vector,
        rotation: Vector,
        recolour: float = 0.5,
        looks: Sequence[str] = OBJECT_LOOKS,
        person: bool = False,
        tile_m: float = 0.6,
    ) -> Vector:
        """Places `model` with its foot at `position`; its extent in metres before the rotation, (3,)."""
        size = np.broadcast_to(np.asarray(scale, np.float64), 3)
        corners = model.vertices[model.faces] * size
        flat = face_normals(corners)
        normals = model.normals[model.faces] / size
        normals = normals / np.linalg.norm(normals, axis=2, keepdims=True).clip(1e-9)
        facing = np.sign(np.einsum("tki,ti->tk", normals, flat))[..., None]
        normals = np.where(facing == 0, flat[:, None], normals)
        soup = make_soup(
            corners @ rotation.T + position,
            planar_uv(corners, flat, tile_m) + self.rng.random(2),
            Material(gloss=0.0 if person else self.pick([0.0, 0.0, 0.1, 0.4])),
            self._identity(),
            normals @ rotation.T,
            person,
        )
        self._paint(soup, model, recolour, looks, person)
        self._add(soup)
        return np.asarray(model.extent * size)

    def _paint(self, soup: Soup, model: Model, recolour: float, looks: Sequence[str], person: bool) -> None:
        """Draws colour and texture of every material of `model`."""
        brightness = self.uniform(0.7, 1.3)
        for index in np.unique(model.materials):
            faces = np.flatnonzero(model.materials == index)
            name = model.material_names[index].lower() if index < len(model.material_names) else ""
            colours = model.colours[faces].copy()
            body = person and any(word in name for word in BODY_WORDS)
            if body:
                colours *= self.uniform(0.35, 1.25)
            elif person or self.chance(recolour):
                grey = colours.mean(axis=1, keepdims=True)
                share = grey / max(float(grey.mean()), 1e-3)
                colours = (np.array(self.colour(0.02, 0.7)) * share).astype(np.float32)
            else:
                colours *= brightness * (1 + 0.08 * self.rng.normal(size=3))
            if not body and self.chance(0.65):
                known = [look for look in looks if look in self.library.tiles] or sorted(self.library.tiles)
                layer = self.pick(self.library.tiles[self.pick(known)])
                soup.layers[faces] = layer
                colours = colours / self.library.atlas.means[layer]
            soup.colours[faces] = colours.clip(0.01, 4)

    def thing(
        self,
        group: str,
        position: Vector,
        height_m: float | None = None,
        width_m: float | None = None,
        yaw_rad: float | None = None,
        rotation: Vector | None = None,
        tile_m: float = 0.6,
    ) -> Vector:
        """Places a model of `group`, sized by its height or its width; its extent in metres, (3,)."""
        model = self.pick(self.library.models[group])
        extent = model.extent
        wide = max(float(extent[0]), float(extent[2]), 1e-6)
        if width_m is not None:
            scale = width_m / wide
        else:
            height = height_m or 1.0
            scale = min(height / max(float(extent[1]), 1e-6), 2.5 * height / wide)  # flat things are sized by width
        turn = rotation if rotation is not None else turn_y(self.uniform(0, 6.28) if yaw_rad is None else yaw_rad)
        if group in ("tree", "bush", "plant", "rock"):
            looks: Sequence[str] = LEAVES if group != "rock" else ("Rock", "Moss", "Granite")
            return self.model(model, position, scale, turn, recolour=0.1, looks=looks, tile_m=tile_m)
        return self.model(model, position, scale, turn, tile_m=tile_m)

    def person(
        self, position: Vector, eye: Vector, seated: bool = False, towards: bool | None = None, photo: float = 0.45
    ) -> None:
        """A person whose feet stand at `position`; photographed with probability `photo` where the library has some."""
        height = self.uniform(1.5, 1.92) * (self.uniform(0.55, 0.8) if self.chance(0.1) else 1.0)
        if not seated and self.chance(photo):
            near = float(np.hypot(eye[0] - position[0], eye[2] - position[2])) < 1.5
            fitting = [cutout for cutout in self.library.cutouts if cutout.whole or near]
            if fitting:
                return self._cutout(self.pick(fitting), position, eye, height)
        character = int(self.rng.integers(len(self._cast)))
        model = self._cast.posed(character, self.pick(SEATED if seated else UPRIGHT))
        scale = height / self._cast.standing_height(character)
        wide = self.uniform(0.9, 1.15)
        yaw = float(np.arctan2(eye[0] - position[0], eye[2] - position[2])) + self.uniform(-0.7, 0.7)
        facing = self.chance(0.6) if towards is None else towards
        if not facing:
            yaw = self.uniform(0, 6.28) if self.chance(0.5) else yaw + np.pi
        size = scale * np.array([wide, 1.0, wide])
        self.model(model, position, size, turn_y(yaw), looks=CLOTHES, person=True, tile_m=0.35)

    def _cutout(self, cutout: Cutout, position: Vector, eye: Vector, height_m: float) -> None:
        """A flat photographed person that faces the camera; the head of one without feet is at `height_m` too."""
        self._note(cutout.layer)
        towards = np.array([eye[0] - position[0], 0.0, eye[2] - position[2]])
        towards /= max(float(np.linalg.norm(towards)), 1e-6)
        across = np.cross([0.0, 1.0, 0.0], towards)
        tall = height_m if cutout.whole else float(np.clip(self.uniform(0.48, 0.6) / cutout.aspect, 0.3, 1.1))
        width = tall * cutout.aspect * self.pick([-1, 1])
        foot = np.asarray(position) + vector(0, height_m - tall, 0)
        gain = float(np.clip(self.uniform(0.25, 0.5) / self.library.atlas.means[cutout.layer].mean(), 0.8, 3.0))
        material = Material((gain, gain, gain), cutout.layer, 0.0)
        corners_from = foot - across * width / 2
        soup = quad(corners_from, across * width, vector(0, tall, 0), material, self._identity())
        soup.people[:] = True
        soup.normals[:] = towards
        self._add(soup)

    def _note(self, layer: int) -> None:
        if layer in self.library.origins:
            self.origins.add(self.library.origins[layer])

    def _identity(self) -> int:
        return len(self._soups) + 1

    def _add(self, soup: Soup) -> None:
        self._soups.append(soup)
