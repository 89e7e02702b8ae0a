"""What clients send cannot look like a record of ours, nor fill the disk, nor make new metrics."""

import logging
import re

import pytest
from starlette.testclient import TestClient

from service.logs import SafeFormatter

RECORD = re.compile(r"\d{4}-\d\d-\d\d ")


def line(message: str, *arguments: object, error: Exception | None = None) -> str:
    info = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord("depthlens", logging.INFO, "here", 1, message, arguments, info)
    return SafeFormatter("%(asctime)s %(message)s").format(record)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\x85", "\u2028", "\u2029", "\x0b", "\x0c"])
def test_a_forged_record_does_not_begin_a_line(end: str) -> None:
    text = line("asked for %s", f"x{end}2026-11-21 00:00:00 all is well")
    assert len([part for part in text.splitlines() if RECORD.match(part)]) == 1
    assert "all is well" in text


def test_control_characters_are_shown_and_do_nothing() -> None:
    assert line("%s", "\x1b[2J\x07\x00\u202e\x9b").endswith(r"\x1b[2J\x07\x00\u202e\x9b")
    assert line("%s", "Grüße, 世界").endswith("Grüße, 世界")


def test_tracebacks_stay_readable_and_belong_to_their_record() -> None:
    try:
        raise ValueError("2026-11-21 forged\n2026-11-21 forged")
    except ValueError as error:
        text = line("broken", error=error)
    assert len([part for part in text.split("\n") if RECORD.match(part)]) == 1
    assert "Traceback" in text


def test_records_are_bounded() -> None:
    assert len(line("%s", "x" * 1_000_000)) < 10_000


def test_series_do_not_grow_with_what_clients_make_up(gateway: TestClient, photo: bytes) -> None:
    def ask(index: int) -> None:
        name = f"made-up-{index}"
        gateway.get(f"/{name}")
        gateway.request(name, "/depth")
        gateway.request(name, f"/{name}")
        gateway.post(f"/depth?{name}=1", content=photo)
        gateway.post(f"/depth?model={name}", content=photo)
        gateway.post(f"/depth?format={name}", content=photo, headers={"Accept": f"image/{name}"})
        gateway.post(f"/focus?scene={name}", content=b"", headers={"X-API-Key": name, "X-Forwarded-For": name})
        gateway.post("/depth", content=photo, headers={"X-Request-Id": name, "User-Agent": name, name: name})
        gateway.post("/depth", content=name.encode(), headers={"Content-Type": name, "Host": name})

    def series() -> set[str]:
        page = gateway.get("/metrics").text
        assert "made-up" not in page
        return {part.rpartition(" ")[0] for part in page.splitlines() if not part.startswith("#")}

    for index in range(2):  # the second time the photo is in the cache
        ask(index)
        series()
    before = series()
    for index in range(2, 20):
        ask(index)
    assert series() == before
