"""`POST /analyze` and `POST /batch`: the files of single requests, from one inference; no photo harms another."""

import asyncio
import email
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from typing import Any

import httpx2
import numpy as np
import pytest
from fakes import FakeDepthClient, encoded, picture
from PIL import Image
from starlette.testclient import TestClient

from service.app import create_app
from service.clients import hash_of
from service.errors import ModelFailed
from service.settings import Settings

PERSON = "x=72&y=32"
NOBODY = "x=5&y=5"
CANARY = (64, 64, 3)


@contextmanager
def running(client: FakeDepthClient, **settings: Any) -> Iterator[TestClient]:
    app = create_app(Settings(canary_period_s=60, **settings), client)
    with TestClient(app, raise_server_exceptions=False) as gateway:
        yield gateway


def files(body: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def parts(answer: Any) -> list[Message]:
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + answer.content)
    assert message.get_content_type() == "multipart/mixed"
    assert not message.defects
    return message.get_payload()


def crowd(count: int) -> list[bytes]:
    return [encoded(picture(96 + 2 * index, 64)) for index in range(count)]


def sent(photos: list[bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("image", (f"{index}.png", photo)) for index, photo in enumerate(photos)]


def items(answer: Any) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    return json.loads(files(answer.content)["report.json"])["items"]


SINGLE = {
    "depth.png": ("depth", "/depth?model=focus&edges=sharp"),
    "depth.npy": ("depth:npy", "/depth?model=focus&edges=sharp&format=npy"),
    "depth_preview.png": ("depth:preview", "/depth?model=focus&edges=sharp&format=preview"),
    "depth.ply": ("depth:ply", "/depth?model=focus&edges=sharp&format=ply"),
    "mask.png": ("mask", f"/segmentation?{PERSON}"),
    "cutout.webp": ("cutout:webp", f"/segmentation?format=cutout&{PERSON}"),
}


def test_every_file_is_that_of_the_single_request(client_of_triton: FakeDepthClient, photo: bytes) -> None:
    outputs = ",".join(output for output, _ in SINGLE.values())
    with running(client_of_triton) as gateway:
        answer = gateway.post(f"/analyze?outputs={outputs}&edges=sharp&{PERSON}", content=photo)
        found = files(answer.content)
        report = {file["name"]: file for file in json.loads(found.pop("report.json"))["files"]}
        assert list(found) == list(report) == list(SINGLE)
        for name, (_, route) in SINGLE.items():
            accept = {"Accept": "image/webp"} if name.endswith("webp") else {}
            single = gateway.post(route, content=photo, headers=accept)
            assert found[name] == single.content, name
            assert report[name]["media_type"] == single.headers["content-type"]
            assert all(single.headers[key] == value for key, value in report[name]["headers"].items())


@pytest.mark.parametrize("cache_bytes", [0, 2**20])
def test_one_inference_whatever_is_asked_for(client_of_triton: FakeDepthClient, photo: bytes, cache_bytes: int) -> None:
    with running(client_of_triton, cache_bytes=cache_bytes) as gateway:
        client_of_triton.calls.clear()
        outputs = "depth,depth:glb,depth:preview,mask,cutout,people"
        assert gateway.post(f"/analyze?outputs={outputs}", content=photo).status_code == 200
        assert [model for model, shape in client_of_triton.calls if shape[:2] != (64, 64)] == ["focus"]


def test_parts_have_headers_of_their_own(gateway: TestClient, photo: bytes) -> None:
    answer = gateway.post("/analyze?outputs=depth,people", content=photo, headers={"Accept": "multipart/mixed"})
    report, depth, people = parts(answer)
    assert [part.get_filename() for part in (report, depth, people)] == ["report.json", "depth.png", "people.json"]
    assert depth.get_content_type() == "image/png"
    body = depth.get_payload(decode=True)
    assert len(body) == int(depth["Content-Length"])
    assert Image.open(io.BytesIO(body)).text["Depth-Scale"] == depth["X-Depth-Scale"]
    assert json.loads(people.get_payload(decode=True))["people"][0]["id"] == 0
    assert people["X-Depth-Scale"] is None


def test_the_form_and_the_zip_are_chosen_as_elsewhere(gateway: TestClient, photo: bytes) -> None:
    for accept, query, found in (
        ("*/*", "", "application/zip"),
        ("multipart/*", "", "multipart/mixed"),
        ("multipart/mixed", "&format=zip", "application/zip"),
    ):
        answer = gateway.post(f"/analyze?outputs=mask{query}", content=photo, headers={"Accept": accept})
        assert answer.headers["content-type"].startswith(found)
    assert gateway.post("/analyze", content=photo, headers={"Accept": "image/png"}).status_code == 406


def test_the_scene_of_the_report_can_be_refocused(gateway: TestClient, photo: bytes) -> None:
    found = files(gateway.post("/analyze?outputs=people", content=photo).content)
    scene = json.loads(found["people.json"])["scene"]
    assert gateway.post(f"/focus?scene={scene}&{PERSON}").headers["x-focus-mode"] == "subject"


@pytest.mark.parametrize(
    ("query", "field", "code"),
    [
        ("outputs=", "outputs", "invalid_parameter"),
        ("outputs=depth,", "outputs", "invalid_parameter"),
        ("outputs=normals", "outputs", "invalid_parameter"),
        ("outputs=depth:jpeg2000", "outputs", "invalid_parameter"),
        ("outputs=people:png", "outputs", "invalid_parameter"),
        ("outputs=depth&unit=m", "unit", "not_metric"),
        ("outputs=cutout&x=4", "x", "invalid_parameter"),
        ("outputs=cutout&x=96&y=1", "x", "outside_image"),
        ("outputs=cutout&" + NOBODY, "mode", "not_a_person"),
        ("outputs=mask&person=7", "person", "unknown_person"),
        ("outputs=mask&persn=7", "persn", "invalid_parameter"),
    ],
)
def test_what_cannot_be_had(gateway: TestClient, photo: bytes, query: str, field: str, code: str) -> None:
    answer = gateway.post(f"/analyze?{query}", content=photo)
    assert answer.status_code == 422, answer.text
    assert (answer.json()["field"], answer.json()["code"]) == (field, code)


def test_a_cut_out_has_the_persons_matte_and_colours(gateway: TestClient, photo: bytes) -> None:
    answer = gateway.post(f"/segmentation?format=cutout&{PERSON}", content=photo)
    assert (answer.headers["x-people"], answer.headers["x-person"]) == ("1", "0")
    rgba = np.asarray(Image.open(io.BytesIO(answer.content)))
    mask = np.asarray(Image.open(io.BytesIO(gateway.post(f"/segmentation?{PERSON}", content=photo).content)))
    assert rgba.shape == (64, 96, 4)
    np.testing.assert_array_equal(rgba[..., 3], mask)
    assert (mask[30:40, 68:76] == 255).all()
    assert not rgba[5, 5].any()
    seen = rgba[mask > 64][:, :3].astype(int)
    assert np.abs(seen - [255, 0, 0]).max(axis=1).mean() < 3, "red, with no gray fringe"


def test_nobody_cut_out(gateway: TestClient) -> None:
    empty = encoded(Image.new("RGB", (50, 40), (9, 90, 9)))
    answer = gateway.post("/segmentation?format=cutout", content=empty)
    assert (answer.status_code, answer.headers["x-people"], answer.headers["x-person"]) == (200, "0", "none")
    assert not np.asarray(Image.open(io.BytesIO(answer.content))).any()


def test_one_bad_photo_harms_no_other(gateway: TestClient) -> None:
    first, second = crowd(2)
    photos = [first, b"no picture", b"", second, second[: len(second) // 2]]
    answer = gateway.post("/batch?outputs=depth:npy,mask", files=sent(photos))
    found = items(answer)
    assert [(item["index"], item["name"], item["status"]) for item in found] == [
        (0, "0.png", 200),
        (1, "1.png", 415),
        (2, "2.png", 400),
        (3, "3.png", 200),
        (4, "4.png", 400),
    ]
    codes = [item["problem"] and item["problem"]["code"] for item in found]
    assert codes == [None, "not_an_image", "empty_body", None, "truncated_image"]
    archive = files(answer.content)
    assert list(archive) == ["report.json", "0/depth.npy", "0/mask.png", "3/depth.npy", "3/mask.png"]
    for index, photo in ((0, first), (3, second)):
        single = gateway.post("/depth?format=npy&model=focus", content=photo)
        assert archive[f"{index}/depth.npy"] == single.content


def test_a_batch_in_parts(gateway: TestClient) -> None:
    answer = gateway.post("/batch?outputs=mask&format=multipart", files=sent(crowd(2)))
    assert [part.get_filename() for part in parts(answer)] == ["report.json", "0/mask.png", "1/mask.png"]


@pytest.mark.parametrize(
    ("form", "status", "code"),
    [
        ([("image", ("a.png", b"1"))] * 4, 413, "too_many_images"),
        ([("photo", ("a.png", b"1"))], 400, "malformed_request"),
        ([("image", ("a.png", b"1")), ("outputs", ("o", b"depth"))], 400, "malformed_request"),
    ],
)
def test_a_batch_that_is_none(photo: bytes, form: Any, status: int, code: str) -> None:
    with running(FakeDepthClient(), max_batch_images=3) as gateway:
        answer = gateway.post("/batch", files=form)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert gateway.post("/batch", content=b"").json()["code"] == "empty_body"
        alone = gateway.post("/batch?outputs=mask", content=photo, headers={"Content-Type": "image/png"})
        assert [item["status"] for item in items(alone)] == [200], "a raw body is a batch of one"


def test_no_more_at_once_than_there_are_places(client_of_triton: FakeDepthClient) -> None:
    inside, most = 0, 0
    pair = asyncio.Barrier(2)

    async def watched() -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await pair.wait()  # for ever, if each came alone
        inside -= 1

    with running(client_of_triton, max_inflight=2) as gateway:
        client_of_triton.hook = watched
        found = items(gateway.post("/batch?outputs=mask", files=sent(crowd(8))))
    assert [item["status"] for item in found] == [200] * 8
    assert most == 2, "two at once, which Triton's batcher joins, and never more"


def test_a_batch_lets_others_have_their_turn(client_of_triton: FakeDepthClient, photo: bytes) -> None:
    """One place, a batch of four, and somebody else's photo while the first of them is worked on: it is the next."""

    async def scenario() -> tuple[httpx2.Response, httpx2.Response]:
        begun, go = asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            begun.set()
            await go.wait()

        client_of_triton.hook = hold
        hashes = tuple(hash_of(key) for key in ("one", "other"))
        app = create_app(Settings(max_inflight=1, canary_period_s=60, api_key_hashes=hashes), client_of_triton)
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://gateway", timeout=60) as client:
            many = client.post("/batch?outputs=people", files=sent(crowd(4)), headers={"X-API-Key": "one"})
            batch = asyncio.create_task(many)
            await begun.wait()
            headers = {"X-API-Key": "other", "Content-Type": "image/png"}
            other = asyncio.create_task(client.post("/segmentation", content=photo, headers=headers))
            gateway = app.state.gateway
            while not gateway.metrics.waiting._value.get():
                await asyncio.sleep(0)
            go.set()
            answers = await other, await batch
            await gateway.pipeline.close()
            return answers

    other, batch = asyncio.run(asyncio.wait_for(scenario(), 60))
    assert other.status_code == 200
    assert [item["status"] for item in items(batch)] == [200] * 4
    models = [model for model, _ in client_of_triton.calls]
    assert models == ["focus", "focus_on_depth", "focus", "focus", "focus"]


def test_each_photo_counts_towards_the_rate_of_its_client(client_of_triton: FakeDepthClient) -> None:
    with running(client_of_triton, rate_limit_per_s=0.4) as gateway:  # two at once
        found = items(gateway.post("/batch?outputs=mask", files=sent(crowd(4))))
    assert sorted(item["status"] for item in found) == [200, 200, 429, 429]
    refused = next(item for item in found if item["status"] == 429)
    assert refused["retry_after_s"] > 0
    assert refused["problem"]["code"] == "too_many_requests"


def test_the_answers_memory_is_bounded(client_of_triton: FakeDepthClient) -> None:
    map_bytes = 96 * 64 * 4 + 200
    with running(client_of_triton, max_batch_bytes=3 * map_bytes, max_inflight=1) as gateway:
        found = items(gateway.post("/batch?outputs=depth:npy", files=sent([crowd(1)[0]] * 5)))
    assert [item["status"] for item in found] == [200, 200, 200, 413, 413]
    assert found[4]["problem"]["code"] == "answer_too_large"


def test_what_is_late_is_said_and_the_rest_is_there(client_of_triton: FakeDepthClient) -> None:
    hang = iter([False, True, False])

    async def sometimes() -> None:
        if next(hang):
            await asyncio.Event().wait()

    with running(client_of_triton, max_inflight=1) as gateway:
        client_of_triton.hook = sometimes
        answer = gateway.post("/batch?outputs=mask", files=sent(crowd(2)), headers={"X-Request-Timeout": "3"})
    found = items(answer)
    assert [item["status"] for item in found] == [200, 504]
    assert found[1]["problem"]["code"] == "deadline_exceeded"


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (lambda: ModelFailed("It failed."), 502, "model_failed"),
        (lambda: ZeroDivisionError("/secret"), 500, "internal_error"),
    ],
)
def test_a_model_that_fails_once(
    client_of_triton: FakeDepthClient, failure: Callable[[], Exception], status: int, code: str
) -> None:
    turns = iter([True, False, False])

    async def once() -> None:
        if next(turns):
            raise failure()

    with running(client_of_triton, max_inflight=1) as gateway:
        client_of_triton.hook = once
        answer = gateway.post("/batch?outputs=mask", files=sent(crowd(3)))
    found = items(answer)
    assert [item["status"] for item in found] == [status, 200, 200]
    assert found[0]["problem"]["code"] == code
    assert b"secret" not in answer.content


@pytest.mark.parametrize(
    ("path", "outputs"),
    [
        ("/depth?size=native", ("inverse_depth",)),
        ("/depth?edges=sharp", ("inverse_depth",)),
        ("/segmentation", ("person",)),
        ("/segmentation?format=cutout", None),
        ("/focus?rx=0.5&ry=0.5", None),
        ("/analyze?outputs=depth,depth:npy", ("inverse_depth",)),
        ("/analyze?outputs=mask", ("person",)),
        ("/analyze?outputs=depth,mask", None),
        ("/analyze?outputs=depth,people", None),
    ],
)
def test_the_model_is_asked_for_no_more_than_is_needed(
    gateway: TestClient, client_of_triton: FakeDepthClient, photo: bytes, path: str, outputs: tuple[str, ...] | None
) -> None:
    answer = gateway.post(path, content=photo, headers={"Content-Type": "image/png"})
    assert answer.status_code == 200, answer.text
    assert [asked for shape, asked in client_of_triton.asked if shape != CANARY] == [outputs]


def test_an_answer_with_all_outputs_serves_who_needs_one(client_of_triton: FakeDepthClient, photo: bytes) -> None:
    with running(client_of_triton, cache_bytes=2**24) as gateway:
        kinds = ("/analyze?outputs=depth,mask", "/depth?model=focus", "/segmentation?model=focus")
        assert [gateway.post(path, content=photo).status_code for path in kinds] == [200, 200, 200]
    assert len([shape for _, shape in client_of_triton.calls if shape != CANARY]) == 1
