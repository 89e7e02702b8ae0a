"""Every format of `POST /depth`, read back by other libraries: the numbers are the npy's. Metres, and refusals."""

import io
import json
import math
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import OpenEXR
import pytest
import tifffile
import trimesh
from fakes import FakeDepthClient, encoded, picture
from PIL import Image
from starlette.testclient import TestClient

from service.app import create_app
from service.contract import DEPTH_M, MODELS, ModelSpec
from service.imaging import exr
from service.inference import Prediction
from service.settings import Settings

FULL = "edges=raw&depth_edge=100"
LEARNED_SHARE = 0.8


class MetricClient(FakeDepthClient):
    """Knows a model in metres beside the others: upper rows 8 m away, lower ones 2 m."""

    async def spec(self, model: str) -> ModelSpec:
        if model in ("metres", "metres_of_any_camera"):
            return replace(
                MODELS["focus_on_depth"],
                name=model,
                tasks=frozenset({"depth"}),
                outputs=(DEPTH_M,),
                depth_kind="metric",
                focal_share=LEARNED_SHARE if model == "metres" else None,
            )
        return await super().spec(model)

    async def infer(self, model: str, image: np.ndarray, **kwargs: Any) -> Prediction:
        prediction = await super().infer(model, image, **kwargs)
        if not model.startswith("metres"):
            return prediction
        rows = np.linspace(8, 2, image.shape[0], dtype=np.float32)
        return replace(prediction, outputs={"depth_m": np.repeat(rows[:, None], image.shape[1], axis=1)}, model=model)


@pytest.fixture
def gateway() -> Iterator[TestClient]:
    app = create_app(Settings(canary_period_s=60, max_pixels=60_000_000), MetricClient())
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def npy(gateway: TestClient, photo: bytes, query: str = "") -> np.ndarray:
    return np.load(io.BytesIO(gateway.post(f"/depth?format=npy&{query}", content=photo).content))


def with_focal(focal_mm: int) -> bytes:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = focal_mm
    return encoded(picture(), "JPEG", exif=exif)


def ply(gateway: TestClient, photo: bytes, query: str) -> tuple[trimesh.PointCloud, str, dict[str, str]]:
    answer = gateway.post(f"/depth?format=ply&{query}", content=photo)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ply"
    header = answer.content[: answer.content.index(b"end_header")].decode()
    return trimesh.load(io.BytesIO(answer.content), file_type="ply"), header, answer.headers


def exr_of(body: bytes, tmp_path: Any) -> tuple[np.ndarray, dict[str, Any]]:
    path = tmp_path / "depth.exr"
    path.write_bytes(body)
    with OpenEXR.File(str(path)) as file:
        return file.channels()["Z"].pixels.copy(), dict(file.header())


@pytest.mark.parametrize("model", ["focus_on_depth", "metres"])
def test_every_format_holds_the_numbers_of_the_npy(
    gateway: TestClient, photo: bytes, tmp_path: Any, model: str
) -> None:
    values = npy(gateway, photo, f"model={model}")

    def get(format: str) -> Any:
        return gateway.post(f"/depth?format={format}&model={model}&{FULL}", content=photo)

    unit = "m" if model == "metres" else "relative"

    z, header = exr_of(get("exr").content, tmp_path)
    assert z.dtype == np.float32
    np.testing.assert_array_equal(z, values)
    assert header["Depth-Unit"] == unit

    with tifffile.TiffFile(io.BytesIO(get("tiff").content)) as tiff:
        np.testing.assert_array_equal(tiff.asarray(), values)
        assert json.loads(tiff.pages[0].description)["Depth-Unit"] == unit

    with np.load(io.BytesIO(get("npz").content)) as archive:
        np.testing.assert_array_equal(archive["depth_m" if unit == "m" else "inverse_depth"], values)
        assert str(archive["Depth-Unit"]) == unit

    cloud = trimesh.load(io.BytesIO(get("ply").content), file_type="ply")
    raw = cloud.metadata["_ply_raw"]["vertex"]["data"]
    np.testing.assert_array_equal(raw["z" if unit == "m" else "inverse_depth"].ravel(), values.ravel())

    (mesh,) = trimesh.load_scene(io.BytesIO(get("glb").content), file_type="glb").geometry.values()
    if unit == "m":
        np.testing.assert_array_equal(-mesh.vertices[:, 2].astype(np.float32), values.ravel())
    else:
        np.testing.assert_array_equal(mesh.vertex_attributes["_INVERSE_DEPTH"].ravel(), values.ravel())


def test_relative_points_go_from_one_to_the_ratio(gateway: TestClient, photo: bytes) -> None:
    cloud, header, said = ply(gateway, photo, f"{FULL}&far_ratio=5")
    assert cloud.vertices[:, 2].min() == pytest.approx(1)
    assert cloud.vertices[:, 2].max() == pytest.approx(5)
    assert "comment Unit: none: nearest point at 1, farthest at 5\n" in header
    assert said["x-depth-unit"] == "relative"
    assert said["x-points"] == "96 x 64"


