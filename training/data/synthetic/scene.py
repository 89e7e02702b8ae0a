"""From a seed to a scene: the kind, what stands in it, the camera and the light; and the rules that reject a view."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from training.data.synthetic.assets import Library
from training.data.synthetic.camera import Camera, Finish, aim, draw_finish
from training.data.synthetic.closeups import flying, heap, table_top
from training.data.synthetic.indoors import close_person, corridor, room, tight
from training.data.synthetic.outdoors import close_person_outside, landscape, street
from training.data.synthetic.people import Cast
from training.data.synthetic.render import View
from training.data.synthetic.shot import Shot
from training.data.synthetic.soup import Soup
from training.data.synthetic.stage import Stage

KINDS: dict[str, tuple[float, Callable[[Stage], Shot]]] = {
    "room": (0.20, room),
    "tight": (0.15, tight),
    "corridor": (0.06, corridor),
    "close_person": (0.11, close_person),
    "close_person_outside": (0.06, close_person_outside),
    "street": (0.17, street),
    "landscape": (0.09, landscape),
    "table_top": (0.07, table_top),
    "heap": (0.05, heap),
    "flying": (0.04, flying),
}
"""Kind -> its share of the scenes, and what builds it."""

CC0 = "cc0"
ATTEMPTS = 8
ROLL_RAD = 0.03
_LEAST_DEPTH, _LARGEST_OBJECT = 0.15, 0.6


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that a picture is rendered from.

    Attributes:
        seed: What it was built from.
        attempt: How many views of this seed were rejected before.
        kind: One of KINDS.
        soup: Its triangles.
        shot: Light and stereo baseline.
        camera: The (left) camera.
        finish: What the camera's electronics do.
        terms: `cc0`, or the photo sets of which something was used.
    """

    seed: int
    attempt: int
    kind: str
    soup: Soup
    shot: Shot
    camera: Camera
    finish: Finish
    terms: str


def kind_of(seed: int) -> str:
    """The kind of a seed's scene: a function of the seed alone."""
    shares = np.array([share for share, _ in KINDS.values()])
    return list(KINDS)[int(np.random.default_rng([seed, 0]).choice(len(KINDS), p=shares / shares.sum()))]


def build_scene(
    seed: int, library: Library, cast: Cast, size: tuple[int, int], attempt: int = 0, kind: str | None = None
) -> Scene:
    """The scene of `seed`; a rejected one is built anew with the next `attempt`. `size` is (height, width)."""
    kind = kind or kind_of(seed)
    rng = np.random.default_rng([seed, 1 + attempt])
    stage = Stage(rng, library, cast)
    shot = KINDS[kind][1](stage)
    camera = aim(shot.position, shot.yaw_rad, shot.pitch_rad, ROLL_RAD * rng.normal(), shot.field_deg, size)
    terms = "+".join(sorted(stage.origins)) or CC0
    return Scene(seed, attempt, kind, stage.soup(), shot, camera, draw_finish(rng), terms)


def acceptable(scene: Scene, view: View) -> bool:
    """Whether the view shows something: 15 % with depth, not all too near, no single near object over 60 % of it."""
    seen = view.inverse_depth > 0
    if seen.mean() < _LEAST_DEPTH or np.median(view.inverse_depth) > 1 / scene.shot.nearest_m:
        return False
    near = 1 / scene.shot.nearest_m
    counts = np.bincount(view.objects[view.inverse_depth > 0.25 * near], minlength=2)
    return bool(counts[1:].max() <= _LARGEST_OBJECT * view.objects.size) or scene.kind.startswith("landscape")
