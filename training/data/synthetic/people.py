"""Posed people: rigged characters with turned joints, and jointed figures made by rule where there are none."""

import functools
from collections.abc import Sequence

import numpy as np

from training.data.synthetic.gltf import GltfFile, Model
from training.data.synthetic.procedural import model_of
from training.data.synthetic.soup import Material, Soup, Vector, join, lathe, turn_x, turn_y, turn_z

ACTIONS = ("stand", "stand", "walk", "walk", "sit", "reach", "stand", "walk")
POSES = 32
"""Different poses of one character; pose k does ACTIONS[k % 8]."""
SEATED = [k for k in range(POSES) if ACTIONS[k % len(ACTIONS)] == "sit"]
UPRIGHT = [k for k in range(POSES) if ACTIONS[k % len(ACTIONS)] != "sit"]
BODY_WORDS = ("skin", "hair", "eye", "brow", "white", "teeth")
"""Words in names of materials that are not clothes."""

Rotations = dict[str, Vector]


def joint_rotations(pose: int) -> Rotations:
    """Joint -> rotation about it from the T-pose; the same `pose` gives the same rotations."""
    rng = np.random.default_rng([7, pose])
    action = ACTIONS[pose % len(ACTIONS)]

    def degrees(low: float, high: float) -> float:
        return float(np.radians(rng.uniform(low, high)))

    drop, swing = degrees(62, 84), degrees(10, 34) * float(rng.choice([-1, 1]))
    arms = (degrees(-20, 12), degrees(-20, 12))
    legs = (degrees(-4, 4), degrees(-4, 4), degrees(0, 6), degrees(0, 6))
    if action == "walk":
        arms, legs = (-swing, swing), (swing, -swing, degrees(0, 28), degrees(0, 28))
    elif action == "sit":
        arms, legs = (
            (-degrees(5, 45), -degrees(5, 45)),
            (-degrees(76, 90), -degrees(76, 90), degrees(74, 96), degrees(74, 96)),
        )
    spread = degrees(0, 5)
    rotations = {
        "UpperArm.L": turn_x(arms[0]) @ turn_z(-drop),
        "UpperArm.R": turn_x(arms[1]) @ turn_z(drop),
        "LowerArm.L": turn_x(-degrees(0, 80)),
        "LowerArm.R": turn_x(-degrees(0, 80)),
        "UpperLeg.L": turn_x(legs[0]) @ turn_z(spread),
        "UpperLeg.R": turn_x(legs[1]) @ turn_z(-spread),
        "LowerLeg.L": turn_x(legs[2]),
        "LowerLeg.R": turn_x(legs[3]),
        "Head": turn_y(degrees(-45, 45)) @ turn_x(degrees(-10, 18)),
        "Chest": turn_y(degrees(-15, 15)) @ turn_x(degrees(-4, 8)),
    }
    if action == "reach":
        rotations["UpperArm.R"] = turn_x(-degrees(30, 100)) @ turn_z(degrees(50, 80))
        rotations["LowerArm.R"] = turn_x(-degrees(10, 70))
    return rotations


class Cast:
    """The people of a library; posed models are kept once made."""

    def __init__(self, characters: Sequence[GltfFile]) -> None:
        self._characters = list(characters)
        self._posed = functools.lru_cache(maxsize=400)(self._pose)

    def __len__(self) -> int:
        return len(self._characters) or _DRAWN_FIGURES

    def posed(self, character: int, pose: int) -> Model:
        """A character in a pose, standing or sitting on y = 0, facing +z."""
        return self._posed(character, pose)

    def _pose(self, character: int, pose: int) -> Model:
        rotations = joint_rotations(pose)
        if self._characters:
            return self._characters[character].model(rotations)
        return drawn_figure(character, rotations)

    def standing_height(self, character: int) -> float:
        """Height of the upright character in its own units."""
        return float(self.posed(character, 0).extent[1])


