"""One exposure of a prepared photo: a scene, what is in focus, and the lens; and all that can be shown of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from service.focusing import ON_PERSON, Focus
from service.imaging import refocus
from service.pipeline import FocusScene
from service.schemas import PeopleReport, PersonReport

FloatMap = NDArray[np.float32]

_SHARP_PX: Final = 1.0  # largest median circle of confusion of a person that is called sharp
_COC_STEPS_PER_PX: Final = 64
_COC_MIDDLE: Final = 32_768


@dataclass(frozen=True, slots=True)
class Lens:
    """What the lens does, wherever it is focused.

    Attributes:
        strength_px: radius of the circle of confusion per unit of inverse depth.
        front: factor on what is nearer than the focus, 0..1.
        back: factor on what is farther.
        blades: corners of the aperture, 0 for a disc.
        rotation_deg: its turn.
        curvature: 0 straight blades .. 1 a disc.
        highlights: how much light clipped lamps are given back.
    """

    strength_px: float
    front: float = 1.0
    back: float = 1.0
    blades: int = 0
    rotation_deg: float = 0.0
    curvature: float = 0.0
    highlights: float | Literal["auto", "off"] = "auto"


@dataclass(frozen=True, slots=True)
class Exposure:
    """A scene, focused."""

    scene: FocusScene
    focus: Focus
    lens: Lens

    def image(self) -> NDArray[np.uint8]:
        """The photo as the lens shows it: uint8 (H, W, 3)."""
        return refocus.render(
            self.scene.scene,
            focus=self.focus.depth,
            strength_px=self.lens.strength_px,
            subject=self.focus.people,
            blades=self.lens.blades,
            rotation_deg=self.lens.rotation_deg,
            curvature=self.lens.curvature,
            highlights=self.lens.highlights,
            front=self.lens.front,
            back=self.lens.back,
            depth_range=self.focus.depth_range,
        )

    def coc_px(self) -> FloatMap:
        """Radius of the circle of confusion: float32 (H, W) in pixels, positive in front of the focal plane."""
        return refocus.coc(
            self.scene.scene,
            focus=self.focus.depth,
            strength_px=self.lens.strength_px,
            subject=self.focus.people,
            front=self.lens.front,
            back=self.lens.back,
            depth_range=self.focus.depth_range,
        )

    def alpha(self) -> NDArray[np.uint8]:
        """The matte of the people kept whole: uint8 (H, W), 0 everywhere in plane mode."""
        matte: NDArray[Any] = np.zeros(self.scene.size, np.uint8)
        for index in self.focus.people:
            matte = cv2.add(matte, self.scene.scene.mattes[index])
        return matte

    def headers(self, coc_px: FloatMap) -> dict[str, str]:
        """What was used, for the answer's headers."""
        return {
            "X-Focus-Depth": f"{self.focus.depth:.4f}",
            "X-Focus-Mode": self.focus.mode,
            "X-Focus-Person": ",".join(map(str, self.focus.people)) or "none",
            "X-Depth-Range": f"{self.focus.depth_range:.4f}",
            "X-CoC-Max": f"{max(float(coc_px.max()), -float(coc_px.min())):.2f}",
        }


def stopped_down(strength_px: float, max_coc: float, scene: FocusScene, focuses: Sequence[Focus]) -> float:
    """The strength, or the largest at which no circle of confusion is wider than it may be.

    Args:
        strength_px: as asked.
        max_coc: largest radius as a share of the long side.
        scene: the photo.
        focuses: all that the lens will be focused at.
    """
    low, high, _, _ = cv2.minMaxLoc(scene.scene.inverse_depth)
    reach = max(max(high - focus.depth, focus.depth - low) - focus.depth_range for focus in focuses)
    return strength_px if reach <= 0 else min(strength_px, max_coc * max(scene.size) / reach)


def quantise_coc(coc_px: FloatMap) -> tuple[NDArray[np.uint16], float, float]:
    """A signed radius in 16 bits: 32768 = 0, steps of 1/64 pixel, or of the power of two that holds the largest.

    Returns:
        stored uint16 (H, W), scale, offset with radius = stored * scale + offset.
    """
    largest = max(float(coc_px.max()), -float(coc_px.min()))
    reach_px = _COC_MIDDLE / _COC_STEPS_PER_PX - 1
    scale = 2.0 ** max(0, math.ceil(math.log2(max(largest, 1e-9) / reach_px))) / _COC_STEPS_PER_PX
    stored = np.rint(coc_px * np.float32(1 / scale)) + np.float32(_COC_MIDDLE)
    return stored.astype(np.uint16), scale, -_COC_MIDDLE * scale


def report(scene: FocusScene, token: str | None, focus: Focus | None, coc_px: FloatMap | None) -> PeopleReport:
    """Who is in the photo; with the circles of confusion of an exposure, also who of them is sharp in it."""
    height, width = scene.size
    return PeopleReport(
        model=scene.model,
        model_version=scene.version,
        width=width,
        height=height,
        scene=token,
        mode=focus.mode if focus else None,
        focus_depth=focus.depth if focus else None,
        people=[
            PersonReport(
                id=person.index,
                box=person.box,
                depth=person.depth,
                spread=person.spread,
                area=person.area,
                sharp=None if coc_px is None else _is_sharp(coc_px, scene.scene.mattes[person.index]),
            )
            for person in scene.people
        ],
    )


def _is_sharp(coc_px: FloatMap, matte: NDArray[np.uint8]) -> bool:
    inside = np.abs(coc_px[matte > ON_PERSON])
    return bool(inside.size) and float(np.median(inside)) <= _SHARP_PX
