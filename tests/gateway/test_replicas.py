"""Several servers behind one client, on fakes: who is asked, who is asked next, and who is left alone."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import numpy as np
import pytest
from fakes import FakeDepthClient, encoded, picture
from starlette.testclient import TestClient

from service.addresses import HostPort, parse_list, resolve
from service.app import create_app
from service.breaker import FAILURES_TO_OPEN
from service.canary import Reason
from service.contract import CANARY_SIZE
from service.errors import (
    ContractViolation,
    DeadlineExceeded,
    DepthlensError,
    InvalidParameter,
    LastServer,
    ModelFailed,
    ModelUnavailable,
)
from service.hedging import Hedging
from service.inference import Prediction, ServedModel
from service.replicas import Replicas
from service.settings import Settings

IMAGE = np.zeros((32, 32, 3), np.uint8)
DEPTH, FOCUS = "focus_on_depth", "focus"


class Server(FakeDepthClient):
    """Answers, or raises what `trouble` has for the model asked; probes fail alike, unless `probed` says otherwise."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.address = address
        self.trouble: dict[str, DepthlensError] = {}
        self.probed: dict[str, DepthlensError] | None = None
        self.version = "1"
        self.served = 0
        self.probes = 0
        self.gate: asyncio.Event | None = None

    async def infer(self, model, image, *, outputs=None, timeout_s, request_id=None):  # type: ignore[no-untyped-def]
        probe = image.shape[:2] == CANARY_SIZE
        self.probes += probe
        self.served += not probe
        trouble = self.trouble if self.probed is None or not probe else self.probed
        if self.gate is not None and not probe:
            await self.gate.wait()
        if model in trouble:
            raise trouble[model]
        answer = await super().infer(model, image, outputs=outputs, timeout_s=timeout_s, request_id=request_id)
        return Prediction(answer.outputs, answer.model, self.version)


class Fleet:
    """Replicas over servers that come and go with `addresses`."""

    def __init__(self, *addresses: str, resolve_period_s: float | None = None) -> None:
        self.addresses: tuple[str, ...] | None = addresses
        self.servers: dict[str, Server] = {}
        self.changes = 0
        self.replicas = Replicas(
            self._resolve,
            self._connect,
            (DEPTH, DEPTH, FOCUS),
            canary_period_s=0.01,
            resolve_period_s=resolve_period_s,
            on_change=self._changed,
        )

    async def _resolve(self) -> tuple[str, ...] | None:
        return self.addresses

    def _connect(self, address: str) -> Server:
        self.servers[address] = Server(address)
        return self.servers[address]

    def _changed(self) -> None:
        self.changes += 1

    def __getitem__(self, address: str) -> Server:
        return self.servers[address]

    async def ask(self, model: str = DEPTH, timeout_s: float = 5.0) -> Prediction:
        return await self.replicas.infer(model, IMAGE, timeout_s=timeout_s)


def run(fleet: Fleet, scenario: Callable[[], Awaitable[None]], *, watched: bool = True) -> None:
    """Run the scenario with the canaries, from the moment all of them have answered."""

    async def whole() -> None:
        watch = asyncio.create_task(fleet.replicas.watch()) if watched else None
        try:
            if watched:
                await until(lambda: set(fleet.replicas.state().values()) == {Reason.OK})
            await scenario()
        finally:
            if watch is not None:
                watch.cancel()
                await asyncio.gather(watch, return_exceptions=True)
            await fleet.replicas.close()

    asyncio.run(whole())


async def until(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)


def test_equals_take_turns() -> None:
    fleet = Fleet("a", "b", "c")

    async def scenario() -> None:
        for _ in range(30):
            await fleet.ask()
        assert [server.served for server in fleet.servers.values()] == [10, 10, 10]

    run(fleet, scenario, watched=False)


def test_the_least_busy_is_asked() -> None:
    fleet = Fleet("a", "b")

    async def scenario() -> None:
        await fleet.ask()
        fleet["a"].gate = asyncio.Event()
        stuck = [asyncio.create_task(fleet.ask()) for _ in range(4)]
        await until(lambda: fleet.replicas.endpoints[0].inflight > 0)
        before = fleet["b"].served
        for _ in range(20):
            await fleet.ask()
        assert fleet["b"].served - before == 20
        fleet["a"].gate.set()
        await asyncio.gather(*stuck)
        assert all(endpoint.inflight == 0 for endpoint in fleet.replicas.endpoints)

    run(fleet, scenario, watched=False)


