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
