"""F22 to F24: gateways, Tritons and versions of a model come and go under load, and nobody notices."""

import asyncio
import os
import shutil
import signal
import time

from service.clients import hash_of, new_key
from tests.support.embedded_triton import make_repository, write_tiny_network

from .arena import Arena, Gateway, Triton, until
from .fault import Skip, Unmet, fault
from .healing import PATIENT, free_port, process_below, whole
from .operator import administered
from .pictures import photo
from .process import Process
from .steady import Steady

_RATE = 70
"""Requests a second, each a new inference: what two busy cores do with half of their time."""

_NETWORK = "focus_on_depth"


@fault(
    "F22",
    "two gateways behind HAProxy and two Tritons: each in turn stopped by SIGTERM, then by kill -9, under load",
    expected="0 failed of at least 5,000",
    without="retry",
    timeout_s=240.0,
)
async def everything_in_turn(arena: Arena) -> str:
    tritons = await _two_tritons(arena)
    ports = [free_port(), free_port()]
    gateways = [await arena.gateway(tritons, port=port, drain_s=1.0, **PATIENT) for port in ports]
    balancer = await haproxy(arena, ports)
    stops = 0
    async with Steady(balancer, _RATE) as users:
        await users.until_sent(_RATE)
        for how in (signal.SIGTERM, signal.SIGKILL):
            for index, port in enumerate(ports):
                await _stop(gateways[index], how)
                users.check()
                gateways[index] = await arena.gateway(tritons, port=port, drain_s=1.0, **PATIENT)
                stops += 1
                await users.until_sent(users.sent + _RATE)  # the balancer has to see it
            for index in range(2):
                tritons[index] = await _triton_in_turn(arena, tritons[index], how)
                stops += 1
                await users.until_sent(users.sent + _RATE)
        await users.until_sent(5_000)
    users.check()
    return f"{users.summary()}, over {stops} stops"


@fault(
    "F22b",
    "a gateway stopped by SIGTERM while 12 clients ask it without a pause, on connections that they keep; no proxy",
    expected="0 failed: every client is told to connect anew, and finds the other gateway",
    without="drain",
    timeout_s=60.0,
)
async def kept_connections(arena: Arena) -> str:
    gateways = [await arena.gateway(drain_s=1.0, max_wait_s=30) for _ in range(2)]
    asked, ended = [0, 0], asyncio.Event()

    async def client(number: int) -> None:
        at, wire = 0, await gateways[0].connect()
        while not ended.is_set() or at == 0:
            (await wire.ask("POST", "/depth?format=json", photo(number))).expect(200)
            asked[at] += 1
            if not wire.reusable:
                at, wire = 1, await gateways[1].connect()

    def answered(at: int) -> bool:
        for each in clients:
            if each.done():
                each.result()  # raises what it has seen
        return asked[at] > 200

    clients = [asyncio.create_task(client(number)) for number in range(12)]
    try:
        await until(lambda: answered(0), 20.0, "200 answers")
        took_s = await _stop(gateways[0], signal.SIGTERM)
        await until(lambda: answered(1), 20.0, "200 answers of the other")
        ended.set()
        await asyncio.gather(*clients)
    finally:
        for task in clients:
            task.cancel()
    return f"0 of {sum(asked)} failed, ended {took_s:.1f} s after SIGTERM"


@fault(
    "F23",
    "two Tritons behind one gateway, each in turn stopped by SIGTERM under load, started again",
    expected="0 failed",
    without="retry",
    timeout_s=120.0,
)
async def tritons_in_turn(arena: Arena) -> str:
    tritons = await _two_tritons(arena)
    gateway = await arena.gateway(tritons, **PATIENT)
    async with Steady(gateway.port, _RATE) as users:
        await users.until_sent(_RATE)
        for index in range(2):
            tritons[index] = await _triton_in_turn(arena, tritons[index], signal.SIGTERM)
            await users.until_sent(users.sent + 2 * _RATE)
    users.check()
    retried = await gateway.metric("depthlens_retries_total")
    return f"{users.summary()}; {retried:g} tried on the other Triton"


@fault(
    "F23b",
    "one of two Tritons drained by the operator under load, killed (-9), started anew and put back; then the other one",
    expected="0 failed, none tried twice: nothing was in work at the kill, and nothing new had come",
    without="drained",
    timeout_s=120.0,
)
async def drained_in_turn(arena: Arena) -> str:
    tritons = await _two_tritons(arena)
    key = new_key()
    gateway = await arena.gateway(tritons, admin_key_hashes=hash_of(key), **PATIENT)

    async def operate(triton: Triton, action: str) -> None:
        said = {"Authorization": f"Bearer {key}"}
        answer = await gateway.ask("POST", f"/admin/servers/{triton.url}/{action}", b"", said, timeout_s=60.0)
        answer.expect(200)

    async with Steady(gateway.port, _RATE) as users:
        await users.until_sent(_RATE)
        for triton in tritons:
            await whole(gateway, 20.0)
            await operate(triton, "drain")
            await _triton_in_turn(arena, triton, signal.SIGKILL)
            await operate(triton, "resume")
            await users.until_sent(users.sent + 2 * _RATE)
    users.check()
    retried = await gateway.metric("depthlens_retries_total")
    if retried:
        raise Unmet(f"{retried:g} requests were at a Triton that was killed")
    return users.summary()


