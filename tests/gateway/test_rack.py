"""Focus pulls: frames, durations and sizes read back, where the focus goes, and that work stops with its request."""

import io
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from crowds import FAR, HEIGHT, NEAR, ON_FAR, ON_NEAR, ON_WALL, PHOTO, WIDTH, CrowdClient, crowd, inner, pixels_of
from fakes import FakeDepthClient
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from starlette.testclient import TestClient

from service.app import create_app
from service.exposure import Lens
from service.focusing import Focus
from service.rack import Rack, frame_size, smoothstep
from service.settings import Settings

TO_FAR = {"rack_x": 134, "rack_y": 40}


@pytest.fixture
def client_of_triton() -> CrowdClient:
    return CrowdClient()


def frames_of(answer: object) -> tuple[list[np.ndarray], list[int], Image.Image]:
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/webp"
    image = Image.open(io.BytesIO(answer.content))
    frames, durations = [], []
    for index in range(image.n_frames):
        image.seek(index)
        image.load()
        frames.append(np.asarray(image.convert("RGB")).astype(int))
        durations.append(image.info["duration"])
    return frames, durations, image


def detail(frame: np.ndarray, place: tuple[slice, slice]) -> float:
    """Gradient energy inside a place."""
    part = frame[inner(place)]
    return float(np.abs(np.diff(part, axis=1)).mean())


def test_the_focus_goes_from_one_person_to_the_other(gateway: TestClient) -> None:
    query = ON_NEAR | TO_FAR | {"blur": 1, "quality": 100, "rack_frames": 9, "rack_fps": 12}
    answer = gateway.post("/focus", params=query, content=PHOTO)
    frames, durations, image = frames_of(answer)
    assert (len(frames), image.size, image.info["loop"]) == (9, (WIDTH, HEIGHT), 0)
    assert sum(durations) == 750
    assert (answer.headers["x-rack-frames"], answer.headers["x-rack-size"]) == ("9", f"{WIDTH}x{HEIGHT}")
    assert answer.headers["x-focus-person"] == "0"
    near, far = [detail(frame, NEAR) for frame in frames], [detail(frame, FAR) for frame in frames]
    assert near[0] > 3 * near[-1]
    assert far[-1] > 3 * far[0]
    noise = 0.05  # of a grey level: what WebP leaves of a flat picture
    assert all(later <= earlier * 1.02 + noise for earlier, later in pairwise(near)), near
    assert all(later >= earlier * 0.98 - noise for earlier, later in pairwise(far)), far
    as_webp = {"blur": 1, "quality": 100, "format": "webp"}
    for frame, place, click in ((frames[0], NEAR, ON_NEAR), (frames[-1], FAR, ON_FAR)):
        still = pixels_of(gateway.post("/focus", params=click | as_webp, content=PHOTO))
        assert np.abs(frame[inner(place)] - still[inner(place)]).mean() < 1, "it begins and ends as the stills"


def test_defaults(gateway: TestClient) -> None:
    frames, durations, _ = frames_of(gateway.post("/focus", params=ON_NEAR | {"rack_person": 1}, content=PHOTO))
    assert len(frames) == 24
    assert sum(durations) == 1000
    assert set(durations) == {41, 42}


@pytest.mark.parametrize(
    "query",
    [
        ON_WALL | {"rack_rx": 0.5, "rack_ry": 1},
        {"person": "0", "rack_person": 1},
        {"person": "all", "rack_x": 90, "rack_y": 12},
        ON_NEAR | {"mode": "plane", "rack_x": 5, "rack_y": 5},
    ],
    ids=str,
)
def test_ways_to_say_where(gateway: TestClient, query: dict[str, object]) -> None:
    answer = gateway.post("/focus", params=query | {"rack_frames": 2, "blur": 1}, content=PHOTO)
    first, last = frames_of(answer)[0]
    assert np.abs(first - last).mean() > 1


def test_pulling_to_where_the_focus_is_changes_nothing(gateway: TestClient) -> None:
    query = ON_NEAR | {"rack_person": 0, "rack_frames": 5, "blur": 1}
    frames, _, _ = frames_of(gateway.post("/focus", params=query, content=PHOTO))
    assert len(frames) == 5, "frames that do not differ are not joined"
    assert all((frame == frames[0]).all() for frame in frames)


