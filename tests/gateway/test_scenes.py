"""Refocusing by token, and with maps of the caller's own: what is asked of the network, and what of the photo."""

import hashlib
import io
import time

import cv2
import numpy as np
import pytest
from crowds import (
    FAR,
    HEIGHT,
    ON_FAR,
    ON_NEAR,
    ON_WALL,
    PHOTO,
    WIDTH,
    CrowdClient,
    crowd,
    gray_of,
    inferences,
    npy,
    pixels_of,
    png,
    standing,
)
from fakes import FakeDepthClient, encoded
from PIL import Image
from starlette.testclient import TestClient

from service.app import create_app
from service.cache import ByteCache
from service.errors import ModelUnavailable
from service.metrics import Metrics
from service.scenes import Scenes
from service.settings import Settings

ROWS = np.repeat(np.linspace(0, 1, HEIGHT, dtype=np.float32)[:, None], WIDTH, axis=1)
STANDING = standing(ROWS, (crowd()[..., 0] > 200) & (crowd()[..., 1] < 60))
SOMEBODY = np.zeros((HEIGHT, WIDTH), np.float32)
SOMEBODY[30:110, 30:90] = 1
ONLY_FAR = np.zeros_like(SOMEBODY)
ONLY_FAR[FAR] = 1


@pytest.fixture
def client_of_triton() -> CrowdClient:
    return CrowdClient()


def token_of(gateway: TestClient) -> str:
    return str(gateway.post("/focus?output=people", content=PHOTO).headers["x-scene"])


def test_a_token_stands_for_the_photo(gateway: TestClient, client_of_triton: FakeDepthClient) -> None:
    token = token_of(gateway)
    before = inferences(client_of_triton)
    for query in (ON_FAR | {"blur": 1}, ON_WALL, {"person": "all", "output": "coc"}, ON_WALL | {"format": "jpeg"}):
        by_token = gateway.post("/focus", params=query | {"scene": token})
        uploaded = gateway.post("/focus", params=query, content=PHOTO)
        assert by_token.content == uploaded.content
        assert by_token.headers["content-type"] == uploaded.headers["content-type"]
        assert by_token.headers["x-scene"] == token
        for name in ("x-focus-depth", "x-focus-person", "x-coc-max", "x-model"):
            assert by_token.headers[name] == uploaded.headers[name]
        assert "infer" not in by_token.headers["server-timing"]
        assert "decode" not in by_token.headers["server-timing"]
    assert inferences(client_of_triton) == before


def test_a_scene_answers_while_the_model_is_away(gateway: TestClient, client_of_triton: FakeDepthClient) -> None:
    token = token_of(gateway)

    async def absent() -> None:
        raise ModelUnavailable("The model server cannot be reached.")

    client_of_triton.hook = absent
    deadline = time.monotonic() + 5
    while gateway.get("/health/ready").status_code == 200:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert gateway.post("/focus", params=ON_FAR | {"scene": token}).status_code == 200
    assert gateway.post("/focus", params=ON_FAR, content=encoded(Image.fromarray(crowd(lamp=True)))).status_code == 503


def test_a_token_outlives_the_return_of_the_model(gateway: TestClient, client_of_triton: FakeDepthClient) -> None:
    """What comes back may be another version, so everything kept is forgotten but what a client holds a token of."""
    token = token_of(gateway)
    cache = gateway.app.state.gateway.pipeline._cache

    async def absent() -> None:
        raise ModelUnavailable("The model server cannot be reached.")

    present = client_of_triton.hook
    for hook, status in ((absent, 503), (present, 200)):
        client_of_triton.hook = hook
        deadline = time.monotonic() + 5
        while gateway.get("/health/ready").status_code != status:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert {kind for kind, _ in cache._entries} == {"token"}
    assert gateway.post("/focus", params=ON_FAR | {"scene": token}).status_code == 200


def test_tokens_cannot_be_guessed(gateway: TestClient) -> None:
    """Two clients with one photo have two tokens; neither says anything of the photo, or of the other."""
    tokens = {token_of(gateway) for _ in range(10)}
    assert len(tokens) == 10
    assert {len(token) for token in tokens} == {32}, "192 random bits"
    digest = hashlib.sha256(PHOTO).hexdigest()
    one = tokens.pop()
    near_misses = [one[:-1], one + "A", one.swapcase(), one[:-1] + ("A" if one[-1] != "A" else "B"), "", " ", "*"]
    for guess in [*near_misses, digest, digest[:32], "../" + one, "\0", "x" * 100]:
        answer = gateway.post("/focus", params=ON_NEAR | {"scene": guess})
        problem = answer.json()
        assert (answer.status_code, problem["code"], problem["field"]) == (404, "unknown_scene", "scene")
        assert "value" not in problem
    assert gateway.post("/focus", params=ON_NEAR | {"scene": "x" * 101}).status_code == 422


