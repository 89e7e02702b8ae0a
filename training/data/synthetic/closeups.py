"""Things close to the camera: table tops, heaps without a floor, objects flying before a backdrop."""

import numpy as np

from training.data.synthetic.indoors import FLOORS, WALLS
from training.data.synthetic.shot import Shot, indoor_sky, lamp, outdoor
from training.data.synthetic.soup import Vector, lathe, random_turn, turn_y
from training.data.synthetic.stage import Stage, vector

TOPS = ("Wood", "Planks", "Fabric", "Marble", "Tiles", "Carpet", "Paper", "Plastic", "Granite", "Concrete")
ANYTHING = ("small", "small", "small", "small", "plant", "chair", "animal", "rock", "lamp", "car", "table")


def table_top(stage: Stage) -> Shot:
    """Objects on a table before a wall, 0.3 to 3 m away."""
    back = -stage.uniform(0.9, 2.6)
    stage.quad(
        vector(-3, 0, 1.5),
        vector(6, 0, 0),
        vector(0, 0, -stage.uniform(2, 4.5)),
        stage.textured(TOPS, stage.uniform(0.3, 1.5), stage.pick([0, 0.1, 0.3])),
    )
    wall = (
        stage.textured(WALLS, stage.uniform(0.5, 2), recolour=0.4)
        if stage.chance(0.75)
        else stage.picture(backdrop=True)
    )
    stage.quad(vector(-6, -2, back), vector(12, 0, 0), vector(0, 6, 0), wall)
    stage.quad(vector(-6, -1, 3), vector(12, 0, 0), vector(0, 0, -9), stage.textured(FLOORS, 1.0))
    if stage.chance(0.5):
        x = stage.pick([-1, 1]) * stage.uniform(0.9, 2)
        stage.quad(vector(x, -1, 1), vector(0, 0, -5), vector(0, 4, 0), stage.textured(WALLS, stage.uniform(0.5, 2)))
    for _ in range(stage.count(10, 40)):
        z = stage.uniform(max(back * 0.95, -1.8), 0.05)
        _object(stage, vector(stage.uniform(-0.6, 0.6) * (0.6 - z), 0, z), stage.uniform(0.06, 0.35))
    eye = vector(stage.uniform(-0.3, 0.3), stage.uniform(0.15, 0.85), stage.uniform(0.35, 0.9))
    lights = (
        lamp(
            stage,
            vector(stage.uniform(-1.5, 1.5), stage.uniform(1.2, 2.5), stage.uniform(-0.5, 1.5)),
            stage.uniform(1, 3),
        ),
    )
    pitch = -float(np.arctan2(eye[1] - stage.uniform(0, 0.25), stage.uniform(0.9, 2.0)))
    return Shot(
        eye, stage.uniform(-0.3, 0.3), pitch, stage.uniform(38, 68), lights, indoor_sky(stage),
        stage.uniform(0.03, 0.12), nearest_m=0.3,
    )  # fmt: skip


def heap(stage: Stage) -> Shot:
    """Boards, boxes and objects at 0.6 to 3.5 m, filling the picture without a floor."""
    back = -stage.uniform(1.8, 4.0)
    stage.quad(
        vector(-6, -5, back),
        vector(12, 0, stage.uniform(-1.5, 1.5)),
        vector(0, 10, 0),
        stage.textured(WALLS, stage.uniform(0.5, 2)),
    )
    for _ in range(stage.count(3, 9)):  # leaning boards
        z = stage.uniform(back * 0.95, -1.3)
        middle = vector(stage.uniform(-0.7, 0.7) * -z, stage.uniform(-0.6, 0.4) * -z, z)
        tilt = random_turn(stage.rng) if stage.chance(0.2) else turn_y(stage.uniform(-0.9, 0.9))
        stage.box(
            middle,
            vector(stage.uniform(0.2, 1.2), stage.uniform(0.2, 1.4), stage.uniform(0.01, 0.3)),
            stage.surface(stage.uniform(0.2, 1)),
            tilt,
        )
    for _ in range(stage.count(8, 26)):
        z = stage.uniform(back * 0.9, -0.75)
        place = vector(stage.uniform(-0.65, 0.65) * -z, stage.uniform(-0.6, 0.35) * -z, z)
        _object(stage, place, stage.uniform(0.08, 0.3) * -z, stage.pick(ANYTHING))
    lights = (
        lamp(stage, vector(stage.uniform(-2, 2), stage.uniform(0.5, 2.5), stage.uniform(-1, 1.5)), stage.uniform(1, 3)),
    )
    return Shot(
        vector(0, 0, 0), stage.uniform(-0.15, 0.15), stage.uniform(-0.15, 0.1), stage.uniform(42, 72), lights,
        indoor_sky(stage), stage.uniform(0.04, 0.2), nearest_m=0.45,
    )  # fmt: skip


def flying(stage: Stage) -> Shot:
    """Boxes, models and people in any position at 1.2 to 13 m before a far picture."""
    far = -stage.uniform(12, 30)
    behind = stage.picture(backdrop=True) if stage.chance(0.6) else stage.any_texture(8.0)
    if stage.chance(0.8):
        stage.quad(vector(-40, -30, far), vector(80, 0, 0), vector(0, 60, 0), behind)
    if stage.chance(0.5):
        stage.quad(
            vector(-30, -stage.uniform(1, 3), 4),
            vector(60, 0, 0),
            vector(0, 0, -60),
            stage.any_texture(stage.uniform(1, 4)),
        )
    for _ in range(stage.count(12, 40)):
        z = -1.2 - 12 * stage.rng.random() ** 1.5
        place = vector(stage.uniform(-0.7, 0.7) * -z, stage.uniform(-0.55, 0.55) * -z, z)
        size = stage.uniform(0.06, 0.4) * -z
        choice = stage.rng.random()
        if choice < 0.3:
            stage.box(
                place,
                size * stage.rng.uniform(0.2, 1.2, 3),
                stage.surface(stage.uniform(0.3, 1) * size),
                random_turn(stage.rng),
            )
        elif choice < 0.9:
            stage.thing(stage.pick(ANYTHING), place, height_m=size, rotation=random_turn(stage.rng), tile_m=size)
        else:
            stage.person(place - vector(0, 0.9, 0), vector(0, 0, 0))
    lights, sky = outdoor(stage, fog=False)
    return Shot(vector(0, 0, 0), 0.0, 0.0, stage.uniform(45, 75), lights, sky, stage.uniform(0.05, 0.25), nearest_m=0.6)


def _object(stage: Stage, place: Vector, size: float, group: str = "small") -> None:
    """A box, a pipe or a model with its foot at `place`."""
    choice = stage.rng.random()
    if choice < 0.3:
        extent = size * stage.rng.uniform(0.3, 1.4, 3)
        turn = turn_y(stage.uniform(0, 6.28))
        stage.box(place + vector(0, extent[1] / 2, 0), extent, stage.surface(stage.uniform(0.1, 0.5)), turn)
    elif choice < 0.4:
        turn = random_turn(stage.rng) if stage.chance(0.3) else turn_y(0.0)
        body = lathe(
            np.full(2, size * stage.uniform(0.1, 0.35)), np.array([0, size]), stage.surface(0.3), 0, place, turn
        )
        stage.add(body)
    else:
        stage.thing(group, place, height_m=size, tile_m=stage.uniform(0.1, 0.4))
