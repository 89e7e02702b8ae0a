"""Models made by rule: round and boxy things that complete the model files, and replace them where there are none."""

from collections.abc import Callable

import numpy as np

from training.data.synthetic.gltf import Model, standing
from training.data.synthetic.soup import Material, Soup, Vector, box, grid, join, lathe

_UPRIGHT = np.eye(3)
_ORIGIN = np.zeros(3)
Part = tuple[tuple[float, float, float], tuple[float, float, float], int]
"""Middle and size in metres, and material index, of one box."""


def model_of(soup: Soup, names: tuple[str, ...] = ("",)) -> Model:
    """A model of the triangles of `soup`, whose object numbers become material indices."""
    count = len(soup)
    return standing(
        Model(
            soup.corners.reshape(-1, 3),
            soup.normals.reshape(-1, 3),
            np.arange(3 * count, dtype=np.int32).reshape(count, 3),
            soup.colours,
            soup.objects,
            names,
        )
    )


def _colour(rng: np.random.Generator) -> Material:
    red, green, blue = rng.uniform(0.05, 0.8, 3)
    return Material((float(red), float(green), float(blue)))


def _boxes(rng: np.random.Generator, parts: list[Part]) -> Model:
    materials = [_colour(rng) for _ in range(1 + max(part[2] for part in parts))]
    return model_of(
        join([box(np.array(middle), np.array(size), _UPRIGHT, materials[k], k) for middle, size, k in parts]),
        ("",) * len(materials),
    )


def turned(rng: np.random.Generator, radii: list[float], heights: list[float]) -> Model:
    """A turned body through the given points, a little different each time."""
    scale = 1 + 0.15 * rng.normal(size=len(radii))
    return model_of(
        lathe(np.array(radii) * scale.clip(0.5, 1.5), np.array(heights), _colour(rng), 0, _ORIGIN, _UPRIGHT)
    )


def vessel(rng: np.random.Generator) -> Model:
    """A vase, bottle, bowl, cup, ball, cone or cylinder."""
    shapes: list[tuple[list[float], list[float]]] = [
        ([0.0, 0.2, 0.3, 0.34, 0.25, 0.14, 0.16, 0.2], [0.0, 0.0, 0.2, 0.45, 0.7, 0.85, 0.95, 1.0]),
        ([0.0, 0.14, 0.15, 0.15, 0.1, 0.05, 0.05, 0.0], [0.0, 0.0, 0.1, 0.55, 0.7, 0.8, 1.0, 1.0]),
        ([0.0, 0.2, 0.5, 0.75, 0.85, 0.82, 0.4, 0.0], [0.0, 0.0, 0.15, 0.45, 0.8, 0.8, 0.2, 0.12]),
        ([0.0, 0.38, 0.42, 0.42, 0.39, 0.37, 0.0], [0.0, 0.0, 0.1, 1.0, 1.0, 0.1, 0.08]),
        ([0.0, 0.5, 0.0], [0.0, 0.0, 1.2]),
        ([0.0, 0.35, 0.35, 0.0], [0.0, 0.0, 1.0, 1.0]),
    ]
    kind = int(rng.integers(len(shapes) + 1))
    if kind == len(shapes):
        return ball(rng)
    return turned(rng, *shapes[kind])