def test_points_have_the_colours_of_the_photo(gateway: TestClient, photo: bytes) -> None:
    cloud, _, _ = ply(gateway, photo, FULL)
    np.testing.assert_array_equal(cloud.colors[:, :3].reshape(64, 96, 3), np.asarray(picture()))


def test_a_glb_is_upright(gateway: TestClient, photo: bytes) -> None:
    """The red person is in the right half and its texture is the photo's."""
    answer = gateway.post(f"/depth?format=glb&{FULL}", content=photo)
    (mesh,) = trimesh.load_scene(io.BytesIO(answer.content), file_type="glb").geometry.values()
    texture = np.asarray(mesh.visual.material.baseColorTexture.convert("RGB"))
    row, column = (1 - mesh.visual.uv[:, 1]) * 64 - 0.5, mesh.visual.uv[:, 0] * 96 - 0.5
    colours = texture[row.round().astype(int), column.round().astype(int)].astype(int)
    red = (colours[:, 0] > 180) & (colours[:, 1] < 80)
    assert (mesh.vertices[red, 0] > 0).all()
    near = mesh.vertices[:, 2] > np.median(mesh.vertices[:, 2])
    assert mesh.vertices[near, 1].mean() < mesh.vertices[~near, 1].mean(), "lower rows are nearer, and below"


@pytest.mark.parametrize("format", ["ply", "glb"])
def test_a_large_photo_is_reduced_before_it_becomes_points(gateway: TestClient, format: str) -> None:
    large = encoded(Image.new("RGB", (4000, 2000), (9, 99, 9)), "JPEG")
    answer = gateway.post(f"/depth?format={format}&max_points=5000", content=large)
    width, height = map(int, answer.headers["x-points"].split(" x "))
    assert width == 2 * height
    assert 4800 < width * height <= 5000
    assert len(answer.content) < 5000 * 60 + 100_000


@pytest.mark.parametrize(
    ("query", "focal_px", "source"),
    [
        ("", 26 / math.hypot(36, 24) * math.hypot(96, 64), "exif"),
        ("&focal_px=120", 120, "query"),
    ],
)
def test_the_camera_of_points(gateway: TestClient, query: str, focal_px: float, source: str) -> None:
    cloud, header, said = ply(gateway, with_focal(26), FULL + query)
    assert float(said["x-focal-px"]) == pytest.approx(focal_px, abs=0.01)
    assert said["x-focal-source"] == source
    assert f"comment Focal-Source: {source}\n" in header
    x, _, z = cloud.vertices[0]
    assert x / z == pytest.approx((0.5 - 48) / focal_px, rel=1e-4)


def test_without_a_word_on_the_camera_it_is_an_ordinary_one(gateway: TestClient, photo: bytes) -> None:
    _, _, said = ply(gateway, photo, FULL)
    assert said["x-focal-source"] == "default"
    assert math.degrees(2 * math.atan(48 / float(said["x-focal-px"]))) == pytest.approx(60, abs=0.1)


@pytest.mark.parametrize(
    ("photo", "query", "factor", "source"),
    [
        (encoded(picture()), "", 1, "model"),
        (with_focal(26), "", 26 / math.hypot(36, 24) * math.hypot(96, 64) / 96 / LEARNED_SHARE, "exif"),
        (with_focal(26), "&focal_px=153.6", 153.6 / 96 / LEARNED_SHARE, "query"),
    ],
    ids=["unknown", "exif", "query"],
)
def test_metres_are_those_of_the_camera_that_took_the_photo(
    gateway: TestClient, photo: bytes, query: str, factor: float, source: str
) -> None:
    answer = gateway.post(f"/depth?format=npy&model=metres&unit=m{query}", content=photo)
    learned = npy(gateway, encoded(picture()), "model=metres")
    np.testing.assert_allclose(np.load(io.BytesIO(answer.content)), learned * factor, rtol=1e-4)
    assert answer.headers["x-focal-source"] == source
    assert float(answer.headers["x-focal-px"]) == pytest.approx(factor * LEARNED_SHARE * 96, abs=0.01)
    assert answer.headers["x-depth-unit"] == "m"


def test_metres_of_any_camera_have_no_focal_length(gateway: TestClient) -> None:
    answer = gateway.post("/depth?model=metres_of_any_camera", content=with_focal(26))
    assert "x-focal-px" not in answer.headers
    refused = gateway.post("/depth?model=metres_of_any_camera&focal_px=90", content=with_focal(26))
    assert (refused.status_code, refused.json()["code"]) == (422, "no_focal_length")


