"""`WS /frames?task=stereo` on the fake client: how pairs are sent, what is said of a sequence, pairs that are none."""

import io
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from fakes import FakeDepthClient, encoded
from PIL import Image
from running import RunningGateway, until
from stereo_pairs import HEIGHT, LEFT, RIGHT, SHIFT, WIDTH, cut, seen
from streaming import Heard, Stream, refused, streaming

Start = Callable[..., RunningGateway]
STEREO = "task=stereo&drop=none"


def together(left: bytes = LEFT, right: bytes = RIGHT) -> bytes:
    return len(left).to_bytes(4) + left + right


PAIR = together()


@pytest.fixture(scope="module")
def running() -> Iterator[RunningGateway]:
    gateway = RunningGateway(FakeDepthClient())
    yield gateway
    gateway.close()


def answered(stream: Stream, *pairs: bytes) -> list[Heard]:
    stream.send(*pairs)
    return [stream.hear() for _ in pairs]


def own(client: FakeDepthClient) -> list[Any]:
    """The pairs that were asked for, without probes."""
    return [pair for pair in client.pairs if pair.left.shape[:2] != (64, 64)]


def test_a_stream_is_a_sequence_that_adapts_and_is_forgotten_with_it(
    start: Start, client_of_triton: FakeDepthClient
) -> None:
    gateway = start()
    with streaming(gateway.address, STEREO) as stream:
        assert (stream.ready["model"], stream.ready["format"]) == ("stereo_madnet", "png16")
        first, second = answered(stream, PAIR, PAIR)
        stream.ended()
    stored = cv2.imdecode(np.frombuffer(first.body, np.uint8), cv2.IMREAD_UNCHANGED)
    assert (stored.shape, stored[0, 0], stored[-1, -1]) == ((HEIGHT, WIDTH), 4 * 256, 8 * 256)
    assert first.words["depth"] == {
        "kind": "disparity",
        "unit": "px",
        "near": 8.0,
        "far": 0.0,
        "scale": 1 / 256,
        "offset": 0.0,
    }
    assert (first.words["width"], first.words["height"]) == (WIDTH, HEIGHT)
    assert [each.words["reset"] for each in (first, second)] == ["start", None]
    assert second.words["adaptation"] == {
        "mode": "mad",
        "loss": 0.25,
        "group": 3,
        "frames": 2,
        "resets": 0,
        "reset": None,
        "origin": "kept",
    }
    assert abs(first.words["vertical_offset_px"]) < 0.5
    until(lambda: len(client_of_triton.pairs) == 3)
    one, two, last = client_of_triton.pairs
    assert one.sequence == two.sequence == last.sequence
    assert [(pair.checkpoint, pair.end) for pair in (one, two, last)] == [("none", False)] * 2 + [("forget", True)]
    assert gateway.metric("depthlens_adaptation_frames_total", mode="mad") == 2
    assert gateway.metric("depthlens_adaptation_groups_total", group="3") == 2
    assert gateway.metric("depthlens_adaptation_loss_sum", mode="mad") == 0.75


def test_streams_are_apart_unless_they_name_one_sequence(start: Start, client_of_triton: FakeDepthClient) -> None:
    gateway = start()
    for name in ("", "", "&sequence=rig", "&sequence=rig", "&adapt=none"):
        with streaming(gateway.address, STEREO + name) as stream:
            answered(stream, PAIR)
            stream.ended()
    pairs = [pair for pair in client_of_triton.pairs if pair.checkpoint != "forget"]
    numbers = [pair.sequence for pair in pairs]
    assert len(set(numbers[:3])) == 3
    assert numbers[2] == numbers[3]
    assert (numbers[4], pairs[4].adapt) == (None, "none")
    forgotten = [pair.sequence for pair in client_of_triton.pairs if pair.checkpoint == "forget"]
    assert forgotten == numbers[:2], "a sequence with a name goes on, and one that learned nothing is none"


def test_what_one_route_has_learned_the_other_goes_on_with(start: Start, client_of_triton: FakeDepthClient) -> None:
    import httpx2

    gateway = start()
    with streaming(gateway.address, f"{STEREO}&sequence=rig") as stream:
        answered(stream, PAIR)
    sent = {name: (f"{name}.png", data, "image/png") for name, data in (("left", LEFT), ("right", RIGHT))}
    url = f"http://{gateway.address[0]}:{gateway.address[1]}/stereo?sequence=rig"
    answer = httpx2.post(url, files=sent)
    assert answer.headers["X-Adaptation-Frames"] == "2"


@pytest.mark.parametrize(("layout", "axis"), [("side_by_side", 1), ("top_bottom", 0)])
def test_one_picture_may_hold_both(running: RunningGateway, layout: str, axis: int) -> None:
    both = np.concatenate([seen(20), seen(20 + SHIFT)], axis=axis)
    odd = both[:-1, :-1]
    with streaming(running.address, f"{STEREO}&pair={layout}&format=npy&adapt=none") as stream:
        good, bad = answered(stream, *(encoded(Image.fromarray(np.ascontiguousarray(each))) for each in (both, odd)))
    disparity = np.load(io.BytesIO(good.body))
    assert (disparity.shape, disparity[0, 0], disparity[-1, -1]) == ((HEIGHT, WIDTH), 4, 8)
    assert (bad.code, bad.words["problem"]["field"]) == ("size_mismatch", "pair")


