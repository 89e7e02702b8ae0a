"""Rooms: wide ones, tight ones full of things, corridors and stairs; a person close to the camera when asked for."""

from collections.abc import Callable

import numpy as np

from training.data.synthetic.furniture import Floor, Room, desk, furnish, pile, wall_shelf
from training.data.synthetic.shot import Shot, indoor_sky, lamp
from training.data.synthetic.soup import Material, Vector, grid, turn_y
from training.data.synthetic.stage import Stage, vector

WALLS = ("Plaster", "Paint", "Paint", "Wallpaper", "Plaster", "Concrete", "Bricks", "Planks", "Tiles", "Fabric")
FLOORS = (
    "WoodFloor",
    "WoodFloor",
    "WoodFloor",
    "Tiles",
    "Carpet",
    "Planks",
    "Terrazzo",
    "Marble",
    "Concrete",
    "Fabric",
)
CEILINGS = ("Plaster", "Paint", "Paint", "OfficeCeiling", "Planks")


def room(stage: Stage) -> Shot:
    """A furnished room seen by somebody standing or sitting in it."""
    space = Room(stage.uniform(2.8, 7.0), stage.uniform(3.2, 8.5), stage.uniform(2.3, 3.2))
    shot = _view(stage, space, height_m=stage.uniform(0.8, 1.8), pitch_rad=stage.uniform(-0.42, 0.04))
    _shell(stage, space)
    taken = Floor(space, shot.position)
    furnish(stage, taken, stage.count(5, 15), at_wall=0.65)
    for _ in range(stage.count(0, 4)):
        pile(stage, taken)
    for _ in range(stage.pick([0, 0, 1, 1, 2, 3])):
        _guest(stage, taken, shot)
    return shot


def tight(stage: Stage) -> Shot:
    """A corner of a small room, 1 to 3 m deep, with clutter on every board."""
    space = Room(stage.uniform(1.8, 3.2), stage.uniform(2.2, 3.6), stage.uniform(2.2, 2.7))
    shot = _view(stage, space, height_m=stage.uniform(0.7, 1.7), pitch_rad=stage.uniform(-0.6, 0.0))
    _shell(stage, space, extra=3)
    taken = Floor(space, shot.position, clearance_m=0.35)
    for _ in range(stage.count(1, 3)):
        desk(stage, space, taken)
    furnish(stage, taken, stage.count(4, 10), at_wall=0.8)
    for _ in range(stage.count(0, 3)):
        wall_shelf(stage, space)
    for _ in range(stage.count(0, 4)):
        pile(stage, taken)
    for _ in range(stage.count(5, 25)):
        place = taken.find(stage, 0.12)
        if place is not None:
            stage.thing("small", place, height_m=stage.uniform(0.06, 0.4), tile_m=0.3)
    if stage.chance(0.3):
        _guest(stage, taken, shot)
    return shot


def close_person(stage: Stage) -> Shot:
    """One to three people at 0.8 to 2.4 m in a room."""
    space = Room(stage.uniform(2.8, 7.0), stage.uniform(3.2, 8.0), stage.uniform(2.3, 3.2))
    shot = _view(stage, space, height_m=stage.uniform(1.1, 1.7), pitch_rad=stage.uniform(-0.2, 0.06))
    _shell(stage, space)
    taken = Floor(space, shot.position)
    people_near(stage, shot, lambda x, z: 0.0)
    furnish(stage, taken, stage.count(3, 12), at_wall=0.8)
    if stage.chance(0.3):
        _guest(stage, taken, shot)
    return shot


def corridor(stage: Stage) -> Shot:
    """A corridor with doors, sometimes with columns, an arched ceiling, or stairs at its end."""
    space = Room(stage.uniform(1.3, 3.5), stage.uniform(7, 22), stage.uniform(2.3, 3.6))
    position = vector(
        space.width * stage.uniform(0.3, 0.7), stage.uniform(1.0, 1.8), space.depth - stage.uniform(0.3, 2)
    )
    _shell(stage, space)
    if stage.chance(0.35):
        _vault(stage, space)
    trim = stage.plain(0.05, 0.6)
    for z in np.arange(1.0, space.depth, stage.uniform(1.8, 4)):
        for side in (0, 1):
            if stage.chance(0.6):
                _door(stage, vector(side * space.width, 0, float(z)), 1 - 2 * side, trim)
    if stage.chance(0.5):
        _stairs(stage, space)
    if stage.chance(0.35):
        material = stage.textured(("Marble", "Plaster", "Concrete"), 1.0)
        radius = stage.uniform(0.08, 0.16)
        for z in np.arange(0.6, space.depth, stage.uniform(1.5, 3)):
            for x in (radius + 0.1, space.width - radius - 0.1):
                stage.lathe(np.full(2, radius), np.array([0, space.height]), material, vector(x, 0, float(z)))
    lights = tuple(
        lamp(stage, vector(space.width / 2, space.height - 0.3, share * space.depth), stage.uniform(1, 3))
        for share in (0.25, 0.75)
    )
    shot = Shot(
        position, stage.uniform(-0.25, 0.25), stage.uniform(-0.2, 0.06), stage.uniform(50, 85), lights,
        indoor_sky(stage), stage.uniform(0.05, 0.2),
    )  # fmt: skip
    taken = Floor(space, shot.position)
    furnish(stage, taken, stage.count(0, 5), at_wall=1.0)
    for _ in range(stage.pick([0, 1, 1, 2, 4])):
        _guest(stage, taken, shot)
    return shot