@fault(
    "F24",
    "versions of a model under load: 1, then 2, then one that does not load, then one that answers NaN, then back",
    expected="0 failed; the header says 2 from the first load to the rollback; ready",
    without="rollout",
    timeout_s=150.0,
)
async def versions_in_turn(arena: Arena) -> str:
    repository = make_repository(arena.directory / "versions")
    gateway, operate = await administered(arena, model_repository=repository, **PATIENT)
    targets = ("/depth?format=json&size=native", "/focus?rx=0.5&ry=0.5")
    async with Steady(gateway.port, _RATE / 2, targets) as users:
        before = await _ask_on(users, gateway)
        _add(repository / _NETWORK, 2, 2.0)
        (await operate(f"{_NETWORK}/load?version=2")).expect(200)
        loaded = users.sent
        await _ask_on(users, gateway)
        _add(repository / _NETWORK, 3, None)
        (await operate(f"{_NETWORK}/load?version=3")).expect(502, code="rollout_failed")
        await _ask_on(users, gateway)
        _add(repository / _NETWORK, 4, float("nan"))
        refused = await operate(f"{_NETWORK}/load?version=4")
        kept = await _ask_on(users, gateway)
        refused.expect(502, code="rollout_failed")
        (await operate(f"{_NETWORK}/rollback")).expect(200)
        back = users.sent
        await _ask_on(users, gateway)
    users.check()
    seen = [users.versions(*window) for window in ((0, before), (loaded, kept), (back, users.sent))]
    if seen != [{"1"}, {"2"}, {"1"}]:
        raise Unmet(f"versions before, between and after: {seen}")
    return f"{users.summary()}; versions 1, 2, 1; 3 and 4 refused"


def _add(model, version: int, scale: float | None) -> None:  # type: ignore[no-untyped-def]
    path = model / str(version) / "model.onnx"
    if scale is None:
        path.parent.mkdir()
        path.write_bytes(b"no network")
    else:
        write_tiny_network(path, scale)


async def _ask_on(users: Steady, gateway: Gateway) -> int:
    """Half a second's worth of further requests, and readiness before and after; returns how many have been begun."""
    (await gateway.ask("GET", "/health/ready")).expect(200)
    await users.until_sent(users.sent + _RATE // 2)
    (await gateway.ask("GET", "/health/ready")).expect(200)
    users.check()
    return users.sent


async def _two_tritons(arena: Arena) -> list[Triton]:
    tritons = [await arena.triton(own=True, ready=False) for _ in range(2)]
    for triton in tritons:
        await triton.ready()
    return tritons


async def _stop(process: Process, how: signal.Signals) -> float:
    """Send the signal and wait for the end; returns the seconds it took."""
    start = time.monotonic()
    process.signal(how)
    await until(lambda: process.status is not None, 30.0, "a process that ended")
    return time.monotonic() - start


async def _triton_in_turn(arena: Arena, triton: Triton, how: signal.Signals) -> Triton:
    """Stop a Triton and see it back: started anew after SIGTERM, by its supervisor after a kill of the server."""
    if how == signal.SIGKILL:
        os.kill(process_below(triton, "tritonserver"), how)
        await until(lambda: "answers again" in triton.text(), 60.0, "a Triton that is back")
        return triton
    await _stop(triton, how)
    again = await arena.triton(own=True, ports=triton.ports)
    return again


async def haproxy(arena: Arena, ports: list[int]) -> int:
    """HAProxy before gateways on these ports, by docs/reliability.md; returns its port."""
    binary = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
    if binary is None:
        raise Skip("no haproxy (Debian package haproxy)")
    port = free_port()
    servers = "\n".join(f"  server gateway{number} 127.0.0.1:{port}" for number, port in enumerate(ports))
    (arena.directory / "haproxy.cfg").write_text(_HAPROXY.format(port=port, servers=servers))
    process = Process(
        [binary, "-db", "-f", "haproxy.cfg"], log=arena.directory / "haproxy.log", directory=arena.directory
    )
    arena.processes.append(process)
    await until(lambda: port in process.listening_ports(), 10.0, "a HAProxy that listens")
    return port


_HAPROXY = """\
global
  maxconn 1000
  nbthread 1
defaults
  mode http
  timeout connect 1s
  timeout client 60s
  timeout server 60s
  timeout queue 5s
  retries 3
  option redispatch 1
  # A gateway that was killed has not answered: a photo may be sent again, it changes nothing.
  # Whole before it is sent on, and on a connection of its own: where a reused one breaks, HAProxy drops the client.
  retry-on conn-failure empty-response junk-response
  option http-buffer-request
  http-reuse never
frontend users
  bind 127.0.0.1:{port}
  default_backend gateways
backend gateways
  balance roundrobin
  option httpchk GET /health/ready
  timeout check 5s
  default-server check inter 200ms fall 1 rise 1
{servers}
"""
