"""Streets as cars and walkers see them, and open country."""

from collections.abc import Callable

import cv2
import numpy as np

from training.data.synthetic.indoors import people_near
from training.data.synthetic.shot import Shot, outdoor
from training.data.synthetic.soup import Material, Vector, face_normals, join, make_soup, quad, random_turn
from training.data.synthetic.stage import Stage, vector

FACADES = ("Bricks", "Plaster", "Concrete", "Bricks", "WoodSiding", "Paint", "Rock", "Tiles", "CorrugatedSteel")
ROADS = ("Asphalt", "Asphalt", "Asphalt", "Road", "PavingStones", "Concrete")
VERGES = ("Grass", "Grass", "Ground", "Gravel", "PavingStones")
GROUNDS = ("Grass", "Grass", "Ground", "Gravel", "ScatteredLeaves", "Snow", "Rocks", "Moss", "PineNeedles")
BARK = ("Bark", "Wood")
SCATTERED = (
    ("bush", 0.2, 1.4),
    ("rock", 0.2, 1.6),
    ("rock", 0.1, 0.6),
    ("bush", 0.1, 0.5),
    ("street", 0.3, 0.8),
)
"""Group, smallest and largest height in metres of what lies about in the country."""

Ground = Callable[[float, float], float]
"""Height of the ground in metres at (x, z)."""


def street(stage: Stage) -> Shot:
    """A street between houses or fields, seen from a car (two of three) or from the pavement."""
    lights, sky = outdoor(stage)
    half_road, pavement = stage.uniform(3, 7), stage.uniform(1.2, 4)
    driving = stage.chance(0.65)
    x = (
        stage.uniform(-0.6, 0.5) * half_road
        if driving
        else stage.pick([-1, 1]) * (half_road + stage.uniform(0.2, pavement))
    )
    position = vector(x, stage.uniform(1.2, 2.0) if driving else stage.uniform(1.3, 1.9), 0)
    yaw = stage.uniform(-0.12, 0.12) if driving else stage.uniform(-0.6, 0.6)
    pitch = stage.uniform(-0.1, 0.04) if driving else stage.uniform(-0.2, 0.12)
    shot = Shot(
        position, yaw, pitch, stage.uniform(60, 90) if driving else stage.uniform(45, 80), lights, sky,
        stage.uniform(0.2, 0.6), nearest_m=1.0,
    )  # fmt: skip
    _road(stage, half_road)
    for side in (-1, 1):
        _roadside(stage, shot, side, half_road, pavement)
    for _ in range(stage.count(0, 5)):
        lane = stage.pick([-1, 1])
        place = vector(lane * half_road * stage.uniform(0.3, 0.6), 0, -stage.uniform(7, 60))
        yaw_rad = (np.pi if lane > 0 else 0) + stage.uniform(-0.06, 0.06)
        stage.thing("car", place, width_m=stage.uniform(3.7, 4.9), yaw_rad=yaw_rad)
    if stage.chance(0.3):
        stage.person(vector(stage.uniform(-0.8, 0.8) * half_road, 0, -stage.uniform(4, 16)), position)
    if not driving and stage.chance(0.35):
        people_near(stage, shot, lambda _x, _z: 0.12)
    return shot


def _road(stage: Stage, half_road: float) -> None:
    stage.quad(
        vector(-150, -0.03, 30), vector(300, 0, 0), vector(0, 0, -330), stage.textured(VERGES, stage.uniform(2, 5))
    )
    road = stage.textured(ROADS, stage.uniform(2, 5), stage.pick([0, 0, 0.1]), recolour=0.05)
    stage.quad(vector(-half_road, 0, 30), vector(2 * half_road, 0, 0), vector(0, 0, -280), road)
    paint = stage.plain(0.5, 0.8)
    if stage.chance(0.75):
        for z in np.arange(12, -120, -stage.uniform(5, 9)):
            stage.quad(vector(-0.08, 0.012, float(z)), vector(0.16, 0, 0), vector(0, 0, -2.5), paint)
    if stage.chance(0.5):
        for side in (-1, 1):
            stage.quad(vector(side * (half_road - 0.3), 0.012, 20), vector(0.12, 0, 0), vector(0, 0, -200), paint)
    if stage.chance(0.3):
        z = -stage.uniform(5, 25)
        for x in np.arange(-half_road + 0.4, half_road - 0.5, 1.0):
            stage.quad(vector(float(x), 0.013, z), vector(0.5, 0, 0), vector(0, 0, -3), paint)


