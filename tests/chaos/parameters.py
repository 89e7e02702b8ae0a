"""F18 and F19: numbers that are none, and names of models that there are not."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import orjson

from .arena import Arena, Gateway
from .fault import Unmet, fault
from .pictures import PHOTO
from .relay import Relay

MALFORMED = (
    *("nan", "NaN", "inf", "-inf", "Infinity", "1e999", "-1e999", "1_0", "0x10", "1,5", "1e", "--1"),
    *("\N{ARABIC-INDIC DIGIT THREE}", "\N{FULLWIDTH DIGIT THREE}", "\N{VULGAR FRACTION ONE HALF}"),
)
"""None of these is a plain finite decimal; Python's `float` takes most of them."""
EXTREME = ("1e308", "-1e308", "-1e-3", "99999999999999999999")
ROUTES = {
    "/depth": {"format": "json"},
    "/segmentation": {"format": "json"},
    "/focus": {"rx": "0.5", "ry": "0.5", "output": "people"},
}
"""Photo routes and a query each that is cheap to answer."""
_PARTNER = {"x": "y", "y": "x", "rx": "ry", "ry": "rx", "rack_x": "rack_y", "rack_y": "rack_x"}
_PARTNER |= {"rack_rx": "rack_ry", "rack_ry": "rack_rx"}


def is_number(schema: dict[str, Any]) -> bool:
    """Whether an OpenAPI schema takes a number, perhaps among others."""
    return schema.get("type") in ("number", "integer") or any(map(is_number, schema.get("anyOf", ())))


