"""The three photo routes on the fake client: formats, headers, geometry, caching."""

import io
import time

import cv2
import numpy as np
import pytest
import tifffile
from fakes import FakeDepthClient, encoded, picture
from PIL import Image
from starlette.testclient import TestClient

from service.errors import ModelUnavailable

PERSON = {"x": 72, "y": 32}
WALL = {"x": 5, "y": 5}


def opened(body: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(body))
    image.load()
    return image


def test_depth_is_a_16_bit_png_of_the_displayed_size(gateway: TestClient, photo: bytes) -> None:
    answer = gateway.post("/depth", files={"image": photo})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    stored = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16
    assert stored.shape == (64, 96)
    assert stored.min() == 0
    assert stored.max() == 65535
    assert (np.diff(stored[:, 40].astype(int)) >= 0).all(), "lower rows are nearer, so they must be larger"


def test_headers_and_text_chunks_turn_stored_numbers_into_values(gateway: TestClient, photo: bytes) -> None:
    png = gateway.post("/depth", files={"image": photo})
    npy = gateway.post("/depth?format=npy", files={"image": photo})
    stored = cv2.imdecode(np.frombuffer(png.content, np.uint8), cv2.IMREAD_UNCHANGED)
    values = np.load(io.BytesIO(npy.content))
    scale, offset = float(png.headers["x-depth-scale"]), float(png.headers["x-depth-offset"])
    np.testing.assert_allclose(stored * scale + offset, values, atol=1e-4)
    assert values.dtype == np.float32
    assert png.headers["x-depth-kind"] == "relative-inverse"
    assert png.headers["x-model"] == "focus_on_depth"
    assert png.headers["x-model-version"] == "1"
    assert opened(png.content).text["Depth-Scale"] == png.headers["x-depth-scale"]
    assert (npy.headers["x-depth-scale"], npy.headers["x-depth-offset"]) == ("1", "0")


def test_raw_body_and_multipart_give_the_same_bytes(gateway: TestClient, photo: bytes) -> None:
    for route in ("/depth", "/segmentation", "/focus?x=72&y=32"):
        multipart = gateway.post(route, files={"image": photo})
        raw = gateway.post(route, content=photo, headers={"Content-Type": "image/png"})
        octets = gateway.post(route, content=photo, headers={"Content-Type": "application/octet-stream"})
        assert multipart.status_code == 200
        assert multipart.content == raw.content == octets.content


def test_npz_and_tiff_hold_the_same_map(gateway: TestClient, photo: bytes) -> None:
    values = np.load(io.BytesIO(gateway.post("/depth?format=npy", content=photo).content))
    with np.load(io.BytesIO(gateway.post("/depth?format=npz", content=photo).content)) as archive:
        np.testing.assert_array_equal(archive["inverse_depth"], values)
    tiff = tifffile.imread(io.BytesIO(gateway.post("/depth?format=tiff", content=photo).content))
    assert tiff.dtype == np.float32
    np.testing.assert_array_equal(tiff, values)


@pytest.mark.parametrize(
    ("query", "accept", "format"),
    [
        ("?format=preview", "*/*", "PNG"),
        ("", "image/jpeg", "JPEG"),
        ("", "image/webp", "WEBP"),
        ("?format=preview&colormap=gray", "image/jpeg", "JPEG"),
    ],
)
def test_previews(gateway: TestClient, photo: bytes, query: str, accept: str, format: str) -> None:
    answer = gateway.post(f"/depth{query}", content=photo, headers={"Accept": accept})
    preview = opened(answer.content)
    assert preview.format == format
    assert preview.size == (96, 64)


def test_preview_range_clips(gateway: TestClient, photo: bytes) -> None:
    answer = gateway.post("/depth?format=preview&colormap=gray&near=0.75&far=0.25", content=photo)
    gray = np.asarray(opened(answer.content).convert("L")).astype(int)
    assert (gray[:14] == gray[0, 0]).all(), "everything farther than `far` has one colour"
    assert (gray[50:] == gray[-1, 0]).all(), "everything nearer than `near` has one colour"
    assert gray[0, 0] != gray[-1, 0]


def test_json_reports_statistics_and_points(gateway: TestClient, photo: bytes) -> None:
    answer = gateway.post("/depth?format=json&points=10,0;10,63;10,31.5", content=photo).json()
    assert (answer["width"], answer["height"]) == (96, 64)
    far, near, middle = answer["points"]
    assert far["relative"] == pytest.approx(0, abs=0.02)
    assert near["relative"] == pytest.approx(1, abs=0.02)
    assert middle["relative"] == pytest.approx(0.5, abs=0.02)
    assert middle["value"] == pytest.approx(4.0, abs=0.1)
    assert answer["statistics"]["min"] == pytest.approx(2.0, abs=0.05)
    assert answer["statistics"]["max"] == pytest.approx(6.0, abs=0.05)


