"""F1 to F8, F28: the model server is absent, killed, hung, wrong, out of reach or somewhere else."""

import os
import signal
import socket
import time
from pathlib import Path

from .arena import Arena, Gateway, until
from .fault import Skip, Unmet, fault
from .operator import administered
from .pictures import PHOTO, photo
from .process import Process, descendants
from .relay import Relay
from .steady import Steady
from .wire import Answer, head

_SERVER, _STUB = "tritonserver", "triton_python_b"
"""Names of processes as the kernel keeps them, cut after 15 letters."""


@fault(
    "F1",
    "Triton absent at start, there 3 s later",
    expected="up within 2 s, live 200, ready 503, photos 503 with Retry-After within 50 ms; ready 1 s after Triton",
    without="canary",
    fast=True,
)
async def absent_at_start(arena: Arena) -> str:
    triton = await arena.triton()
    await arena.gateway(triton)  # the first row: else a cold disk is measured
    port = free_port()
    start = time.monotonic()
    gateway = await arena.gateway(f"127.0.0.1:{port}", ready=False)
    up_s = time.monotonic() - start
    (await gateway.ask("GET", "/health/live")).expect(200)
    (await gateway.ask("GET", "/health/ready")).expect(503, code="model_unavailable")
    refused = [(await _photo(gateway, number)).expect(503, code="model_unavailable") for number in range(10)]
    slowest_s = max(answer.seconds for answer in refused)
    if not all(answer.headers.get("retry-after") for answer in refused):
        raise Unmet("503 without Retry-After")
    while time.monotonic() < start + 3.0:
        (await gateway.ask("GET", "/health/ready")).expect(503)
    async with await Relay.open(triton.ports.grpc, at=port):
        found_s = await whole(gateway, arena.limit(1.0))
        (await _photo(gateway)).expect(200)
    if up_s > arena.limit(2.0) or slowest_s > arena.limit(0.05):
        raise Unmet(f"up after {up_s:.2f} s, refused after {slowest_s * 1000:.0f} ms")
    return f"up after {up_s:.1f} s, refused within {slowest_s * 1000:.0f} ms, ready {found_s:.2f} s after Triton"


@fault(
    "F2",
    "kill -9 of the only Triton with 4 requests in work",
    expected="503 within 100 ms for them, nobody hangs; the next refused within 50 ms; ready 1 s after Triton is back",
    without="error-mapping",
)
async def killed(arena: Arena) -> str:
    triton, puppet = await arena.puppet(own=True, instances=4)
    gateway = await arena.gateway(triton)
    puppet.tell(holds=True)
    wires = [await gateway.connect() for _ in range(4)]
    for number, wire in enumerate(wires):
        await wire.send(_request(photo(number)))
    await until(lambda: len(puppet.notes("begun")) == 4, 10.0, "4 requests at the model")
    dead = time.monotonic()
    _kill(triton, _SERVER)
    answers = [(await wire.answer(5.0)).expect(503, code="model_unavailable") for wire in wires]
    told_s = time.monotonic() - dead
    puppet.tell()
    after = [(await _photo(gateway, 9)).expect(503, code="model_unavailable") for _ in range(5)]
    slowest_s = max(answer.seconds for answer in after)
    if any("retry-after" not in answer.headers for answer in [*answers, *after]):
        raise Unmet("503 without Retry-After")
    await until(lambda: "answers again" in triton.text(), 30.0, "a Triton that is back")
    back_s = await whole(gateway, arena.limit(1.0))
    (await _photo(gateway, 9)).expect(200)
    if told_s > arena.limit(0.1) or slowest_s > arena.limit(0.05):
        raise Unmet(f"told after {told_s * 1000:.0f} ms, then refused after {slowest_s * 1000:.0f} ms")
    return (
        f"4 of 4 told within {told_s * 1000:.0f} ms, then refused within {slowest_s * 1000:.0f} ms, "
        f"ready {back_s:.2f} s after Triton"
    )