def test_what_one_server_loses_another_answers() -> None:
    fleet = Fleet("a", "b")

    async def scenario() -> None:
        await fleet.ask()
        fleet["a"].trouble = {DEPTH: ModelUnavailable("killed"), FOCUS: ModelUnavailable("killed")}
        for _ in range(50):
            await fleet.ask()
            await fleet.ask(FOCUS)
        # Both models' breakers opened after a few, and nobody asked that server again.
        assert 0 < fleet.replicas.retries <= 2 * FAILURES_TO_OPEN
        assert fleet["a"].served <= 2 * FAILURES_TO_OPEN + 1

    run(fleet, scenario, watched=False)


@pytest.mark.parametrize("error", [DeadlineExceeded("late"), ModelFailed("raised"), ContractViolation("shape")])
def test_what_another_server_would_not_do_better_is_not_tried_again(error: DepthlensError) -> None:
    fleet = Fleet("a", "b")

    async def scenario() -> None:
        await fleet.ask()
        for server in fleet.servers.values():
            server.trouble = {DEPTH: error}
        before = sum(server.served for server in fleet.servers.values())
        with pytest.raises(type(error)):
            await fleet.ask()
        assert sum(server.served for server in fleet.servers.values()) == before + 1
        assert fleet.replicas.retries == 0

    run(fleet, scenario, watched=False)


def test_one_retry_and_no_more() -> None:
    fleet = Fleet("a", "b", "c")

    async def scenario() -> None:
        await fleet.ask()
        for server in fleet.servers.values():
            server.trouble = {DEPTH: ModelUnavailable("killed")}
        before = sum(server.served for server in fleet.servers.values())
        with pytest.raises(ModelUnavailable):
            await fleet.ask()
        assert sum(server.served for server in fleet.servers.values()) == before + 2

    run(fleet, scenario, watched=False)


def test_the_second_try_has_what_is_left_of_the_deadline() -> None:
    fleet = Fleet("a", "b")
    given: list[float] = []

    async def scenario() -> None:
        await fleet.ask()

        async def slow_and_gone() -> None:
            given.append(1)
            if len(given) == 1:
                await asyncio.sleep(0.2)
                raise ModelUnavailable("killed")

        timeouts: list[float] = []
        for server in fleet.servers.values():
            server.hook = slow_and_gone
            plain = server.infer

            async def noted(*args, timeout_s, plain=plain, **kwargs):  # type: ignore[no-untyped-def]
                timeouts.append(timeout_s)
                return await plain(*args, timeout_s=timeout_s, **kwargs)

            server.infer = noted  # type: ignore[method-assign]
        await fleet.ask(timeout_s=3.0)
        assert timeouts[0] == pytest.approx(3.0, abs=0.1)
        assert timeouts[1] <= 2.81

    run(fleet, scenario, watched=False)


def test_a_server_that_hangs_costs_neither_its_request_nor_the_next() -> None:
    fleet = Fleet("a", "b")
    fleet.replicas._canary_period_s = 3600.0

    async def scenario() -> None:
        for _ in range(4):
            await fleet.ask()  # so that it is known how long an answer takes
        fleet["a"].gate = asyncio.Event()
        fleet["a"].probed = {DEPTH: DeadlineExceeded("hangs")}
        served = fleet["b"].served
        for _ in range(10):
            await fleet.ask(timeout_s=60.0)
        assert fleet.replicas.hedges == 1, "who has not answered comes last, until it does"
        assert fleet["b"].served == served + 10
        assert [endpoint.inflight for endpoint in fleet.replicas.endpoints] == [0, 0], "the late call is cancelled"
        fleet["a"].gate.set()
        fleet["a"].probed = None
        fleet.replicas.endpoints[0].watched[DEPTH].canary.wake()
        await until(lambda: fleet.replicas.endpoints[0].rank(DEPTH) == 0)

    run(fleet, scenario)