def test_by_token(gateway: TestClient) -> None:
    query = ON_NEAR | TO_FAR | {"rack_frames": 3}
    uploaded = gateway.post("/focus", params=query, content=PHOTO)
    by_token = gateway.post("/focus", params=query | {"scene": uploaded.headers["x-scene"]})
    assert by_token.content == uploaded.content


def test_large_pulls_are_reduced(client_of_triton: FakeDepthClient) -> None:
    small_budget = Settings(max_rack_pixels=WIDTH * HEIGHT, canary_period_s=60)
    with TestClient(create_app(small_budget, client_of_triton)) as gateway:
        answer = gateway.post("/focus", params=ON_NEAR | TO_FAR | {"rack_frames": 4}, content=PHOTO)
        frames, _, image = frames_of(answer)
        assert len(frames) == 4
        assert image.size == (WIDTH // 2, HEIGHT // 2)
        assert answer.headers["x-rack-size"] == f"{WIDTH // 2}x{HEIGHT // 2}"
        small = np.asarray(Image.fromarray(crowd()).resize(image.size, Image.Resampling.BOX)).astype(int)
        place = (slice(36, 54), slice(16, 26))
        assert np.abs(frames[0][place] - small[place]).mean() < 8, "who was clicked is sharp in the reduced frames too"


@settings(max_examples=50)
@given(st.integers(1, 60_000), st.integers(1, 60_000), st.integers(2, 48), st.integers(100, 10**8))
def test_frames_fit_the_budget(height: int, width: int, frames: int, max_pixels: int) -> None:
    rows, columns = frame_size((height, width), frames, max_pixels)
    assert 1 <= rows <= min(height, 16_383)
    assert 1 <= columns <= min(width, 16_383)
    assert rows * columns * frames <= max_pixels or min(rows, columns) == 1
    if frames * height * width <= max_pixels and max(height, width) <= 16_383:
        assert (rows, columns) == (height, width)


@settings(max_examples=50)
@given(st.floats(0, 1), st.floats(0, 1), st.integers(2, 48))
def test_the_focal_plane_moves_smoothly_in_inverse_depth(start: float, end: float, frames: int) -> None:
    rack = Rack(None, Focus(start, (0, 1), 0.0), Focus(end, (1,), 0.02), Lens(30.0), frames)
    steps = [rack.focus(index) for index in range(frames)]
    depths = [focus.depth for focus in steps]
    assert depths[0] == start
    assert depths[-1] == pytest.approx(end)
    moves = np.diff(depths) * (1 if end >= start else -1)
    assert (moves >= -1e-9).all()
    assert moves.max() <= abs(end - start) * (1.5 / (frames - 1) + 1e-6) or frames < 4
    assert all(1 in focus.people for focus in steps), "who is sharp at both ends is sharp in between"
    assert 0 in steps[0].people
    assert steps[0].depth_range == 0
    assert steps[-1].depth_range == 0.02
    unmoved = replace(rack, lens=Lens(0.0)).focus(frames // 2)
    assert set(unmoved.people) == {0, 1}


def test_smoothstep() -> None:
    assert [smoothstep(share) for share in (0, 0.25, 0.5, 1)] == [0, 0.15625, 0.5, 1]


def test_a_pull_stops_at_its_deadline(gateway: TestClient) -> None:
    """The next frame is not begun: the workers have nothing left to do once they have ended what they were at."""
    query = ON_NEAR | TO_FAR | {"rack_frames": 48, "blur": 1}
    scene = gateway.post("/focus", params=ON_NEAR, content=PHOTO).headers["x-scene"]
    answer = gateway.post("/focus", params=query | {"scene": scene}, headers={"X-Request-Timeout": "0.1"})
    assert answer.status_code == 504
    assert answer.json()["code"] == "deadline_exceeded"
    workers = gateway.app.state.gateway.pipeline._workers
    workers.submit(int).result(30)
    assert workers._work_queue.qsize() == 0
    assert gateway.post("/focus", params=ON_NEAR | {"scene": scene}).status_code == 200
