"""A real Prometheus on this machine with the project's own rules, its time made shorter, and what it says of alerts."""

import asyncio
import json
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.chaos.arena import until
from tests.chaos.fault import Skip
from tests.chaos.process import Process
from tests.support.prometheus import MISSING, MONITORING, find

_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"^(\d+)([smhd])$")
_WINDOW = re.compile(r"\[(\d+[smhd])\]")


def shortened(duration: str, faster: int) -> str:
    """A duration as Prometheus writes it, divided."""
    found = _DURATION.match(duration)
    assert found, duration
    return f"{int(found[1]) * _UNITS_MS[found[2]] // faster}ms"


def hastened(rules: dict[str, Any], faster: int) -> dict[str, Any]:
    """The rules with every window and every `for` divided by `faster`; nothing else of them is changed."""
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        rule["expr"] = _WINDOW.sub(lambda found: f"[{shortened(found[1], faster)}]", rule["expr"])
        if "for" in rule:
            rule["for"] = shortened(rule["for"], faster)
    return rules


def configure(directory: Path, targets: Mapping[str, Sequence[int]], faster: int) -> Path:
    """Write the committed configuration and rules, hastened, with ports of this machine for each job's targets."""
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    interval = shortened(config["global"]["scrape_interval"], faster)
    config["global"] = {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval}
    jobs = []
    for job in config["scrape_configs"]:
        addresses = [f"127.0.0.1:{port}" for port in targets.get(job["job_name"], ())]
        if addresses:
            jobs.append({"job_name": job["job_name"], "static_configs": [{"targets": addresses}]})
    config["scrape_configs"] = jobs
    for path in (MONITORING / "rules").glob("*.yml"):
        rules = hastened(yaml.safe_load(path.read_text()), faster)
        (directory / path.name).write_text(yaml.safe_dump(rules, width=10_000))
    config["rule_files"] = [path.name for path in (MONITORING / "rules").glob("*.yml")]
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
    return directory / "prometheus.yml"


class Prometheus(Process):
    """A Prometheus that keeps what it scrapes in `directory`, new and empty.

    Args:
        directory: of its configuration, data and log.
        port: where it listens on the loopback.
        targets: ports by name of the scrape job.
        faster: how many times shorter its time is than that of the committed files.
    """

    def __init__(self, directory: Path, port: int, targets: Mapping[str, Sequence[int]], faster: int) -> None:
        binary = find("prometheus")
        if binary is None:
            raise Skip(MISSING)
        directory.mkdir()
        config = configure(directory, targets, faster)
        self._url = f"http://127.0.0.1:{port}"
        super().__init__(
            [
                *(binary, f"--config.file={config}", f"--storage.tsdb.path={directory / 'data'}"),
                *(f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"),
            ],
            log=directory / "log",
            directory=directory,
        )

    async def ready(self) -> None:
        """Until it answers."""

        def answers() -> bool:
            if self.status is not None:
                raise RuntimeError(f"Prometheus ended with {self.status}: {self.text()[-2000:]}")
            try:
                with urllib.request.urlopen(f"{self._url}/-/ready", timeout=5):
                    return True
            except OSError:
                return False

        await until(answers, 60.0, "a Prometheus that answers")

    async def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of every series that the expression has now."""
        found = await self._ask("query", query=expression)
        if found["resultType"] == "scalar":
            return [({}, float(found["result"][1]))]
        return [(series["metric"], float(series["value"][1])) for series in found["result"]]

    async def value(self, expression: str) -> float:
        """Of the largest series; 0 where there is none."""
        return max((value for _, value in await self.query(expression)), default=0.0)

    async def firing(self) -> set[str]:
        """Names of the alerts that fire now."""
        alerts = (await self._ask("alerts"))["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    async def _ask(self, what: str, **parameters: str) -> Any:
        def ask() -> Any:
            with urllib.request.urlopen(
                f"{self._url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}", timeout=20
            ) as answer:
                return json.load(answer)["data"]

        return await asyncio.to_thread(ask)


class Watch:
    """Notes when alerts begin and end; a context manager.

    Attributes:
        changes: `time.monotonic()` seconds, alert, whether it fires.
    """

    def __init__(self, prometheus: Prometheus) -> None:
        self._prometheus = prometheus
        self._task: asyncio.Task[None] | None = None
        self.firing: set[str] = set()
        self.changes: list[tuple[float, str, bool]] = []

    async def __aenter__(self) -> "Watch":
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _look(self) -> None:
        while True:
            firing = await self._prometheus.firing()
            now = time.monotonic()
            self.changes += [(now, alert, True) for alert in sorted(firing - self.firing)]
            self.changes += [(now, alert, False) for alert in sorted(self.firing - firing)]
            self.firing = firing
            await asyncio.sleep(0.2)

    def began(self, alert: str, since: float) -> float | None:
        """When it first fired after `since`."""
        return next((at for at, name, on in self.changes if name == alert and on and at >= since), None)

    def ended(self, alert: str, since: float) -> float | None:
        """When it first ended after `since`, None where it has not."""
        return next((at for at, name, on in self.changes if name == alert and not on and at >= since), None)

    def dead(self) -> bool:
        """Whether nothing is noted any more."""
        return self._task is None or self._task.done()
