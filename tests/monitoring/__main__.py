"""`make alerts-test`: each alert fired by its real fault against the real processes, into `docs/results/alerts.md`.

A real gateway, a real Triton with a model that does as it is told, and Debian's Prometheus with the committed rules.
Only the time is shorter: scrape interval, evaluation interval, every window and every `for` are divided by the same
number.
"""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.chaos.arena import Arena, Gateway, Stage, Triton, until
from tests.chaos.decoding import workers_of as decoders_of
from tests.chaos.fault import Skip, Unmet
from tests.chaos.healing import free_port, process_below, whole
from tests.chaos.pictures import PHOTO
from tests.chaos.process import ROOT
from tests.chaos.puppet import Puppet
from tests.chaos.report import machine
from tests.support.load import Stream, load
from tests.support.prometheus import MONITORING

from .astray import negative_pair, stereo_repository
from .live import Prometheus, Watch

PAGE = ROOT / "docs" / "results" / "alerts.md"
FASTER = 20
_SERVER, _STUB = "tritonserver", "triton_python_b"
_PATIENCE_S = 150.0
"""For an alert to fire, and for it to end: the longest `for` is 45 s, the longest window that must be clean 90 s."""

_CLIENTS = [{"X-Forwarded-For": f"192.0.2.{number}"} for number in range(1, 101)]
"""Many, so that nobody has more than his share of the waiting room."""

SETTINGS = {
    "cache_bytes": 0,  # every photo is a new inference
    "max_inflight": 4,
    "max_waiting": 16,
    "decode_workers": 2,
    "trusted_proxies": "127.0.0.1",
}


@dataclass(slots=True)
class Scene:
    """The processes, and what is done to them."""

    arena: Arena
    triton: Triton
    puppet: Puppet
    gateway: Gateway
    stereo: Gateway
    prometheus: Prometheus
    watch: Watch
    rows: list["Row"] = field(default_factory=list)

    async def fires(self, fault: str, *alerts: str, since: float) -> None:
        """Wait until each of the alerts fires, of this fault."""
        for alert in alerts:
            await until(lambda alert=alert: self._sound() and alert in self.watch.firing, _PATIENCE_S, alert)
            began = self.watch.began(alert, since)
            if began is None:
                raise Unmet(f"{alert} fired before its fault: {fault}")
            self.rows.append(Row(alert, fault, began - since))
            print(f"{alert:32} fired after {began - since:5.1f} s: {fault}", flush=True)

    def mended(self, *alerts: str) -> None:
        """The fault of these alerts is over."""
        now = time.monotonic()
        for row in self.rows:
            if row.alert in alerts and not row.mended_at:
                row.mended_at = now

    def _sound(self) -> bool:
        if self.watch.dead() or self.prometheus.status is not None:
            raise RuntimeError(f"Prometheus does not answer: {self.prometheus.text()[-2000:]}")
        return True

    async def answer(self) -> None:
        """Wait until the service is whole again."""
        await until(lambda: "is ready" in self.triton.text(), 60.0, "a Triton")
        await whole(self.gateway, 60.0)

    @asynccontextmanager
    async def asked(self, **stream: Any) -> AsyncIterator[None]:
        """Photos come in, by k6, until the block ends."""
        url = f"http://127.0.0.1:{self.gateway.port}/depth?format=json&size=native"
        given = {"seconds": 2 * _PATIENCE_S, "timeout_s": 20.0, "clients": _CLIENTS, **stream}
        task = asyncio.create_task(load(PHOTO, {"photos": Stream(url, **given)}))
        try:
            yield
        finally:
            if task.done():
                task.result()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@dataclass(slots=True)
class Row:
    """One alert and its fault; times in seconds, `mended_at` on the monotonic clock."""

    alert: str
    fault: str
    fired_s: float
    mended_at: float = 0.0
    ended_s: float | None = None


async def failing(scene: Scene) -> None:
    async with scene.asked(rate=6, vus=40):
        await asyncio.sleep(5.0)
        since = time.monotonic()
        scene.puppet.tell(fails=True)
        alerts = ("DepthlensModelFailing", "DepthlensErrorBudgetFast", "DepthlensErrorBudgetSlowly")
        await scene.fires("the model raises at every photo", *alerts, since=since)
        scene.puppet.tell()
        scene.mended(*alerts)
        await asyncio.sleep(5.0)