def test_a_token_expires_after_its_last_use(gateway: TestClient) -> None:
    now = 1000.0
    parts = gateway.app.state.gateway
    parts.scenes = Scenes(ByteCache(10_000_000, 600.0, Metrics(), clock=lambda: now), max_age_s=5.0)
    token = token_of(gateway)
    for _ in range(3):
        now += 4.9
        assert gateway.post("/focus", params=ON_NEAR | {"scene": token}).status_code == 200
    now += 5.1
    answer = gateway.post("/focus", params=ON_NEAR | {"scene": token})
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_scene")
    assert gateway.post("/focus", params=ON_NEAR, content=PHOTO).status_code == 200


def test_scenes_give_way_when_memory_runs_out(client_of_triton: FakeDepthClient) -> None:
    with TestClient(create_app(Settings(cache_bytes=400_000, canary_period_s=60), client_of_triton)) as gateway:
        token = token_of(gateway)
        other = encoded(Image.fromarray(crowd()[:, ::-1]))
        for shift in range(3):
            photo = encoded(Image.fromarray(np.roll(crowd(), shift + 1, axis=1)))
            assert gateway.post("/focus", params=ON_WALL, content=photo).status_code == 200
        assert gateway.app.state.gateway.pipeline._cache.used_bytes <= 400_000
        assert gateway.post("/focus", params=ON_NEAR | {"scene": token}).status_code == 404
        assert gateway.post("/focus", params=ON_WALL, content=other).headers["x-scene"]


def test_without_a_cache_there_are_no_tokens(client_of_triton: FakeDepthClient) -> None:
    with TestClient(create_app(Settings(cache_bytes=0, canary_period_s=60), client_of_triton)) as gateway:
        answer = gateway.post("/focus", params=ON_NEAR, content=PHOTO)
        assert answer.status_code == 200
        assert "x-scene" not in answer.headers
        assert gateway.post("/focus?output=people", content=PHOTO).json()["scene"] is None


def test_many_tokens_of_one_scene_count_its_bytes_once(gateway: TestClient) -> None:
    cache = gateway.app.state.gateway.pipeline._cache
    token_of(gateway)
    before = cache.used_bytes
    for _ in range(10):
        token_of(gateway)
    assert cache.used_bytes - before == 10 * 1024


@pytest.mark.parametrize(
    ("query", "body", "field"),
    [
        ({}, {"content": PHOTO}, "scene"),
        ({}, {"files": {"depth": npy(ROWS)}}, "scene"),
        ({"edge": "hard"}, {}, "edge"),
        ({"model": "focus"}, {}, "model"),
        ({"x": 192}, {}, "x"),
        ({"x": 90, "y": 12, "mode": "subject"}, {}, "mode"),
    ],
    ids=str,
)
def test_what_a_token_cannot_be_asked(gateway: TestClient, query: dict, body: dict, field: str) -> None:
    answer = gateway.post("/focus", params=ON_NEAR | query | {"scene": token_of(gateway)}, **body)
    assert answer.status_code == 422
    assert answer.json()["field"] == field


def test_an_empty_body_without_a_scene(gateway: TestClient) -> None:
    answer = gateway.post("/focus", params=ON_NEAR)
    assert (answer.status_code, answer.json()["code"]) == (400, "empty_body")


def test_own_maps_need_no_network(gateway: TestClient, client_of_triton: FakeDepthClient) -> None:
    files = {"image": PHOTO, "depth": npy(ROWS[::-1]), "mask": png(np.uint8(SOMEBODY * 255))}
    answer = gateway.post("/focus?x=60&y=70&blur=1", files=files)
    assert inferences(client_of_triton) == 0
    assert "infer" not in answer.headers["server-timing"]
    assert (answer.headers["x-model"], answer.headers["x-model-version"]) == ("none", "none")
    assert (answer.headers["x-focus-mode"], answer.headers["x-focus-person"]) == ("subject", "0")
    sent, pixels = crowd().astype(int), pixels_of(answer)
    np.testing.assert_array_equal(pixels[40:100, 40:80], sent[40:100, 40:80])
    assert np.abs(pixels[:, 100:] - sent[:, 100:]).mean() > 5
    (person,) = gateway.post("/focus?output=people", files=files).json()["people"]
    assert person["box"] == pytest.approx([30, 30, 90, 110], abs=2)
    used = gateway.post("/focus?output=depth&format=npy", files=files)
    beside = (slice(None), slice(110, None))
    np.testing.assert_allclose(np.load(io.BytesIO(used.content))[beside], ROWS[::-1][beside], atol=0.03)
    token = answer.headers["x-scene"]
    assert gateway.post("/focus", params={"x": 60, "y": 70, "blur": 1, "scene": token}).content == answer.content
    assert inferences(client_of_triton) == 0