def _roadside(stage: Stage, shot: Shot, side: int, half_road: float, pavement: float) -> None:
    """Pavement, buildings or trees, parked cars, street furniture and walkers on one side (-1 left, 1 right)."""
    raised = stage.chance(0.8)
    level = 0.13 if raised else 0.0
    if raised:
        slab = stage.textured(("PavingStones", "Concrete", "Tiles", "Asphalt"), stage.uniform(0.8, 2))
        stage.box(vector(side * (half_road + pavement / 2), 0.06, -90), vector(pavement, 0.14, 240), slab)
    gap = stage.pick([0.0, 0.0, stage.uniform(1, 7)])
    mode = stage.pick(["blocks", "blocks", "houses", "mixed", "open"])
    z = 12.0
    while z > -150 and mode != "open":
        wide, near = stage.uniform(6, 18), half_road + pavement + gap + stage.uniform(0, 1.5)
        if mode == "blocks" or (mode == "mixed" and stage.chance(0.5)):
            _block(stage, side, near, z, wide)
        else:
            group = stage.pick(["house", "building"])
            yaw = stage.pick([0.0, np.pi]) - side * np.pi / 2
            stage.thing(
                group,
                vector(side * (near + wide / 2), 0, z - wide / 2),
                height_m=stage.uniform(5, 14),
                yaw_rad=yaw,
                tile_m=2.5,
            )
        z -= wide + stage.pick([0.0, 0.0, stage.uniform(1, 10)])
    for z in np.arange(stage.uniform(-9, -4), -90, -stage.uniform(5.2, 16)):
        if stage.chance(0.5):
            place = vector(side * (half_road - 1.1), 0, float(z))
            stage.thing("car", place, width_m=stage.uniform(3.7, 4.9), yaw_rad=stage.pick([0.0, np.pi]))
    for z in np.arange(-stage.uniform(2, 7), -90, -stage.uniform(6, 18)):
        _furniture(stage, vector(side * (half_road + stage.uniform(0.35, 0.8)), level, float(z)))
    if mode == "open" or gap > 2:
        for _ in range(stage.count(4, 22)):
            place = vector(side * (half_road + pavement + stage.uniform(1, 40)), 0, stage.uniform(-120, -3))
            _plant(stage, place)
    for _ in range(stage.count(0, 5)):
        far = 3.0 + 35 * stage.rng.random() ** 1.5
        x = side * (half_road + stage.uniform(0.3, pavement))
        if abs(x - shot.position[0]) > 0.5 or far > 4:
            stage.person(vector(x, level, -far), shot.position)


def _furniture(stage: Stage, place: Vector) -> None:
    choice = stage.rng.random()
    if choice < 0.35:
        tree(stage, place, stage.uniform(3.5, 9))
    elif choice < 0.65:
        stage.thing("pole", place, height_m=stage.uniform(2.3, 6.5))
    elif choice < 0.85:
        stage.thing("street", place, height_m=stage.uniform(0.6, 1.3))
    else:
        stage.thing("bush", place, height_m=stage.uniform(0.5, 1.6))


def _plant(stage: Stage, place: Vector) -> None:
    if stage.chance(0.7):
        tree(stage, place, stage.uniform(3, 12))
    else:
        stage.thing("bush", place, height_m=stage.uniform(0.4, 1.8), tile_m=1.0)