@fault("F3", "kill -9 of one of two Tritons under load", expected="0 failed", without="retry")
async def one_of_two_killed(arena: Arena) -> str:
    tritons = [await arena.triton(own=True, ready=False) for _ in range(2)]
    for triton in tritons:
        await triton.ready()
    gateway = await arena.gateway(tritons, **PATIENT)
    async with Steady(gateway.port, 40) as users:
        await users.until_sent(100)
        _kill(tritons[0], _SERVER)
        await users.until_sent(400)
        await until(lambda: "answers again" in tritons[0].text(), 30.0, "a Triton that is back")
        await users.until_sent(users.sent + 80)
    users.check()
    return f"{users.summary()}; {await gateway.metric('depthlens_retries_total'):g} tried twice"


@fault(
    "F4",
    "Triton hangs (SIGSTOP), goes on after a while (SIGCONT)",
    expected="504 at the deadline of 2 s +- 10 %, soon 503 within 50 ms and ready 503; ready again within 1 s",
    without="canary",
)
async def hung(arena: Arena) -> str:
    triton = await arena.triton()
    gateway = await arena.gateway(triton)
    (await _photo(gateway)).expect(200)
    server = process_below(triton, _SERVER)
    os.kill(server, signal.SIGSTOP)
    try:
        late = (await _photo(gateway, 1, deadline_s=2.0)).expect(504, code="deadline_exceeded")
        unready_s = await _until_status(gateway, 503, arena.limit(6.0))
        refused = (await _photo(gateway, 2)).expect(503, code="model_unavailable")
    finally:
        os.kill(server, signal.SIGCONT)
    back_s = await whole(gateway, arena.limit(1.0))
    (await _photo(gateway, 3)).expect(200)
    if abs(late.seconds - 2.0) > arena.limit(0.2) or refused.seconds > arena.limit(0.05):
        raise Unmet(f"504 after {late.seconds:.2f} s, 503 after {refused.seconds * 1000:.0f} ms")
    return (
        f"504 after {late.seconds:.2f} s, not ready {unready_s:.1f} s later, then 503 within "
        f"{refused.seconds * 1000:.0f} ms, ready {back_s:.2f} s after SIGCONT"
    )


@fault(
    "F4b",
    "one of two Tritons hangs (SIGSTOP) under load, each request with a deadline of 8 s, then goes on",
    expected="0 failed: the other one answers, within 2 s",
    without="hedging",
    timeout_s=120.0,
)
async def one_of_two_hung(arena: Arena) -> str:
    tritons = [await arena.triton(own=True, ready=False) for _ in range(2)]
    for triton in tritons:
        await triton.ready()
    gateway = await arena.gateway(tritons, max_inflight=16, **PATIENT)  # a place for all of them: none is shed
    server = process_below(tritons[0], _SERVER)
    async with Steady(gateway.port, 20, deadline_s=8.0) as users:
        await users.until_sent(60)
        os.kill(server, signal.SIGSTOP)
        try:
            await users.until_sent(users.sent + 120)
        finally:
            os.kill(server, signal.SIGCONT)
        await users.until_sent(users.sent + 40)
    users.check()
    hedges = await gateway.metric("depthlens_hedges_total")
    if hedges < 1 or max(users.seconds) > arena.limit(2.0):
        raise Unmet(f"{hedges:g} put to the other one as well, longest {max(users.seconds):.1f} s")
    return f"{users.summary()}; {hedges:g} put to the other one as well"


@fault(
    "F6a",
    "the ensemble is unloaded",
    expected="503 on its route, 200 on the others, ready 200 and saying which model is not",
    without="own-readiness",
)
async def one_model_unloaded(arena: Arena) -> str:
    gateway, operate = await administered(arena)
    (await operate("focus/unload")).expect(200)

    async def noticed() -> bool:
        answer = (await gateway.ask("GET", "/health/ready")).expect(200)
        return b'"focus":"unavailable"' in answer.body

    noticed_s = await until(noticed, 5.0, "a readiness that names the ensemble")
    (await gateway.ask("POST", "/focus?x=1&y=1", PHOTO)).expect(503, code="model_unavailable")
    for route in ("/depth", "/segmentation"):
        (await gateway.ask("POST", route, PHOTO)).expect(200)
    return f"noticed after {noticed_s:.1f} s; /focus 503, /depth and /segmentation 200"


