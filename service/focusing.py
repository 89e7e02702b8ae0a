"""What is in focus: the people kept whole, the depth of the focal plane, and how far round it things stay sharp.

People decide who is sharp (those asked for, else whoever was clicked); the click decides the depth (without one, the
first person does). Depth is relative inverse depth, 0..1, 1 = nearest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from service.contract import Size
from service.errors import NotAPerson, UnknownPerson
from service.imaging import geometry, refocus
from service.imaging.person import Person
from service.pipeline import FocusScene

Mode = Literal["auto", "subject", "plane"]
Choice = tuple[int, ...] | Literal["all"]
"""People asked for: their indices, or all there are."""

ON_PERSON: Final = 127
"""Matte level (of 255) above which a pixel counts as on the person."""

_WINDOW: Final = 4  # half width in pixels of what `focus_depth_at` looks at
_RANGE_SHARE: Final = 0.01  # of the long side: half width of what the automatic depth range looks at
_RANGE_MAD: Final = 1.5
_LEAST_RANGE: Final = 0.01
_SAME_SURFACE: Final = 0.05  # inverse depth: beyond it a neighbour is another surface and says nothing of this one


@dataclass(frozen=True, slots=True)
class Aim:
    """Where somebody wants the focus: at a pixel, on people, or both.

    Attributes:
        pixel: (x, y), or None.
        share: (x, y) in shares of the photo instead, or None.
        people: those to keep sharp; None for whoever is at the click.
        prefix: of the parameters' names, for errors: "" or "rack_".
    """

    pixel: tuple[float, float] | None = None
    share: tuple[float, float] | None = None
    people: Choice | None = None
    prefix: str = ""

    @property
    def has_click(self) -> bool:
        """Whether a point was given."""
        return self.pixel is not None or self.share is not None

    def click(self, size: Size) -> tuple[float, float] | None:
        """The point in pixels of a photo of `size`; None without one.

        Raises:
            OutsideImage: it is not on the photo.
        """
        if self.pixel is not None:
            geometry.check_inside(*self.pixel, *size, fields=(f"{self.prefix}x", f"{self.prefix}y"))
            return self.pixel
        return None if self.share is None else geometry.relative_to_pixel(*self.share, *size)


@dataclass(frozen=True, slots=True)
class Focus:
    """What is in focus.

    Attributes:
        depth: inverse depth of the focal plane.
        people: indices of the people kept whole, in the order asked for; empty in plane mode.
        depth_range: half width of the inverse depths that stay sharp.
    """

    depth: float
    people: tuple[int, ...]
    depth_range: float

    @property
    def mode(self) -> str:
        """`subject` or `plane`."""
        return "subject" if self.people else "plane"


def find_focus(scene: FocusScene, aim: Aim, mode: Mode, depth_range: float | None = None) -> Focus:
    """Turn a click and a choice of people into what is in focus.

    Args:
        scene: the prepared photo.
        aim: the click, the people, or both.
        mode: `subject` wants a person; `plane` keeps nobody whole, a person then only says how far; `auto` takes the
            person who was clicked or asked for, or else the plane.
        depth_range: None for an automatic one: 0 in subject mode, max(0.01, 1.5 MAD round the click) in plane mode.

    Raises:
        OutsideImage: the click is not on the photo.
        NotAPerson: a person is wanted, and there is none.
        UnknownPerson: nobody has one of these indices.
    """
    click = aim.click(scene.size)
    clicked = None if click is None else person_at(scene, click)
    wanted = _wanted(scene, aim)
    if wanted is None:
        wanted = () if clicked is None else (clicked,)
    if not wanted and (click is None or mode == "subject"):
        raise _nobody(scene, click, f"{aim.prefix}person" if aim.people is not None else "mode", mode)
    kept = () if mode == "plane" else wanted
    if click is None or (clicked is not None and clicked in kept):
        depth = scene.people[wanted[0] if clicked is None else clicked].depth
    else:
        depth = depth_under(scene, click)
    if depth_range is None:
        depth_range = 0.0 if kept else _range_round(scene, click, depth)
    return Focus(depth, kept, depth_range)


def person_at(scene: FocusScene, click: tuple[float, float]) -> int | None:
    """Index of the person at a pixel (x, y); None where there is nobody."""
    levels = scene.scene.mattes[:, int(click[1]), int(click[0])]
    return int(levels.argmax()) if levels.size and levels.max() > ON_PERSON else None


def people_map(scene: FocusScene) -> NDArray[np.uint8]:
    """Whom a click would pick, of every pixel at once: uint8 (H, W), 0 = nobody, otherwise index + 1."""
    labels: NDArray[np.uint8] = np.zeros(scene.size, np.uint8)
    highest: NDArray[np.uint8] = np.full(scene.size, ON_PERSON, np.uint8)
    for index, matte in enumerate(scene.scene.mattes):
        higher = matte > highest
        labels[higher] = index + 1
        highest[higher] = matte[higher]
    return labels


def depth_under(scene: FocusScene, click: tuple[float, float]) -> float:
    """Inverse depth at a pixel: the median of the 9 x 9 pixels round it, of those on the clicked side of an edge."""
    window, column, row = _round(scene, click, _WINDOW)
    mattes = scene.scene.mattes[:, *window]
    matte = mattes.max(axis=0).astype(np.float32) / 255 if len(mattes) else None
    return refocus.focus_depth_at(scene.scene.inverse_depth[window], column, row, matte)


def people_report(people: Sequence[Person]) -> list[dict[str, Any]]:
    """What an error says of the people there are, JSON-ready."""
    return [{"id": person.index, "box": list(person.box), "depth": round(person.depth, 4)} for person in people]


def _round(scene: FocusScene, click: tuple[float, float], half: int) -> tuple[tuple[slice, slice], int, int]:
    """The window of half width `half` round a pixel as far as it is on the photo, and the pixel's place in it."""
    column, row = int(click[0]), int(click[1])
    top, left = max(0, row - half), max(0, column - half)
    return (slice(top, row + half + 1), slice(left, column + half + 1)), column - left, row - top


