"""What clients send cannot look like a record of ours, nor fill the disk, nor make new metrics."""

import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fakes import FakeDepthClient, encoded, picture
from starlette.testclient import TestClient
from streaming import ended

from service.logs import JsonFormatter, SafeFormatter

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


def json_line(message: str, *arguments: object, error: Exception | None = None, **extra: object) -> str:
    info = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord("depthlens", logging.WARNING, "here", 1, message, arguments, info)
    record.__dict__ |= extra
    return JsonFormatter().format(record)


@pytest.mark.parametrize("sent", ["\n", "\r\n", "\x85", "\u2028", '"}', "\x1b[2J", "\ud800", "世界", "\x00"])
def test_json_is_one_object_a_line_whatever_is_sent(sent: str) -> None:
    text = json_line("asked for %s", f"x{sent}y", fields={"route": f"/{sent}"})
    assert text.isascii()
    assert len(text.splitlines()) == 1
    said = json.loads(text)
    assert said["message"] == f"asked for x{sent}y"
    assert said["route"] == f"/{sent}"
    assert said["level"] == "warning"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", said["time"])
    assert "request_id" not in said


def test_json_has_the_traceback_and_bounds() -> None:
    try:
        raise ValueError("it broke")
    except ValueError as error:
        said = json.loads(json_line("broken", error=error))
    assert "Traceback" in said["exception"]
    assert "it broke" in said["exception"]
    assert len(json_line("%s", "x" * 1_000_000)) < 10_000


class Kept(logging.Handler):
    """Every record as JSON, formatted where it is made."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self.said: list[dict[str, object]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(json.loads(self.format(record)))


@contextmanager
def kept_log() -> Iterator[Kept]:
    """The service's records from `info` on, while the block runs."""
    kept = Kept()
    logger = logging.getLogger("depthlens")
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(kept)
    try:
        yield kept
    finally:
        logger.removeHandler(kept)
        logger.setLevel(before)


def test_the_access_log_says_how_a_request_went_and_not_whose_it_was(
    gateway: TestClient, client_of_triton: FakeDepthClient, photo: bytes
) -> None:
    with kept_log() as kept:
        files = {"image": ("my-holiday.png", photo, "image/png")}
        headers = {"X-Request-Id": "asked-7", "X-API-Key": "dl_secret", "User-Agent": "spy/1"}
        gateway.post("/depth?points=3,4", files=files, headers=headers)

        async def fails() -> None:
            raise RuntimeError("not foreseen")

        client_of_triton.hook = fails
        gateway.post("/depth", content=encoded(picture(80, 60)), headers={"X-Request-Id": "asked-8"})
    about = [line for line in kept.said if line.get("request_id") == "asked-7"]
    [access] = [line for line in about if line["logger"] == "depthlens.access"]
    assert {key: access[key] for key in ("method", "route", "status", "code")} == {
        "method": "POST",
        "route": "/depth",
        "status": 200,
        "code": "ok",
    }
    assert isinstance(access["seconds"], float)
    assert 0 < access["seconds"] < 300
    assert isinstance(access["stage_seconds"], dict)
    assert set(access["stage_seconds"]) >= {"decode", "infer", "encode"}
    assert "trace_id" not in access
    [failure] = [line for line in kept.said if line.get("request_id") == "asked-8" and line["level"] == "error"]
    assert "not foreseen" in str(failure["exception"])
    for secret in ("holiday", "dl_secret", "spy/1", "testclient", "points"):
        assert secret not in str(about)


def test_the_end_of_a_stream_is_counted_in_the_log(gateway: TestClient, photo: bytes) -> None:
    with kept_log() as kept:
        with gateway.websocket_connect("/frames?task=depth&drop=none", headers={"X-Request-Id": "film"}) as stream:
            stream.receive_json()
            stream.send_bytes(photo)
            assert stream.receive_json()["type"] == "result"
            stream.receive_bytes()
            ended(stream)
    [end] = [line for line in kept.said if "closed" in line]
    assert (end["route"], end["request_id"]) == ("/frames", "film")
    assert end["frames"] == {"frames": 1, "results": 1, "errors": 0, "dropped": 0}


def test_the_process_logs_as_it_is_told() -> None:
    code = "import logging; from service.logs import configure; configure('info', '%s'); logging.info('a\\nb')"
    for format in ("json", "text"):
        done = subprocess.run(
            [sys.executable, "-c", code % format], check=True, capture_output=True, text=True, timeout=60
        )
        if format == "json":
            assert json.loads(done.stderr)["message"] == "a\nb"
        else:
            assert done.stderr.endswith(" INFO    root: a\n    b\n")
