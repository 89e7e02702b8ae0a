"""What the service said, as objects."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from service.client.arrays import FloatMap, Pixels, read_gray, read_npy, read_photo
from service.client.errors import UnexpectedAnswer
from service.client.rules import Answer


@dataclass(frozen=True)
class Metadata:
    """Who answered, and how long it took.

    Attributes:
        model: the network's name; `none` when depth and mask were your own.
        version: its version.
        request_id: finds the request in the service's log.
        timings_s: seconds by stage of the service's work (`Server-Timing`): decode, queue, infer, render, encode.
        headers: all of the answer's, names in lower case.
    """

    model: str
    version: str
    request_id: str
    timings_s: Mapping[str, float]
    headers: Mapping[str, str] = field(repr=False, default_factory=dict)

    @classmethod
    def of(cls, answer: Answer) -> "Metadata":
        """That of an answer."""
        headers = answer.headers
        return cls(
            model=headers.get("x-model", ""),
            version=headers.get("x-model-version", ""),
            request_id=headers.get("x-request-id", ""),
            timings_s=parse_server_timing(headers.get("server-timing", "")),
            headers=headers,
        )


@dataclass(frozen=True)
class File:
    """An answer as a file.

    Attributes:
        data: its bytes.
        media_type: what it is.
        about: who answered.
    """

    data: bytes = field(repr=False)
    media_type: str
    about: Metadata

    @classmethod
    def of(cls, answer: Answer) -> "File":
        """That of an answer."""
        return cls(answer.body, media_type_of(answer), Metadata.of(answer))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it; a file of that name is replaced."""
        target = Path(path)
        target.write_bytes(self.data)
        return target


@dataclass(frozen=True)
class DepthMap:
    """Depth of every pixel.

    Attributes:
        values: float32 (H, W): relative inverse depth, larger = nearer and without unit, or metres, larger = farther.
        kind: which of the two.
        unit: `relative` or `m`.
        scale: of the numbers as they were sent: value = stored * scale + offset. Already applied to `values`.
        offset: see `scale`.
        about: who answered.
    """

    values: FloatMap = field(repr=False)
    kind: Literal["relative-inverse", "metric"]
    unit: str
    scale: float
    offset: float
    about: Metadata

    @classmethod
    def of(cls, answer: Answer) -> "DepthMap":
        """From a .npy or 16-bit PNG.

        Raises:
            UnexpectedAnswer: it is neither.
        """
        kind = answer.headers.get("x-depth-kind")
        scale, offset = _number(answer, "x-depth-scale"), _number(answer, "x-depth-offset")
        if kind not in ("relative-inverse", "metric"):
            raise UnexpectedAnswer(f"a depth map of the kind {kind!r}")
        if media_type_of(answer) == "application/x-npy":
            values = read_npy(answer.body)
        else:
            values = (read_gray(answer.body) * np.float64(scale) + offset).astype(np.float32)
        unit = answer.headers.get("x-depth-unit", "")
        return cls(values, cast(Literal["relative-inverse", "metric"], kind), unit, scale, offset, Metadata.of(answer))


@dataclass(frozen=True)
class Matte:
    """Where people are.

    Attributes:
        alpha: uint8 (H, W), 255 = person, soft at borders.
        about: who answered.
    """

    alpha: Pixels = field(repr=False)
    about: Metadata

    @classmethod
    def of(cls, answer: Answer) -> "Matte":
        """From an 8-bit gray PNG."""
        return cls(cast(Pixels, read_gray(answer.body)), Metadata.of(answer))


