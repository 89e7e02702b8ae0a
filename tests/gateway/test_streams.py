"""Frame streams over a real socket, on the fake client."""

import asyncio
import io
import json
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress

import numpy as np
import pytest
from fakes import FakeDepthClient, encoded, picture
from PIL import Image
from running import RunningGateway, all_is_over, until
from streaming import Heard, refused, streaming
from websockets.exceptions import ConnectionClosed

from service.clients import hash_of, new_key
from service.contract import CANARY_SIZE
from service.errors import ModelUnavailable, TooManyRequests

FRAME = encoded(picture())
NATIVE = "task=depth&size=native&drop=none"

Start = Callable[..., RunningGateway]


@pytest.fixture(scope="module")
def running() -> Iterator[RunningGateway]:
    gateway = RunningGateway(FakeDepthClient(), max_pixels=1_000_000)
    yield gateway
    gateway.close()


class Gate:
    """Holds every inference until it is opened."""

    def __init__(self, client: FakeDepthClient) -> None:
        self._open = threading.Event()
        self.client = client
        client.hook = self._wait

    async def _wait(self) -> None:
        while not self._open.is_set():
            await asyncio.sleep(0.002)

    def open(self) -> None:
        self._open.set()


def asked(client: FakeDepthClient) -> int:
    """How many inferences there were, without the canaries'."""
    return sum(shape[:2] != CANARY_SIZE for _, shape in client.calls)


def numbers(heard: list[Heard]) -> list[int]:
    return [each.words["frame"] for each in heard if each.words["type"] != "end"]


def post(gateway: RunningGateway, body: bytes) -> int:
    host, port = gateway.address
    request = urllib.request.Request(f"http://{host}:{port}/depth?size=native", body, {"Content-Type": "image/png"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.status


# Order, drops, endings


def test_every_frame_is_answered_in_order_and_the_end_is_counted(running: RunningGateway) -> None:
    with streaming(running.address, NATIVE) as stream:
        assert stream.ready["model"] == "focus_on_depth"
        assert stream.ready["window"] == 9
        for _ in range(3):
            stream.send(*[FRAME] * 4)
            assert [stream.hear().words["type"] for _ in range(4)] == ["result"] * 4
        heard = stream.ended()
    assert heard[-1].words == {"type": "end", "frames": 12, "results": 12, "errors": 0, "dropped": 0}
    assert stream.closed[0] == 1000
    all_is_over(running)
    assert running.metric("depthlens_streams") == 0


def test_a_client_faster_than_the_server_loses_the_oldest_and_is_told(
    start: Start, client_of_triton: FakeDepthClient
) -> None:
    gateway, gate = start(), Gate(client_of_triton)
    with streaming(gateway.address, "task=depth&size=native&queue=2") as stream:
        stream.send(FRAME)
        until(lambda: asked(client_of_triton) == 1)
        stream.send(*[FRAME] * 9)
        until(lambda: gateway.metric("depthlens_frames_total", result="dropped") == 7)
        gate.open()
        heard = stream.ended()
    assert numbers(heard) == [0, 8, 9]
    assert [each.words["dropped"] for each in heard] == [7, 7, 7, 7]
    assert heard[-1].words["results"] == 3


def test_without_drops_a_fast_client_is_held_back_and_loses_nothing(
    start: Start, client_of_triton: FakeDepthClient
) -> None:
    gateway, gate = start(), Gate(client_of_triton)
    large = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (400, 600, 3), np.uint8)))
    with streaming(gateway.address, f"{NATIVE}&queue=2") as stream:
        sent = threading.Thread(target=lambda: (stream.send(*[large] * 20), stream.say(type="end")))
        sent.start()
        until(lambda: asked(client_of_triton) == 1)
        until(lambda: gateway.app.state.gateway.uploads.used_bytes == 3 * len(large))  # one in work, two that wait
        assert sent.is_alive()  # 14 MB do not fit into the sockets
        assert gateway.app.state.gateway.uploads.used_bytes == 3 * len(large)
        gate.open()
        heard = stream.rest()
        sent.join()
    assert numbers(heard) == list(range(20))
    assert heard[-1].words["dropped"] == 0
    all_is_over(gateway)


