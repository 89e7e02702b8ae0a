"""Furniture, clutter and free places in a room."""

from dataclasses import dataclass

import numpy as np

from training.data.synthetic.soup import Vector, turn_y
from training.data.synthetic.stage import Stage, vector

FURNITURE: tuple[tuple[str, str, float, float], ...] = (
    ("sofa", "width", 1.3, 2.2),
    ("bed", "width", 1.8, 2.2),
    ("chair", "height", 0.8, 1.0),
    ("chair", "height", 0.8, 1.0),
    ("table", "height", 0.45, 0.78),
    ("table", "height", 0.45, 0.78),
    ("cabinet", "height", 0.7, 1.1),
    ("cabinet", "height", 0.7, 1.1),
    ("shelf", "height", 1.1, 2.1),
    ("shelf", "height", 1.1, 2.1),
    ("lamp", "height", 1.3, 1.8),
    ("plant", "height", 0.4, 1.4),
    ("column", "height", 1.5, 2.3),
    ("small", "height", 0.2, 0.6),
)
"""Group, what it is sized by, smallest and largest size in metres."""


@dataclass(frozen=True, slots=True)
class Room:
    """A room from (0, 0, 0) to (width, height, depth), metres."""

    width: float
    depth: float
    height: float

    def wall(self, stage: Stage) -> tuple[Vector, Vector, Vector]:
        """A place at the foot of a wall, the direction along it to the right, and the direction into the room."""
        side, share = stage.count(0, 3), stage.uniform(0.08, 0.92)
        if side == 0:
            return vector(share * self.width, 0, 0), vector(1, 0, 0), vector(0, 0, 1)
        if side == 1:
            return vector(share * self.width, 0, self.depth), vector(-1, 0, 0), vector(0, 0, -1)
        if side == 2:
            return vector(0, 0, share * self.depth), vector(0, 0, -1), vector(1, 0, 0)
        return vector(self.width, 0, share * self.depth), vector(0, 0, 1), vector(-1, 0, 0)


class Floor:
    """Which parts of a room's floor are taken."""

    def __init__(self, space: Room, eye: Vector, clearance_m: float = 0.55) -> None:
        self.space = space
        self._taken = [(float(eye[0]), float(eye[2]), clearance_m)]

    def find(self, stage: Stage, radius: float) -> Vector | None:
        """A free place on the floor."""
        for _ in range(10):
            x = stage.uniform(radius, max(self.space.width - radius, radius))
            z = stage.uniform(radius, max(self.space.depth - radius, radius))
            if self.take(x, z, radius):
                return vector(x, 0, z)
        return None

    def take(self, x: float, z: float, radius: float) -> bool:
        """Takes a round place if it is free."""
        if any((x - a) ** 2 + (z - b) ** 2 < 0.6 * (radius + r) ** 2 for a, b, r in self._taken):
            return False
        self._taken.append((x, z, radius))
        return True


def furnish(stage: Stage, taken: Floor, count: int, at_wall: float) -> None:
    """Places up to `count` pieces, the share `at_wall` of them along the walls, with things on tables."""
    for _ in range(count):
        group, measure, low, high = stage.pick(FURNITURE)
        size = stage.uniform(low, high)
        radius = size * 0.45 if measure == "width" else min(0.35 * size + 0.1, 0.6)
        if stage.chance(at_wall):
            place, _along, into = taken.space.wall(stage)
            place = place + into * (radius * 0.8 + 0.05)
            if not taken.take(float(place[0]), float(place[2]), radius):
                continue
            yaw = float(np.arctan2(into[0], into[2]))
        else:
            free = taken.find(stage, radius)
            if free is None:
                continue
            place, yaw = free, stage.uniform(0, 6.28)
        if measure == "width":
            extent = stage.thing(group, place, width_m=size, yaw_rad=yaw)
        else:
            extent = stage.thing(group, place, height_m=size, yaw_rad=yaw)
        if group in ("table", "cabinet") and extent[1] < 1.3:
            clutter(
                stage,
                place + vector(0, float(extent[1]), 0),
                turn_y(yaw),
                extent[0] * 0.7,
                extent[2] * 0.6,
                stage.count(0, 7),
            )


