"""Parameters of a frame stream: those of its address, and those that a `settings` message may change.

They are the query of the WebSocket, and so text; in messages they are JSON, and may be numbers.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from service.errors import BadRequest, DepthlensError, InvalidParameter
from service.focusing import Aim, Choice, Mode
from service.imaging.lens import strength_from_blur, strength_from_f_number
from service.negotiation import Offer, choose
from service.problems import from_validation
from service.schemas import SEQUENCE_NAME, Colormap, Decimal, Highlights, ModelName, Number, Share, Whole

StreamTask = Literal["depth", "segmentation", "focus", "stereo"]
Drop = Literal["oldest", "none"]

_COLOURS: Final = (Offer("jpeg", "image/jpeg"), Offer("webp", "image/webp"), Offer("png", "image/png"))
_MAPS: Final = (
    Offer("png16", "image/png"),
    Offer("npy", "application/x-npy"),
    *_COLOURS,
    Offer("preview", "image/jpeg"),
)
OFFERS: Final[Mapping[StreamTask, tuple[Offer, ...]]] = {
    "depth": _MAPS,
    "segmentation": (Offer("png", "image/png"), Offer("npy", "application/x-npy"), *_COLOURS[:2]),
    "focus": _COLOURS,
    "stereo": _MAPS,
}
"""Formats by task, the default first."""

FIXED: Final = ("task", "model", "drop", "queue", "timeout", "pair", "sequence")
"""What holds for the whole stream."""

AIM: Final = ("x", "y", "rx", "ry", "person", "mode")
"""What a new aim takes the place of, all together."""

STEREO: Final = ("pair", "adapt", "sequence", "checkpoint", "focal_px", "baseline_m")
"""What is said of pairs alone."""

_QUEUE: Final[Mapping[Drop, int]] = {"oldest": 1, "none": 8}
_DEFAULT_F_NUMBER: Final = 2.8


class StreamQuery(BaseModel):
    """Parameters of `WS /frames`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: StreamTask
    model: ModelName = None
    format: Annotated[str | None, Field(max_length=40)] = None
    quality: Annotated[int, Field(ge=1, le=100), Whole] = 85
    size: Literal["image", "native"] = "image"
    edges: Literal["raw", "sharp"] = "raw"
    max_side: Annotated[Annotated[int, Field(ge=16, le=8192), Whole] | None, Field()] = None
    drop: Drop = "oldest"
    queue: Annotated[Annotated[int, Field(ge=1, le=16), Whole] | None, Field()] = None
    timeout: Annotated[Annotated[float, Field(gt=0.0, le=3600.0), Decimal] | None, Field()] = None
    steady: Literal["on", "off"] = "on"
    colormap: Colormap = "turbo"
    near: Share = 1.0
    far: Share = 0.0
    x: Number | None = None
    y: Number | None = None
    rx: Share | None = None
    ry: Share | None = None
    person: Annotated[Annotated[int, Field(ge=0, le=999), Whole] | Literal["all"] | None, Field()] = None
    mode: Mode = "auto"
    f_number: Annotated[Annotated[float, Field(ge=1.0, le=22.0), Decimal] | None, Field()] = None
    blur: Share | None = None
    blades: Annotated[Literal[0, 5, 6, 7, 8, 9], Whole] = 0
    highlights: Highlights = "auto"
    transition: Annotated[int, Field(ge=0, le=120), Whole] = 6

    pair: Literal["files", "side_by_side", "top_bottom"] = "files"
    adapt: Literal["none", "full", "mad"] = "mad"
    sequence: Annotated[str | None, Field(min_length=1, max_length=64, pattern=SEQUENCE_NAME)] = None
    checkpoint: Literal["none", "save", "restore"] = "none"
    focal_px: Annotated[Annotated[float, Field(gt=0.0, le=1e6), Decimal] | None, Field()] = None
    baseline_m: Annotated[Annotated[float, Field(gt=0.0, le=1e3), Decimal] | None, Field()] = None

    _aims: int = PrivateAttr(0)
    _checkpoints: int = PrivateAttr(0)

    @property
    def aims(self) -> int:
        """How many aims came before this one in the stream."""
        return self._aims

    @property
    def checkpoints(self) -> int:
        """How many wishes to save or restore came before this one in the stream: each is of one pair."""
        return self._checkpoints

    @property
    def sharp(self) -> bool:
        """Whether steps are put on the frame's edges, at the cost of most of the time."""
        return self.edges == "sharp" and self.size == "image"

    @property
    def waiting(self) -> int:
        """Frames that may wait for their turn."""
        return self.queue or _QUEUE[self.drop]

    @property
    def offer(self) -> Offer:
        """The format of the answers; raises as `choose`."""
        return choose(OFFERS[self.task], format=self.format, accept=None)

    @property
    def aim(self) -> Aim | None:
        """Where the focus is wanted, None when nowhere is named."""
        pixel = None if self.x is None or self.y is None else (self.x, self.y)
        share = None if self.rx is None or self.ry is None else (self.rx, self.ry)
        people: Choice | None = "all" if self.person == "all" else None if self.person is None else (self.person,)
        return None if pixel is None and share is None and people is None else Aim(pixel, share, people)

    def strength_px(self, long_side_px: int) -> float:
        """Radius of the circle of confusion per unit of inverse depth, in pixels of a frame of that size."""
        if self.blur is not None:
            return strength_from_blur(self.blur, long_side_px)
        return strength_from_f_number(self.f_number or _DEFAULT_F_NUMBER, long_side_px)


