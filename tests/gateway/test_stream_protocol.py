"""Whatever a client sends, each frame is answered or counted, in order, and nothing is left."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fakes import FakeDepthClient, encoded, picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from running import RunningGateway, all_is_over
from streaming import streaming

from service.errors import DepthlensError
from service.stream_query import AIM, FIXED, StreamQuery, changed, read_query

FRAMES = [encoded(picture(40, 30)), encoded(picture(30, 40), "JPEG"), b"", b"\xff\xd8\xff", b"nothing at all"]

words = st.one_of(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["settings", "frame", "nothing"])},
        optional={
            "quality": st.one_of(st.integers(-5, 200), st.text(max_size=3)),
            "colormap": st.sampled_from(["turbo", "gray", "pink"]),
            "format": st.sampled_from(["png16", "jpeg", "bmp", None]),
            "near": st.floats(allow_nan=False, allow_infinity=False),
            "timestamp": st.one_of(st.none(), st.integers(), st.floats(allow_nan=False), st.booleans()),
            "drop": st.just("none"),
        },
    ).map(json.dumps),
    st.text(max_size=20),
)
messages = st.lists(st.one_of(st.sampled_from(FRAMES), words), max_size=9)


@pytest.fixture(scope="module")
def running() -> Iterator[RunningGateway]:
    gateway = RunningGateway(FakeDepthClient())
    yield gateway
    gateway.close()


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages, st.sampled_from(["none", "oldest"]))
def test_every_frame_is_answered_once_or_counted_as_dropped(
    running: RunningGateway, sent: list[Any], drop: str
) -> None:
    with streaming(running.address, f"task=depth&size=native&drop={drop}&queue=2") as stream:
        for message in sent:
            stream.socket.send(message)
        heard = stream.ended()
    frames = sum(isinstance(message, bytes) for message in sent)
    answered = [each.words["frame"] for each in heard if "frame" in each.words]
    end = heard[-1].words
    assert end["type"] == "end"
    assert answered == sorted(set(answered))
    assert len(answered) == end["results"] + end["errors"] == frames - end["dropped"]
    assert end["dropped"] == 0 or drop == "oldest"
    assert end["frames"] == frames
    assert stream.closed[0] == 1000
    all_is_over(running)
    assert running.metric("depthlens_streams") == 0


values = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers()))


def after(query: StreamQuery, given_settings: dict[str, Any]) -> StreamQuery | DepthlensError:
    try:
        return changed(query, given_settings)
    except DepthlensError as error:
        return error


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.dictionaries(st.one_of(st.sampled_from([*AIM, *FIXED, "blur", "f_number", "quality"]), st.text()), values))
def test_settings_are_taken_whole_or_refused_with_a_code(given_settings: dict[str, Any]) -> None:
    query = read_query({"task": "focus", "person": "2", "f_number": "4"})
    new = after(query, given_settings)
    if isinstance(new, DepthlensError):
        assert new.status in (400, 406, 422)
        assert json.dumps(new.problem("id"), default=str)
        return
    assert (new.task, new.drop, new.model) == (query.task, query.drop, query.model)
    assert new.person == (given_settings.get("person") if any(name in given_settings for name in AIM) else 2)
    assert new.aims == query.aims + any(name in given_settings for name in AIM)


def test_a_new_aim_takes_the_place_of_the_old_one_and_blur_that_of_the_f_number() -> None:
    query = read_query({"task": "focus", "person": "2", "f_number": "4"})
    clicked = changed(query, {"rx": 0.5, "ry": 0.25})
    assert (clicked.person, clicked.aim.share, clicked.f_number) == (None, (0.5, 0.25), 4.0)  # type: ignore[union-attr]  # a failed parse fails here
    blurred = changed(clicked, {"blur": 0.5})
    assert (blurred.blur, blurred.f_number, blurred.rx) == (0.5, None, 0.5)
    nobody = changed(blurred, {"mode": "auto"})
    assert nobody.aim is None
