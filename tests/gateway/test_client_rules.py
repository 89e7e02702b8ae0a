"""The client's rules without a network: when a call is tried again, how long it waits, and what it raises."""

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx2
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from problem_codes import KNOWN_CODES

from service import errors as server_errors
from service.client import errors
from service.client.arrays import map_bytes, photo_bytes, read_npy, read_photo
from service.client.operations import query_of
from service.client.results import parse_server_timing
from service.client.rules import (
    Answer,
    Call,
    Failure,
    Pause,
    Policy,
    Send,
    exchange,
    parse_retry_after,
)
from service.problems import written

DEPTH = Call("POST", "/depth", content=b"photo")
STEREO = Call("POST", "/stereo", content=b"pair")
FINE = Answer(200, {"x-request-id": "abc"}, b"map")


def refusal(status: int, code: str, retry_after: str | None = None) -> Answer:
    headers = {"content-type": "application/problem+json"} | ({"retry-after": retry_after} if retry_after else {})
    return Answer(status, headers, orjson.dumps({"code": code, "detail": "Why."}))


BUSY = refusal(503, "overloaded", "2")
CUT = Failure(httpx2.ReadError("cut"), begun=True, timed_out=False)
UNHEARD = Failure(httpx2.ConnectError("refused"), begun=False, timed_out=False)


class Clock:
    """Time that passes only in pauses, and by `took_s` with each sending."""

    def __init__(self, took_s: float = 0.0) -> None:
        self.now = 100.0
        self.took_s = took_s

    def __call__(self) -> float:
        return self.now


def play(
    call: Call, replies: Sequence[Answer | Failure], policy: Policy, clock: Clock
) -> tuple[Answer | Exception, list[float], list[float]]:
    """What a call comes to, its pauses, and the time given to each sending."""
    pauses: list[float] = []
    given_s: list[float] = []
    coming = iter(replies)
    steps = exchange(call, policy)
    reply = None
    while True:
        try:
            step = steps.send(reply)
        except StopIteration as done:
            return done.value, pauses, given_s
        except errors.ClientError as error:
            return error, pauses, given_s
        if isinstance(step, Pause):
            pauses.append(step.seconds)
            clock.now += step.seconds
            reply = None
        else:
            assert isinstance(step, Send)
            given_s.append(step.timeout_s)
            clock.now += clock.took_s
            reply = next(coming)


def policy_on(clock: Clock, timeout_s: float = 60.0, retries: int = 8, jitter: float = 0.0) -> Policy:
    return Policy(timeout_s, retries, clock, lambda: jitter)


@pytest.mark.parametrize(("jitter", "pause_s"), [(0.0, 2.0), (1.0, 2.5)])
def test_retry_after_is_respected_and_jittered_upwards(jitter: float, pause_s: float) -> None:
    clock = Clock()
    result, pauses, given_s = play(DEPTH, [BUSY, FINE], policy_on(clock, jitter=jitter), clock)
    assert result is FINE
    assert pauses[0] == pytest.approx(pause_s)
    assert given_s == pytest.approx([60.0, 60.0 - sum(pauses)])


def test_without_retry_after_pauses_double_up_to_a_limit() -> None:
    clock = Clock()
    _, pauses, _ = play(DEPTH, [UNHEARD] * 8 + [FINE], policy_on(clock, jitter=1.0), clock)
    assert pauses == pytest.approx([0.25, 0.5, 1, 2, 4, 8, 8, 8])


def test_the_whole_call_has_one_deadline() -> None:
    clock = Clock(took_s=3.0)
    result, pauses, given_s = play(DEPTH, [BUSY] * 9, policy_on(clock, timeout_s=9.0), clock)
    assert isinstance(result, errors.Unavailable)
    assert result.code == "overloaded"
    assert pauses == [2.0]  # 3 + 2 + 3 = 8 s: another pause of 2 s has no room
    assert given_s == [9.0, 4.0]