def read_query(given: Mapping[str, Any]) -> StreamQuery:
    """The parameters of an address.

    Raises:
        InvalidParameter: one is unknown, missing, out of range, or contradicts another.
        NotAcceptable: the task has no such format.
    """
    return _checked(given)


def changed(query: StreamQuery, given: Mapping[str, Any]) -> StreamQuery:
    """The parameters after a `settings` message; raises as `read_query`, and BadRequest for those that are fixed."""
    for name in FIXED:
        if name in given:
            raise BadRequest(f"{name} holds for the whole stream. Open another one.", field=name)
    kept = query.model_dump(exclude_defaults=True)
    if any(name in given for name in AIM):
        kept = {name: value for name, value in kept.items() if name not in AIM}
    if given.get("adapt") == "none":
        kept.pop("checkpoint", None)  # it was of an earlier pair
    for name, other in (("f_number", "blur"), ("blur", "f_number")):
        if name in given and other not in given:
            kept.pop(other, None)
    result = _checked(kept | dict(given))
    result._aims = query._aims + any(name in given for name in AIM)
    result._checkpoints = query._checkpoints + ("checkpoint" in given)
    return result


def _checked(given: Mapping[str, Any]) -> StreamQuery:
    try:
        query = StreamQuery.model_validate(dict(given))
    except ValidationError as error:
        first = error.errors()[0]
        raise from_validation([{**first, "loc": first["loc"][:1] or ("settings",)}]) from None
    wrong = _contradiction(query)
    if wrong is not None:
        raise wrong
    _ = query.offer
    return query


def _contradiction(query: StreamQuery) -> DepthlensError | None:
    if query.task == "stereo":
        return _contradiction_of_pairs(query)
    for name in STEREO:
        if name in query.model_fields_set:
            return InvalidParameter(f"{name} is of task=stereo.", field=name)
    if query.near <= query.far:
        return InvalidParameter("near must be larger than far.", field="near", value=query.near, limit=query.far)
    if (query.x is None) != (query.y is None) or (query.rx is None) != (query.ry is None):
        return InvalidParameter("A point has two coordinates: x and y, or rx and ry.", field="x", value=None)
    if query.x is not None and query.rx is not None:
        return InvalidParameter("Give x and y, or rx and ry, not both.", field="rx", value=query.rx)
    if query.f_number is not None and query.blur is not None:
        return InvalidParameter("Give f_number or blur, not both.", field="blur", value=query.blur)
    if query.mode == "plane" and query.person is not None:
        return InvalidParameter("mode=plane keeps nobody whole: leave the person out.", field="person", value=None)
    if query.task == "focus" and query.size == "native":
        return InvalidParameter("A refocused frame is no map; use max_side.", field="size", value="native")
    return None


def _contradiction_of_pairs(query: StreamQuery) -> DepthlensError | None:
    if query.near <= query.far:
        return InvalidParameter("near must be larger than far.", field="near", value=query.near, limit=query.far)
    if query.model is not None:
        return InvalidParameter("There is one stereo model: leave its name out.", field="model", value=query.model)
    if (query.focal_px is None) != (query.baseline_m is None):
        missing = "focal_px" if query.focal_px is None else "baseline_m"
        return InvalidParameter(
            "Metres need focal_px and baseline_m together; without both the answer is in pixels.", field=missing
        )
    if query.adapt == "none" and query.checkpoint != "none":
        return InvalidParameter("checkpoint is of a sequence that is adapted to.", field="checkpoint")
    return None
