"""Every numeric parameter of every photo route, as hypothesis draws it: taken in its range, refused by name outside.

The parameters and their ranges are read from the OpenAPI document, so that a new one is covered by being there.
"""

from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

import hypothesis
import pytest
from fakes import FakeDepthClient, encoded, picture
from hypothesis import strategies as st
from problem_codes import KNOWN_CODES
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings

WIDTH, HEIGHT = 48, 32
PHOTO = encoded(picture(WIDTH, HEIGHT))
PAIR = {"left": PHOTO, "right": encoded(picture(WIDTH, HEIGHT).rotate(180))}
APP = create_app(Settings(canary_period_s=60), FakeDepthClient())
FIXED = {
    "/depth": {"format": "json"},
    "/segmentation": {"format": "json"},
    "/focus": {"rx": "0.5", "ry": "0.5"},
    "/stereo": {"format": "json"},
    "/analyze": {"outputs": "depth:json,depth:preview,depth:ply,mask:json"},
}
PARTNER = {"x": "y", "rx": "ry", "rack_x": "rack_y", "rack_rx": "rack_ry"}
STEREO_PARTNER = {"focal_px": "baseline_m", "baseline_m": "focal_px"}
PARTNER |= {second: first for first, second in PARTNER.items()}
SEEDED = hypothesis.settings(
    max_examples=15, deadline=None, derandomize=True, database=None, suppress_health_check=list(hypothesis.HealthCheck)
)


class Parameter(NamedTuple):
    """A number that a route takes, and from where to where; what is drawn from it is text."""

    route: str
    place: str
    name: str
    whole: bool
    least: float
    most: float
    without_least: bool
    choices: tuple[int, ...]

    def takes(self, text: str) -> bool:
        """Whether the text is a number that the document allows: plain, finite, ASCII, within the range."""
        if not text.isascii() or "_" in text or text.strip(" ") != text.strip():
            return False
        try:
            number = Decimal(text)
        except InvalidOperation:
            return False
        if not number.is_finite() or abs(number) > Decimal("1.7e308"):
            return False
        if self.whole and not text.strip(" ").lstrip("+-").isdigit():
            return False
        if self.choices and number not in self.choices:
            return False
        least, most = Decimal(str(self.least)), Decimal(str(self.most))  # as written: 0.001 itself is taken
        return least <= number <= most and not (self.without_least and number == least)

    def texts(self) -> st.SearchStrategy[str]:
        """Numbers inside, at and beside the range, and what looks like numbers."""
        least, most = max(self.least, -1e6), min(self.most, 1e6)
        inside = st.integers(int(least), int(most)) if self.whole else st.floats(least, most)
        beside = st.sampled_from([least, most]).flatmap(
            lambda bound: st.sampled_from([bound, bound - 1, bound + 1, bound * (1 + 1e-9), bound - 1e-9])
        )
        numbers = st.one_of(inside, inside, beside, st.floats(), st.integers())
        forms = st.sampled_from(["{}", "{}", "+{}", " {}", "{} ", "0{}", "{}_0", "{}e0", "{},0", "{}f", "0x{}", "{}\t"])
        odd = st.text(st.characters(categories=("Nd", "No", "Zs")), max_size=4) | st.sampled_from(["", "nan", "1e400"])
        written = st.tuples(forms, numbers).map(lambda pair: pair[0].format(pair[1]))
        return st.one_of(written, written, written, odd)

    def query(self, text: str) -> dict[str, str]:
        """The cheapest query that this parameter can stand in."""
        query = dict(FIXED[self.route])
        if self.name in ("x", "y"):
            query = {name: value for name, value in query.items() if name not in ("rx", "ry")}
        if self.name.startswith("rack_"):
            query |= {"rack_frames": "2"}
        if self.name in ("rack_frames", "rack_fps"):
            query |= {"rack_rx": "0.5", "rack_ry": "0.5"}
        if self.name in PARTNER:
            query[PARTNER[self.name]] = "0.5"
        if self.route == "/stereo" and self.name in STEREO_PARTNER:
            query[STEREO_PARTNER[self.name]] = "0.5"
        return query if self.place == "header" else query | {self.name: text}