def test_when_all_servers_are_slow_the_work_is_not_doubled() -> None:
    fleet = Fleet("a", "b")

    async def scenario() -> None:
        for _ in range(4):
            await fleet.ask()
        for server in fleet.servers.values():
            server.gate = asyncio.Event()
        served = sum(server.served for server in fleet.servers.values())
        asking = [asyncio.create_task(fleet.ask(timeout_s=60.0)) for _ in range(40)]
        await until(lambda: fleet.replicas.hedges > 0)
        late = [asyncio.create_task(fleet.ask(timeout_s=60.0)) for _ in range(4)]
        await asyncio.sleep(0.6)  # long after all would have been asked anew
        assert sum(server.served for server in fleet.servers.values()) == served + 44 + fleet.replicas.hedges
        assert fleet.replicas.hedges <= 10
        for server in fleet.servers.values():
            server.gate.set()
        assert len(await asyncio.gather(*asking, *late)) == 44

    run(fleet, scenario, watched=False)


def test_patience_follows_the_answers_and_the_deadline() -> None:
    hedging = Hedging()
    assert hedging.patience_s("new", 10.0) == 5.0
    hedging.answered("slow", 0.5)
    assert hedging.patience_s("slow", 10.0) == pytest.approx(2.0)  # 4 x 0.5
    hedging.answered("slow", 1.5)  # the mean is 0.6 now
    assert hedging.patience_s("slow", 10.0) == pytest.approx(2.4)
    assert hedging.patience_s("slow", 3.1) == pytest.approx(2.4)
    assert hedging.patience_s("slow", 2.9) is None, "the second one would have 0.5 s of the 0.6 that it needs"
    hedging.answered("quick", 0.01)
    assert hedging.patience_s("quick", 10.0) == 0.25


def test_one_second_question_for_ten_answers() -> None:
    hedging = Hedging()
    assert [hedging.take() for _ in range(12)] == [True] * 10 + [False] * 2
    for _ in range(11):
        hedging.answered("any", 0.1)
    assert [hedging.take() for _ in range(2)] == [True, False]


def test_a_drained_server_ends_its_requests_and_gets_no_others() -> None:
    fleet = Fleet("a", "b")

    async def scenario() -> None:
        await fleet.ask()
        fleet["a"].gate = asyncio.Event()
        stuck = [asyncio.create_task(fleet.ask(timeout_s=0.6)) for _ in range(2)]  # too short to be put to another
        await until(lambda: fleet.replicas.endpoints[0].inflight == 1)
        draining = asyncio.create_task(fleet.replicas.drain("a"))
        await until(lambda: fleet.replicas.endpoints[0].drained)
        served = fleet["a"].served
        for _ in range(10):
            await fleet.ask()
        assert fleet["a"].served == served
        assert not draining.done()
        fleet["a"].gate.set()
        await asyncio.gather(*stuck)
        assert (await draining).inflight == 0
        with pytest.raises(LastServer):
            await fleet.replicas.drain("b")
        with pytest.raises(InvalidParameter):
            await fleet.replicas.drain("c")
        assert set(fleet.replicas.state().values()) == {Reason.OK}
        fleet.replicas.resume("a")
        for _ in range(4):
            await fleet.ask()
        assert fleet["a"].served > served

    run(fleet, scenario)


def test_a_lost_only_server_is_refused_at_once_until_a_probe_finds_it() -> None:
    fleet = Fleet("a")

    async def scenario() -> None:
        server = fleet["a"]
        server.trouble = {DEPTH: ModelUnavailable("killed"), FOCUS: ModelUnavailable("killed")}
        await until(lambda: Reason.OK not in fleet.replicas.state().values())
        served = server.served
        for _ in range(100):
            with pytest.raises(ModelUnavailable, match="Try again"):
                await fleet.ask()
        assert server.served == served, "users' requests do not try a lost server"
        server.trouble = {}
        await until(lambda: set(fleet.replicas.state().values()) == {Reason.OK})
        await fleet.ask()
        assert fleet.changes >= 1, "what comes back may be another version"

    run(fleet, scenario)