def clutter(stage: Stage, middle: Vector, turn: Vector, wide: float, deep: float, count: int) -> None:
    """Small things on a board around `middle`."""
    for _ in range(count):
        offset = turn @ vector(stage.uniform(-0.5, 0.5) * wide, 0, stage.uniform(-0.5, 0.5) * deep)
        stage.thing("small", middle + offset, height_m=stage.uniform(0.05, 0.35), tile_m=0.25)


def desk(stage: Stage, space: Room, taken: Floor) -> None:
    """A full desk or counter along a wall, with a screen or a board above."""
    place, along, into = space.wall(stage)
    wide, deep, high = stage.uniform(0.8, 2.0), stage.uniform(0.4, 0.7), stage.uniform(0.65, 0.95)
    middle = place + into * deep / 2
    if not taken.take(float(middle[0]), float(middle[2]), deep * 0.7):
        return
    turn = np.stack([along, vector(0, 1, 0), np.cross(along, vector(0, 1, 0))], axis=1)
    top = stage.textured(("Wood", "Marble", "Planks", "Plastic", "Granite"), 0.8, gloss=0.1)
    stage.box(middle + vector(0, high - 0.02, 0), vector(wide, 0.04, deep), top, turn)
    if stage.chance(0.6):
        stage.box(
            middle + vector(0, high / 2 - 0.02, 0),
            vector(wide * 0.97, high - 0.06, deep * 0.9),
            stage.surface(0.8),
            turn,
        )
    if stage.chance(0.5):
        screen = middle + vector(0, high + 0.1, 0) - into * deep * 0.2
        size = stage.uniform(0.35, 0.7)
        stage.box(screen + vector(0, size * 0.3, 0), vector(size, size * 0.6, 0.03), stage.plain(0.01, 0.05), turn)
        corner = screen + into * 0.02 - along * size * 0.47 + vector(0, size * 0.03, 0)
        stage.quad(corner, along * size * 0.94, vector(0, size * 0.54, 0), stage.picture(stage.pick([0.0, 0.5, 1.2])))
    clutter(stage, middle + vector(0, high, 0), turn, wide * 0.9, deep * 0.8, stage.count(4, 18))


def wall_shelf(stage: Stage, space: Room) -> None:
    """One to three boards with things on them."""
    place, along, into = space.wall(stage)
    wide, board = stage.uniform(0.5, 1.6), stage.textured(("Wood", "Planks", "Paint", "Metal"), 0.7)
    turn = np.stack([along, vector(0, 1, 0), np.cross(along, vector(0, 1, 0))], axis=1)
    for height in np.arange(stage.uniform(1.0, 1.4), 2.1, stage.uniform(0.3, 0.5)):
        middle = place + into * 0.14 + vector(0, float(height), 0)
        stage.box(middle, vector(wide, 0.03, 0.26), board, turn)
        clutter(stage, middle + vector(0, 0.015, 0), turn, wide * 0.9, 0.12, stage.count(2, 8))


def pile(stage: Stage, taken: Floor) -> None:
    """Boxes on boxes."""
    size = stage.uniform(0.15, 0.6)
    place = taken.find(stage, size * 0.6)
    if place is None:
        return
    bottom = 0.0
    for _ in range(stage.count(1, 4)):
        high = size * stage.uniform(0.3, 1.1)
        extent = vector(size * stage.uniform(0.7, 1.2), high, size)
        look = (
            stage.textured(("Cardboard", "Wood", "Plastic", "Fabric", "Metal"), 0.5)
            if stage.chance(0.6)
            else stage.surface(0.5)
        )
        stage.box(place + vector(0, bottom + high / 2, 0), extent, look, turn_y(stage.uniform(0, 6.28)))
        bottom += high