def test_points_in_metres_say_so(gateway: TestClient, photo: bytes) -> None:
    cloud, header, _ = ply(gateway, photo, f"model=metres&{FULL}")
    assert "comment Unit: metres\n" in header
    assert cloud.vertices[:, 2].min() == pytest.approx(2, abs=0.1)
    glb = gateway.post("/depth?format=glb&model=metres", content=photo).content
    (length,) = struct.unpack_from("<I", glb, 12)
    assert json.loads(glb[20 : 20 + length])["asset"]["extras"]["Depth-Unit"] == "m"


@pytest.mark.parametrize(
    ("query", "code", "field"),
    [
        ("unit=m", "not_metric", "unit"),
        ("model=metres&unit=relative", "not_relative", "unit"),
        ("near_m=1&far_m=5", "not_metric", "near_m"),
        ("far_m=5", "not_metric", "far_m"),
        ("focal_px=500", "not_metric", "focal_px"),
        ("model=metres&near_m=1", "invalid_parameter", "near_m"),
        ("model=metres&near_m=5&far_m=1", "invalid_parameter", "near_m"),
        ("format=ply&max_points=3", "invalid_parameter", "max_points"),
        ("format=ply&max_points=1000001", "invalid_parameter", "max_points"),
        ("format=ply&depth_edge=0", "invalid_parameter", "depth_edge"),
        ("format=ply&far_ratio=1", "invalid_parameter", "far_ratio"),
    ],
)
def test_what_cannot_be_had_is_refused_by_name(
    gateway: TestClient, photo: bytes, query: str, code: str, field: str
) -> None:
    answer = gateway.post(f"/depth?{query}", content=photo)
    assert answer.status_code == 422
    assert (answer.json()["code"], answer.json()["field"]) == (code, field)


def test_exr_without_its_extra(gateway: TestClient, photo: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.imaging.codec.exr_available", lambda: False)
    answer = gateway.post("/depth?format=exr", content=photo)
    assert answer.status_code == 406
    assert "`exr` extra" in answer.json()["detail"]
    assert {"format": "tiff", "media_type": "image/tiff"} in answer.json()["available"]
    assert all(offer["format"] != "exr" for offer in answer.json()["available"])
    monkeypatch.setattr(exr, "exr_available", lambda: False)
    with pytest.raises(exr.UnsupportedFormat, match="extra"):
        exr.encode_exr(np.zeros((2, 2), np.float32), {})


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "avif"])
def test_previews_come_in_four_formats(gateway: TestClient, photo: bytes, kind: str) -> None:
    answer = gateway.post("/depth?format=preview", content=photo, headers={"Accept": f"image/{kind}"})
    assert answer.headers["content-type"] == f"image/{kind}"
    opened = Image.open(io.BytesIO(answer.content))
    assert (opened.format, opened.size) == (kind.upper(), (96, 64))
    assert float(answer.headers["x-preview-near"]) > float(answer.headers["x-preview-far"])


def gray(gateway: TestClient, photo: bytes, query: str) -> tuple[np.ndarray, float, float]:
    answer = gateway.post(f"/depth?format=preview&colormap=gray&{query}", content=photo)
    assert answer.status_code == 200, answer.text
    level = np.asarray(Image.open(io.BytesIO(answer.content)).convert("L")).astype(float)[:, 5]
    return level, float(answer.headers["x-preview-near"]), float(answer.headers["x-preview-far"])


@pytest.mark.parametrize("query", ["", "range=percentile", "near=0.8&far=0.1", "range=percentile&near=0.5&far=0.2"])
def test_a_previews_headers_say_what_its_colours_mean(gateway: TestClient, photo: bytes, query: str) -> None:
    level, near, far = gray(gateway, photo, query)
    values = npy(gateway, photo)[:, 5]
    np.testing.assert_allclose(level, 255 * np.clip((values - far) / (near - far), 0, 1), atol=1)


def test_percentiles_leave_the_ends_out(gateway: TestClient, photo: bytes) -> None:
    values = npy(gateway, photo)
    _, near, far = gray(gateway, photo, "range=percentile")
    assert (far, near) == pytest.approx(np.percentile(values, [2, 98]), rel=1e-4)


def test_fixed_metres_give_every_photo_the_same_colours(gateway: TestClient, photo: bytes) -> None:
    level, near, far = gray(gateway, photo, "model=metres&near_m=2.5&far_m=6")
    assert (near, far) == pytest.approx((2.5, 6))
    metres = npy(gateway, photo, "model=metres")[:, 5]
    expected = 255 * np.clip((1 / metres - 1 / 6) / (1 / 2.5 - 1 / 6), 0, 1)
    np.testing.assert_allclose(level, expected, atol=1)


def test_accept_names_the_new_formats(gateway: TestClient, photo: bytes) -> None:
    for media_type in ("model/gltf-binary", "application/x-ply", "image/x-exr", "image/avif"):
        answer = gateway.post("/depth", content=photo, headers={"Accept": media_type})
        assert answer.headers["content-type"] == media_type
