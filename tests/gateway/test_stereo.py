"""`POST /stereo` on a fake model: formats with hand-computed numbers, sequences, and pairs that are none."""

import io
from typing import Any

import cv2
import numpy as np
import pytest
from fakes import FakeDepthClient, encoded
from PIL import Image
from starlette.testclient import TestClient
from stereo_pairs import HEIGHT, LEFT, RIGHT, SHIFT, WIDTH, cut

from service.errors import ModelUnavailable
from service.triton_errors import VersionGone


def files(left: bytes | None = LEFT, right: bytes | None = RIGHT) -> dict[str, Any]:
    given = {"left": left, "right": right}
    return {name: (f"{name}.png", data, "image/png") for name, data in given.items() if data is not None}


def post(gateway: TestClient, sent: dict[str, Any] | None = None, **query: Any) -> Any:
    return gateway.post("/stereo", files=sent or files(), params=query)


def test_disparity_in_256ths_of_a_pixel(gateway: TestClient, client_of_triton: FakeDepthClient) -> None:
    answer = post(gateway)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    stored = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert (stored.shape, stored.dtype) == ((HEIGHT, WIDTH), np.uint16)
    assert (stored[0, 0], stored[-1, -1]) == (4 * 256, 8 * 256)
    said = {name: answer.headers[name] for name in ("X-Depth-Kind", "X-Depth-Unit", "X-Depth-Scale", "X-Depth-Offset")}
    assert said == {
        "X-Depth-Kind": "disparity",
        "X-Depth-Unit": "px",
        "X-Depth-Scale": str(1 / 256),
        "X-Depth-Offset": "0.0",
    }
    assert answer.headers["X-Adaptation-Mode"] == "none"
    assert "X-Adaptation-Frames" not in answer.headers
    assert abs(float(answer.headers["X-Vertical-Offset-Px"])) < 0.5
    [pair] = client_of_triton.pairs
    assert (pair.adapt, pair.sequence, pair.left.shape) == ("none", None, (HEIGHT, WIDTH, 3))


def test_metres(gateway: TestClient) -> None:
    answer = post(gateway, format="npy", focal_px=800, baseline_m=0.25)
    depth_m = np.load(io.BytesIO(answer.content))
    assert (depth_m[0, 0], depth_m[-1, -1]) == (50, 25)  # 800 * 0.25 / 4 and / 8
    assert (answer.headers["X-Depth-Kind"], answer.headers["X-Depth-Unit"]) == ("metric", "m")
    stored = cv2.imdecode(
        np.frombuffer(post(gateway, focal_px=800, baseline_m=0.25).content, np.uint8), cv2.IMREAD_UNCHANGED
    )
    assert (stored[0, 0], stored[-1, -1]) == (50_000, 25_000)  # millimetres


def test_a_large_pair_is_reduced_and_its_disparity_enlarged(
    gateway: TestClient, client_of_triton: FakeDepthClient
) -> None:
    answer = post(gateway, format="npy", max_side=80)
    assert client_of_triton.pairs[0].left.shape == (60, 80, 3)
    disparity = np.load(io.BytesIO(answer.content))
    assert disparity.shape == (HEIGHT, WIDTH)
    assert (disparity[0, 0], disparity[-1, -1]) == (8, 16)  # 4 and 8 pixels of 80 are 8 and 16 of 160


@pytest.mark.parametrize("format", ["npz", "tiff", "preview", "json"])
def test_other_formats(gateway: TestClient, format: str) -> None:
    answer = post(gateway, format=format)
    assert answer.status_code == 200
    if format == "npz":
        assert np.load(io.BytesIO(answer.content))["disparity_px"][0, 0] == 4
    elif format == "json":
        report = answer.json()
        assert (report["unit"], report["statistics"]["min"], report["statistics"]["max"]) == ("px", 4, 8)
        assert report["adaptation"]["mode"] == "none"
    else:
        shown = Image.open(io.BytesIO(answer.content))
        assert shown.size == (WIDTH, HEIGHT)
        assert shown.mode == ("F" if format == "tiff" else "RGB")