def test_native_size_is_the_networks_without_padding(gateway: TestClient, photo: bytes) -> None:
    values = np.load(io.BytesIO(gateway.post("/depth?format=npy&size=native", content=photo).content))
    height, width = values.shape
    assert max(height, width) >= 224
    assert width / height == pytest.approx(96 / 64, rel=0.01)


def test_points_mean_the_same_place_at_native_size(gateway: TestClient, photo: bytes) -> None:
    query = "format=json&points=50,48"
    (full,) = gateway.post(f"/depth?{query}", content=photo).json()["points"]
    (native,) = gateway.post(f"/depth?{query}&size=native", content=photo).json()["points"]
    assert native["value"] == pytest.approx(full["value"], abs=0.05)


def test_segmentation_is_the_person(gateway: TestClient, photo: bytes) -> None:
    for query in ("", "?edges=sharp"):
        mask = np.asarray(opened(gateway.post(f"/segmentation{query}", content=photo).content))
        assert mask.dtype == np.uint8
        assert mask.shape == (64, 96)
        truth = np.zeros((64, 96), bool)
        truth[16:56, 60:84] = True
        overlap = ((mask > 127) & truth).sum() / ((mask > 127) | truth).sum()
        assert overlap > 0.9


def test_segmentation_report(gateway: TestClient, photo: bytes) -> None:
    report = gateway.post("/segmentation?format=json", content=photo).json()
    assert report["coverage"] == pytest.approx(40 * 24 / (64 * 96), rel=0.1)
    assert report["box"] == pytest.approx([60, 16, 84, 56], abs=1)
    empty = gateway.post("/segmentation?format=json", content=encoded(Image.new("RGB", (50, 40)))).json()
    assert empty["box"] is None


def test_focus_on_the_person_keeps_them_and_blurs_the_rest(gateway: TestClient) -> None:
    rng = np.random.default_rng(0)
    pixels = np.asarray(picture(192, 128)).copy()
    noisy = np.clip(pixels + rng.integers(-40, 40, pixels.shape), 0, 255).astype(np.uint8)
    person = (pixels[..., 0] > 200) & (pixels[..., 1] < 60)
    noisy[person] = np.clip(noisy[person], (210, 0, 0), (255, 50, 50))
    answer = gateway.post("/focus?x=140&y=64&blur=1", content=encoded(Image.fromarray(noisy)))
    assert answer.headers["x-focus-mode"] == "subject"
    assert answer.headers["x-focus-person"] == "0"
    assert float(answer.headers["x-coc-max"]) > 2
    result = np.asarray(opened(answer.content)).astype(int)
    inside = np.zeros(person.shape, bool)
    inside[48:96, 128:160] = True
    assert np.abs(result[inside] - noisy[inside]).mean() < 2, "the person stays sharp"
    top = (slice(0, 16), slice(0, 90))
    assert result[top].std(axis=(0, 1)).mean() < 0.8 * noisy[top].std(axis=(0, 1)).mean(), "what is far is blurred"


def test_focus_modes(gateway: TestClient, photo: bytes) -> None:
    on_wall = gateway.post("/focus", params=WALL, content=photo)
    assert on_wall.headers["x-focus-mode"] == "plane"
    assert on_wall.headers["x-focus-person"] == "none"
    plane = gateway.post("/focus", params=PERSON | {"mode": "plane"}, content=photo)
    assert plane.headers["x-focus-mode"] == "plane"
    shares = gateway.post("/focus", params={"rx": 72 / 95, "ry": 32 / 63}, content=photo)
    clicked = gateway.post("/focus", params=PERSON, content=photo)
    assert shares.content == clicked.content


def test_no_blur_gives_the_photo_back(gateway: TestClient, photo: bytes) -> None:
    answer = gateway.post("/focus", params=PERSON | {"blur": 0}, content=photo)
    np.testing.assert_array_equal(np.asarray(opened(answer.content)), np.asarray(picture()))


@pytest.mark.parametrize(
    ("sent", "query", "accept", "received"),
    [
        ("JPEG", "", "*/*", "JPEG"),
        ("PNG", "", "*/*", "PNG"),
        ("WEBP", "", "*/*", "WEBP"),
        ("TIFF", "", "*/*", "TIFF"),
        ("GIF", "", "image/*", "GIF"),
        ("BMP", "", "*/*", "BMP"),
        ("AVIF", "", "*/*", "AVIF"),
        ("PNG", "", "image/jpeg", "JPEG"),
        ("PNG", "&format=webp", "image/jpeg", "WEBP"),
        ("JPEG", "&format=same", "*/*", "JPEG"),
    ],
)
def test_focus_answers_in_the_photos_own_format(
    gateway: TestClient, sent: str, query: str, accept: str, received: str
) -> None:
    body = encoded(picture(), sent)
    answer = gateway.post(f"/focus?x=72&y=32{query}", content=body, headers={"Accept": accept})
    assert answer.status_code == 200, answer.text
    result = opened(answer.content)
    assert result.format == received
    assert result.size == (96, 64)
    assert answer.headers["content-type"] == f"image/{received.lower()}"