def test_a_time_out_at_the_deadline_says_so() -> None:
    clock = Clock(took_s=5.0)
    silent = Failure(httpx2.ReadTimeout("silent"), begun=True, timed_out=True)
    result, _, _ = play(DEPTH, [silent], policy_on(clock, timeout_s=5.0), clock)
    assert isinstance(result, errors.TimedOut)


def test_retries_end() -> None:
    clock = Clock()
    result, pauses, _ = play(DEPTH, [CUT] * 9, policy_on(clock, retries=2), clock)
    assert isinstance(result, errors.ConnectionFailed)
    assert len(pauses) == 2


@pytest.mark.parametrize(
    ("call", "reply", "again"),
    [
        (DEPTH, CUT, True),
        (DEPTH, UNHEARD, True),
        (DEPTH, refusal(503, "model_unavailable"), True),
        (DEPTH, refusal(429, "too_many_requests", "1"), True),
        (DEPTH, refusal(502, "model_failed"), False),
        (DEPTH, refusal(504, "deadline_exceeded"), False),
        (DEPTH, refusal(400, "truncated_image"), False),
        (DEPTH, refusal(500, "internal_error"), False),
        (STEREO, CUT, False),  # it may have adapted the network already
        (STEREO, UNHEARD, True),
        (STEREO, BUSY, True),  # refused before it began
        (STEREO, refusal(503, "model_unavailable"), False),
    ],
)
def test_only_what_is_safe_and_may_help_is_tried_again(call: Call, reply: Answer | Failure, again: bool) -> None:
    clock = Clock()
    result, pauses, _ = play(call, [reply, FINE], policy_on(clock), clock)
    assert (result is FINE) == again
    assert bool(pauses) == again


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, {"content-type": "text/html"}, b"<h1>Log in</h1>"),
        Answer(302, {"location": "https://login.example"}, b""),
        Answer(304, {}, b""),
    ],
)
def test_somebody_elses_success_is_none(answer: Answer) -> None:
    clock = Clock()
    result, pauses, _ = play(DEPTH, [answer, FINE], policy_on(clock), clock)
    assert isinstance(result, errors.UnexpectedAnswer)
    assert not pauses


def test_parallel_calls_of_one_client_rest_together() -> None:
    clock = Clock()
    policy = policy_on(clock)
    steps = exchange(DEPTH, policy)
    assert isinstance(next(steps), Send)
    pause = steps.send(BUSY)
    assert isinstance(pause, Pause)
    result, pauses, _ = play(DEPTH, [FINE], policy, clock)  # another call, begun meanwhile
    assert result is FINE
    assert pauses == [2.0]


def test_a_rest_longer_than_the_call_is_not_sat_out() -> None:
    clock = Clock()
    policy = policy_on(clock, timeout_s=5.0)
    policy.quiet_until = clock.now + 30
    result, pauses, given_s = play(DEPTH, [FINE], policy, clock)
    assert isinstance(result, errors.TimedOut)
    assert not pauses
    assert not given_s


@given(st.integers(0, 10**12))
def test_retry_after_as_a_number(seconds: int) -> None:
    found = parse_retry_after(str(seconds))
    assert found == min(seconds, 3600.0)


@given(st.integers(-100_000, 100_000))
def test_retry_after_as_a_date(seconds: int) -> None:
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    text = format_datetime(now + timedelta(seconds=seconds), usegmt=True)
    assert parse_retry_after(text, now) == min(max(seconds, 0), 3600)


@given(st.text(max_size=40))
def test_retry_after_of_anything(text: str) -> None:
    found = parse_retry_after(text)
    assert found is None or 0 <= found <= 3600


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,12}", fullmatch=True), st.floats(0, 1e6), max_size=6))
def test_server_timing_is_read_back(stages: dict[str, float]) -> None:
    text = ", ".join(f"{name};dur={milliseconds!r}" for name, milliseconds in stages.items())
    assert parse_server_timing(text) == pytest.approx({name: value / 1000 for name, value in stages.items()})


@given(st.text(max_size=60))
def test_server_timing_of_anything(text: str) -> None:
    assert all(math.isfinite(seconds) for seconds in parse_server_timing(text).values())