def _block(stage: Stage, side: int, near: float, z: float, wide: float) -> None:
    """A building with rows of windows, its front at x = side * near, from z to z - wide."""
    deep, high = stage.uniform(6, 14), stage.uniform(4, 22)
    middle = vector(side * (near + deep / 2), high / 2, z - wide / 2)
    stage.box(middle, vector(deep, high, wide), stage.textured(FACADES, stage.uniform(1.5, 3.5), recolour=0.35))
    floors, columns = int(high // 3), max(1, int(wide // stage.uniform(1.7, 3.4)))
    step = wide / columns
    glass = stage.plain(0.01, 0.2, gloss=0.5)
    trim = stage.plain(0.2, 0.8)
    proud = side * (near - 0.03)
    soups = []
    for floor in range(floors):
        for column in range(columns):
            corner = vector(proud, floor * 3 + 0.9, z - (column + 0.75) * step)
            soups.append(quad(corner, vector(0, 0, step * 0.5), vector(0, 1.5, 0), glass, 0))
    if soups:
        stage.add(join(soups))
    if stage.chance(0.5):
        for floor in range(1, floors + 1):
            stage.box(vector(side * (near - 0.06), floor * 3 - 0.15, z - wide / 2), vector(0.25, 0.2, wide), trim)
    if stage.chance(0.4):  # a shop
        stage.quad(
            vector(side * (near - 0.05), 0.3, z - 0.95 * wide),
            vector(0, 0, 0.9 * wide),
            vector(0, 2.2, 0),
            stage.picture(backdrop=True),
        )
        if stage.chance(0.6):
            stage.box(vector(side * (near - 0.6), 2.7, z - wide / 2), vector(1.2, 0.08, wide * 0.9), stage.plain())
    if stage.chance(0.4):
        roof = stage.textured(("RoofingTiles", "Concrete", "Metal"), 2.0)
        stage.box(middle + vector(0, high / 2 + 0.2, 0), vector(deep + 0.5, 0.4, wide + 0.3), roof)


def tree(stage: Stage, place: Vector, height_m: float) -> None:
    """A tree: one of the models, or a trunk with a crown of leafy cards."""
    if stage.chance(0.5):
        stage.thing("tree", place, height_m=height_m, tile_m=stage.uniform(0.6, 1.5))
        return
    thick = height_m * stage.uniform(0.015, 0.035)
    heights = np.array([0.0, 0.05, 0.4, 0.9]) * height_m
    radii = thick * np.array([1.5, 1.0, 0.8, 0.25])
    stage.lathe(radii, heights, stage.textured(BARK, 0.8, recolour=0.1), place)
    layer = stage.pick(stage.library.leaves)
    middle = vector(0, height_m * stage.uniform(0.6, 0.72), 0)
    spread = np.array([stage.uniform(0.12, 0.28), 0.0, 0.0]) * height_m
    spread[1], spread[2] = height_m * stage.uniform(0.14, 0.22), spread[0]
    gain, season = (
        stage.uniform(0.6, 1.5),
        stage.rng.normal(0, 0.12, 3) if stage.chance(0.8) else np.array([0.8, 0.1, -0.4]),
    )
    size, soups = height_m * stage.uniform(0.14, 0.24), []
    for _ in range(stage.count(35, 80)):
        turn = random_turn(stage.rng)
        offset = stage.rng.normal(size=3)
        offset *= stage.rng.random() ** 0.4 / np.linalg.norm(offset)
        centre = place + middle + offset * spread * 1.4
        red, green, blue = (gain * (1 + season) * stage.uniform(0.75, 1.2)).clip(0.05, 3)
        material = Material((float(red), float(green), float(blue)), layer, 0.0)
        corner = centre - (turn[:, 0] + turn[:, 1]) * size / 2
        soup = quad(corner, turn[:, 0] * size, turn[:, 1] * size, material, 0)
        soup.normals[:] = (offset + 0.3 * turn[:, 2]) / np.linalg.norm(offset + 0.3 * turn[:, 2])
        soups.append(soup)
    stage.add(join(soups))


def landscape(stage: Stage, near_people: bool = False) -> Shot:
    """Hills with trees, rocks, houses, animals and walkers; `near_people` puts some right before the camera."""
    lights, sky = outdoor(stage)
    ground = _terrain(stage)
    position = vector(0, ground(0, 0) + stage.uniform(1.0, 2.2), 0)
    pitch = stage.uniform(-0.15, 0.05) if near_people else stage.uniform(-0.25, 0.08)
    shot = Shot(
        position, stage.uniform(-0.3, 0.3), pitch, stage.uniform(42, 80), lights, sky, stage.uniform(0.1, 0.5),
        nearest_m=0.6 if near_people else 0.9,
    )  # fmt: skip
    if stage.chance(0.4):
        _path(stage, ground)
    for _ in range(stage.count(3, 35)):
        z = -3 - 110 * stage.rng.random() ** 1.3
        x = stage.uniform(-1, 1) * (4 + abs(z) * 0.9)
        tree(stage, vector(x, ground(x, z) - 0.05, z), stage.uniform(3, 11))
    for _ in range(stage.count(3, 35)):
        z = -1.6 - 50 * stage.rng.random() ** 1.5
        x = stage.uniform(-1, 1) * (2 + abs(z) * 0.8)
        group, low, high = stage.pick(
            [("bush", 0.2, 1.4), ("rock", 0.2, 1.6), ("rock", 0.1, 0.6), ("bush", 0.1, 0.5), ("street", 0.3, 0.8)]
        )
        stage.thing(group, vector(x, ground(x, z) - 0.05, z), height_m=stage.uniform(low, high))
    for _ in range(stage.pick([0, 0, 1, 2, 4])):
        z = -stage.uniform(12, 90)
        x = stage.uniform(-0.7, 0.7) * abs(z)
        stage.thing("house", vector(x, ground(x, z) - 0.3, z), height_m=stage.uniform(4, 12), tile_m=2.0)
    if stage.chance(0.3):
        _fence(stage, ground)
    for _ in range(stage.pick([0, 0, 1, 2, 3])):
        z = -1.5 - 22 * stage.rng.random() ** 1.5
        x = stage.uniform(-0.5, 0.5) * abs(z)
        stage.thing("animal", vector(x, ground(x, z) - 0.02, z), height_m=stage.uniform(0.5, 1.7))
    for _ in range(stage.pick([0, 1, 1, 2, 4, 6])):
        z = -2.5 - 22 * stage.rng.random() ** 1.5
        x = stage.uniform(-1, 1) * (0.5 + abs(z) * 0.5)
        stage.person(vector(x, ground(x, z), z), position)
    if near_people:
        people_near(stage, shot, ground)
    return shot


def close_person_outside(stage: Stage) -> Shot:
    """One to three people at 0.8 to 2.4 m in open country."""
    return landscape(stage, near_people=True)


def _terrain(stage: Stage) -> Ground:
    """Adds fractal hills 320 m wide, flat near the camera; gives their height."""
    count = 110
    line = np.linspace(-1, 1, count)
    reach = np.sign(line) * np.abs(line) ** 1.6 * 160
    x, z = np.meshgrid(reach, reach - 100)
    far = np.hypot(x, z)
    height = np.zeros_like(x)
    for octave in range(5):
        cells = stage.rng.normal(size=(2**octave * 3 + 2,) * 2)
        height += cv2.resize(cells, (count, count), interpolation=cv2.INTER_CUBIC) * 0.5**octave
    height *= np.minimum(far / 25, 1) ** 1.3 * stage.uniform(0.3, 4)
    height += ((far - 60) / 60).clip(0, 1) * stage.uniform(0, 14)

    def ground(at_x: float, at_z: float) -> float:
        column = float(np.interp(at_x, reach, np.arange(count)))
        row = float(np.interp(at_z, reach - 100, np.arange(count)))
        i, j = min(int(row), count - 2), min(int(column), count - 2)
        v, u = row - i, column - j
        a, b, c, d = height[i, j], height[i, j + 1], height[i + 1, j + 1], height[i + 1, j]
        # the two triangles of a cell, as the faces below cut it
        return float(a + u * (b - a) + v * (c - b)) if v <= u else float(a + v * (d - a) + u * (c - d))

    points = np.stack([x, height, z], axis=-1).reshape(-1, 3)
    index = np.arange(count * count).reshape(count, count)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    faces = np.stack([np.stack([a, b, c], -1), np.stack([a, c, d], -1)]).reshape(-1, 3)
    corners = points[faces]
    material = stage.textured(GROUNDS, stage.uniform(1.5, 5), recolour=0.05)
    flat = face_normals(corners)
    smooth = np.zeros_like(points)
    for k in range(3):
        np.add.at(smooth, faces[:, k], flat * np.sign(flat[:, 1:2]))
    smooth /= np.linalg.norm(smooth, axis=1, keepdims=True).clip(1e-9)
    stage.add(make_soup(corners, corners[..., [0, 2]] / material.tile_m, material, 0, smooth[faces]))
    return ground


def _path(stage: Stage, ground: Ground) -> None:
    x, half, turn = stage.uniform(-2, 2), stage.uniform(0.5, 1.6), stage.uniform(-0.3, 0.3)
    material = stage.textured(("Gravel", "Ground", "PavingStones", "Asphalt", "Concrete"), 2.0)
    soups = []
    for z in np.arange(3.0, -60, -1):
        after = x + turn
        a, b = vector(x - half, ground(x - half, z) + 0.04, z), vector(x + half, ground(x + half, z) + 0.04, z)
        c = vector(after - half, ground(after - half, z - 1) + 0.04, z - 1)
        soups.append(quad(a, b - a, c - a, material, 0))
        x, turn = after, turn + 0.05 * float(stage.rng.normal())
    stage.add(join(soups))


def _fence(stage: Stage, ground: Ground) -> None:
    z, material = -stage.uniform(5, 25), stage.textured(("Planks", "Wood", "WoodSiding"), 0.5)
    for x in np.arange(-25.0, 25, 2):
        stage.box(vector(x, ground(x, z) + 0.5, z), vector(0.12, 1.1, 0.12), material)
        for level in (0.35, 0.75):
            stage.box(vector(x + 1, ground(x + 1, z) + level, z), vector(2, 0.1, 0.04), material)
