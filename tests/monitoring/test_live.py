"""Every metric that dashboard and rules name is there in a live scrape of the real gateway and the real Triton."""

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import yaml

from tests.chaos.arena import Arena, Gateway, Stage, until
from tests.chaos.decoding import workers_of as decoders_of
from tests.chaos.fault import Unmet
from tests.chaos.healing import free_port
from tests.chaos.pictures import PHOTO, photo
from tests.monitoring.live import Prometheus, configure, hastened, shortened
from tests.support.prometheus import MISSING, MONITORING, find

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

FASTER = 30
DASHBOARD = json.loads((MONITORING / "grafana" / "dashboards" / "depthlens.json").read_text())
RULES = [
    rule
    for path in sorted((MONITORING / "rules").glob("*.yml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
]
METRIC = re.compile(r"\b((?:depthlens|nv|process)_[a-z0-9_]+)\b(?!:)")


def expressions() -> list[str]:
    """Of every rule and every panel."""
    return [rule["expr"] for rule in RULES] + [
        target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())
    ]


def named() -> set[str]:
    """Every metric that they name, recorded ones (with a colon) left out."""
    found = set()
    for expression in expressions():
        plain = re.sub(r'"[^"]*"|\w*:[\w:]*', "", expression)
        found |= set(METRIC.findall(plain))
    return found


def test_durations_are_shortened_and_nothing_else() -> None:
    assert shortened("15s", 20) == "750ms"
    assert shortened("6h", 30) == "720000ms"
    rule = {"alert": "A", "expr": "rate(x[5m]) / y:rate5m > 1 / 60", "for": "2m", "labels": {"a": "5m"}}
    assert hastened({"groups": [{"rules": [dict(rule)]}]}, 60)["groups"][0]["rules"] == [
        rule | {"expr": "rate(x[5000ms]) / y:rate5m > 1 / 60", "for": "2000ms"}
    ]


def test_the_test_configuration_is_the_committed_one(tmp_path: Path) -> None:
    config = yaml.safe_load(configure(tmp_path, {"depthlens-triton": [1], "depthlens-gateway": [2]}, 20).read_text())
    committed = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    assert {job["job_name"] for job in config["scrape_configs"]} == {
        job["job_name"] for job in committed["scrape_configs"]
    }
    hastened_names = [
        rule.get("alert", rule.get("record"))
        for path in config["rule_files"]
        for group in yaml.safe_load((tmp_path / path).read_text())["groups"]
        for rule in group["rules"]
    ]
    assert sorted(hastened_names) == sorted(rule.get("alert", rule.get("record")) for rule in RULES)


@asynccontextmanager
async def started(directory: Path, *, embedded: bool) -> AsyncIterator[tuple[Arena, Gateway, list[int]]]:
    """A gateway, and the port of its Triton where that is apart."""
    stage = Stage(directory)
    try:
        async with stage.arena(None, 10.0) as arena:
            triton = None if embedded else await arena.triton(own=True)
            gateway = await arena.gateway(triton, embedded=embedded, decode_workers=1, rate_limit_per_s=1000.0)
            yield arena, gateway, [triton.ports.metrics] if triton else []
    finally:
        stage.close()


async def provoked(gateway: Gateway) -> None:
    """What is only counted when it happens, happens."""
    for number in range(4):
        (await gateway.ask("POST", "/focus?rx=0.7&ry=0.5", photo(number))).expect(200)
        (await gateway.ask("POST", "/depth?format=json", photo(number))).expect(200)
    (await gateway.ask("POST", "/depth?near=nan", PHOTO)).expect(422)
    wire = await gateway.connect()
    await wire.send(b"no request at all\r\n\r\n")
    await wire.answer(10.0)
    for pid in decoders_of(gateway):
        os.kill(pid, signal.SIGKILL)


def test_the_embedded_triton_s_metrics_are_behind_the_gateway_s(tmp_path: Path) -> None:
    seen: set[str] = set()

    async def scrape() -> None:
        async with started(tmp_path / "stage", embedded=True) as (_, gateway, _):
            await provoked(gateway)

            async def all_there() -> bool:
                seen.update(re.findall(r"^(\w+)[ {]", await gateway.metrics(), re.MULTILINE))
                return named() <= seen

            with suppress(Unmet):  # the machine may be busy, and Triton late
                await until(all_there, 20.0, "every metric")

    (tmp_path / "stage").mkdir()
    asyncio.run(scrape())
    assert len(named()) > 30
    assert named() - seen == set()
    assert {"nv_inference_count", "depthlens_triton_restarts_total"} <= seen


def test_every_panel_shows_something(tmp_path: Path) -> None:
    if find("prometheus") is None:
        pytest.skip(MISSING)
    left = {
        f"{panel['title']}: {target['legendFormat']}": target["expr"]
        for panel in DASHBOARD["panels"]
        for target in panel.get("targets", ())
    }

    async def look() -> None:
        async with started(tmp_path / "stage", embedded=False) as (arena, gateway, triton_ports):
            targets = {"depthlens-gateway": [gateway.port], "depthlens-triton": triton_ports}
            prometheus = Prometheus(arena.directory / "prometheus", free_port(), targets, FASTER)
            arena.processes.append(prometheus)
            await prometheus.ready()
            await until(_holds(prometheus, "sum(up) == 2"), 30.0, "two targets")
            await provoked(gateway)
            end = asyncio.get_running_loop().time() + 60.0
            while left and asyncio.get_running_loop().time() < end:
                await gateway.ask("POST", "/focus?rx=0.7&ry=0.5", photo(7))
                await gateway.ask("POST", "/depth?format=json", photo(8))
                for title, expression in list(left.items()):
                    filled = expression.replace("$__rate_interval", "10s").replace("$instance", ".*")
                    if await prometheus.query(filled):
                        del left[title]

    (tmp_path / "stage").mkdir()
    asyncio.run(look())
    assert not left


def _holds(prometheus: Prometheus, expression: str) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        return bool(await prometheus.query(expression))

    return holds
