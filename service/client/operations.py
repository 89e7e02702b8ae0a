"""What both clients can do, each as steps of calls (`service.client.rules`); the only place that knows the routes."""

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict, TypeVar

from service.client.arrays import MapSource, PhotoSource, map_bytes, photo_bytes
from service.client.errors import UnknownScene
from service.client.results import (
    DepthMap,
    File,
    Focused,
    Matte,
    Model,
    People,
    PointDepth,
    json_of,
    points_of,
)
from service.client.rules import Answer, Call, Policy, Steps, exchange

T = TypeVar("T")

Parameters = Mapping[str, Any]
"""Query parameters: text, numbers, or several numbers; None leaves one out."""


StreamTask = Literal["depth", "segmentation", "focus", "stereo"]
"""What is done with the frames of a stream."""


class DepthOptions(TypedDict, total=False):
    """Parameters of a depth map; see `POST /depth`."""

    model: str
    size: Literal["image", "native"]
    edges: Literal["raw", "sharp"]
    unit: Literal["m", "relative"]
    focal_px: float


class SegmentOptions(TypedDict, total=False):
    """Parameters of a matte; see `POST /segmentation`."""

    person: int | Iterable[int] | Literal["all"]
    x: float
    y: float
    rx: float
    ry: float
    model: str
    size: Literal["image", "native"]
    edges: Literal["raw", "sharp"]


class FocusOptions(TypedDict, total=False):
    """Parameters of a refocused photo; see `POST /focus`."""

    rx: float
    ry: float
    mode: Literal["auto", "subject", "plane"]
    person: int | Iterable[int] | Literal["all"]
    f_number: float
    blur: float
    max_coc: float
    depth_range: float
    front: float
    back: float
    blades: Literal[0, 5, 6, 7, 8, 9]
    rotation: float
    curvature: float
    highlights: float | Literal["auto", "off"]
    edge: Literal["matte", "guided", "hard"]
    max_side: int
    rack_x: float
    rack_y: float
    rack_rx: float
    rack_ry: float
    rack_person: int
    rack_frames: int
    rack_fps: float
    model: str
    format: Literal["same", "jpeg", "png", "webp", "avif", "tiff", "bmp", "gif"]
    quality: int


def query_of(parameters: Parameters) -> dict[str, str]:
    """Parameters as text; several numbers are joined with commas."""
    query = {}
    for name, value in parameters.items():
        if value is None:
            continue
        if isinstance(value, bool):
            query[name] = str(value).lower()
        elif isinstance(value, str | int | float):
            query[name] = str(value)
        else:
            query[name] = ",".join(str(part) for part in value)
    return query


def fetch(policy: Policy, route: str, photo: PhotoSource, parameters: Parameters) -> Steps[File]:
    """Any photo route, any parameters, the answer as it came."""
    call = Call("POST", route, query_of(parameters), photo_bytes(photo))
    return File.of((yield from exchange(call, policy)))


def depth(policy: Policy, photo: PhotoSource, parameters: Parameters) -> Steps[DepthMap]:
    """A depth map."""
    call = Call("POST", "/depth", query_of({"format": "npy"} | dict(parameters)), photo_bytes(photo))
    return DepthMap.of((yield from exchange(call, policy)))


def depth_at(
    policy: Policy, photo: PhotoSource, points: Iterable[tuple[float, float]], parameters: Parameters
) -> Steps[tuple[PointDepth, ...]]:
    """Depth at points."""
    written = ";".join(f"{x},{y}" for x, y in points)
    query = query_of({"format": "json", "points": written} | dict(parameters))
    return points_of((yield from exchange(Call("POST", "/depth", query, photo_bytes(photo)), policy)))


def segment(policy: Policy, photo: PhotoSource, parameters: Parameters) -> Steps[Matte]:
    """A matte."""
    call = Call("POST", "/segmentation", query_of({"format": "png"} | dict(parameters)), photo_bytes(photo))
    return Matte.of((yield from exchange(call, policy)))


def models(policy: Policy) -> Steps[tuple[Model, ...]]:
    """The served networks."""
    return Model.all_of((yield from exchange(Call("GET", "/models"), policy)))


def ready(policy: Policy) -> Steps[dict[str, str]]:
    """The state of each model behind the routes."""
    states: dict[str, str] = json_of((yield from exchange(Call("GET", "/health/ready"), policy)))["models"]
    return states


@dataclass
class OpenPhoto:
    """A photo's bytes, and the tokens of the scenes that the service has of it.

    A scene keeps the model and the edge that it was prepared with, so there is one for each choice of them.
    """

    data: bytes = field(repr=False)
    tokens: dict[tuple[Any, Any], str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def token(self, choice: tuple[Any, Any]) -> str | None:
        """That of this choice of model and edge."""
        with self.lock:
            return self.tokens.get(choice)

    def keep(self, choice: tuple[Any, Any], token: str | None, expired: str | None = None) -> None:
        """Remember a token, or forget an expired one, unless another call has brought a newer one meanwhile."""
        with self.lock:
            if token is not None:
                self.tokens[choice] = token
            elif self.tokens.get(choice) == expired:
                self.tokens.pop(choice, None)


def focus(
    policy: Policy,
    photo: OpenPhoto,
    parameters: Parameters,
    depth: MapSource | None = None,
    mask: MapSource | None = None,
) -> Steps[Focused]:
    """A refocused photo, from the scene where there is one, else from the photo sent (again)."""
    maps = {name: map_bytes(source) for name, source in (("depth", depth), ("mask", mask)) if source is not None}
    if maps:
        call = Call("POST", "/focus", query_of(parameters), parts={"image": photo.data} | maps)
        return Focused.of((yield from exchange(call, policy)))
    return (yield from _from_scene(policy, photo, parameters, Focused.of, lambda focused: focused.scene))


def people(policy: Policy, photo: OpenPhoto, parameters: Parameters) -> Steps[People]:
    """Who is in the photo."""
    wanted = {"output": "people"} | dict(parameters)
    return (yield from _from_scene(policy, photo, wanted, People.of, lambda found: found.scene))


def _from_scene(
    policy: Policy,
    photo: OpenPhoto,
    parameters: Parameters,
    read: Callable[[Answer], T],
    token_of: Callable[[T], str | None],
) -> Steps[T]:
    choice = (parameters.get("model"), parameters.get("edge"))
    token = photo.token(choice)
    if token is not None:
        kept = {name: value for name, value in parameters.items() if name not in ("model", "edge")}
        try:
            call = Call("POST", "/focus", query_of(kept | {"scene": token}))
            return read((yield from exchange(call, policy)))
        except UnknownScene:
            photo.keep(choice, None, expired=token)
    call = Call("POST", "/focus", query_of(parameters), photo.data)
    result = read((yield from exchange(call, policy)))
    photo.keep(choice, token_of(result))
    return result