def test_a_second_click_costs_no_inference(
    gateway: TestClient, client_of_triton: FakeDepthClient, photo: bytes
) -> None:
    def inferences() -> int:
        return sum(shape != (64, 64, 3) for _, shape in client_of_triton.calls)  # without the canary's

    gateway.post("/focus", params=PERSON, content=photo)
    assert inferences() == 1
    second = gateway.post("/focus", params=WALL, content=photo)
    assert inferences() == 1
    assert "infer" not in second.headers["server-timing"]


def test_timing_and_request_id_travel_with_every_answer(gateway: TestClient, photo: bytes) -> None:
    answer = gateway.post("/depth", content=photo, headers={"X-Request-Id": "my-id.1"})
    assert answer.headers["x-request-id"] == "my-id.1"
    for stage in ("decode", "queue", "infer", "encode"):
        assert f"{stage};dur=" in answer.headers["server-timing"]
    made = gateway.post("/depth", content=photo, headers={"X-Request-Id": "evil\tid"}).headers["x-request-id"]
    assert made.isalnum()


def test_models_lists_the_contract(gateway: TestClient) -> None:
    answer = gateway.get("/models").json()
    assert {model["name"] for model in answer["models"]} == {"focus_on_depth", "focus", "stereo_madnet"}
    served = [model for model in answer["models"] if model["name"] != "stereo_madnet"]  # optional
    assert all(model["ready"] and model["versions"] == ["1"] and model["license"] for model in served)
    assert answer["defaults"] == {"depth": "focus_on_depth", "segmentation": "focus_on_depth", "focus": "focus"}


def test_metrics_count_what_happened(gateway: TestClient, photo: bytes) -> None:
    gateway.post("/depth", content=photo)
    gateway.post("/depth?format=nonsense", content=photo)
    gateway.get("/nowhere/at/all")
    text = gateway.get("/metrics").text
    assert 'depthlens_requests_total{code="ok",route="/depth",status="200"} 1.0' in text
    assert 'depthlens_requests_total{code="not_acceptable",route="/depth",status="406"} 1.0' in text
    assert 'depthlens_requests_total{code="unknown_route",route="unmatched",status="404"} 1.0' in text
    assert 'depthlens_stage_seconds_count{stage="infer"} 1.0' in text
    assert "depthlens_triton_up 1.0" in text


def test_same_format_wins_over_accept(gateway: TestClient) -> None:
    body = encoded(picture(), "JPEG")
    for accept in ("image/png", "text/html"):
        answer = gateway.post("/focus?x=72&y=32&format=same", content=body, headers={"Accept": accept})
        assert opened(answer.content).format == "JPEG"


def test_several_accept_lines_are_one(gateway: TestClient, photo: bytes) -> None:
    answer = gateway.post("/depth", content=photo, headers=[("Accept", "text/html"), ("Accept", "image/jpeg")])
    assert answer.headers["content-type"] == "image/jpeg"


@pytest.mark.parametrize("query", ["format=preview", "format=json"])
def test_only_stored_values_have_a_scale(gateway: TestClient, photo: bytes, query: str) -> None:
    assert "x-depth-scale" not in gateway.post(f"/depth?{query}", content=photo).headers


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (300, 3)])
def test_the_smallest_photos_pass_through_every_route(gateway: TestClient, size: tuple[int, int]) -> None:
    body = encoded(Image.new("RGB", size, (90, 120, 30)))
    for route in ("/depth", "/depth?edges=sharp", "/segmentation?edges=sharp", "/focus?x=0&y=0"):
        answer = gateway.post(route, content=body)
        assert answer.status_code == 200, answer.text
        assert opened(answer.content).size == size


def test_a_model_that_comes_back_finds_the_cache_empty(
    gateway: TestClient, client_of_triton: FakeDepthClient, photo: bytes
) -> None:
    """It may be another version: its answers must not be mixed with the old one's. Till then the old ones are good."""
    while gateway.get("/health/ready").status_code != 200:
        pass
    gateway.post("/depth", content=photo)
    assert gateway.app.state.gateway.pipeline._cache.used_bytes > 0

    async def absent() -> None:
        raise ModelUnavailable("The model server cannot be reached.")

    client_of_triton.hook = absent
    deadline = time.monotonic() + 5
    while gateway.get("/health/ready").status_code == 200:
        assert time.monotonic() < deadline
    assert gateway.post("/depth", content=photo).status_code == 200
    client_of_triton.hook = FakeDepthClient().hook
    while gateway.app.state.gateway.pipeline._cache.used_bytes:
        assert time.monotonic() < deadline
        time.sleep(0.01)
