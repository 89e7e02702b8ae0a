"""A focus pull: the focal plane goes from one place to another while the lens stays as it is.

The plane moves evenly in inverse depth, which is what the circle of confusion is linear in, with a smooth start and
end. People who are whole at either end lie in one plane through the whole pull, the one they are focused at, so that
they blur as one and nothing jumps when the focus leaves them.
"""

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.contract import Size
from service.exposure import Exposure, Lens
from service.focusing import Focus
from service.imaging import reduction
from service.imaging.animation import MAX_SIDE_PX
from service.pipeline import FocusScene

_STILL_WHOLE_PX: Final = 0.4  # circle of confusion of a person up to which the renderer calls it sharp anyway


def frame_size(size: Size, frames: int, max_pixels: int) -> Size:
    """(height, width) of the frames: the photo's, or reduced so that all frames together have `max_pixels`."""
    height, width = size
    factor = min(1.0, math.sqrt(max_pixels / (frames * height * width)), MAX_SIDE_PX / max(size))
    return max(1, math.floor(height * factor)), max(1, math.floor(width * factor))


def smoothstep(share: float) -> float:
    """3 t^2 - 2 t^3: from 0 to 1 with no speed at either end."""
    return share * share * (3 - 2 * share)


@dataclass(frozen=True, slots=True)
class Rack:
    """A focus pull, ready to be rendered frame by frame.

    Attributes:
        scene: the photo at the frames' size, people of either end laid flat.
        start: in focus at the first frame.
        end: in focus at the last.
        lens: with its strength for the frames' size.
        frames: how many, 2 or more.
    """

    scene: FocusScene
    start: Focus
    end: Focus
    lens: Lens
    frames: int

    def focus(self, index: int) -> Focus:
        """What is in focus at frame `index`, 0 .. frames - 1."""
        share = smoothstep(index / (self.frames - 1))
        depth = self.start.depth + (self.end.depth - self.start.depth) * share
        depth_range = self.start.depth_range + (self.end.depth_range - self.start.depth_range) * share
        near = _STILL_WHOLE_PX / self.lens.strength_px if self.lens.strength_px else 1.0
        whole = [person for person in self.start.people if person in self.end.people]
        for end in (self.start, self.end):
            whole += end.people if abs(end.depth - depth) <= near else ()
        return Focus(depth, tuple(dict.fromkeys(whole)), depth_range)

    def exposure(self, index: int) -> Exposure:
        """How frame `index` is taken."""
        return Exposure(self.scene, self.focus(index), self.lens)

    def frame(self, index: int) -> NDArray[np.uint8]:
        """Frame `index`: uint8 (h, w, 3)."""
        return self.exposure(index).image()


def prepare(exposure: Exposure, end: Focus, frames: int, max_pixels: int) -> Rack:
    """All of a focus pull that does not depend on the frame.

    Args:
        exposure: the photo and the lens at the first frame.
        end: in focus at the last.
        frames: how many, 2 or more.
        max_pixels: what all frames together may have.
    """
    scene, start, lens = exposure.scene, exposure.focus, exposure.lens
    size = frame_size(scene.size, frames, max_pixels)
    flat = [(person, focus.depth) for focus in (start, end) for person in focus.people]
    small = reduction.reduced(scene.scene, size, flat)
    shrunk = max(size) / max(scene.size)
    return Rack(
        scene=replace(scene, scene=small),
        start=start,
        end=end,
        lens=replace(lens, strength_px=lens.strength_px * shrunk),
        frames=frames,
    )