@fault(
    "F6b",
    "the model raises",
    expected="502, ready 503 naming the models, 200 again as soon as it works",
    without="error-mapping",
    fast=True,
)
async def failing(arena: Arena) -> str:
    return await _wrong(arena, fails=True)


@fault(
    "F6c",
    "the model answers NaN",
    expected="502, ready 503, 200 again as soon as it works",
    without="finite",
    fast=True,
)
async def not_numbers(arena: Arena) -> str:
    return await _wrong(arena, nan=True)


async def _wrong(arena: Arena, **strings: bool) -> str:
    triton, puppet = await arena.puppet()
    gateway = await arena.gateway(triton, cache_bytes=0)
    puppet.tell(canary=True, **strings)
    try:
        (await _photo(gateway)).expect(502, code="model_failed")
        unready_s = await _until_status(gateway, 503, 5.0)
        (await _photo(gateway)).expect(502, code="model_failed")
    finally:
        puppet.tell()
    back_s = await whole(gateway, arena.limit(2.0))
    (await _photo(gateway)).expect(200)
    return f"502; not ready after {unready_s:.1f} s, ready {back_s:.1f} s after it works"


@fault(
    "F7",
    "the model's process is killed, which Triton does not notice",
    expected="found within 5 s, answering again within 10 s, counted in depthlens_triton_restarts_total",
    without="healing",
)
async def stub_killed(arena: Arena) -> str:
    gateway = await arena.gateway(embedded=True, cache_bytes=0)
    (await _photo(gateway)).expect(200)
    dead = time.monotonic()
    _kill(gateway, _STUB)
    found_s = await _until_status(gateway, 503, arena.limit(5.0))
    await whole(gateway, arena.limit(10.0) - found_s)
    (await _photo(gateway)).expect(200)
    healed_s = time.monotonic() - dead
    counted = await gateway.metric("depthlens_triton_restarts_total", kind="reload")
    if healed_s > arena.limit(10.0) or counted < 1:
        raise Unmet(f"healed after {healed_s:.1f} s, counted {counted:g}")
    return f"found after {found_s:.1f} s, answering after {healed_s:.1f} s, counted {counted:g}"


@fault(
    "F8",
    "the network swallows everything on the connection to Triton; a new connection would be good",
    expected="504 at the deadline of 2 s +- 10 %, then 503 within 50 ms; a new connection and ready within 12 s",
    without="keepalive",
)
async def blackhole(arena: Arena) -> str:
    triton = await arena.triton()
    async with await Relay.open(triton.ports.grpc) as relay:
        gateway = await arena.gateway(relay.url, cache_bytes=0)
        relay.lose()
        lost = time.monotonic()
        late = (await _photo(gateway, 1, deadline_s=2.0)).expect(504, code="deadline_exceeded")
        await _until_status(gateway, 503, arena.limit(6.0))
        refused = (await _photo(gateway, 2)).expect(503, code="model_unavailable")
        await whole(gateway, arena.limit(12.0) - (time.monotonic() - lost))
        healed_s = time.monotonic() - lost
        (await _photo(gateway, 3)).expect(200)
    if abs(late.seconds - 2.0) > arena.limit(0.2) or refused.seconds > arena.limit(0.05):
        raise Unmet(f"504 after {late.seconds:.2f} s, 503 after {refused.seconds * 1000:.0f} ms")
    return (
        f"504 after {late.seconds:.2f} s, then 503 within {refused.seconds * 1000:.0f} ms, "
        f"connected anew {healed_s:.1f} s after the loss"
    )


