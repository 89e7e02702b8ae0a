"""Who a client is, who is let in, and what is remembered of whom."""

import logging
import tracemalloc

import pytest
from fakes import FakeDepthClient
from running import RunningGateway
from starlette.requests import HTTPConnection
from starlette.testclient import TestClient

from service.app import create_app
from service.clients import Clients, Keys, RateLimit, hash_of, name_of, new_key
from service.errors import TooManyRequests, Unauthorized
from service.metrics import Metrics
from service.settings import Settings

KEY = "dl_an-example-of-a-key"


def connection(headers: dict[str, str] | None = None, address: str = "203.0.113.7") -> HTTPConnection:
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
    return HTTPConnection({"type": "http", "headers": raw, "client": (address, 4711)})


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("fe80::1%eth0", "fe80::/64"),
        (None, "unknown"),
        ("", "unknown"),
        ("_hidden", "unknown"),
        ("1.2.3.4\r\nX: y", "unknown"),
    ],
)
def test_one_client_has_one_name(address: str | None, name: str) -> None:
    assert name_of(address) == name


def test_a_key_names_its_holder_wherever_he_comes_from() -> None:
    who = Clients(Keys([hash_of(KEY), hash_of("other")]), None, Metrics())
    by_header = who.identify(connection({"X-API-Key": KEY}))
    by_bearer = who.identify(connection({"Authorization": f"bearer {KEY}"}, "198.51.100.1"))
    assert by_header == by_bearer == hash_of(KEY)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": "wrong"},
        {"X-API-Key": hash_of(KEY)},
        {"X-API-Key": "\xff" * 10_000},
        {"Authorization": "Bearer "},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": KEY},
        {"X-API-Key": "wrong", "Authorization": f"Bearer {KEY}"},
    ],
)
def test_without_a_key_that_opens_nobody_comes_in(headers: dict[str, str]) -> None:
    with pytest.raises(Unauthorized):
        Clients(Keys([hash_of(KEY)]), None, Metrics()).identify(connection(headers))


def test_keys_that_nobody_checks_are_no_names() -> None:
    who = Clients(Keys([]), None, Metrics())
    assert who.identify(connection({"X-API-Key": "1"})) == who.identify(connection({"X-API-Key": "2"}))


def test_a_key_instead_of_its_hash_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match="entry 2") as caught:
        Keys([hash_of(KEY), KEY])
    assert KEY not in str(caught.value)


def test_new_keys_are_long_and_never_the_same() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert min(map(len, keys)) >= 43


def test_rate_limit_gives_five_seconds_worth_then_its_rate() -> None:
    limit = RateLimit(2.0)
    for _ in range(10):
        limit.take("a", 1000.0)
    with pytest.raises(TooManyRequests) as caught:
        limit.take("a", 1000.0)
    assert caught.value.retry_after_s == pytest.approx(0.5)
    limit.take("b", 1000.0)
    limit.take("a", 1000.5)
    with pytest.raises(TooManyRequests):
        limit.take("a", 1000.5)
    for _ in range(10):
        limit.take("a", 5000.0)
    with pytest.raises(TooManyRequests):
        limit.take("a", 5000.0)


def test_a_limit_below_one_a_second_lets_single_requests_through() -> None:
    limit = RateLimit(0.1)
    limit.take("a", 1000.1)
    with pytest.raises(TooManyRequests):
        limit.take("a", 1000.1)
    limit.take("a", 1010.1)


def test_ever_new_addresses_take_no_more_room_than_ten_thousand() -> None:
    tracemalloc.start()
    try:
        limit = RateLimit(1.0)
        for index in range(20_000):
            limit.take(f"{index:06}", 0.0)
        before = tracemalloc.get_traced_memory()[0]
        for index in range(20_000, 100_000):
            limit.take(f"{index:06}", 0.0)
        assert tracemalloc.get_traced_memory()[0] - before < 100_000
    finally:
        tracemalloc.stop()
    assert len(limit) == 10_000
    limit.take("last", 10.0)
    assert len(limit) == 1  # those that are full again are forgotten


@pytest.mark.parametrize("path", ["/depth", "/segmentation", "/focus?x=1&y=1", "/focus?nonsense=1"])
def test_locked_routes(path: str, photo: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    settings = Settings(canary_period_s=60, api_key_hashes=(hash_of(KEY),))
    with TestClient(create_app(settings, FakeDepthClient())) as gateway:
        refused = gateway.post(path, content=photo)
        assert refused.status_code == 401
        assert refused.headers["WWW-Authenticate"] == "Bearer"
        assert refused.json()["code"] == "unauthorized"
        wrong = gateway.post(path, content=photo, headers={"X-API-Key": "guess-me"})
        assert wrong.status_code == 401
        given = gateway.post(path, content=photo, headers={"Authorization": f"Bearer {KEY}"})
        assert given.status_code in (200, 422)
        page = gateway.get("/metrics").text
    for secret in (KEY, hash_of(KEY), "guess-me"):
        assert secret not in caplog.text + page + wrong.text + refused.text


def test_models_is_locked_and_probes_never_are() -> None:
    settings = Settings(canary_period_s=60, api_key_hashes=(hash_of(KEY),), rate_limit_per_s=0.001)
    with TestClient(create_app(settings, FakeDepthClient())) as gateway:
        assert gateway.get("/models").status_code == 401
        assert gateway.get("/models", headers={"X-API-Key": KEY}).status_code == 200
        limited = gateway.get("/models", headers={"X-API-Key": KEY})
        assert limited.status_code == 429
        assert 900 < int(limited.headers["Retry-After"]) <= 1000
        assert limited.json()["code"] == "too_many_requests"
        for path in ("/health/live", "/metrics", "/docs", "/openapi.json"):
            for _ in range(3):
                assert gateway.get(path).status_code == 200, path
        assert gateway.get("/health/ready").status_code in (200, 503)


@pytest.mark.parametrize(
    ("trusted", "forwarded", "name"),
    [
        ((), ["198.51.100.9"], "127.0.0.1"),
        (("127.0.0.1",), [], "127.0.0.1"),
        (("127.0.0.1",), ["198.51.100.9"], "198.51.100.9"),
        (("127.0.0.0/8",), ["6.6.6.6, 198.51.100.9"], "198.51.100.9"),  # the first is what the client claims
        (("127.0.0.0/8",), ["6.6.6.6", "198.51.100.9"], "198.51.100.9"),
        (("127.0.0.1", "10.0.0.0/8"), ["6.6.6.6, 198.51.100.9, 10.1.2.3"], "198.51.100.9"),
        (("127.0.0.1",), ["2001:db8::1"], "2001:db8::/64"),
        (("127.0.0.1",), ["<script>"], "unknown"),
        (("192.0.2.1",), ["198.51.100.9"], "127.0.0.1"),
    ],
)
def test_only_trusted_proxies_say_who_the_client_is(
    trusted: tuple[str, ...], forwarded: list[str], name: str, photo: bytes
) -> None:
    running = RunningGateway(FakeDepthClient(), trusted_proxies=trusted)
    try:
        seen: list[str] = []
        gateway = running.app.state.gateway
        gateway.admission.check_room = lambda context: seen.append(context.client)
        lines = [f"X-Forwarded-For: {value}\r\n" for value in forwarded]
        head = (
            f"POST /depth HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{''.join(lines)}Content-Length: {len(photo)}\r\n"
        )
        assert running.say(head.encode() + b"\r\n" + photo).status == 200
        assert seen[0] == name
    finally:
        running.close()
