"""Whatever is wrong with a request: the documented status, a stable code, and nothing about our insides."""

import asyncio
import io

import pytest
from fakes import FakeDepthClient, encoded, picture
from PIL import Image
from starlette.testclient import TestClient

from service.app import create_app
from service.errors import ModelFailed, ModelUnavailable, Overloaded, TooManyRequests
from service.settings import Settings
from service.upload import UploadMemory

PHOTO = encoded(picture())
JPEG = encoded(picture(), "JPEG", quality=95)
ROUTES = ("/depth", "/segmentation", "/focus?x=1&y=1")


def check_problem(answer: object, status: int, code: str) -> dict[str, object]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == code
    assert problem["status"] == status
    assert problem["type"] == f"urn:depthlens:problem:{code}"
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["detail"]
    assert problem["title"]
    for leak in ("Traceback", ".py", "site-packages", "/home", "/root", "0x"):
        assert leak not in answer.text
    return problem


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "empty_body"),
        (b"hello, this is not a picture at all", 415, "not_an_image"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", 415, "unsupported_format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "unsupported_format"),
        (b"8BPS\x00\x01" + bytes(20), 415, "unsupported_format"),
        (JPEG[: len(JPEG) // 2], 400, "truncated_image"),
        (PHOTO[: len(PHOTO) // 2], 400, "truncated_image"),
        (PHOTO[:20], 400, "truncated_image"),
        (bytes(2_000_001), 413, "body_too_large"),
        (encoded(Image.new("1", (2000, 600))), 413, "image_too_large"),
    ],
    ids=["empty", "text", "pdf", "svg", "psd", "half jpeg", "half png", "png head", "bytes", "pixels"],
)
def test_bodies(gateway: TestClient, route: str, body: bytes, status: int, code: str) -> None:
    raw = gateway.post(route, content=body, headers={"Content-Type": "image/jpeg"})
    check_problem(raw, status, code)
    multipart = gateway.post(route, files={"image": ("p.jpg", body, "image/jpeg")})
    check_problem(multipart, status, code)
    assert gateway.post("/depth", content=PHOTO).status_code == 200, "the service lives on"


def test_limits_are_named(gateway: TestClient) -> None:
    problem = check_problem(
        gateway.post("/depth", content=encoded(Image.new("1", (2000, 600)))), 413, "image_too_large"
    )
    assert problem["limit"] == 1_000_000
    assert problem["value"] == 1_200_000


def test_the_limit_itself_is_allowed(gateway: TestClient) -> None:
    assert gateway.post("/depth?size=native", content=encoded(Image.new("1", (2000, 500)))).status_code == 200


def test_a_chunked_body_is_bounded_too(gateway: TestClient) -> None:
    def endless() -> object:
        for _ in range(100):
            yield bytes(100_000)

    answer = gateway.post("/depth", content=endless(), headers={"Content-Type": "image/png"})
    check_problem(answer, 413, "body_too_large")


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Content-Type": "text/plain"}, 415, "unsupported_content_type"),
        ({"Content-Type": "application/json"}, 415, "unsupported_content_type"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415, "unsupported_content_type"),
        ({"Content-Type": "image/png", "Content-Encoding": "gzip"}, 415, "unsupported_encoding"),
        ({"Content-Type": "multipart/form-data"}, 400, "malformed_request"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, 400, "malformed_request"),
        ({"Content-Type": "image/png", "X-Request-Timeout": "nan"}, 422, "invalid_parameter"),
        ({"Content-Type": "image/png", "X-Request-Timeout": "-1"}, 422, "invalid_parameter"),
        ({"Content-Type": "image/png", "X-Request-Timeout": "soon"}, 422, "invalid_parameter"),
        ({"Content-Type": "image/png", "X-Request-Timeout": "1_0"}, 422, "invalid_parameter"),
        ({"Content-Type": "image/png", "Accept": "text/html"}, 406, "not_acceptable"),
    ],
)
def test_headers(gateway: TestClient, headers: dict[str, str], status: int, code: str) -> None:
    check_problem(gateway.post("/depth", content=PHOTO, headers=headers), status, code)


