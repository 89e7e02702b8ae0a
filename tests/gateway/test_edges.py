"""`edges=raw|sharp` of `POST /depth`: every format, native size, the cache, bad values."""

import io
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import pytest
from fakes import FakeDepthClient, encoded
from PIL import Image
from starlette.testclient import TestClient

from service.app import create_app
from service.inference import Prediction
from service.settings import Settings

HEIGHT, WIDTH = 600, 800


class SoftEdgedClient(FakeDepthClient):
    """What is red stands before the rest; the border between the two is a few pixels wide, as a network draws it."""

    async def infer(
        self,
        model: str,
        image: np.ndarray,
        *,
        outputs: Sequence[str] | None = None,
        timeout_s: float,
        request_id: str | None = None,
    ) -> Prediction:
        answer = await super().infer(model, image, timeout_s=timeout_s, request_id=request_id)
        inverse_depth = cv2.GaussianBlur(2 + 4 * answer.outputs["person"], (0, 0), 2)
        return Prediction(answer.outputs | {"inverse_depth": inverse_depth}, answer.model, answer.version)


@pytest.fixture
def gateway(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings, SoftEdgedClient()), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def box() -> bytes:
    """A red box on blue, columns 300 to 499 and rows 200 to 399."""
    pixels = np.full((HEIGHT, WIDTH, 3), (30, 60, 160), np.uint8)
    pixels[200:400, 300:500] = (230, 20, 20)
    return encoded(Image.fromarray(pixels))


def values(gateway: TestClient, box: bytes, query: str) -> np.ndarray:
    answer = gateway.post(f"/depth?format=npy&{query}", content=box)
    assert answer.status_code == 200, answer.text
    return np.load(io.BytesIO(answer.content))


def test_sharp_ends_where_the_box_ends(gateway: TestClient, box: bytes) -> None:
    truth = np.full((HEIGHT, WIDTH), 2, np.float32)
    truth[200:400, 300:500] = 6
    raw, sharp = values(gateway, box, "edges=raw"), values(gateway, box, "edges=sharp")
    assert sharp.shape == raw.shape == (HEIGHT, WIDTH)
    assert np.abs(sharp - truth).mean() < 0.15 * np.abs(raw - truth).mean()
    row = sharp[300]
    assert row[[296, 503]] == pytest.approx(2, abs=0.1)
    assert row[[303, 496]] == pytest.approx(6, abs=0.1)
    assert sharp.min() >= raw.min() - 0.01
    assert sharp.max() <= raw.max() + 0.01


def test_raw_is_the_default_and_neither_answers_for_the_other(gateway: TestClient, box: bytes) -> None:
    before, sharp, after = (values(gateway, box, query) for query in ("", "edges=sharp", "edges=raw"))
    assert (before == after).all()
    assert np.abs(before - sharp).max() > 1


@pytest.mark.parametrize("format", ["png16", "npy", "npz", "tiff", "preview", "json"])
def test_every_format_has_sharp_edges(gateway: TestClient, box: bytes, format: str) -> None:
    raw = gateway.post(f"/depth?format={format}&points=298,300&edges=raw", content=box)
    sharp = gateway.post(f"/depth?format={format}&points=298,300&edges=sharp", content=box)
    assert raw.status_code == sharp.status_code == 200
    assert raw.headers["content-type"] == sharp.headers["content-type"]
    assert raw.content != sharp.content
    if format == "json":
        assert sharp.json()["points"][0]["value"] < raw.json()["points"][0]["value"]
        assert sharp.json()["height"] == HEIGHT


def test_native_size_is_the_networks_own_map_whatever_the_edges(gateway: TestClient, box: bytes) -> None:
    native = [gateway.post(f"/depth?size=native&edges={edges}", content=box).content for edges in ("raw", "sharp")]
    assert native[0] == native[1]


def test_gray_photos_and_photos_with_bars(gateway: TestClient, box: bytes) -> None:
    gray = encoded(Image.open(io.BytesIO(box)).convert("L"))
    assert gateway.post("/depth?edges=sharp", content=gray).status_code == 200
    strip = encoded(Image.open(io.BytesIO(box)).resize((900, 90)))
    answer = gateway.post("/depth?edges=sharp", content=strip)
    assert Image.open(io.BytesIO(answer.content)).size == (900, 90)


@pytest.mark.parametrize("wrong", ["sharper", "", "RAW", "1"])
def test_other_values_are_refused(gateway: TestClient, box: bytes, wrong: str) -> None:
    answer = gateway.post(f"/depth?edges={wrong}", content=box)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["field"] == "edges"