@pytest.mark.parametrize(
    "given", [{"depth": npy(STANDING)}, {"mask": npy(ONLY_FAR)}], ids=lambda given: next(iter(given))
)
def test_one_own_map_asks_for_the_other(
    gateway: TestClient, client_of_triton: FakeDepthClient, given: dict[str, bytes]
) -> None:
    answer = gateway.post("/focus?output=people", files={"image": PHOTO} | given)
    assert inferences(client_of_triton) == 1
    assert answer.headers["x-model"] == "focus"
    assert len(answer.json()["people"]) == (1 if "mask" in given else 2)


def test_the_same_photo_with_other_maps_is_another_scene(gateway: TestClient) -> None:
    def focus_depth(**maps: bytes) -> float:
        answer = gateway.post("/focus?x=100&y=20&mode=plane", files={"image": PHOTO} | maps)
        return float(answer.headers["x-focus-depth"])

    assert focus_depth() < 0.3
    assert focus_depth(depth=npy(ROWS[::-1])) > 0.7
    assert focus_depth() < 0.3


def test_maps_are_of_the_displayed_size(gateway: TestClient) -> None:
    """A photo stored lying and shown upright: its maps are upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = encoded(Image.fromarray(crowd()), "JPEG", exif=exif)
    upright = np.ascontiguousarray(ROWS.T)
    answer = gateway.post("/focus?x=1&y=1", files={"image": photo, "depth": npy(upright)})
    assert answer.status_code == 200
    assert Image.open(io.BytesIO(answer.content)).size == (HEIGHT, WIDTH)
    answer = gateway.post("/focus?x=1&y=1", files={"image": photo, "depth": npy(ROWS)})
    assert answer.json()["code"] == "invalid_map"
    assert answer.json()["limit"] == [WIDTH, HEIGHT]


def test_sixteen_bits_reach_the_renderer(gateway: TestClient) -> None:
    fine = (np.arange(HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH) / (HEIGHT * WIDTH)) * 60_000
    files = {"image": PHOTO, "depth": png(fine.astype(np.uint16)), "mask": npy(np.zeros_like(SOMEBODY))}
    stored = gray_of(gateway.post("/focus?output=depth", files=files).content)
    assert np.median(np.abs(stored.astype(float) - fine)) < 300, "edges are snapped, the rest is what was sent"


@pytest.mark.parametrize(
    ("files", "status", "code", "field"),
    [
        ({"depth": npy(ROWS[1:])}, 422, "invalid_map", "depth"),
        ({"depth": npy(ROWS.astype(np.float64))}, 422, "invalid_map", "depth"),
        ({"depth": npy(np.where(ROWS > 0.5, np.nan, ROWS))}, 422, "invalid_map", "depth"),
        ({"depth": b""}, 422, "invalid_map", "depth"),
        ({"depth": PHOTO}, 422, "invalid_map", "depth"),
        ({"mask": npy(2 * SOMEBODY)}, 422, "invalid_map", "mask"),
        ({"mask": cv2.imencode(".jpg", SOMEBODY)[1].tobytes()}, 422, "invalid_map", "mask"),
        ({"dept": npy(ROWS)}, 400, "malformed_request", "dept"),
        ({"depth": (None, b"text")}, 400, "malformed_request", "depth"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_maps_that_cannot_be_used(
    gateway: TestClient,
    client_of_triton: FakeDepthClient,
    files: dict[str, bytes],
    status: int,
    code: str,
    field: str,
) -> None:
    answer = gateway.post("/focus?x=1&y=1", files={"image": PHOTO} | files)
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["field"]) == (status, code, field)
    assert inferences(client_of_triton) == 0, "refused before the model is asked"
    for leak in ("Traceback", ".py", "numpy", "PIL", "0x"):
        assert leak not in answer.text


def test_maps_without_a_photo(gateway: TestClient) -> None:
    answer = gateway.post("/focus?x=1&y=1", files={"depth": npy(ROWS)})
    assert (answer.status_code, answer.json()["code"]) == (400, "missing_image")


def test_maps_count_as_part_of_the_body(client_of_triton: FakeDepthClient) -> None:
    settings = Settings(max_body_bytes=len(PHOTO) + 1000, canary_period_s=60)
    with TestClient(create_app(settings, client_of_triton)) as gateway:
        answer = gateway.post("/focus?x=1&y=1", files={"image": PHOTO, "depth": npy(ROWS)})
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
        assert gateway.app.state.gateway.uploads.used_bytes == 0
