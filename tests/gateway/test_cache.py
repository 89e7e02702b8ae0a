from service.cache import ByteCache
from service.metrics import Metrics


def test_least_recently_used_leaves_first() -> None:
    cache = ByteCache(100, 60.0, Metrics())
    for name in "abc":
        cache.put("photo", name, name.upper(), 33)
    assert cache.get("photo", "a") == "A"
    cache.put("photo", "d", "D", 33)
    assert cache.get("photo", "b") is None
    assert [cache.get("photo", name) for name in "acd"] == ["A", "C", "D"]
    assert cache.used_bytes == 99


def test_replacing_an_entry_counts_its_bytes_once() -> None:
    cache = ByteCache(100, 60.0, Metrics())
    cache.put("photo", "a", 1, 40)
    cache.put("photo", "a", 2, 20)
    assert cache.get("photo", "a") == 2
    assert cache.used_bytes == 20


def test_kinds_do_not_collide() -> None:
    cache = ByteCache(100, 60.0, Metrics())
    cache.put("photo", "a", 1, 10)
    assert cache.get("scene", "a") is None


def test_one_huge_entry_does_not_empty_the_cache() -> None:
    cache = ByteCache(100, 60.0, Metrics())
    cache.put("photo", "small", 1, 10)
    cache.put("photo", "huge", 2, 101)
    assert cache.get("photo", "huge") is None
    assert cache.get("photo", "small") == 1


def test_zero_bytes_switch_it_off() -> None:
    cache = ByteCache(0, 60.0, Metrics())
    cache.put("photo", "a", 1, 1)
    assert cache.get("photo", "a") is None


def test_entries_grow_old() -> None:
    now = 0.0
    cache = ByteCache(100, 60.0, Metrics(), clock=lambda: now)
    cache.put("photo", "a", 1, 10)
    now = 59.0
    assert cache.get("photo", "a") == 1
    now = 61.0
    assert cache.get("photo", "a") is None
    assert cache.used_bytes == 0


def test_clearing_forgets_everything() -> None:
    cache = ByteCache(100, 60.0, Metrics())
    cache.put("photo", "a", 1, 10)
    cache.clear()
    assert cache.get("photo", "a") is None
    assert cache.used_bytes == 0


def test_one_value_under_several_keys_counts_once() -> None:
    cache = ByteCache(10_000, 60.0, Metrics())
    value = object()
    for name in "abc":
        assert cache.put("scene", name, value, 5000)
    assert cache.used_bytes == 5000 + 2 * 1024
    cache.put("scene", "d", object(), 4000)
    assert cache.get("scene", "a") is None, "the oldest key leaves, and with it its own kilobyte"
    assert cache.get("scene", "c") is value
    cache.clear()
    assert cache.used_bytes == 0


def test_an_entry_may_have_an_age_of_its_own() -> None:
    now = 0.0
    cache = ByteCache(100, 60.0, Metrics(), clock=lambda: now)
    cache.put("token", "a", 1, 10, max_age_s=5.0)
    cache.put("scene", "a", 2, 10)
    now = 6.0
    assert cache.get("token", "a") is None
    assert cache.get("scene", "a") == 2


def test_clearing_may_spare_a_kind() -> None:
    cache = ByteCache(100, 60.0, Metrics())
    cache.put("token", "a", 1, 10)
    cache.put("scene", "a", 2, 20)
    cache.clear(keep="token")
    assert (cache.get("token", "a"), cache.get("scene", "a")) == (1, None)
    assert cache.used_bytes == 10


def test_it_says_whether_it_kept() -> None:
    assert ByteCache(100, 60.0, Metrics()).put("a", 1, "x", 100)
    assert not ByteCache(100, 60.0, Metrics()).put("a", 1, "x", 101)
    assert not ByteCache(0, 60.0, Metrics()).put("a", 1, "x", 0)
