"""F5, F9c, F12, F13: more work than can be done, and one client that wants all of it."""

import asyncio
import secrets
from collections.abc import Mapping

from service.clients import hash_of
from tests.support.load import Load, Stream, load

from .arena import Arena, Gateway, total, until
from .fault import Unmet, fault
from .pictures import PHOTO, photo
from .wire import Answer, head

_SLOW_S = 0.8
_DEADLINE_S = 2.5
_MODEL_S = 0.2
_PLACES = 1
"""The puppet works on one photo at a time: a second place would only make every answer take twice as long."""
_BUDGET_S = 0.5
_OVERLOAD = 10


@fault(
    "F5a",
    "the model becomes slow, 0.8 s instead of nothing; 16 requests come within 0.8 s",
    expected="all but those in work are answered 503 within the queue budget of 0.3 s, not at their deadline of 2.5 s",
    without="wait-bound",
    fast=True,
)
async def slow_model(arena: Arena) -> str:
    budget_s = 0.3
    triton, puppet = await arena.puppet()
    gateway = await arena.gateway(triton, max_inflight=2, max_wait_s=budget_s, cache_bytes=0)
    for _ in range(5):
        (await _photo(gateway)).expect(200)
    puppet.tell(delay_s=_SLOW_S)
    try:
        asked = []
        for _ in range(16):
            asked.append(asyncio.create_task(_photo(gateway)))
            await asyncio.sleep(0.05)
        answers = await asyncio.gather(*asked)
    finally:
        puppet.tell()
    done = [answer for answer in answers if answer.status == 200]
    shed = [answer for answer in answers if answer.status == 503]
    if len(done) + len(shed) != len(answers) or not done:
        raise Unmet(f"{len(done)} answered, {len(shed)} shed, {len(answers) - len(done) - len(shed)} neither")
    slowest_s = max(answer.seconds for answer in shed)
    if slowest_s > budget_s + arena.limit(0.2):
        raise Unmet(f"shed after up to {slowest_s:.2f} s")
    if any(int(answer.headers.get("retry-after", 0)) < 1 for answer in shed):
        raise Unmet("shed without Retry-After")
    return f"{len(done)} answered, {len(shed)} shed after at most {slowest_s:.2f} s"


async def _photo(gateway: Gateway) -> Answer:
    return await gateway.ask("POST", "/depth", PHOTO, {"X-Request-Timeout": str(_DEADLINE_S)})


@fault(
    "F5b",
    "a model that holds; a request with a deadline of 1 s in work, one with 0.5 s behind it in the queue",
    expected="504 at their deadlines +- 10 %, saying where the time went; the model hears of it; gauges 0",
    without="deadline",
    fast=True,
)
async def deadlines(arena: Arena) -> str:
    triton, puppet = await arena.puppet()
    gateway = await arena.gateway(triton, max_inflight=1, max_wait_s=3)
    puppet.tell(holds=True)
    try:
        first = asyncio.create_task(_impatient(gateway, 1.0))
        await until(lambda: bool(puppet.notes("begun")), 5.0, "a request at the model")
        second = asyncio.create_task(_impatient(gateway, 0.5))
        answers = await asyncio.gather(second, first)
        await until(lambda: bool(puppet.notes("cancelled")), arena.limit(0.5), "a cancelled inference")
    finally:
        puppet.tell()
    late = list(zip(answers, (0.5, 1.0), ("queue", "infer"), strict=True))
    for answer, deadline_s, stage in late:
        answer.expect(504, code="deadline_exceeded")
        off_s = abs(answer.seconds - deadline_s)
        if off_s > arena.limit(0.1 * deadline_s + 0.05) or answer.problem["stage"] != stage:
            raise Unmet(f"504 during {answer.problem['stage']} after {answer.seconds:.2f} s of {deadline_s:g}")
    await _empty(gateway)
    if len(puppet.notes("begun")) != 1:
        raise Unmet("the model was asked for the one that never had a place")
    return ", ".join(f"504 during {stage} after {answer.seconds:.2f} s" for answer, _, stage in late)


async def _impatient(gateway: Gateway, deadline_s: float) -> Answer:
    return await gateway.ask("POST", "/depth", PHOTO, {"X-Request-Timeout": str(deadline_s)}, timeout_s=2)


async def _empty(gateway: Gateway) -> None:
    async def gone() -> bool:
        page = await gateway.metrics()
        return not any(total(page, f"depthlens_{name}") for name in ("inflight", "waiting", "upload_bytes"))

    await until(gone, 5.0, "gauges at 0")