@fault(
    "F28a",
    "Triton's name stands for another address",
    expected="the new address is found and asked within 30 s",
    without="lookups",
)
async def moved(arena: Arena) -> str:
    if os.geteuid() != 0:
        raise Skip("an /etc/hosts of its own needs root")
    triton = await arena.triton()
    hosts = arena.directory / "hosts"
    hosts.write_text("127.0.0.2 triton.test\n")
    own_hosts = ["unshare", "--mount", "sh", "-c", f'mount --bind {hosts} /etc/hosts && exec "$@"', "sh"]
    async with await Relay.open(triton.ports.grpc, "127.0.0.2") as old:
        gateway = await arena.gateway(f"triton.test:{old.port}", under=own_hosts, cache_bytes=0)
        async with await Relay.open(triton.ports.grpc, "127.0.0.3", old.port) as new:
            hosts.write_text("127.0.0.3 triton.test\n")
            start = time.monotonic()
            await until(lambda: new.sent_bytes > 0, arena.limit(15.0), "a connection to the new address")
            found_s = time.monotonic() - start
            await old.__aexit__(None, None, None)
            for number in range(10):
                (await _photo(gateway, number)).expect(200)
    return f"the new address asked after {found_s:.1f} s, with the old one gone 10 of 10 answered"


@fault(
    "F28b",
    "the clock jumps a day ahead while one request is in work and one waits, each with a deadline of 10 s",
    expected="both answered 200, ready as before",
    without="monotonic",
)
async def clock_jump(arena: Arena) -> str:
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None:
        raise Skip("no libfaketime (Debian package faketime)")
    triton, puppet = await arena.puppet()
    clock = arena.directory / "clock"
    clock.write_text("+0")
    fake = [
        "env",
        f"LD_PRELOAD={library}",
        f"FAKETIME_TIMESTAMP_FILE={clock}",
        "FAKETIME_NO_CACHE=1",
        "FAKETIME_DISABLE_SHM=1",
    ]
    gateway = await arena.gateway(
        triton, under=[*fake, "FAKETIME_DONT_FAKE_MONOTONIC=1"], cache_bytes=0, max_inflight=1
    )
    puppet.tell(holds=True)
    try:
        wires = [await gateway.connect() for _ in range(2)]
        for number, wire in enumerate(wires):
            await wire.send(_request(photo(number), deadline_s=10.0))

        async def waiting() -> bool:
            return await gateway.metric("depthlens_waiting") == 1

        await until(waiting, 5.0, "a request that waits")
        clock.write_text("+1d")
        tomorrow = time.strftime("%Y-%m-%d", time.localtime(time.time() + 86_400))

        async def jumped() -> bool:
            await gateway.ask("GET", "/health/live")
            return tomorrow in gateway.text()

        await until(jumped, 5.0, "a gateway whose log has the next day's date")
    finally:
        puppet.tell()
        for left in Path("/dev/shm").glob(f"*faketime_*_{gateway.pid}"):
            left.unlink()
    for wire in wires:
        (await wire.answer(15.0)).expect(200)
    (await gateway.ask("GET", "/health/ready")).expect(200)
    return "both 200, ready, with the next day's date in the log"


PATIENT = {"cache_bytes": 0, "max_waiting": 5000, "max_wait_s": 60}
"""Settings for rows about what is lost, on machines that are busy: every request is a new inference, none is shed."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def process_below(root: Process, name: str) -> int:
    found = [pid for pid, command in descendants(root.pid).items() if command == name]
    assert len(found) == 1, f"{len(found)} processes called {name}"
    return found[0]


def _kill(root: Process, name: str) -> None:
    os.kill(process_below(root, name), signal.SIGKILL)


def _request(body: bytes, deadline_s: float = 30.0) -> bytes:
    return head("POST", "/depth", len(body), {"X-Request-Timeout": f"{deadline_s:g}"}) + body


async def _photo(gateway: Gateway, number: int = 0, deadline_s: float = 30.0) -> Answer:
    return await gateway.ask("POST", "/depth", photo(number), {"X-Request-Timeout": f"{deadline_s:g}"})


async def whole(gateway: Gateway, within_s: float) -> float:
    """Seconds until every model behind the routes answers."""

    async def answers() -> bool:
        answer = await gateway.ask("GET", "/health/ready")
        return answer.status == 200 and b'"ready"' in answer.body

    return await until(answers, within_s, "readiness of every model")


async def _until_status(gateway: Gateway, status: int, within_s: float) -> float:
    async def answers() -> bool:
        return (await gateway.ask("GET", "/health/ready")).status == status

    return await until(answers, within_s, f"readiness {status}")