def test_forms_need_one_image(gateway: TestClient) -> None:
    check_problem(gateway.post("/depth", files={"img": PHOTO}), 400, "missing_image")
    twice = [("image", ("a.png", PHOTO)), ("image", ("b.png", PHOTO))]
    check_problem(gateway.post("/depth", files=twice), 400, "malformed_request")
    problem = check_problem(gateway.post("/depth", files={"image": (None, PHOTO)}), 400, "malformed_request")
    assert "@" in problem["detail"], "a part without a file name has lost its bytes: say how to send a file"
    many = [("part", (f"{index}.png", b"x")) for index in range(1001)]
    check_problem(gateway.post("/depth", files=many), 400, "malformed_request")


@pytest.mark.parametrize(
    ("route", "field", "code"),
    [
        ("/depth?size=huge", "size", "invalid_parameter"),
        ("/depth?near=nan", "near", "invalid_parameter"),
        ("/depth?near=1e999", "near", "invalid_parameter"),
        ("/depth?near=0.2&far=0.7", "near", "invalid_parameter"),
        ("/depth?colormap=jet", "colormap", "invalid_parameter"),
        ("/depth?colour=1", "colour", "invalid_parameter"),
        ("/depth?points=1;2", "points", "invalid_parameter"),
        ("/depth?points=1,nan", "points", "invalid_parameter"),
        ("/depth?points=1,2,3", "points", "invalid_parameter"),
        ("/depth?points=1_0,5", "points", "invalid_parameter"),
        ("/depth?points=" + "1,1;" * 1001 + "1,1", "points", "invalid_parameter"),
        ("/depth?points=96,0", "points", "outside_image"),
        ("/depth?points=0,-1", "points", "outside_image"),
        ("/depth?focal_px=500", "focal_px", "not_metric"),
        ("/focus", "x", "invalid_parameter"),
        ("/focus?x=1", "x", "invalid_parameter"),
        ("/focus?x=1&y=1&rx=0.5&ry=0.5", "x", "invalid_parameter"),
        ("/focus?x=1&ry=0.5", "x", "invalid_parameter"),
        ("/focus?x=96&y=1", "x", "outside_image"),
        ("/focus?x=1&y=64", "y", "outside_image"),
        ("/focus?x=-1&y=1", "x", "outside_image"),
        ("/focus?x=1e308&y=1", "x", "outside_image"),
        ("/focus?x=nan&y=1", "x", "invalid_parameter"),
        ("/focus?x=inf&y=1", "x", "invalid_parameter"),
        ("/focus?x=1_0&y=1", "x", "invalid_parameter"),
        ("/focus?x=%D9%A1&y=1", "x", "invalid_parameter"),
        ("/focus?rx=1.01&ry=0", "rx", "invalid_parameter"),
        ("/focus?x=1&y=1&f_number=0", "f_number", "invalid_parameter"),
        ("/focus?x=1&y=1&f_number=23", "f_number", "invalid_parameter"),
        ("/focus?x=1&y=1&blur=2", "blur", "invalid_parameter"),
        ("/focus?x=1&y=1&blur=0.5&f_number=2", "blur", "invalid_parameter"),
        ("/focus?x=1&y=1&quality=0", "quality", "invalid_parameter"),
        ("/focus?x=5&y=5&mode=subject", "mode", "not_a_person"),
    ],
)
def test_parameters(gateway: TestClient, route: str, field: str, code: str) -> None:
    problem = check_problem(gateway.post(route, content=PHOTO), 422, code)
    assert problem["field"] == field


@pytest.mark.parametrize("route", ["/depth?format=gif", "/segmentation?format=jpeg", "/focus?x=1&y=1&format=exr"])
def test_unknown_formats_list_those_there_are(gateway: TestClient, route: str) -> None:
    problem = check_problem(gateway.post(route, content=PHOTO), 406, "not_acceptable")
    assert all({"format", "media_type"} == set(entry) for entry in problem["available"])


@pytest.mark.parametrize("name", ["nope", "../../etc/passwd", "%2e%2e", "a" * 100, "モデル", "focus_on_depth%00"])
def test_unknown_models_never_reach_triton(gateway: TestClient, client_of_triton: FakeDepthClient, name: str) -> None:
    problem = check_problem(gateway.post(f"/depth?model={name}", content=PHOTO), 404, "unknown_model")
    assert "focus_on_depth" in problem["available"]
    assert all(model in ("focus", "focus_on_depth") for model, _ in client_of_triton.calls)


def test_a_model_that_does_another_task(gateway: TestClient) -> None:
    check_problem(gateway.post("/focus?x=1&y=1&model=focus_on_depth", content=PHOTO), 404, "unknown_model")