def test_a_sequence_adapts_by_default_and_says_how(gateway: TestClient, client_of_triton: FakeDepthClient) -> None:
    first, second = post(gateway, sequence="front"), post(gateway, sequence="front", end=True)
    other = post(gateway, sequence="rear", adapt="full")
    assert [answer.headers["X-Adaptation-Frames"] for answer in (first, second, other)] == ["1", "2", "1"]
    assert [answer.headers["X-Adaptation-Origin"] for answer in (first, second)] == ["new", "kept"]
    assert (first.headers["X-Adaptation-Mode"], first.headers["X-Adaptation-Group"]) == ("mad", "3")
    assert second.headers["X-Adaptation-Loss"] == "0.25"
    assert "X-Adaptation-Group" not in other.headers
    one, two, three = client_of_triton.pairs
    assert one.sequence == two.sequence != three.sequence
    assert [pair.end for pair in client_of_triton.pairs] == [False, True, False]
    assert all(pair.sequence and 0 < pair.sequence < 2**63 for pair in client_of_triton.pairs)
    metrics = gateway.get("/metrics").text
    assert 'depthlens_adaptation_frames_total{mode="mad"} 2.0' in metrics
    assert 'depthlens_adaptation_frames_total{mode="full"} 1.0' in metrics
    assert 'depthlens_adaptation_groups_total{group="3"} 2.0' in metrics
    assert 'depthlens_adaptation_resets_total{mode="mad"} 0.0' in metrics
    assert 'depthlens_adaptation_loss_sum{mode="mad"} 0.75' in metrics


def refused(answer: Any, status: int, code: str, field: str) -> Any:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["code"], problem["field"]) == (code, field)
    return problem


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"focal_px": 800}, "baseline_m"),
        ({"baseline_m": 0.5}, "focal_px"),
        ({"adapt": "mad"}, "sequence"),
        ({"adapt": "none", "sequence": "a", "end": True}, "end"),
        ({"checkpoint": "save"}, "checkpoint"),
        ({"sequence": "a b"}, "sequence"),
        ({"sequence": "x" * 65}, "sequence"),
        ({"max_side": 63}, "max_side"),
        ({"focal_px": 0, "baseline_m": 1}, "focal_px"),
    ],
)
def test_parameters_that_do_not_fit(gateway: TestClient, query: dict[str, Any], field: str) -> None:
    refused(post(gateway, **query), 422, "invalid_parameter", field)


def test_parts_that_are_missing(gateway: TestClient) -> None:
    refused(post(gateway, files(right=None)), 400, "missing_image", "right")
    refused(post(gateway, files(right=b"")), 400, "empty_body", "right")
    refused(gateway.post("/stereo", content=LEFT), 400, "missing_image", "left")
    refused(post(gateway, files() | {"middle": ("m.png", LEFT, "image/png")}), 400, "malformed_request", "middle")
    assert post(gateway, files(right=b"no picture")).status_code == 415


def test_pairs_that_are_none(gateway: TestClient, client_of_triton: FakeDepthClient) -> None:
    small = cut(20, width=WIDTH - 1)
    problem = refused(post(gateway, files(right=small)), 422, "size_mismatch", "right")
    assert (problem["value"], problem["limit"]) == ([WIDTH - 1, HEIGHT], [WIDTH, HEIGHT])
    refused(post(gateway, files(right=LEFT)), 422, "identical_pair", "right")
    low = refused(post(gateway, files(right=cut(20 + SHIFT, 20 - 9))), 422, "not_rectified", "right")
    assert abs(low["value"] - 9) < 0.5  # seen from 9 rows higher, points lie 9 rows lower
    refused(post(gateway, files(RIGHT, LEFT)), 422, "swapped_pair", "left")
    strips = files(cut(20, height=20), cut(20 + SHIFT, height=20))
    refused(post(gateway, strips), 422, "pair_too_small", "left")
    assert client_of_triton.pairs == []


def test_a_little_offset_is_reported_and_nothing_is_said_without_corners(gateway: TestClient) -> None:
    answer = post(gateway, files(right=cut(20 + SHIFT, 19)))
    assert answer.status_code == 200
    assert abs(float(answer.headers["X-Vertical-Offset-Px"]) - 1) < 0.5
    blank = [encoded(Image.new("RGB", (WIDTH, HEIGHT), (level,) * 3)) for level in (80, 81)]
    answer = post(gateway, files(*blank))
    assert answer.status_code == 200
    assert "X-Vertical-Offset-Px" not in answer.headers


def test_a_service_without_the_model_says_so(gateway: TestClient, client_of_triton: FakeDepthClient) -> None:
    async def gone() -> None:
        raise VersionGone("not loaded")

    client_of_triton.hook = gone
    answer = post(gateway)
    assert (answer.status_code, answer.json()["code"]) == (503, ModelUnavailable.code)
    assert "optional" in answer.json()["detail"]

    async def here() -> None:
        return None

    client_of_triton.hook = here
    listed = {model["name"]: model for model in gateway.get("/models").json()["models"]}["stereo_madnet"]
    assert (listed["ready"], listed["tasks"]) == (False, ["stereo"])
    assert "python -m training export" in listed["not_ready_because"]
