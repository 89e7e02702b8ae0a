"""F5, F12, F13: more work than can be done, and one client that wants all of it."""

import asyncio
import secrets

from service.clients import hash_of
from tests.support.load import Load, Stream, load

from .arena import Arena, Gateway, until
from .fault import Unmet, fault
from .pictures import PHOTO
from .wire import Answer

_SLOW_S = 1.0
_DEADLINE_S = 4.0
_MODEL_S = 0.1
_PLACES = 1
"""The puppet works on one photo at a time: a second place would only make every answer take twice as long."""
_BUDGET_S = 0.5
_OVERLOAD = 10


@fault(
    "F5",
    "the model becomes slow, 1 s instead of nothing; 24 requests come within 1.2 s",
    expected="all but those in work are answered 503 within the queue budget of 0.3 s, not at their deadline of 4 s",
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
        for _ in range(24):
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
        alone = await _load(Stream(url, seconds=4))
        full = await _load(Stream(url, seconds=4, vus=_PLACES + 1))
        capacity = full.ok.count / full.seconds
        clients = [{"X-Request-Timeout": "2"}]
        over = await _load(Stream(url, seconds=8, rate=_OVERLOAD * capacity, vus=500, clients=clients, timeout_s=5))
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

    async def empty() -> bool:
        return await gateway.metric("depthlens_inflight") == 0 and await gateway.metric("depthlens_waiting") == 0

    await until(empty, 5.0, "gauges at 0")
    return seen


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
        max_wait_s=1.0,
        cache_bytes=0,
        log_level="warning",
        api_key_hashes=",".join(map(hash_of, keys)),
    )
    url = f"http://127.0.0.1:{gateway.port}/depth"
    greedy, *modest = [{"X-API-Key": key, "X-Request-Timeout": "2"} for key in keys]
    puppet.tell(delay_s=_MODEL_S)
    try:
        full = await _load(Stream(url, seconds=4, vus=_PLACES + 1, clients=[greedy]))
        capacity = full.ok.count / full.seconds
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