def test_when_the_server_stops_what_it_has_taken_is_answered(start: Start, client_of_triton: FakeDepthClient) -> None:
    gateway, gate = start(), Gate(client_of_triton)
    with streaming(gateway.address, NATIVE) as stream:
        stream.send(FRAME, FRAME)
        until(lambda: asked(client_of_triton) == 1)
        until(lambda: gateway.app.state.gateway.uploads.used_bytes == 2 * len(FRAME))
        gateway.server.should_exit = True
        until(lambda: gateway.app.state.gateway.streams.draining)
        gate.open()
        heard = stream.rest()
    assert numbers(heard) == [0, 1]
    assert stream.closed[0] == 1001
    assert "connect again" in str(stream.closed[1])


def test_an_idle_stream_is_closed_with_a_reason(start: Start) -> None:
    gateway = start(stream_idle_s=0.2)
    with streaming(gateway.address, NATIVE) as stream:
        stream.send(FRAME)
        heard = stream.rest()
    assert numbers(heard) == [0]
    assert stream.closed[0] == 4408
    all_is_over(gateway)


def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(
    start: Start, client_of_triton: FakeDepthClient
) -> None:
    gateway, gate = start(), Gate(client_of_triton)
    with streaming(gateway.address, NATIVE) as stream:
        stream.send(*[FRAME] * 5)
        until(lambda: asked(client_of_triton) == 1)
        stream.socket.socket.shutdown(socket.SHUT_RDWR)  # without a word
        until(lambda: client_of_triton.cancelled >= 1)
    all_is_over(gateway)
    gate.open()
    assert gateway.metric("depthlens_streams") == 0
    assert gateway.metric("depthlens_waiting") == 0