def people_near(stage: Stage, shot: Shot, ground: Callable[[float, float], float]) -> None:
    """One to three people 0.8 to 2.4 m before the camera of `shot`."""
    for _ in range(stage.pick([1, 1, 1, 2, 2, 3])):
        distance, aside = stage.uniform(0.8, 2.4), stage.uniform(-0.32, 0.32)
        yaw = shot.yaw_rad + aside
        x = float(shot.position[0]) + distance * np.sin(yaw)
        z = float(shot.position[2]) - distance * np.cos(yaw)
        stage.person(vector(x, ground(x, z), z), shot.position, photo=0.5)


def _view(stage: Stage, space: Room, height_m: float, pitch_rad: float) -> Shot:
    """A camera near the z = depth wall or in a corner, looking into the room; lamps under the ceiling."""
    x, z = space.width * stage.uniform(0.12, 0.88), space.depth * stage.uniform(0.78, 0.97)
    target = np.array([space.width * stage.uniform(0.2, 0.8), space.depth * stage.uniform(0, 0.3)])
    yaw = float(np.arctan2(target[0] - x, z - target[1])) + stage.uniform(-0.3, 0.3)
    places = [vector(space.width * stage.uniform(0.3, 0.7), space.height - 0.25, space.depth * stage.uniform(0.3, 0.7))]
    if stage.chance(0.4):  # a window or a standing lamp
        places.append(
            vector(stage.pick([0.15, space.width - 0.15]), stage.uniform(1, 1.8), space.depth * stage.uniform(0, 0.8))
        )
    lights = tuple(lamp(stage, place, stage.uniform(1.0, 3.5)) for place in places)
    return Shot(
        vector(x, min(height_m, space.height - 0.3), z), yaw, pitch_rad, stage.uniform(48, 82), lights,
        indoor_sky(stage), stage.uniform(0.05, 0.2),
    )  # fmt: skip


def _shell(stage: Stage, space: Room, extra: int = 0) -> None:
    """Floor, ceiling, walls, and what hangs on them."""
    w, d, h = space.width, space.depth, space.height
    stage.quad(
        vector(0, 0, d),
        vector(w, 0, 0),
        vector(0, 0, -d),
        stage.textured(FLOORS, stage.uniform(0.7, 2.5), stage.pick([0, 0, 0.15, 0.3])),
    )
    stage.quad(vector(0, h, 0), vector(w, 0, 0), vector(0, 0, d), stage.textured(CEILINGS, stage.uniform(1, 2.5)))
    tile = stage.uniform(1, 2.5)
    common = stage.textured(WALLS, tile, recolour=0.5)
    for origin, along in (
        (vector(0, 0, 0), vector(w, 0, 0)),
        (vector(w, 0, 0), vector(0, 0, d)),
        (vector(w, 0, d), vector(-w, 0, 0)),
        (vector(0, 0, d), vector(0, 0, -d)),
    ):
        stage.quad(
            origin, along, vector(0, h, 0), stage.textured(WALLS, tile, recolour=0.5) if stage.chance(0.2) else common
        )
    if stage.chance(0.5):  # skirting
        board = stage.plain(0.05, 0.8)
        for z in (0.0, d):
            stage.box(vector(w / 2, 0.05, z), vector(w, 0.1, 0.03), board)
        for x in (0.0, w):
            stage.box(vector(x, 0.05, d / 2), vector(0.03, 0.1, d), board)
    for _ in range(stage.count(1, 5) + extra):
        place, along, into = space.wall(stage)
        wide, high = stage.uniform(0.25, 1.2), stage.uniform(0.25, 0.9)
        corner = place + into * 0.02 - along * wide / 2 + vector(0, stage.uniform(1.0, 1.6), 0)
        rim = along * 0.03 + vector(0, 0.03, 0)
        stage.quad(corner - rim - into * 0.006, along * (wide + 0.06), vector(0, high + 0.06, 0), stage.plain())
        stage.quad(corner, along * wide, vector(0, high, 0), stage.picture())
    for _ in range(stage.count(0, 2)):
        _window(stage, *space.wall(stage))
    for _ in range(stage.count(0, 2)):
        place, _along, into = space.wall(stage)
        if abs(into[0]) > 0:
            _door(stage, place, float(into[0]), stage.plain(0.05, 0.7))
    if stage.chance(0.5):
        place = vector(stage.uniform(0, 0.4) * w, 0.012, stage.uniform(0.6, 0.95) * d)
        rug = stage.textured(("Carpet", "Fabric", "Tatami"), stage.uniform(0.3, 1.5), recolour=0.6)
        stage.quad(place, vector(stage.uniform(0.9, 2.5), 0, 0), vector(0, 0, -stage.uniform(0.9, 2.5)), rug)