def test_users_failures_open_the_breaker_and_wake_the_canary() -> None:
    fleet = Fleet("a")
    fleet.replicas._canary_period_s = 3600.0

    async def scenario() -> None:
        server = fleet["a"]
        server.probed, server.trouble = {}, {DEPTH: ModelUnavailable("broken connection")}
        probes = server.probes
        for _ in range(FAILURES_TO_OPEN):
            with pytest.raises(ModelUnavailable):
                await fleet.ask()
        await until(lambda: server.probes > probes)  # at once, not after an hour
        await until(lambda: fleet.replicas.endpoints[0].rank(DEPTH) == 0)

    run(fleet, scenario)


def test_a_broken_model_takes_neither_its_server_nor_the_other_model_out() -> None:
    fleet = Fleet("a", "b")

    async def scenario() -> None:
        for server in fleet.servers.values():
            server.trouble = {FOCUS: ModelUnavailable("unloaded")}
        await until(lambda: fleet.replicas.state()[FOCUS] is Reason.UNAVAILABLE)
        assert fleet.replicas.state()[DEPTH] is Reason.OK
        for _ in range(10):
            await fleet.ask(DEPTH)
        with pytest.raises(ModelUnavailable):
            await fleet.ask(FOCUS)
        fleet["b"].trouble = {}
        await until(lambda: fleet.replicas.state()[FOCUS] is Reason.OK)
        served = fleet["a"].served
        for _ in range(10):
            await fleet.ask(FOCUS)
        assert fleet["a"].served == served

    run(fleet, scenario)


def test_wrong_values_are_asked_for_only_when_nobody_gives_right_ones() -> None:
    fleet = Fleet("a", "b")

    async def scenario() -> None:
        fleet["a"].trouble = {DEPTH: ModelFailed("NaN")}
        await until(lambda: fleet.replicas.endpoints[0].rank(DEPTH) == 1)
        served = fleet["a"].served
        for _ in range(10):
            await fleet.ask()
        assert fleet["a"].served == served
        fleet["b"].trouble = {DEPTH: ModelFailed("NaN")}
        await until(lambda: fleet.replicas.endpoints[1].rank(DEPTH) == 1)
        with pytest.raises(ModelFailed):
            await fleet.ask()

    run(fleet, scenario)


def test_another_version_empties_caches() -> None:
    fleet = Fleet("a")

    async def scenario() -> None:
        await fleet.ask()
        assert fleet.changes == 0
        fleet["a"].version = "2"
        await fleet.ask()
        await fleet.ask()
        assert fleet.changes == 1

    run(fleet, scenario)


def test_servers_follow_their_name() -> None:
    fleet = Fleet("a", resolve_period_s=0.01)

    async def scenario() -> None:
        first = fleet["a"]
        first.gate = asyncio.Event()
        begun = asyncio.create_task(fleet.ask())
        await until(lambda: first.served == 1)
        fleet.addresses = ("b", "c")
        await until(lambda: set(fleet.servers) == {"a", "b", "c"})
        for _ in range(4):
            await fleet.ask()
        assert (first.served, first.closed) == (1, False), "its request may end, no other comes"
        first.gate.set()
        await begun
        await until(lambda: first.closed)
        fleet.addresses = None  # nobody can say: the old ones stay
        await asyncio.sleep(0.05)
        await fleet.ask()
        assert [endpoint.address for endpoint in fleet.replicas.endpoints] == ["b", "c"]

    run(fleet, scenario)
    assert all(server.closed for server in fleet.servers.values())


def test_all_servers_models_are_listed_once() -> None:
    fleet = Fleet("a", "b")

    async def scenario() -> None:
        served = await fleet.replicas.served_models()
        assert sorted(entry.name for entry in served) == [FOCUS, DEPTH]
        assert await fleet.replicas.is_ready(FOCUS)

    run(fleet, scenario, watched=False)


@pytest.fixture
def two() -> Iterator[tuple[TestClient, dict[str, Server]]]:
    servers: dict[str, Server] = {}

    def connect(address: str) -> Server:
        return servers.setdefault(address, Server(address))

    settings = Settings(triton_url="127.0.0.1:1,127.0.0.1:2", canary_period_s=0.02, cache_bytes=0)
    with TestClient(create_app(settings, connect=connect), raise_server_exceptions=False) as client:
        yield client, servers


