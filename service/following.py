"""What the frames of a video are focused on: a person who is followed, or the depth that was once picked."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from service.errors import DepthlensError
from service.focusing import Aim, Focus, Mode, find_focus
from service.imaging.errors import ImageError
from service.imaging.tracking import Sight, Track, look_at
from service.pipeline import FocusScene

Tracking = Literal["followed", "lost", "none"]

_MIDDLE: Final = Aim(share=(0.5, 0.5))
_PATIENCE: Final = 8  # frames without the one that nobody named, before another is taken
_FOLLOW: Final = (0.55, 1.0)  # share of the way to a new depth: of small steps, which may be noise, and of large ones
_STEPS: Final = (0.005, 0.02)  # relative inverse depth: what is small and what is large


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for; `aim` None leaves it to us: the nearest person, else the middle of the frame.

    `number` tells it from others: the same place may be picked again.
    """

    aim: Aim | None
    mode: Mode
    number: int = 0


@dataclass(slots=True)
class _Pull:
    """A change of focus that takes some frames."""

    start: float
    frames: int
    done: int = 0

    def depth(self, target: float) -> float:
        """Where the focus is in the next frame; at `target` with the last one."""
        self.done += 1
        share = min(1.0, self.done / max(1, self.frames))
        return self.start + share * share * (3 - 2 * share) * (target - self.start)


@dataclass(slots=True)
class Follower:
    """Focus of one frame after the other.

    The person picked is followed while he is seen (`service.imaging.tracking`); while he is not, the focus stays as a
    plane at his last depth. A depth picked stays, because the stream's depth keeps its scale, until the next cut; then
    it is read anew at the same place.

    Attributes:
        tracking: of the last frame: `followed`, `lost`, or `none` when nobody is to be followed.
    """

    tracking: Tracking = "none"
    _wish: Wish | None = None
    _refused: int | None = None
    _track: Track | None = None
    _everyone: bool = False
    _now: Focus | None = None
    _pull: _Pull | None = None
    _shown: float | None = None

    def focus(self, scene: FocusScene, picture: NDArray[np.uint8], wish: Wish, transition: int, *, cut: bool) -> Focus:
        """What the next frame is focused on.

        Args:
            scene: the prepared frame.
            picture: uint8 (H, W, 3), the same frame.
            wish: what is asked for; a new one takes effect here.
            transition: frames that a change takes.
            cut: whether nothing connects this frame with the one before.

        Raises:
            OutsideImage, NotAPerson, UnknownPerson: as `find_focus`, of a new wish; the one before holds on.
        """
        sights = look_at(scene.scene.mattes, picture, [person.depth for person in scene.people])
        if wish.number != self._refused and (self._wish is None or wish.number != self._wish.number):
            try:
                focus = self._picked(scene, sights, wish)
            except (DepthlensError, ImageError):
                self._refused = wish.number
                raise
            self._wish, self._refused = wish, None
            self._change(focus, transition)
        else:
            self._go_on(scene, sights, transition, cut=cut)
        return self._shot()

    def _picked(self, scene: FocusScene, sights: list[Sight], wish: Wish) -> Focus:
        if wish.aim is None:
            nobody = wish.mode == "plane" or not scene.people
            focus = find_focus(scene, _MIDDLE if nobody else Aim(people=(0,)), wish.mode)
        else:
            focus = find_focus(scene, wish.aim, wish.mode)
        self._everyone = wish.aim is not None and wish.aim.people == "all"
        self._track = None
        self.tracking = "none"
        if len(focus.people) == 1 and not self._everyone:
            self._track = Track()
            self._track.begin(sights[focus.people[0]])
            self.tracking = "followed"
        return focus

    def _go_on(self, scene: FocusScene, sights: list[Sight], transition: int, *, cut: bool) -> None:
        wish = self._wish or Wish(None, "auto")
        found = self._track.find(sights) if self._track is not None else None
        if found is not None:
            if self.tracking == "lost":
                self._change(Focus(scene.people[found].depth, (found,), 0.0), transition)
            self.tracking = "followed"
            self._now = Focus(scene.people[found].depth, (found,), 0.0)
        elif self._everyone and scene.people:
            everyone = tuple(person.index for person in scene.people)
            self._now = Focus(scene.people[0].depth, everyone, 0.0)
        elif wish.aim is None and scene.people and wish.mode != "plane" and self._is_patience_over:
            self._change(self._picked(scene, sights, wish), transition)
        else:
            self._hold(scene, wish, cut=cut)

    @property
    def _is_patience_over(self) -> bool:
        return self._track is None or self._track.lost > _PATIENCE

    def _hold(self, scene: FocusScene, wish: Wish, *, cut: bool) -> None:
        """Nobody to keep whole: the plane stays; after a cut it is read anew."""
        if self._track is not None:
            self.tracking = "lost"
        if cut or self._now is None:
            has_click = wish.aim is not None and wish.aim.has_click
            self._now = find_focus(scene, wish.aim if has_click and wish.aim else _MIDDLE, "plane")
            self._shown, self._pull = None, None
        elif self._now.people:
            self._now = Focus(self._now.depth, (), 0.02)

    def _change(self, focus: Focus, transition: int) -> None:
        if self._shown is not None and transition > 0:
            self._pull = _Pull(self._shown, transition)
        else:
            self._shown = None
        self._now = focus

    def _shot(self) -> Focus:
        """The focus as this frame has it: eased after a change, calmed while it follows."""
        assert self._now is not None
        target = self._now.depth
        if self._shown is None:
            self._shown = target
        elif self._pull is not None:
            self._shown = self._pull.depth(target)
            if self._pull.done >= self._pull.frames:
                self._pull = None
        else:
            small, large = _STEPS
            share = min(1.0, max(0.0, (abs(target - self._shown) - small) / (large - small)))
            self._shown += (_FOLLOW[0] + share * (_FOLLOW[1] - _FOLLOW[0])) * (target - self._shown)
        return Focus(self._shown, self._now.people, self._now.depth_range)