def _numbers(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if schema.get("type") in ("number", "integer"):
        yield schema
    for other in schema.get("anyOf", ()):
        yield from _numbers(other)


def _parameters() -> Iterator[Parameter]:
    for route in FIXED:
        for parameter in APP.openapi()["paths"][route]["post"]["parameters"]:
            for schema in _numbers(parameter["schema"]):
                name, least = parameter["name"], schema.get("minimum", schema.get("exclusiveMinimum", float("-inf")))
                most = schema.get("maximum", float("inf"))
                if name in ("x", "y", "rack_x", "rack_y"):  # as far as the photo goes
                    least, most = 0.0, (WIDTH if name.endswith("x") else HEIGHT) - 1e-12
                if name == "rack_person":  # there is one
                    most = 0
                choices = tuple(schema.get("enum", ()))
                whole = schema["type"] == "integer"
                yield Parameter(route, parameter["in"], name, whole, least, most, "exclusiveMinimum" in schema, choices)


PARAMETERS = list(_parameters())
OTHER_WORDS = {"highlights": ("auto", "off")}
METRES = ("near_m", "far_m")
NEVER = {("/depth", "focal_px"), ("/analyze", "focal_px"), *((route, name) for route in FIXED for name in METRES)}
"""Refused whatever their value, while no model is metric; still by name."""


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(APP, raise_server_exceptions=False) as running:
        yield running


def send(client: TestClient, route: str, query: dict[str, str], headers: dict[str, str]) -> Any:
    if route == "/stereo":
        files = {name: (f"{name}.png", data, "image/png") for name, data in PAIR.items()}
        return client.post(route, params=query, files=files, headers=headers)
    return client.post(route, params=query, content=PHOTO, headers=headers | {"Content-Type": "image/png"})


def test_all_are_found() -> None:
    assert len(PARAMETERS) >= 50
    assert {parameter.route for parameter in PARAMETERS} == FIXED.keys()


@pytest.mark.parametrize("parameter", PARAMETERS, ids=lambda parameter: f"{parameter.route[1:]}-{parameter.name}")
def test_a_number_is_taken_or_refused_by_name(client: TestClient, parameter: Parameter) -> None:
    @SEEDED
    @hypothesis.given(parameter.texts())
    def one(text: str) -> None:
        headers: dict[str, str] = {}
        if parameter.place == "header":
            try:
                headers[parameter.name] = text.encode("latin-1").decode("latin-1")
            except UnicodeEncodeError:
                return
        answer = send(client, parameter.route, parameter.query(text), headers)
        taken = parameter.takes(text)
        if parameter.place == "header":
            taken = parameter.takes(text.strip(" \t"))  # HTTP itself strips these
        if answer.status_code == 504:
            assert parameter.place == "header", "only a deadline of its own makes a request late"
            return
        if taken and (parameter.route, parameter.name) not in NEVER:
            problem = answer.json() if answer.status_code == 422 else {}
            equal = parameter.name in ("near", "far") and problem.get("field") == "near"  # refused in the name of near
            nobody = parameter.route != "/focus" and problem.get("code") == "not_a_person"
            assert answer.status_code == (422 if equal or nobody else 200), (text, answer.text)
        else:
            assert answer.status_code == 422, (text, answer.status_code)
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["field"] == parameter.name
            assert answer.json()["code"] in KNOWN_CODES

    one()


@SEEDED
@hypothesis.given(st.data())
def test_any_numbers_together(client: TestClient, data: st.DataObject) -> None:
    """Whatever is combined: an answer, or a problem with a known code; never a failure."""
    route = data.draw(st.sampled_from(sorted(FIXED)))
    able = [parameter for parameter in PARAMETERS if parameter.route == route and parameter.place == "query"]
    hypothesis.assume(able)
    chosen = data.draw(st.lists(st.sampled_from(able), max_size=6, unique=True))
    query = FIXED[route] | {parameter.name: data.draw(parameter.texts()) for parameter in chosen}
    answer = send(client, route, query, {})
    assert answer.status_code in (200, 422), (query, answer.text)
    if answer.status_code == 422:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] in KNOWN_CODES