def poll(client: TestClient, wanted: dict[str, str]) -> int:
    """Until readiness says this of the models; its status."""
    for _ in range(2000):
        answer = client.get("/health/ready")
        if answer.json().get("models") == wanted:
            return answer.status_code
    raise AssertionError(answer.text)


def test_the_routes_of_a_broken_model_and_the_others(two: tuple[TestClient, dict[str, Server]]) -> None:
    client, servers = two
    photo = encoded(picture())
    assert poll(client, {DEPTH: "ok", FOCUS: "ok"}) == 200
    for server in servers.values():
        server.trouble = {FOCUS: ModelUnavailable("unloaded")}
    assert poll(client, {DEPTH: "ok", FOCUS: "unavailable"}) == 200
    assert client.get("/health/ready").json()["status"] == "degraded"
    assert 'depthlens_model_up{model="focus"} 0.0' in client.get("/metrics").text
    refused = client.post("/focus?x=1&y=1", content=photo)
    assert (refused.status_code, refused.json()["code"]) == (503, "model_unavailable")
    assert refused.headers["retry-after"] == "1"
    assert client.post("/depth", content=photo).status_code == 200
    for server in servers.values():
        server.trouble = {FOCUS: ModelUnavailable("killed"), DEPTH: ModelUnavailable("killed")}
    assert poll(client, {DEPTH: "unavailable", FOCUS: "unavailable"}) == 503
    servers["127.0.0.1:2"].trouble = {}
    assert poll(client, {DEPTH: "ok", FOCUS: "ok"}) == 200
    assert client.post("/depth", content=photo).status_code == 200


def test_a_lost_server_costs_no_request(two: tuple[TestClient, dict[str, Server]]) -> None:
    client, servers = two
    photo = encoded(picture())
    poll(client, {DEPTH: "ok", FOCUS: "ok"})
    servers["127.0.0.1:1"].trouble = {FOCUS: ModelUnavailable("killed"), DEPTH: ModelUnavailable("killed")}
    assert {client.post("/depth", content=photo).status_code for _ in range(20)} == {200}


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("triton:8001", [HostPort("triton", 8001)]),
        ("a:1, b:2,a:1", [HostPort("a", 1), HostPort("b", 2)]),
        ("[::1]:8001,127.0.0.1:8001", [HostPort("::1", 8001), HostPort("127.0.0.1", 8001)]),
    ],
)
def test_lists_of_addresses(text: str, entries: list[HostPort]) -> None:
    assert list(parse_list(text)) == entries
    assert parse_list(",".join(map(str, entries))) == tuple(entries)


@pytest.mark.parametrize(
    "text", ["", "triton", "triton:", ":8001", "triton:0", "triton:99999", "http://a:1", "a:1,,b:2"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        parse_list(text)
    with pytest.raises(ValueError, match="host:port"):
        Settings(triton_url=text)


def test_names_become_addresses() -> None:
    assert asyncio.run(resolve(parse_list("localhost:7,127.0.0.1:7,[::1]:8"))) == ("127.0.0.1:7", "[::1]:8")
    assert asyncio.run(resolve(parse_list("no-such-host.invalid:7"))) is None


def test_many_who_ask_what_is_served_cost_one_question() -> None:
    async def test() -> None:
        asked = 0
        go = asyncio.Event()

        class Slow(FakeDepthClient):
            async def served_models(self) -> list[ServedModel]:
                nonlocal asked
                asked += 1
                await go.wait()
                return [ServedModel("focus", "1", True)]

        async def one() -> tuple[str, ...]:
            return ("one",)

        replicas = Replicas(one, lambda _: Slow(), ("focus",))
        asking = [asyncio.create_task(replicas.served_models()) for _ in range(50)]
        await asyncio.sleep(0)
        asking[0].cancel()  # who leaves takes no answer from the others
        await asyncio.sleep(0)
        go.set()
        answers = await asyncio.gather(*asking[1:])
        assert answers == [[ServedModel("focus", "1", True)]] * 49
        assert asked == 1
        await replicas.served_models()
        assert asked == 2
        await replicas.close()

    asyncio.run(test())