async def slow(scene: Scene) -> None:
    since = time.monotonic()
    scene.puppet.tell(delay_s=0.25)
    alerts = ("DepthlensTritonQueueSlow", "DepthlensLatencyBudgetFast", "DepthlensLatencyBudgetSlowly")
    async with scene.asked(vus=14):
        await scene.fires("the model takes 0.25 s a photo, 14 users ask without a pause", *alerts, since=since)
        scene.puppet.tell()
        scene.mended(*alerts)
        await asyncio.sleep(5.0)


async def overload(scene: Scene) -> None:
    since = time.monotonic()
    scene.puppet.tell(delay_s=0.25)
    alerts = ("DepthlensRejecting", "DepthlensWaitingNearLimit")
    async with scene.asked(rate=16, vus=150):
        await scene.fires("16 photos a second where 4 can be answered", *alerts, since=since)
    scene.puppet.tell()
    scene.mended(*alerts)


async def dead_stub(scene: Scene) -> None:
    """The supervisor is stopped meanwhile, as NVIDIA's image has none."""
    scene.triton.signal(signal.SIGSTOP)
    since = time.monotonic()
    os.kill(process_below(scene.triton, _STUB), signal.SIGKILL)
    await scene.fires("SIGKILL of the model's process, nobody heals it", "DepthlensModelNotAnswering", since=since)
    healed = time.monotonic()
    scene.triton.signal(signal.SIGCONT)
    scene.mended("DepthlensModelNotAnswering")
    await scene.fires("the supervisor gives the model a new process", "DepthlensModelRestarted", since=healed)
    await scene.answer()
    scene.mended("DepthlensModelRestarted")


async def hung(scene: Scene) -> None:
    server = process_below(scene.triton, _SERVER)
    since = time.monotonic()
    os.kill(server, signal.SIGSTOP)
    try:
        await scene.fires("SIGSTOP of tritonserver", "DepthlensTritonDown", since=since)
    finally:
        os.kill(server, signal.SIGCONT)
    scene.mended("DepthlensTritonDown")
    await scene.answer()


async def gateway_killed(scene: Scene) -> None:
    port = scene.gateway.port
    since = time.monotonic()
    scene.gateway.signal(signal.SIGKILL)
    await scene.fires("SIGKILL of the gateway", "DepthlensGatewayDown", since=since)
    scene.gateway = await scene.arena.gateway(scene.triton, port=port, **SETTINGS)
    scene.mended("DepthlensGatewayDown")


async def loop(scene: Scene) -> None:
    since = time.monotonic()
    for _ in range(3):
        await until(lambda: _counted(scene), 60.0, "a Triton that has answered ten times")
        again = scene.triton.text().count("answers again")
        os.kill(process_below(scene.triton, _SERVER), signal.SIGKILL)
        await until(lambda again=again: scene.triton.text().count("answers again") > again, 60.0, "a restart")
    await scene.fires("SIGKILL of tritonserver, three times", "DepthlensRestartLoop", since=since)
    scene.mended("DepthlensRestartLoop")
    await scene.answer()


async def _counted(scene: Scene) -> bool:
    return await scene.prometheus.value('min(nv_inference_request_success{model="focus"})') >= 10


async def decoders(scene: Scene) -> None:
    since = time.monotonic()
    for _ in range(4):
        await until(lambda: len(decoders_of(scene.gateway)) == 2, 20.0, "two decoding processes")
        await asyncio.sleep(1.0)  # each scraped apart: a rate is of what was seen
        for pid in decoders_of(scene.gateway):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    await scene.fires("SIGKILL of 8 decoding processes", "DepthlensDecodersDying", since=since)
    scene.mended("DepthlensDecodersDying")


async def astray(scene: Scene) -> None:
    since = time.monotonic()
    for number in range(6):
        body, headers = negative_pair(number)
        answer = await scene.stereo.ask("POST", "/stereo?sequence=a&adapt=mad", body, headers)
        if answer.expect(200).headers.get("x-adaptation-reset") != "loss":
            raise Unmet(f"a negative was learned from: {answer.headers}")
        await asyncio.sleep(1.0)  # each scraped apart: an increase is of what was seen
    alert = "DepthlensAdaptationResets"
    await scene.fires("the right camera of a stereo sequence sends negatives", alert, since=since)
    scene.mended(alert)