@fault(
    "F9c",
    "12 clients leave while they wait for a place",
    expected="their turns and their photos' memory are free within 100 ms; the model never sees them",
    without="cancellation",
    fast=True,
)
async def leave_while_waiting(arena: Arena) -> str:
    triton, puppet = await arena.puppet()
    gateway = await arena.gateway(triton, max_inflight=1, max_wait_s=30)
    puppet.tell(holds=True)
    try:
        working = await gateway.connect()
        await working.send(head("POST", "/depth", len(PHOTO)) + PHOTO)
        await until(lambda: bool(puppet.notes("begun")), 5.0, "a request at the model")
        leavers = [await gateway.connect() for _ in range(12)]
        for wire in leavers:
            await wire.send(head("POST", "/depth", len(PHOTO)) + PHOTO)

        async def waiting(count: int) -> bool:
            return await gateway.metric("depthlens_waiting") == count

        await until(lambda: waiting(12), 5.0, "12 that wait")
        for wire in leavers:
            wire.leave()
        gone_s = await until(lambda: waiting(0), arena.limit(0.5), "an empty queue")
    finally:
        puppet.tell()
    (await working.answer()).expect(200)
    (await gateway.ask("POST", "/depth", photo(1))).expect(200)
    await _empty(gateway)
    if len(puppet.notes("begun")) != 2:
        raise Unmet(f"the model saw {len(puppet.notes('begun'))} photos of 2")
    if gone_s > arena.limit(0.1):
        raise Unmet(f"gone after {gone_s * 1000:.0f} ms")
    return f"queue empty after {gone_s * 1000:.0f} ms, the model saw 2 photos of 14"


@fault(
    "F12",
    "ten times the load that can be served, in open loop for 8 s",
    expected="goodput >= 90 % of capacity, p99 of accepted <= 2 x unloaded p99 + budget, shed in < 10 ms (median)",
    without="admission",
    timeout_s=90,
)
async def overload(arena: Arena) -> str:
    triton, puppet = await arena.puppet()
    gateway = await arena.gateway(
        triton, max_inflight=_PLACES, max_wait_s=_BUDGET_S, cache_bytes=0, log_level="warning"
    )
    url = f"http://127.0.0.1:{gateway.port}/depth"
    puppet.tell(delay_s=_MODEL_S)
    try:
        alone = await _load(Stream(url, seconds=3))
        before = await _capacity(url)
        clients = [{"X-Request-Timeout": "2"}]
        over = await _load(Stream(url, seconds=8, rate=_OVERLOAD * before, vus=500, clients=clients, timeout_s=5))
        capacity = (before + await _capacity(url)) / 2  # the machine may be busy with other things, more or less
    finally:
        puppet.tell()
    goodput = over.ok.count / over.seconds / capacity
    allowed_ms = 2 * alone.ok.p99_ms + _BUDGET_S * 1000
    seen = (
        f"capacity {capacity:.1f}/s, goodput {goodput:.0%}, p99 of accepted {over.ok.p99_ms:.0f} ms "
        f"(unloaded {alone.ok.p99_ms:.0f}, allowed {allowed_ms:.0f}), "
        f"{over.shed.count} shed in {over.shed.median_ms:.1f} ms"
    )
    faults = [
        goodput < 0.9,
        over.ok.p99_ms > arena.limit(allowed_ms),
        over.shed.count == 0 or over.shed.median_ms > arena.limit(10),
        over.failed.count > 0,
        over.unhelpful > 0,
        over.unsent > 0.01 * over.sent,
    ]
    if any(faults):
        raise Unmet(f"{seen}; {over.failed.count} failed, {over.unsent} not sent, {over.unhelpful} without Retry-After")
    await _empty(gateway)
    return seen


async def _capacity(url: str, client: Mapping[str, str] | None = None) -> float:
    full = await _load(Stream(url, seconds=3, vus=_PLACES + 1, clients=[client or {}]))
    return full.ok.count / full.seconds


async def _load(stream: Stream) -> Load:
    return (await load(PHOTO, {"one": stream}))["one"]


@fault(
    "F13",
    "one client asks for ten times the capacity, nine for nine tenths of their share each, 8 s",
    expected="the nine get >= 90 % of what they ask for; the greedy one gets the rest, and 429 or 503",
    without="fair-share",
    timeout_s=90,
)
async def greedy_client(arena: Arena) -> str:
    triton, puppet = await arena.puppet()
    keys = [secrets.token_urlsafe(32) for _ in range(10)]
    gateway = await arena.gateway(
        triton,
        max_inflight=_PLACES,
        max_wait_s=2.0,
        cache_bytes=0,
        log_level="warning",
        api_key_hashes=",".join(map(hash_of, keys)),
    )
    url = f"http://127.0.0.1:{gateway.port}/depth"
    greedy, *modest = [{"X-API-Key": key, "X-Request-Timeout": "4"} for key in keys]
    puppet.tell(delay_s=_MODEL_S)
    try:
        capacity = await _capacity(url, greedy)
        rate = 0.9 * 0.9 * capacity
        seen = await load(
            PHOTO,
            {
                "modest": Stream(url, seconds=8, rate=rate, vus=100, clients=modest, timeout_s=5),
                "greedy": Stream(url, seconds=8, rate=10 * capacity, vus=400, clients=[greedy], timeout_s=5),
            },
        )
    finally:
        puppet.tell()
    share = seen["modest"].ok.count / seen["modest"].sent
    rest = seen["greedy"].ok.count / seen["greedy"].sent
    said = (
        f"capacity {capacity:.1f}/s; the nine got {share:.0%} of {seen['modest'].sent}, "
        f"p99 {seen['modest'].ok.p99_ms:.0f} ms; the greedy one {rest:.0%} of {seen['greedy'].sent}"
    )
    if share < 0.9 or seen["greedy"].failed.count or seen["modest"].failed.count:
        raise Unmet(said)
    return said