def served_problems() -> list[tuple[int, str]]:
    """Every status and code of the table in `service/errors.py`."""
    found = []
    status = 0
    for line in (server_errors.__doc__ or "").splitlines():
        name = re.search(r"── ([A-Z]\w+)", line)
        if name:
            status = getattr(server_errors, name[1]).status
        if status:
            codes = re.findall(r"\b[a-z]+(?:_[a-z]+)+\b|\boverloaded\b|\bdraining\b|\bunauthorized\b", line)
            found += [(status, code) for code in codes if name or line.startswith("│   ")]
    return found


NOT_OF_THIS_CLIENT = {403, 409, 408, 414, 426, 431, 499}
"""Of browsers, operators, slow bodies, mangled heads, clients that left."""


@pytest.mark.parametrize(("status", "code"), served_problems())
def test_every_code_of_the_service_has_a_class(status: int, code: str) -> None:
    error = errors.problem_of(status, {"content-type": "application/problem+json"}, refusal(0, code).body, None)
    assert isinstance(error, errors.Problem)
    assert (type(error) is errors.Problem) == (status in NOT_OF_THIS_CLIENT)


def test_the_table_was_read_whole() -> None:
    assert {code for _, code in served_problems()} == set(KNOWN_CODES)


def test_a_problem_says_all_that_the_service_said() -> None:
    cause = server_errors.UnknownPerson("Nobody has it.", field="person", value=7, limit=[0, 1], extra={"people": []})
    headers, body = written(cause, "abc")
    lowered = {name.lower(): value for name, value in headers.items()}
    error = errors.problem_of(cause.status, lowered, body, None)
    assert type(error) is errors.UnknownPerson
    assert (error.field, error.value, error.limit, error.request_id) == ("person", 7, [0, 1], "abc")
    assert error.extra == {"people": []}
    assert str(error) == "422 unknown_person: Nobody has it."


@pytest.mark.parametrize(
    ("status", "media_type", "body", "kind"),
    [
        (404, "text/html", b"<h1>Not found</h1>", errors.UnexpectedAnswer),
        (400, "application/problem+json", b"{", errors.UnexpectedAnswer),
        (400, "application/problem+json", b"[]", errors.UnexpectedAnswer),
        (503, "text/html", b"<h1>No server</h1>", errors.Unavailable),
        (418, "application/problem+json", b'{"code":"new","detail":"d"}', errors.Problem),
        (507, "application/problem+json", b'{"code":"new","detail":"d"}', errors.ServerFault),
    ],
)
def test_answers_of_others(status: int, media_type: str, body: bytes, kind: type) -> None:
    assert type(errors.problem_of(status, {"content-type": media_type}, body, None)) is kind


def test_parameters_as_text() -> None:
    parameters: dict[str, Any] = {"x": 1.5, "model": None, "person": (0, 2), "rack_frames": 12, "mode": "plane"}
    assert query_of(parameters) == {"x": "1.5", "person": "0,2", "rack_frames": "12", "mode": "plane"}


def test_pixels_become_a_png_of_the_same_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert (read_photo(photo_bytes(pixels)) == pixels).all()
    assert (read_photo(photo_bytes(pixels[..., 0]))[..., 1] == pixels[..., 0]).all()


def test_a_float_map_travels_exactly() -> None:
    values = np.random.default_rng(0).random((5, 7), dtype=np.float32)
    assert (read_npy(map_bytes(values)) == values).all()


@pytest.mark.parametrize(
    ("convert", "array"),
    [
        (photo_bytes, np.zeros((4, 4, 3), np.float32)),
        (photo_bytes, np.zeros((4, 4, 4), np.uint8)),
        (photo_bytes, np.zeros((0, 4, 3), np.uint8)),
        (map_bytes, np.zeros((4, 4), np.float64)),
        (map_bytes, np.zeros((4, 4, 1), np.uint8)),
    ],
)
def test_arrays_that_are_no_photos(convert: Callable[[Any], bytes], array: np.ndarray) -> None:
    with pytest.raises(TypeError, match="shape"):
        convert(array)