def test_metres_at_every_size(running: RunningGateway) -> None:
    """800 px * 0.25 m / 4 px; half as large, the pixels are half as many and the metres the same."""
    for size in ("", "&max_side=80", "&max_side=80&size=native"):
        with streaming(running.address, f"{STEREO}&format=npy&focal_px=800&baseline_m=0.25{size}") as stream:
            [answer] = answered(stream, PAIR)
        depth_m = np.load(io.BytesIO(answer.body))
        shrunk = 2 if size else 1
        assert depth_m.shape == (HEIGHT // shrunk, WIDTH // shrunk)
        # the fake says 4 px whatever it sees, and 4 px of 80 columns are 8 px of 160
        assert (depth_m[0, 0], depth_m[-1, -1]) == (50 / shrunk, 25 / shrunk)
        assert (answer.words["depth"]["kind"], answer.words["depth"]["unit"]) == ("metric", "m")
        assert answer.words["depth"]["near"] == pytest.approx(25 / shrunk)


def test_previews(running: RunningGateway) -> None:
    with streaming(running.address, f"{STEREO}&format=jpeg&size=native&colormap=gray") as stream:
        [answer] = answered(stream, PAIR)
    gray = np.asarray(Image.open(io.BytesIO(answer.body)).convert("L"))
    assert gray.shape == (HEIGHT, WIDTH)
    assert (gray[-1, -1], gray[0, 0]) == (pytest.approx(255, abs=3), pytest.approx(127, abs=3))  # 8 px, and half


def test_settings_change_on_the_way_and_a_checkpoint_is_of_one_pair(
    start: Start, client_of_triton: FakeDepthClient
) -> None:
    gateway = start()
    with streaming(gateway.address, f"{STEREO}&sequence=rig&checkpoint=restore") as stream:
        answered(stream, PAIR, PAIR)
        for settings in ({"checkpoint": "save"}, {"adapt": "full"}, {"checkpoint": "save"}, {"adapt": "none"}):
            stream.say(type="settings", **settings)
            assert stream.hear().words["type"] == "settings"
            answered(stream, PAIR)
        stream.say(type="settings", sequence="other")
        assert stream.hear().code == "malformed_request"
    said = [(pair.adapt, pair.checkpoint) for pair in own(client_of_triton)]
    assert said == [
        ("mad", "restore"),
        ("mad", "none"),
        ("mad", "save"),
        ("full", "none"),
        ("full", "save"),
        ("none", "none"),
    ]


@pytest.mark.parametrize(
    ("pair", "code", "field"),
    [
        (together(right=cut(20, width=WIDTH - 1)), "size_mismatch", "right"),
        (together(right=LEFT), "identical_pair", "right"),
        (together(right=cut(20 + SHIFT, 11)), "not_rectified", "right"),
        (together(RIGHT, LEFT), "swapped_pair", "left"),
        (together(cut(20, height=20), cut(20 + SHIFT, height=20)), "pair_too_small", "left"),
        (together(right=b""), "empty_body", "right"),
        (together(left=b""), "empty_body", "left"),
        (LEFT, "malformed_request", "left"),  # a picture where a pair was due
        (b"\0\0", "malformed_request", "left"),
        (together(right=b"no picture"), "not_an_image", None),
    ],
)
def test_a_pair_that_is_none_has_an_error_in_its_place(
    running: RunningGateway, pair: bytes, code: str, field: str | None
) -> None:
    with streaming(running.address, STEREO) as stream:
        before, wrong, after = answered(stream, PAIR, pair, PAIR)
    assert (before.words["type"], after.words["type"]) == ("result", "result")
    assert after.words["adaptation"]["frames"] == 2, "nothing is learned from what is no pair"
    assert wrong.code == code
    if field is not None:
        assert wrong.words["problem"]["field"] == field


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("task=stereo&focal_px=800", "baseline_m"),
        ("task=stereo&focal_px=nan&baseline_m=1", "focal_px"),
        ("task=stereo&focal_px=1&baseline_m=inf", "baseline_m"),
        ("task=stereo&adapt=none&checkpoint=save", "checkpoint"),
        ("task=stereo&model=focus_on_depth", "model"),
        ("task=stereo&sequence=a%20b", "sequence"),
        ("task=stereo&pair=both", "pair"),
        ("task=stereo&checkpoint=forget", "checkpoint"),
        ("task=depth&adapt=mad", "adapt"),
    ],
)
def test_parameters_that_do_not_fit(running: RunningGateway, query: str, field: str) -> None:
    status, problem = refused(running.address, query)
    assert (status, problem["code"], problem["field"]) == (422, "invalid_parameter", field)


def test_a_service_without_the_model_refuses_the_stream(start: Start, client_of_triton: FakeDepthClient) -> None:
    async def not_ready(model: str) -> bool:
        return model != "stereo_madnet"

    client_of_triton.is_ready = not_ready  # type: ignore[method-assign]  # what a server without it says
    status, problem = refused(start().address, "task=stereo")
    assert (status, problem["code"]) == (503, "model_unavailable")
    assert "optional" in problem["detail"]