def test_a_client_that_reads_nothing_is_cut_and_holds_little(start: Start) -> None:
    gateway = start(stream_idle_s=0.3)
    connection = gateway.connect(receive_buffer=4096)
    with connection:
        connection.sendall(
            b"GET /frames?task=depth&drop=none&format=npy HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        large = encoded(Image.new("RGB", (1000, 900), (90, 120, 60)))
        message = b"\x82\xfe" + len(large).to_bytes(2, "big") + bytes(4) + large
        assert len(large) < 65536
        for _ in range(4):
            connection.sendall(message)
        until(lambda: gateway.metric("depthlens_streams") == 1)
        until(lambda: gateway.metric("depthlens_streams") == 0, within_s=30)
    all_is_over(gateway)


# What is sent, and what is wrong with it


def test_a_broken_frame_gets_a_problem_in_its_place(running: RunningGateway) -> None:
    huge = encoded(Image.new("1", (1100, 1000)))
    with streaming(running.address, NATIVE) as stream:
        stream.send(FRAME, b"no picture", FRAME[:200], b"", huge, FRAME)
        heard = [stream.hear() for _ in range(6)]
    assert [each.words["type"] for each in heard] == ["result", "error", "error", "error", "error", "result"]
    assert numbers(heard) == list(range(6))
    assert [each.code for each in heard[1:5]] == ["not_an_image", "truncated_image", "empty_image", "image_too_large"]
    problem = heard[4].words["problem"]
    assert (problem["status"], problem["limit"]) == (413, 1_000_000)


def test_another_size_begins_anew(running: RunningGateway) -> None:
    with streaming(running.address, "task=depth&drop=none") as stream:
        stream.send(FRAME, FRAME, encoded(picture(64, 96)))
        heard = [stream.hear().words for _ in range(3)]
    assert [each["reset"] for each in heard] == ["start", None, "size"]
    assert [(each["width"], each["height"]) for each in heard] == [(96, 64), (96, 64), (64, 96)]


def test_stored_depth_is_the_networks_value_by_scale_and_offset(running: RunningGateway) -> None:
    with streaming(running.address, "task=depth&drop=none") as stream:
        stream.send(FRAME, FRAME)
        first, second = stream.hear(), stream.hear()
    said = first.words["depth"]
    with Image.open(io.BytesIO(first.body)) as image:
        values = np.asarray(image) * said["scale"] + said["offset"]
    assert values[0].mean() == pytest.approx(2.0, abs=0.05)  # the fake's rows, from 2 to 6
    assert values[-1].mean() == pytest.approx(6.0, abs=0.05)
    assert (said["scale"], said["offset"]) == tuple(second.words["depth"][name] for name in ("scale", "offset"))
    assert said["near"] > said["far"]


@pytest.mark.parametrize(
    ("query", "media_type"),
    [
        ("task=depth&format=npy", "application/x-npy"),
        ("task=depth&format=preview&colormap=magma", "image/jpeg"),
        ("task=depth&format=webp&steady=off", "image/webp"),
        ("task=depth&format=webp&edges=sharp", "image/webp"),
        ("task=segmentation&edges=sharp&max_side=48", "image/png"),
        ("task=focus&edges=sharp&max_side=48", "image/jpeg"),
        ("task=segmentation", "image/png"),
        ("task=segmentation&format=npy&size=native", "application/x-npy"),
        ("task=segmentation&format=jpeg&max_side=48", "image/jpeg"),
    ],
)
def test_formats_are_what_they_say(running: RunningGateway, query: str, media_type: str) -> None:
    with streaming(running.address, query) as stream:
        assert stream.ready["media_type"] == media_type
        stream.send(FRAME)
        heard = stream.hear()
    size = heard.words["height"], heard.words["width"]
    assert heard.words["media_type"] == media_type
    if media_type == "application/x-npy":
        assert np.load(io.BytesIO(heard.body)).shape == size
        return
    with Image.open(io.BytesIO(heard.body)) as image:
        assert Image.MIME[image.format or ""] == media_type
        assert image.size == size[::-1]
        if "max_side" in query:
            assert max(size) == 48


def test_settings_hold_from_the_next_frame_on_and_a_timestamp_comes_back(running: RunningGateway) -> None:
    with streaming(running.address, "task=depth&drop=none&format=jpeg") as stream:
        stream.send(FRAME)
        stream.say(type="settings", format="webp", colormap="gray")
        stream.say(type="frame", timestamp=12.5)
        stream.send(FRAME, FRAME)
        heard = [stream.hear().words for _ in range(4)]
    assert {"type": "settings", "from_frame": 1} in heard
    results = [each for each in heard if each["type"] == "result"]
    assert [each["media_type"] for each in results] == ["image/jpeg", "image/webp", "image/webp"]
    assert [each["timestamp"] for each in results] == [None, 12.5, None]


@pytest.mark.parametrize(
    ("message", "code", "field"),
    [
        ("no json", "malformed_request", None),
        ("[]", "malformed_request", None),
        ('{"type": "hello"}', "malformed_request", "type"),
        ('{"type": "settings", "task": "focus"}', "malformed_request", "task"),
        ('{"type": "settings", "quality": 1000}', "invalid_parameter", "quality"),
        ('{"type": "settings", "colour": 1}', "invalid_parameter", "colour"),
        ('{"type": "settings", "format": "gif"}', "not_acceptable", "format"),
        ('{"type": "frame", "timestamp": "noon"}', "malformed_request", "timestamp"),
        ('{"type": "settings", "x": 1e999, "y": 2}', "malformed_request", None),
        ("x" * 20_000, "malformed_request", None),
    ],
)
def test_a_message_that_means_nothing_is_answered_and_changes_nothing(
    running: RunningGateway, message: str, code: str, field: str | None
) -> None:
    with streaming(running.address, NATIVE) as stream:
        stream.socket.send(message)
        heard = stream.hear()
        assert (heard.words["type"], heard.code, heard.words["problem"].get("field")) == ("error", code, field)
        assert "frame" not in heard.words
        stream.send(FRAME)
        assert stream.hear().words["frame"] == 0


def test_ten_such_messages_in_a_row_end_it(running: RunningGateway) -> None:
    with streaming(running.address, NATIVE) as stream:
        for _ in range(10):
            stream.socket.send("?")
        heard = stream.rest()
    assert len(heard) == 10
    assert stream.closed[0] == 4400


def test_a_frame_above_the_limit_is_refused_with_1009_which_arrives(start: Start) -> None:
    gateway = start(max_frame_bytes=100_000)
    with streaming(gateway.address, NATIVE) as stream:
        try:
            stream.send(bytes(5_000_000))
        except ConnectionClosed:
            pass
        stream.rest()
        assert stream.closed[0] == 1009
    assert gateway.metric("depthlens_connections_closed_total", reason="frame_too_large") == 1
    all_is_over(gateway)


def test_a_model_that_is_gone_costs_the_frames_in_between(start: Start, client_of_triton: FakeDepthClient) -> None:
    gateway = start()

    async def gone() -> None:
        if asked(client_of_triton) in (2, 3):
            raise ModelUnavailable("The model restarts.")

    client_of_triton.hook = gone
    with streaming(gateway.address, NATIVE) as stream:
        stream.send(*[FRAME] * 5)
        heard = [stream.hear() for _ in range(5)]
    assert numbers(heard) == list(range(5))
    assert [each.words["type"] for each in heard] == ["result", "error", "error", "result", "result"]
    assert {each.code for each in heard[1:3]} == {"model_unavailable"}
    assert heard[3].words["reset"] is None  # what was known of the frames before is still known


def test_a_frame_has_a_deadline_of_its_own(start: Start, client_of_triton: FakeDepthClient) -> None:
    gateway, gate = start(), Gate(client_of_triton)
    with streaming(gateway.address, f"{NATIVE}&timeout=0.5") as stream:
        stream.send(FRAME)
        assert stream.hear().code == "deadline_exceeded"
        gate.open()
    all_is_over(gateway)


# Who may


def test_what_is_wrong_with_the_address_is_said_before_the_stream_begins(running: RunningGateway) -> None:
    for query, status, code, field in (
        ("", 422, "invalid_parameter", "task"),
        ("task=colour", 422, "invalid_parameter", "task"),
        ("task=depth&format=gif", 406, "not_acceptable", "format"),
        ("task=depth&model=nobody", 404, "unknown_model", "model"),
        ("task=depth&nonsense=1", 422, "invalid_parameter", "nonsense"),
        ("task=depth&near=0.2&far=0.5", 422, "invalid_parameter", "near"),
        ("task=depth&timeout=nan", 422, "invalid_parameter", "timeout"),
        ("task=focus&x=3", 422, "invalid_parameter", "x"),
        ("task=focus&person=-1", 422, "invalid_parameter", "person"),
        ("task=focus&size=native", 422, "invalid_parameter", "size"),
    ):
        found, problem = refused(running.address, query)
        assert (found, problem["code"], problem.get("field")) == (status, code, field), query
    assert refused(running.address, "", path="/frame")[0] == 404
    all_is_over(running)


def test_a_plain_request_is_told_to_upgrade(running: RunningGateway) -> None:
    said = running.say(b"GET /frames HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (said.status, said.problem["code"]) == (426, "upgrade_required")
    assert said.headers["upgrade"] == "websocket"


def test_keys_open_streams_in_headers_and_as_a_subprotocol(start: Start) -> None:
    key = new_key()
    gateway = start(api_key_hashes=[hash_of(key)])
    assert refused(gateway.address, "task=depth")[0] == 401
    assert refused(gateway.address, "task=depth", additional_headers={"X-API-Key": "dl_other"})[0] == 401
    with streaming(gateway.address, NATIVE, additional_headers={"X-API-Key": key}) as stream:
        stream.send(FRAME)
        assert stream.hear().words["type"] == "result"
    with streaming(gateway.address, NATIVE, subprotocols=["depthlens", f"depthlens.key.{key}"]) as stream:
        assert stream.socket.subprotocol == "depthlens"


def test_pages_of_other_origins_are_refused_unless_named(start: Start) -> None:
    gateway = start(stream_origins=["https://good.example"])
    host, port = gateway.address
    own = {"Origin": f"http://{host}:{port}"}
    for headers in (own, {"Origin": "https://good.example"}):
        with streaming(gateway.address, NATIVE, additional_headers=headers):
            pass
    for origin in ("https://evil.example", "null", "http://["):
        status, problem = refused(gateway.address, "task=depth", additional_headers={"Origin": origin})
        assert (status, problem["code"]) == (403, "foreign_origin")


def test_of_the_places_for_streams_one_client_never_has_all(start: Start) -> None:
    gateway = start(max_streams=2)
    with streaming(gateway.address, NATIVE):
        status, problem = refused(gateway.address, "task=depth")
        assert (status, problem["code"]) == (429, "too_many_streams")
    all_is_over(gateway)
    with streaming(gateway.address, NATIVE):
        pass


def test_frames_above_a_clients_rate_wait_and_are_not_refused(start: Start) -> None:
    gateway = start(rate_limit_per_s=0.5)
    with streaming(gateway.address, NATIVE) as stream:
        clients = gateway.app.state.gateway.clients
        with suppress(TooManyRequests):
            while True:
                clients.count("127.0.0.1")
        stream.send(FRAME)
        assert stream.hear().words["type"] == "result"
    assert gateway.metric("depthlens_rejected_total", reason="rate_limit") >= 2  # ours above, and the frame's wait


def test_a_photo_waits_for_no_more_than_one_frame(start: Start, client_of_triton: FakeDepthClient) -> None:
    gateway = start(max_inflight=1)
    with streaming(gateway.address, f"{NATIVE}&queue=16") as stream:
        stream.send(*[FRAME] * 12)
        assert stream.hear().words["frame"] == 0
        assert post(gateway, FRAME) == 200
        assert asked(client_of_triton) < 12
        assert [stream.hear().words["type"] for _ in range(11)] == ["result"] * 11


def test_nothing_of_a_frame_is_kept_in_the_cache(start: Start) -> None:
    gateway = start()
    with streaming(gateway.address, NATIVE) as stream:
        stream.send(FRAME)
        stream.hear()
    assert gateway.metric("depthlens_cache_total", kind="analysis", result="miss") == 0
    assert gateway.app.state.gateway.pipeline._cache.used_bytes == 0


# Focus


def moved(left: int) -> bytes:
    pixels = np.asarray(picture()).copy()
    pixels[:, 48:] = pixels[:, :48]
    pixels[16:56, left : left + 20] = (255, 0, 0)
    return encoded(Image.fromarray(pixels))


def test_the_person_picked_is_followed_until_he_is_gone_and_that_is_told(running: RunningGateway) -> None:
    with streaming(running.address, "task=focus&drop=none&rx=0.3&ry=0.5&transition=0&format=png") as stream:
        stream.send(moved(20), moved(26), moved(32), encoded(Image.new("RGB", (96, 64), (90, 90, 90))), moved(34))
        heard = [stream.hear() for _ in range(5)]
    focus = [each.words["focus"] for each in heard]
    assert [each["tracking"] for each in focus] == ["followed", "followed", "followed", "lost", "followed"]
    assert [each["mode"] for each in focus] == ["subject", "subject", "subject", "plane", "subject"]
    boxes = [each["people"][0]["box"][0] for each in focus[:3]]
    assert boxes == [pytest.approx(20, abs=3), pytest.approx(26, abs=3), pytest.approx(32, abs=3)]


def test_a_wish_that_cannot_be_met_is_one_error_and_the_last_one_holds(running: RunningGateway) -> None:
    with streaming(running.address, "task=focus&drop=none") as stream:
        stream.send(moved(20))
        assert stream.hear().words["focus"]["tracking"] == "followed"  # the nearest person, when nobody is named
        stream.say(type="settings", person=7)
        assert stream.hear().words["type"] == "settings"
        stream.send(moved(22), moved(24))
        assert stream.hear().code == "unknown_person"
        assert stream.hear().words["focus"]["tracking"] == "followed"
        stream.say(type="settings", x=500, y=5)
        stream.hear()
        stream.send(moved(26))
        assert stream.hear().code == "outside_image"


def test_ready_is_json_of_one_line(running: RunningGateway) -> None:
    with streaming(running.address, "task=depth") as stream:
        assert set(stream.ready) == {
            *("type", "task", "format", "media_type", "model", "drop", "window", "max_frame_bytes"),
            *("idle_s", "timeout_s", "request_id"),
        }
        assert json.dumps(stream.ready)
