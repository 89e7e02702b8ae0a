"""The contenders: each takes a photo, its inputs and what was clicked, and returns the refocused photo."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from service.imaging import refocus

from .degrade import Inputs


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked of a renderer, in the unit of its own inputs.

    Attributes:
        focus: inverse depth in focus.
        strength_px: radius of the circle of confusion per unit of inverse depth.
        subject: index of the matte that counts as in focus, or None.
        blades: corners of the aperture, 0 for a disc.
    """

    focus: float
    strength_px: float
    subject: int | None
    blades: int


Renderer = Callable[[np.ndarray, Inputs, Order], np.ndarray]


def ours(photo: np.ndarray, inputs: Inputs, order: Order) -> np.ndarray:
    """The service's own."""
    scene = refocus.prepare(photo, inputs.inverse_depth, inputs.mattes if len(inputs.mattes) else None)
    return refocus.render(
        scene, focus=order.focus, strength_px=order.strength_px, subject=order.subject, blades=order.blades
    )


def unchanged(photo: np.ndarray, inputs: Inputs, order: Order) -> np.ndarray:
    return photo
