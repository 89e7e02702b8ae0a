"""F29: what clients send neither makes new metrics nor looks like a line of the log."""

import re

from .arena import Arena, Gateway
from .fault import Unmet, fault
from .pictures import PHOTO

_FORGED = "2026-11-21 00:00:00,000 INFO    depthlens.access: GET /health/live 200 ok 0.1ms id=forged"
_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ +[a-z.]+: |    |Depthlens is ready: |$")
_ROUNDS = 30
_LINE_BYTES = 300
"""Of an access line, some to spare."""


@fault(
    "F29",
    f"{7 * _ROUNDS} requests, each with paths, methods, names and values of its own, line breaks and 30 kB among them",
    expected="no new series in /metrics, no forged or long line in the log",
    without="closed-labels",
    fast=True,
)
async def injection(arena: Arena) -> str:
    gateway = await arena.gateway()
    for index in range(2):
        await _round(gateway, index)
        await gateway.metrics()
    before, lines_before = _series(await gateway.metrics()), len(gateway.text().splitlines())
    for index in range(2, 2 + _ROUNDS):
        await _round(gateway, index)
    page = await gateway.metrics()
    new = _series(page) - before
    lines = gateway.text().splitlines()
    odd = [line for line in lines if not _LINE.match(line) or line.startswith(_FORGED) or len(line) > _LINE_BYTES]
    if new or "made-up" in page or odd:
        raise Unmet(f"{len(new)} new series, {len(odd)} odd lines of up to {max(map(len, odd), default=0)} characters")
    return f"{len(before)} series and none more, {len(lines) - lines_before} lines of at most {max(map(len, lines))}"


async def _round(gateway: Gateway, index: int) -> None:
    name = f"made-up-{index}"
    breaks = "%0d%0a"
    await gateway.ask("GET", f"/{name}{breaks}{_FORGED.replace(' ', '%20')}")
    await gateway.ask(name.upper() * 50, f"/depth?{name}")
    await gateway.ask("POST", f"/depth?model={name}{breaks}&{name}=1", PHOTO)
    await gateway.ask("POST", "/depth", PHOTO, {"X-Request-Id": f"{name} {_FORGED}", "User-Agent": name})
    await gateway.ask("POST", "/depth", PHOTO, {name: "x" * 30_000, "X-Forwarded-For": name, "X-API-Key": name})
    await gateway.ask("POST", f"/focus?scene={name}&x=1&y=1", b"", {"Accept": f"image/{name}"})
    await gateway.ask("POST", "/depth", name.encode(), {"Content-Type": f"image/{name}", "X-Request-Timeout": name})


def _series(page: str) -> set[str]:
    return {line.rpartition(" ")[0] for line in page.split("\n") if not line.startswith("#")}