def _window(stage: Stage, place: Vector, along: Vector, into: Vector) -> None:
    wide, high, sill = stage.uniform(0.7, 1.9), stage.uniform(0.8, 1.4), 0.85
    glass = (
        stage.picture(stage.uniform(0.8, 2.5), backdrop=True)
        if stage.chance(0.5)
        else stage.plain(0.5, 0.9, emission=stage.uniform(0.8, 3))
    )
    stage.quad(place + into * 0.01 - along * wide / 2 + vector(0, sill, 0), along * wide, vector(0, high, 0), glass)
    frame, turn = stage.plain(0.2, 0.9), turn_y(float(np.arctan2(along[2], along[0])) * -1)
    middle = place + into * 0.02 + vector(0, sill + high / 2, 0)
    for share in (-0.5, 0.0, 0.5):
        stage.box(middle + along * share * wide, vector(0.06, high, 0.06), frame, turn)
    for share in (-0.5, 0.5):
        stage.box(middle + vector(0, share * high, 0), vector(wide, 0.06, 0.08), frame, turn)


def _door(stage: Stage, place: Vector, inwards: float, trim: Material) -> None:
    """A door in a wall along z; `inwards` is +1 or -1 along x."""
    into = vector(inwards, 0, 0)
    leaf = stage.textured(("Wood", "Planks", "Paint", "WoodSiding"), 0.9, recolour=0.5)
    stage.box(place + into * 0.01 + vector(0, 1.02, 0), vector(0.05, 2.04, 0.9), leaf)
    for z in (-0.48, 0.48):
        stage.box(place + vector(0, 1.04, z), vector(0.1, 2.08, 0.08), trim)
    stage.box(place + vector(0, 2.1, 0), vector(0.1, 0.08, 1.04), trim)
    stage.box(place + into * 0.06 + vector(0, 1.0, 0.36), vector(0.05, 0.03, 0.12), stage.plain(0.3, 0.8, gloss=0.6))


def _guest(stage: Stage, taken: Floor, shot: Shot) -> None:
    """Somebody who stands, walks, or sits on a stool."""
    place = taken.find(stage, 0.3)
    if place is None:
        return
    if stage.chance(0.3):
        stage.box(
            place + vector(0, 0.2, 0), vector(0.42, 0.4, 0.42), stage.surface(0.5), turn_y(stage.uniform(0, 6.28))
        )
        stage.person(place, shot.position, seated=True)
    else:
        stage.person(place, shot.position)


def _stairs(stage: Stage, space: Room) -> None:
    """Steps up to the end wall."""
    rise, run, count = stage.uniform(0.14, 0.19), stage.uniform(0.26, 0.34), stage.count(4, 11)
    material = stage.textured(("Marble", "Wood", "Concrete", "Tiles", "Planks"), 1.0)
    for step in range(count):
        middle = vector(space.width / 2, rise * (step + 0.5), run * (count - step) / 2)
        stage.box(middle, vector(space.width, rise, run * (count - step)), material)


def _vault(stage: Stage, space: Room) -> None:
    """An arched ceiling below the flat one."""
    angle = np.linspace(0, np.pi, 13)
    rise = stage.uniform(0.2, 0.6)
    x, y = space.width / 2 * (1 - np.cos(angle)), space.height - rise + (rise - 0.02) * np.sin(angle)
    z = np.array([0.0, space.depth])
    points = np.stack(np.broadcast_arrays(x[:, None], y[:, None], z[None]), axis=-1)
    normals = np.stack(np.broadcast_arrays(np.cos(angle)[:, None], -np.sin(angle)[:, None], 0 * z[None]), axis=-1)
    uv = np.stack(np.broadcast_arrays(angle[:, None] * space.width / 2, z[None]), axis=-1)
    stage.add(grid(points, normals, uv, stage.textured(("Plaster", "Bricks", "Concrete", "Paint")), 0))