_DRAWN_FIGURES = 4
_BONES: tuple[tuple[str, str, tuple[float, float, float], float, int], ...] = (
    ("Hips", "", (0.0, 0.18, 0.0), 0.15, 2),
    ("Chest", "Hips", (0.0, 0.38, 0.0), 0.17, 1),
    ("Neck", "Chest", (0.0, 0.1, 0.0), 0.055, 0),
    ("Head", "Neck", (0.0, 0.24, 0.02), 0.1, 0),
    ("Shoulder.L", "Chest", (0.19, 0.0, 0.0), 0.07, 1),
    ("UpperArm.L", "Shoulder.L", (0.28, 0.0, 0.0), 0.05, 1),
    ("LowerArm.L", "UpperArm.L", (0.32, 0.0, 0.0), 0.04, 0),
    ("Shoulder.R", "Chest", (-0.19, 0.0, 0.0), 0.07, 1),
    ("UpperArm.R", "Shoulder.R", (-0.28, 0.0, 0.0), 0.05, 1),
    ("LowerArm.R", "UpperArm.R", (-0.32, 0.0, 0.0), 0.04, 0),
    ("Hip.L", "", (0.1, 0.0, 0.0), 0.1, 2),
    ("UpperLeg.L", "Hip.L", (0.0, -0.44, 0.0), 0.085, 2),
    ("LowerLeg.L", "UpperLeg.L", (0.0, -0.44, 0.0), 0.06, 2),
    ("Foot.L", "LowerLeg.L", (0.0, 0.0, 0.18), 0.05, 3),
    ("Hip.R", "", (-0.1, 0.0, 0.0), 0.1, 2),
    ("UpperLeg.R", "Hip.R", (0.0, -0.44, 0.0), 0.085, 2),
    ("LowerLeg.R", "UpperLeg.R", (0.0, -0.44, 0.0), 0.06, 2),
    ("Foot.R", "LowerLeg.R", (0.0, 0.0, 0.18), 0.05, 3),
)
"""Joint, its parent, the bone from it in metres, the bone's radius in metres, its material."""
_MATERIALS = ("Skin", "Shirt", "Trousers", "Shoes")


def drawn_figure(character: int, rotations: Rotations) -> Model:
    """A person of ellipsoids, 1.75 m tall, in the pose of `rotations`."""
    rng = np.random.default_rng([11, character])
    skin = np.array([0.75, 0.5, 0.38]) * rng.uniform(0.25, 1.1)
    colours = [skin, *(rng.uniform(0.05, 0.6, 3) for _ in _MATERIALS[1:])]
    turns: dict[str, Vector] = {"": np.eye(3)}
    ends: dict[str, Vector] = {"": np.zeros(3)}
    parts: list[Soup] = []
    for joint, parent, bone, radius, material in _BONES:
        turns[joint] = rotations.get(joint, np.eye(3)) @ turns[parent]
        start = ends[parent]
        ends[joint] = start + turns[joint] @ np.array(bone)
        red, green, blue = colours[material]
        parts.append(_limb(start, ends[joint], radius, Material((float(red), float(green), float(blue))), material))
    return model_of(join(parts), _MATERIALS)


def _limb(start: Vector, end: Vector, radius: float, material: Material, identity: int) -> Soup:
    """A rounded body from `start` to `end`."""
    length = float(np.linalg.norm(end - start)) + radius
    along = (end - start) / max(float(np.linalg.norm(end - start)), 1e-9)
    side = np.cross(along, [0.3, 0.1, 0.9])
    side /= np.linalg.norm(side)
    rotation = np.stack([side, along, np.cross(side, along)], axis=1)
    angle = np.linspace(-np.pi / 2, np.pi / 2, 9)
    radii = radius * np.abs(np.cos(angle)) ** 0.6
    return lathe(radii, np.sin(angle) * length / 2, material, identity, (start + end) / 2, rotation)