def ball(rng: np.random.Generator) -> Model:
    """A ball or an egg."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, 13)
    stretch = rng.uniform(0.7, 1.3)
    return model_of(
        lathe(np.cos(angle).clip(0) * 0.5, np.sin(angle) * 0.5 * stretch, _colour(rng), 0, _ORIGIN, _UPRIGHT)
    )


def ring(rng: np.random.Generator) -> Model:
    """A torus lying down."""
    thick = rng.uniform(0.08, 0.2)
    a, b = np.meshgrid(np.linspace(0, 2 * np.pi, 25), np.linspace(0, 2 * np.pi, 13), indexing="ij")
    normals = np.stack([np.cos(a) * np.cos(b), np.sin(b), np.sin(a) * np.cos(b)], axis=-1)
    middle = np.stack([np.cos(a), np.zeros_like(a), np.sin(a)], axis=-1) * 0.4
    return model_of(grid(middle + thick * normals, normals, np.stack([a, b], axis=-1), _colour(rng), 0))


def carton(rng: np.random.Generator) -> Model:
    """A box, a book or a stack of books."""
    parts: list[Part] = []
    height = 0.0
    wide, deep = rng.uniform(0.4, 1.0), rng.uniform(0.4, 1.0)
    for k in range(int(rng.choice([1, 1, 2, 4]))):
        thick = rng.uniform(0.1, 0.6)
        parts.append(((0.0, height + thick / 2, 0.0), (wide * rng.uniform(0.85, 1), thick, deep), k))
        height += thick
    return _boxes(rng, parts)


def chair(rng: np.random.Generator) -> Model:
    """A chair with four legs and a back."""
    seat, back = rng.uniform(0.42, 0.5), rng.uniform(0.35, 0.6)
    legs: list[Part] = [((x, seat / 2, z), (0.05, seat, 0.05), 0) for x in (-0.2, 0.2) for z in (-0.2, 0.2)]
    return _boxes(
        rng, [*legs, ((0, seat, 0), (0.48, 0.06, 0.48), 1), ((0, seat + back / 2, -0.22), (0.46, back, 0.05), 1)]
    )


def table(rng: np.random.Generator) -> Model:
    """A table with four legs."""
    wide, deep, high = rng.uniform(0.6, 1.8), rng.uniform(0.5, 0.9), rng.uniform(0.45, 0.78)
    legs: list[Part] = [
        ((x, high / 2, z), (0.06, high, 0.06), 0)
        for x in (-wide / 2 + 0.05, wide / 2 - 0.05)
        for z in (-deep / 2 + 0.05, deep / 2 - 0.05)
    ]
    return _boxes(rng, [*legs, ((0, high, 0), (wide, 0.05, deep), 1)])


def shelf(rng: np.random.Generator) -> Model:
    """An open shelf with books and boxes on its boards."""
    wide, high, deep = rng.uniform(0.6, 1.4), rng.uniform(1.2, 2.1), 0.32
    parts: list[Part] = [((side * wide / 2, high / 2, 0), (0.03, high, deep), 0) for side in (-1, 1)]
    parts.append(((0, high / 2, -deep / 2), (wide, high, 0.02), 0))
    for bottom in np.arange(0.05, high + 0.01, rng.uniform(0.28, 0.42)):
        parts.append(((0, float(bottom), 0), (wide, 0.03, deep), 0))
        x = -wide / 2 + 0.03
        while x < wide / 2 - 0.1 and bottom < high - 0.2:
            thick, tall = rng.uniform(0.02, 0.09), rng.uniform(0.12, 0.25)
            if rng.random() < 0.75:
                parts.append(
                    ((x + thick / 2, float(bottom) + tall / 2, 0.02), (thick, tall, 0.2), 1 + int(rng.integers(5)))
                )
            x += thick + 0.004
    return _boxes(rng, parts)


def sofa(rng: np.random.Generator) -> Model:
    """A sofa with arms."""
    wide = rng.uniform(0.9, 2.1)
    arms: list[Part] = [((side * wide / 2, 0.3, 0), (0.18, 0.6, 0.85), 0) for side in (-1, 1)]
    return _boxes(rng, [*arms, ((0, 0.22, 0), (wide, 0.44, 0.85), 1), ((0, 0.45, -0.35), (wide, 0.9, 0.18), 0)])


def cabinet(rng: np.random.Generator) -> Model:
    """A cabinet with drawers."""
    wide, high, deep = rng.uniform(0.5, 1.2), rng.uniform(0.5, 1.9), rng.uniform(0.4, 0.6)
    parts: list[Part] = [((0, high / 2, 0), (wide, high, deep), 0)]
    for bottom in np.arange(0.05, high - 0.1, 0.25):
        parts.append(((0, float(bottom) + 0.11, deep / 2), (wide * 0.9, 0.2, 0.03), 1))
        parts.append(((0, float(bottom) + 0.11, deep / 2 + 0.02), (0.12, 0.02, 0.03), 2))
    return _boxes(rng, parts)


def lamp(rng: np.random.Generator) -> Model:
    """A standing lamp."""
    return turned(rng, [0.0, 0.15, 0.02, 0.02, 0.22, 0.14, 0.0], [0.0, 0.02, 0.04, 1.2, 1.2, 1.5, 1.5])


def tree(rng: np.random.Generator) -> Model:
    """A trunk with a crown of spheres or cones."""
    high = rng.uniform(0.3, 0.5)
    trunk = lathe(
        np.array([0.05, 0.03, 0.0]), np.array([0.0, 0.7, 0.9]), Material((0.12, 0.08, 0.05)), 0, _ORIGIN, _UPRIGHT
    )
    parts, green = [trunk], Material((0.05, float(rng.uniform(0.1, 0.25)), 0.03))
    angle = np.linspace(-np.pi / 2, np.pi / 2, 9)
    for _ in range(6):
        size = rng.uniform(0.12, 0.24)
        place = np.array([rng.normal(0, 0.1), rng.uniform(high, 0.85), rng.normal(0, 0.1)])
        parts.append(lathe(np.cos(angle).clip(0) * size, np.sin(angle) * size, green, 1, place, _UPRIGHT))
    return model_of(join(parts), ("Wood", "Green"))


def rock(rng: np.random.Generator) -> Model:
    """A lumpy stone."""
    shape = ball(rng)
    lumps = 1 + 0.25 * np.sin(shape.vertices @ rng.normal(0, 5, (3, 3))).sum(axis=1, keepdims=True) / 3
    return standing(
        Model(
            (shape.vertices * lumps * rng.uniform(0.6, 1.2, 3)).astype(np.float32),
            shape.normals,
            shape.faces,
            np.full_like(shape.colours, rng.uniform(0.1, 0.4)),
            shape.materials,
            shape.material_names,
        )
    )


def car(rng: np.random.Generator) -> Model:
    """A car of boxes on four wheels."""
    body, glass, black = _colour(rng), Material((0.03, 0.04, 0.05), gloss=0.6), Material((0.02, 0.02, 0.02))
    parts = [
        box(np.array([0, 0.55, 0]), np.array([1.75, 0.6, 4.2]), _UPRIGHT, body, 0),
        box(np.array([0, 1.05, -0.2]), np.array([1.5, 0.5, 2.2]), _UPRIGHT, glass, 1),
        box(np.array([0, 1.33, -0.2]), np.array([1.5, 0.06, 2.2]), _UPRIGHT, body, 0),
    ]
    sideways = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    for x in (-0.85, 0.65):
        for z in (-1.3, 1.3):
            wheel = (np.array([0.0, 0.32, 0.32, 0.0]), np.array([0.0, 0.0, 0.2, 0.2]))
            parts.append(lathe(*wheel, black, 2, np.array([x, 0.32, z]), sideways))
    return model_of(join(parts), ("Body", "Glass", "Tyre"))


def house(rng: np.random.Generator) -> Model:
    """A house with a gable roof, a door and windows."""
    wide, deep, high = rng.uniform(6, 12), rng.uniform(6, 10), rng.uniform(3, 7)
    parts: list[Part] = [((0, high / 2, 0), (wide, high, deep), 0), ((0, 1.05, deep / 2), (1.0, 2.1, 0.1), 1)]
    for bottom in np.arange(1.0, high - 1.0, 2.8):
        for x in np.arange(-wide / 2 + 1.2, wide / 2 - 0.8, 2.2):
            for side in (-1, 1):
                parts.append(((float(x), float(bottom) + 0.6, side * deep / 2), (0.9, 1.2, 0.08), 2))
    for step in np.linspace(0, 1, 10):
        parts.append(((0, high + step * 1.8, 0), (wide + 0.4, 0.25, (deep + 0.8) * (1 - step) + 0.2), 3))
    return _boxes(rng, parts)


def pole(rng: np.random.Generator) -> Model:
    """A street light, or a pole with a sign."""
    post = lathe(np.array([0.06, 0.04]), np.array([0.0, 3.0]), Material((0.15, 0.15, 0.16)), 0, _ORIGIN, _UPRIGHT)
    sign = box(np.array([0.0, 2.7, 0.05]), rng.uniform([0.3, 0.3, 0.02], [0.7, 0.7, 0.05]), _UPRIGHT, _colour(rng), 1)
    return model_of(join([post, sign]), ("", ""))


def beast(rng: np.random.Generator) -> Model:
    """Something with four legs."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, 9)
    coat = _colour(rng)
    flat = np.array([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])
    parts = [lathe(np.cos(angle).clip(0) * 0.25, np.sin(angle) * 0.55, coat, 0, np.array([0, 0.7, 0.0]), flat)]
    parts.append(lathe(np.cos(angle).clip(0) * 0.16, np.sin(angle) * 0.2, coat, 0, np.array([0, 1.0, 0.55]), _UPRIGHT))
    for x in (-0.13, 0.13):
        for z in (-0.35, 0.35):
            legs: tuple[Vector, Vector] = (np.array([0.05, 0.07]), np.array([0.0, 0.6]))
            parts.append(lathe(*legs, coat, 0, np.array([x, 0, z]), _UPRIGHT))
    return model_of(join(parts), ("Coat",))


MAKERS: dict[str, tuple[Callable[[np.random.Generator], Model], ...]] = {
    "animal": (beast,),
    "bed": (sofa,),
    "building": (house,),
    "bush": (rock, ball),
    "cabinet": (cabinet,),
    "car": (car,),
    "chair": (chair,),
    "column": (lamp,),
    "door": (carton,),
    "house": (house,),
    "lamp": (lamp,),
    "plant": (tree,),
    "pole": (pole,),
    "rock": (rock,),
    "shelf": (shelf,),
    "small": (vessel, vessel, carton, ring),
    "sofa": (sofa,),
    "street": (carton, vessel),
    "table": (table,),
    "tree": (tree,),
}
"""Group -> makers of its models, when there are no model files."""


def drawn_models(rng: np.random.Generator, per_maker: int) -> dict[str, list[Model]]:
    """Models of every group without any file."""
    return {group: [make(rng) for make in makers for _ in range(per_maker)] for group, makers in MAKERS.items()}