@dataclass(frozen=True)
class Focused:
    """A refocused photo.

    Attributes:
        data: the file, as the service encoded it.
        media_type: its kind.
        focus_depth: relative inverse depth in focus, 1 = nearest.
        mode: `subject` or `plane`, as used.
        person: who was kept sharp, nearest = 0.
        people: how many people were found.
        depth_range: half width of the inverse depths that stay sharp.
        coc_max_px: largest radius of the circle of confusion in pixels.
        scene: token; a `Photo` uses it by itself.
        about: who answered.
    """

    data: bytes = field(repr=False)
    media_type: str
    focus_depth: float
    mode: str
    person: tuple[int, ...]
    people: int
    depth_range: float
    coc_max_px: float
    scene: str | None
    about: Metadata

    @classmethod
    def of(cls, answer: Answer) -> "Focused":
        """From a picture and its headers."""
        headers = answer.headers
        kept = headers.get("x-focus-person", "none")
        try:
            person = () if kept == "none" else tuple(int(part) for part in kept.split(","))
            people = int(headers.get("x-people", "0"))
        except ValueError as error:
            raise UnexpectedAnswer(f"people named {kept!r}") from error
        return cls(
            data=answer.body,
            media_type=media_type_of(answer),
            focus_depth=_number(answer, "x-focus-depth"),
            mode=headers.get("x-focus-mode", ""),
            person=person,
            people=people,
            depth_range=_number(answer, "x-depth-range"),
            coc_max_px=_number(answer, "x-coc-max"),
            scene=headers.get("x-scene"),
            about=Metadata.of(answer),
        )

    @cached_property
    def pixels(self) -> Pixels:
        """uint8 (H, W, 3) sRGB; exactly what was rendered with `format="png"`.

        Raises:
            UnexpectedAnswer: a format that OpenCV does not read (a focus pull, AVIF).
        """
        return read_photo(self.data)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the file; one of that name is replaced."""
        target = Path(path)
        target.write_bytes(self.data)
        return target


@dataclass(frozen=True)
class Person:
    """One person of a photo: `id` for `person=`, box as (left, top, right, bottom), exclusive; see `POST /focus`."""

    id: int
    box: tuple[int, int, int, int]
    depth: float
    spread: float
    area: float
    sharp: bool | None


@dataclass(frozen=True)
class People:
    """Who is in a photo of `width` x `height`, nearest first; `scene` is its token."""

    people: tuple[Person, ...]
    width: int
    height: int
    scene: str | None
    about: Metadata

    @classmethod
    def of(cls, answer: Answer) -> "People":
        """From `output=people`."""
        report = json_of(answer)
        people = (Person(**_fields(Person, entry | {"box": tuple(entry["box"])})) for entry in report["people"])
        return cls(tuple(people), report["width"], report["height"], report["scene"], Metadata.of(answer))


@dataclass(frozen=True)
class PointDepth:
    """Depth at a pixel: the network's own `value`, and `relative`: 0 = farthest, 1 = nearest of this photo."""

    x: float
    y: float
    value: float
    relative: float


@dataclass(frozen=True)
class Model:
    """A served network; more about it in `GET /models`."""

    name: str
    tasks: tuple[str, ...]
    versions: tuple[str, ...]
    ready: bool
    depth_kind: str | None
    license: str
    description: str

    @classmethod
    def all_of(cls, answer: Answer) -> tuple["Model", ...]:
        """From `GET /models`."""
        return tuple(
            cls(**_fields(cls, entry | {"tasks": tuple(entry["tasks"]), "versions": tuple(entry["versions"])}))
            for entry in json_of(answer)["models"]
        )


def points_of(answer: Answer) -> tuple[PointDepth, ...]:
    """From `format=json`."""
    return tuple(PointDepth(**_fields(PointDepth, entry)) for entry in json_of(answer)["points"])


def json_of(answer: Answer) -> dict[str, Any]:
    """The JSON object of an answer.

    Raises:
        UnexpectedAnswer: it holds none.
    """
    try:
        found = json.loads(answer.body)
    except ValueError as error:
        raise UnexpectedAnswer(f"the answer is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise UnexpectedAnswer("the answer is no JSON object")
    return found


def media_type_of(answer: Answer) -> str:
    """The answer's, without parameters."""
    return answer.headers.get("content-type", "").split(";")[0].strip().lower()


def parse_server_timing(text: str) -> dict[str, float]:
    """Seconds by name of a Server-Timing header (W3C); what cannot be read is left out."""
    timings: dict[str, float] = {}
    for entry in text.split(","):
        name, *parameters = (part.strip() for part in entry.split(";"))
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            try:
                seconds = float(value.strip().strip('"')) / 1000
            except ValueError:
                continue
            if name and key.strip().lower() == "dur" and math.isfinite(seconds):
                timings[name] = seconds
    return timings


def _fields(kind: type, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the entry's members that this client knows: a newer service may say more."""
    return {name: entry[name] for name in kind.__dataclass_fields__}  # type: ignore[attr-defined]  # of dataclasses


def _number(answer: Answer, header: str) -> float:
    text = answer.headers.get(header)
    try:
        number = float(text) if text is not None else math.nan
    except ValueError:
        number = math.nan
    if text is None or not math.isfinite(number):
        raise UnexpectedAnswer(f"the answer's header {header} is {text!r}, not a number")
    return number