def test_routes_and_methods(gateway: TestClient) -> None:
    check_problem(gateway.get("/nowhere"), 404, "unknown_route")
    check_problem(gateway.post("/depth/", content=PHOTO, follow_redirects=False), 404, "unknown_route")
    answer = gateway.get("/depth")
    check_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


def test_triton_absent_is_503_with_retry_after(gateway: TestClient, client_of_triton: FakeDepthClient) -> None:
    async def absent() -> None:
        raise ModelUnavailable("The model server cannot be reached.", retry_after_s=2)

    client_of_triton.hook = absent
    for route in ROUTES:
        answer = gateway.post(route, content=PHOTO)
        check_problem(answer, 503, "model_unavailable")
        assert 1 <= int(answer.headers["retry-after"]) <= 2  # without asking again once the canary has seen it
    assert gateway.get("/health/live").status_code == 200


def test_model_errors(gateway: TestClient, client_of_triton: FakeDepthClient) -> None:
    async def failing() -> None:
        raise ModelFailed("The model failed on this photo.")

    async def broken() -> None:
        raise RuntimeError("secret /root/path.py line 1")

    client_of_triton.hook = failing
    check_problem(gateway.post("/depth", content=PHOTO), 502, "model_failed")
    client_of_triton.hook = broken
    problem = check_problem(gateway.post("/depth", content=PHOTO), 500, "internal_error")
    assert "secret" not in str(problem)


def test_the_deadline_cancels_the_inference(gateway: TestClient, client_of_triton: FakeDepthClient) -> None:
    async def forever() -> None:
        await asyncio.Event().wait()

    client_of_triton.hook = forever
    answer = gateway.post("/depth", content=PHOTO, headers={"X-Request-Timeout": "0.2"})
    problem = check_problem(answer, 504, "deadline_exceeded")
    assert problem["stage"] == "infer"
    assert client_of_triton.cancelled >= 1
    client_of_triton.hook = FakeDepthClient().hook
    assert gateway.post("/depth", content=PHOTO).status_code == 200


def test_settings_refuse_models_that_cannot_do_the_task() -> None:
    with pytest.raises(ValueError, match="depth_model"):
        Settings(depth_model="no such name")
    with pytest.raises(ValueError, match="focus_model"):
        Settings(focus_model="focus_on_depth")


def test_uploads_share_a_bounded_memory(client_of_triton: FakeDepthClient) -> None:
    settings = Settings(max_upload_bytes=len(PHOTO) + 10, canary_period_s=60)
    with TestClient(create_app(settings, client_of_triton)) as gateway:
        memory = gateway.app.state.gateway.uploads
        assert gateway.post("/depth", content=PHOTO).status_code == 200
        assert memory.used_bytes == 0
        with memory.share("other") as other:
            other.take(11)
            answer = gateway.post("/depth", content=PHOTO)
            check_problem(answer, 503, "overloaded")
            assert "retry-after" in answer.headers
        assert memory.used_bytes == 0
        assert gateway.post("/depth", content=PHOTO).status_code == 200


def test_uploads_of_one_client_leave_room_for_others() -> None:
    memory = UploadMemory(1000)
    with memory.share("greedy") as first, memory.share("greedy") as second, memory.share("other") as other:
        first.take(400)
        second.take(100)
        with pytest.raises(TooManyRequests):
            second.take(1)
        with pytest.raises(TooManyRequests):
            second.check_room(1)
        with pytest.raises(TooManyRequests):
            first.take(1)
        other.take(500)
        with pytest.raises(Overloaded):
            other.take(1)
    assert memory.used_bytes == 0
    assert not memory._held_bytes
    with memory.share("alone") as alone:
        alone.take(1000)  # a single photo may have it all


def test_a_full_queue_is_told_before_the_body_is_read(client_of_triton: FakeDepthClient) -> None:
    with TestClient(
        create_app(Settings(max_inflight=1, max_waiting=0, canary_period_s=60), client_of_triton)
    ) as gateway:
        gateway.app.state.gateway.admission._inflight = 1
        not_even_an_image = b""
        check_problem(gateway.post("/depth", content=not_even_an_image), 503, "overloaded")
        assert gateway.app.state.gateway.uploads.used_bytes == 0


def test_a_valid_png_under_a_wrong_name_is_read_by_its_bytes(gateway: TestClient) -> None:
    answer = gateway.post("/depth", files={"image": ("x.txt", io.BytesIO(PHOTO), "text/plain")})
    assert answer.status_code == 200