FAULTS: tuple[Callable[[Scene], Coroutine[Any, Any, None]], ...] = (
    failing,
    slow,
    overload,
    dead_stub,
    hung,
    decoders,
    loop,
    gateway_killed,
    astray,
)


async def run(stage: Stage) -> list[Row]:
    """Every fault, one after the other."""
    async with stage.arena(None, 10.0) as arena:
        triton, puppet = await arena.puppet(own=True)
        gateway = await arena.gateway(triton, **SETTINGS)
        # A gateway and Triton of their own: the other faults kill processes of a Triton that has one model's.
        stereo = await arena.gateway(await arena.triton(own=True, repository=stereo_repository(arena.directory)))
        await until(lambda: _sees_in_stereo(stereo), 240.0, "a stereo model that answers")
        targets = {"depthlens-gateway": [gateway.port, stereo.port], "depthlens-triton": [triton.ports.metrics]}
        prometheus = Prometheus(arena.directory / "prometheus", free_port(), targets, FASTER)
        arena.processes.append(prometheus)
        await prometheus.ready()
        async with Watch(prometheus) as watch:
            scene = Scene(arena, triton, puppet, gateway, stereo, prometheus, watch)
            await until(lambda: _scraped(scene), 60.0, "both jobs scraped")
            await asyncio.sleep(10.0)
            if watch.firing:
                raise Unmet(f"fires without a fault: {', '.join(sorted(watch.firing))}")
            for fault in FAULTS:
                await fault(scene)
            await until(lambda: not watch.firing, 2 * _PATIENCE_S, "no alert")
            for row in scene.rows:
                ended = watch.ended(row.alert, row.mended_at)
                row.ended_s = None if ended is None else ended - row.mended_at
        return scene.rows


async def _scraped(scene: Scene) -> bool:
    return len(await scene.prometheus.query("up == 1")) == 3


async def _sees_in_stereo(gateway: Gateway) -> bool:
    return (await gateway.ask("POST", "/stereo", *negative_pair(0))).status == 200


def page(rows: list[Row], said: str, seconds: float) -> str:
    """The Markdown page."""
    lines = [
        f"| [{row.alert}](../monitoring.md#{row.alert.lower()}) | {row.fault} | {row.fired_s:.1f} | {row.ended_s:.1f} |"
        for row in rows
        if row.ended_s is not None
    ]
    return (
        "# Alerts by their real faults\n\n"
        f"`make alerts-test`: {said}. {len(lines)} of {len(alerts_of_the_rules())} alerts fired by their fault and "
        f"ended after it; {seconds / 60:.1f} minutes.\n\n"
        "Real processes: the gateway, Triton with a model that does as it is told, Debian's Prometheus with the "
        "committed configuration and rules. Only time is shorter: scrape and evaluation interval, every window and "
        f"every `for` are divided by {FASTER} (`15s` is 0.75 s, `for: 5m` 15 s, `[1h]` 3 minutes); thresholds are as "
        "committed. No alert fired before the first fault; when all was mended, none fired any more. *Ended* counts "
        "from the end of the fault. The next fault does not wait for it, and an overload, too, uses up the error "
        "budget: some would end sooner alone.\n\n"
        "| alert | fault | fired after, s | ended after, s |\n|---|---|---|---|\n" + "\n".join(lines) + "\n"
    )


def alerts_of_the_rules() -> set[str]:
    """Names of all alerts."""
    groups = yaml.safe_load((MONITORING / "rules" / "alerts.yml").read_text())["groups"]
    return {rule["alert"] for group in groups for rule in group["rules"]}


def main() -> int:
    """Entry point; 0 when every alert has fired and ended."""
    parser = argparse.ArgumentParser(prog="python -m tests.monitoring", description=__doc__)
    parser.add_argument("--out", type=Path, default=PAGE, help="page to write")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    said = machine()
    start = time.monotonic()
    stage = Stage(Path(tempfile.mkdtemp(prefix="depthlens-alerts-")))
    try:
        rows = asyncio.run(run(stage))
    except Skip as reason:
        print(f"skipped: {reason}")
        return 0
    except Unmet as error:
        print(f"FAILED: {error}")
        return 1
    finally:
        stage.close()
    missing = alerts_of_the_rules() - {row.alert for row in rows if row.ended_s is not None}
    text = page(rows, said, time.monotonic() - start)
    print(f"\n{text}")
    if missing:
        print(f"FAILED: not fired and ended: {', '.join(sorted(missing))}")
        return 1
    options.out.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