def numeric_parameters(document: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(route, `query` or `header`, name) of every parameter of the photo routes that takes a number."""
    return [
        (route, parameter["in"], parameter["name"])
        for route in ROUTES
        for parameter in document["paths"][route]["post"]["parameters"]
        if is_number(parameter["schema"])
    ]


def query_with(route: str, name: str, value: str) -> str:
    """The route's cheap query with one more parameter, and what that needs beside it."""
    query = dict(ROUTES[route])
    if name in ("x", "y"):
        query = {key: given for key, given in query.items() if key not in ("rx", "ry")}
    if name.startswith("rack_"):
        del query["output"]
    if name in ("rack_frames", "rack_fps"):
        query |= {"rack_rx": "0.5", "rack_ry": "0.5"}
    if partner := _PARTNER.get(name):
        query[partner] = "0.5"
    return f"{route}?{urlencode(query | {name: value})}"


@fault(
    "F18a",
    "every numeric parameter of every route: NaN, inf, 1e999, 1_0, digits of other scripts, hexadecimal, 1,5",
    expected="422 that names the field, each",
    without="strict-numbers",
    fast=True,
)
async def malformed_numbers(arena: Arena) -> str:
    gateway = await arena.gateway()
    names = numeric_parameters(orjson.loads((await gateway.ask("GET", "/openapi.json")).body))
    wrong: list[str] = []
    wire = await gateway.connect()
    for route, place, name in names:
        for value in MALFORMED:
            if place == "header":
                text = value.encode().decode("latin-1")
                answer = await wire.ask("POST", f"{route}?{urlencode(ROUTES[route])}", PHOTO, {name: text})
            else:
                answer = await wire.ask("POST", query_with(route, name, value), PHOTO)
            if answer.status != 422 or answer.problem.get("field") != name:
                wrong.append(f"{route} {name}={value}: {answer.status}")
            if not wire.reusable:
                wire = await gateway.connect()
    if wrong:
        raise Unmet(f"{len(wrong)} of {len(names) * len(MALFORMED)} not so, as {'; '.join(wrong[:3])}")
    return f"422 for {len(MALFORMED)} values of {len(names)} parameters"


@fault(
    "F18b",
    "every numeric parameter far outside its range, and clicks beside the photo",
    expected="422 that names the field, each; a deadline of 1e308 s is capped",
    without="ranges",
    fast=True,
)
async def extreme_numbers(arena: Arena) -> str:
    gateway = await arena.gateway()
    names = numeric_parameters(orjson.loads((await gateway.ask("GET", "/openapi.json")).body))
    wrong: list[str] = []
    count = 0
    for target, name, good in _extremes(names):
        headers = {name: target.partition("#")[2]} if "#" in target else {}
        answer = await gateway.ask("POST", target.partition("#")[0], PHOTO, headers)
        count += 1
        if answer.status != good or (good == 422 and answer.problem.get("field") != name):
            wrong.append(f"{target}: {answer.status}")
    if wrong:
        raise Unmet(f"{len(wrong)} of {count} not so, as {'; '.join(wrong[:3])}")
    return f"{count} requests refused by field, or capped"


def _extremes(names: list[tuple[str, str, str]]) -> Iterator[tuple[str, str, int]]:
    """Target (a header's value after #), field, and the status that is right."""
    for route, place, name in names:
        for value in EXTREME:
            if place == "header":
                yield f"{route}?{urlencode(ROUTES[route])}#{value}", name, 422 if value.startswith("-") else 200
            elif name != "rotation" or abs(float(value)) > 360:
                yield query_with(route, name, value), name, 422
    for x, y, name in (("-1", "5", "x"), ("96", "5", "x"), ("5", "64", "y"), ("5", "-0.6", "y")):
        yield f"/focus?x={x}&y={y}", name, 422
        yield f"/depth?format=json&points={x},{y}", "points", 422
    for points in ("nan,1", "1e999,1", "1e308,1", "1_0,1", "٣,1", "1", "1,2,3", ";", "1,2;"):
        yield f"/depth?format=json&points={quote(points)}", "points", 422


_PING_BYTES = 17
"""A frame that HTTP/2 sends over an idle connection, or answers one with (RFC 9113, section 6.7)."""
_MOST_PINGS = 10

MODEL_NAMES = (
    *(
        "../focus_on_depth",
        "..",
        "focus_on_depth/1",
        "focus_on_depth/../focus_on_depth",
        "/etc/passwd",
        "focus_on_depth\0",
    ),
    *(
        "%2e%2e",
        "focus_on_depth%00",
        "FOCUS_ON_DEPTH",
        " focus_on_depth",
        "focus_on_depth\n",
        "f\N{CYRILLIC SMALL LETTER O}cus",
    ),
    *("", "a" * 100, "a" * 10_240, "focus_on_depth,focus", "${jndi:ldap://x}", "{{7*7}}", "' or 1=1 --", "\u202ehtped"),
)


@fault(
    "F19",
    "names of models: `../`, `%2e%2e`, NUL, 10 kB, look-alike letters",
    expected="404 (422 above 100 characters), and nothing of it to Triton",
    without="known-models",
    fast=True,
)
async def model_names(arena: Arena) -> str:
    relay = await Relay.open((await arena.triton()).ports.grpc)
    async with relay:
        gateway = await arena.gateway(relay.url, canary_period_s=3600)
        before = relay.sent_bytes
        for name in MODEL_NAMES:
            for route in ROUTES:
                await _unknown(gateway, f"{query_with(route, 'model', name)}", len(name) > 100)
        for path in ("/models/../etc/passwd", "/models/%2e%2e/x", "/depth/..%2f..%2fetc", "/%00", "//etc/passwd"):
            (await gateway.ask("GET", path)).expect(404, 400)
        sent = relay.sent_bytes - before
        if sent % _PING_BYTES or sent > _MOST_PINGS * _PING_BYTES:
            raise Unmet(f"{sent} bytes sent to Triton")
        (await gateway.ask("POST", "/depth", PHOTO)).expect(200)
        if relay.sent_bytes == before:
            raise Unmet("a photo did not pass the relay either")
    pings = sent // _PING_BYTES
    return f"{len(MODEL_NAMES) * len(ROUTES)} names refused, nothing sent but {pings} pings of an idle connection"


async def _unknown(gateway: Gateway, target: str, long: bool) -> None:
    answer = await gateway.ask("POST", target, PHOTO)
    answer.expect(422 if long else 404, field="model")