def _range_round(scene: FocusScene, click: tuple[float, float] | None, depth: float) -> float:
    """max(0.01, 1.5 MAD) of the inverse depths round a click that belong to the clicked surface."""
    if click is None:
        return _LEAST_RANGE
    half = max(_WINDOW, round(_RANGE_SHARE * max(scene.size)))
    window, _, _ = _round(scene, click, half)
    deviations: NDArray[np.float32] = np.abs(scene.scene.inverse_depth[window] - np.float32(depth))
    same = deviations[deviations <= _SAME_SURFACE]
    return max(_LEAST_RANGE, _RANGE_MAD * float(np.median(same))) if same.size else _LEAST_RANGE


def _wanted(scene: FocusScene, aim: Aim) -> tuple[int, ...] | None:
    if aim.people is None:
        return None
    there = tuple(person.index for person in scene.people)
    if aim.people == "all":
        return there
    unknown = [index for index in aim.people if index not in there]
    if unknown:
        raise UnknownPerson(
            f"There is no person {unknown[0]}; {len(there)} found in the photo, counted from 0, nearest first.",
            field=f"{aim.prefix}person",
            value=unknown[0],
            limit=list(there),
            extra={"people": people_report(scene.people)},
        )
    return tuple(dict.fromkeys(aim.people))


def _nobody(scene: FocusScene, click: tuple[float, float] | None, field: str, mode: Mode) -> NotAPerson:
    where = "in the photo" if click is None else f"at ({int(click[0])}, {int(click[1])})"
    return NotAPerson(
        f"There is no person {where}; {len(scene.people)} found in the photo. "
        "Click on a person, or use mode=plane with a click.",
        field=field,
        value=mode if field == "mode" else "all",
        extra={"people": people_report(scene.people)},
    )
