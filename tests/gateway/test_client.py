"""The client on a real gateway with its real edge: arrays out, scenes kept, refusals as exceptions, retries."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import get_type_hints

import httpx2
import numpy as np
import pytest
from fakes import FakeDepthClient, encoded, picture
from running import RunningGateway

from service.client import (
    AsyncClient,
    BadPhoto,
    Client,
    ConnectionFailed,
    DeadlineExceeded,
    NotAcceptable,
    NotAPerson,
    OutsideImage,
    TimedOut,
    Unauthorized,
    UnexpectedAnswer,
    UnknownModel,
    UnknownPerson,
)
from service.client.operations import DepthOptions, FocusOptions, SegmentOptions
from service.clients import hash_of
from service.queries import DepthQuery, SegmentationQuery
from service.schemas import FocusQuery

PHOTO = encoded(picture(96, 64))
PERSON = (72, 32)
"""A point on it."""


def url_of(gateway: RunningGateway) -> str:
    return f"http://127.0.0.1:{gateway.address[1]}"


@pytest.fixture
def client(edge: RunningGateway) -> Iterator[Client]:
    with Client(url_of(edge), retries=0) as client:
        yield client


def test_a_depth_map_with_all_that_is_known_of_it(client: Client) -> None:
    depth = client.depth(PHOTO)
    assert (depth.values.shape, depth.values.dtype) == ((64, 96), np.float32)
    assert (depth.kind, depth.unit, depth.scale, depth.offset) == ("relative-inverse", "relative", 1, 0)
    assert (depth.about.model, depth.about.version) == ("focus_on_depth", "1")
    assert depth.about.request_id
    assert depth.about.timings_s["infer"] >= 0
    assert depth.values[0].mean() == pytest.approx(2, abs=0.1)  # the fake's rows run from 2 to 6
    assert depth.values[-1].mean() == pytest.approx(6, abs=0.1)


def test_sixteen_bits_give_the_same_map_to_a_step(client: Client) -> None:
    exact, coarse = client.depth(PHOTO), client.depth(PHOTO, format="png16")
    assert coarse.values.dtype == np.float32
    assert 0 < coarse.scale < 1e-4
    assert np.abs(exact.values - coarse.values).max() <= coarse.scale


def test_paths_bytes_and_pixels_are_one_photo(client: Client, tmp_path: pytest.TempPathFactory) -> None:
    path = tmp_path / "p.png"
    path.write_bytes(PHOTO)
    pixels = np.asarray(picture(96, 64))
    maps = [client.depth(source).values for source in (path, str(path), PHOTO, memoryview(PHOTO), pixels)]
    assert all((values == maps[0]).all() for values in maps)


def test_a_missing_file_is_an_os_error(client: Client) -> None:
    with pytest.raises(FileNotFoundError):
        client.depth("no/such/photo.jpg")


def test_depth_at_points(client: Client) -> None:
    top, bottom = client.depth_at(PHOTO, [(48, 0), (48, 63)])
    assert (top.relative, bottom.relative) == (pytest.approx(0, abs=0.02), pytest.approx(1, abs=0.02))


def test_a_matte(client: Client) -> None:
    matte = client.segment(PHOTO)
    assert (matte.alpha.shape, matte.alpha.dtype) == ((64, 96), np.uint8)
    assert matte.alpha[PERSON[1], PERSON[0]] == 255
    assert matte.alpha[2, 2] == 0


def test_a_refocused_photo(client: Client) -> None:
    focused = client.focus(PHOTO, *PERSON, f_number=1.4)
    assert (focused.pixels.shape, focused.pixels.dtype) == ((64, 96, 3), np.uint8)
    assert (focused.mode, focused.person, focused.people) == ("subject", (0,), 1)
    assert focused.coc_max_px > 0
    assert focused.media_type == "image/png"
    assert tuple(focused.pixels[PERSON[1], PERSON[0]]) == (255, 0, 0)


def test_no_blur_gives_the_photo_back(client: Client) -> None:
    assert (client.focus(PHOTO, rx=0.1, ry=0.1, blur=0).pixels == np.asarray(picture(96, 64))).all()


def test_own_maps_take_the_place_of_the_networks(client: Client) -> None:
    rows = np.linspace(0, 1, 64, dtype=np.float32)[:, None].repeat(96, axis=1)
    focused = client.focus(PHOTO, 10, 60, depth=rows, mask=np.zeros((64, 96), np.uint8), mode="plane")
    assert focused.about.model == "none"
    assert focused.focus_depth == pytest.approx(60 / 63, abs=0.03)  # the median round the click
    assert focused.people == 0


class Scales(httpx2.HTTPTransport):
    """Weighs what is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[int] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.sent.append(int(request.headers.get("Content-Length", 0)))
        return super().handle_request(request)


def test_the_second_click_sends_no_photo(client: Client, edge: RunningGateway) -> None:
    scales = Scales()
    with Client(url_of(edge), transport=scales) as weighed:
        photo = weighed.open(PHOTO)
        first = photo.focus(*PERSON)
        second = photo.focus(rx=0.1, ry=0.9, mode="plane")
        people = photo.people().people
    assert second.scene == first.scene
    assert scales.sent == [len(PHOTO), 0, 0]
    assert (second.pixels == client.focus(PHOTO, rx=0.1, ry=0.9, mode="plane").pixels).all()
    assert people[0].box[0] == pytest.approx(60, abs=2)


def test_another_edge_is_another_scene(client: Client) -> None:
    photo = client.open(PHOTO)
    scenes = {photo.focus(*PERSON).scene, photo.focus(*PERSON, edge="hard").scene}
    assert len(scenes) == 2
    assert photo.focus(*PERSON, edge="hard").scene in scenes


def test_a_forgotten_scene_is_sent_again(start: Callable[..., RunningGateway]) -> None:
    gateway = start(scene_age_s=0.01, cache_age_s=0.01)
    with Client(url_of(gateway), retries=0) as client:
        photo = client.open(PHOTO)
        first = photo.focus(*PERSON)
        time.sleep(0.05)  # longer than it can live
        again = photo.focus(*PERSON)
    assert again.scene != first.scene
    assert (again.pixels == first.pixels).all()


def test_models_and_readiness(client: Client) -> None:
    assert {model.name for model in client.models() if model.ready} == {"focus_on_depth", "focus"}
    assert set(client.ready()) == {"focus_on_depth", "focus"}


def test_any_route_as_a_file(client: Client, tmp_path: pytest.TempPathFactory) -> None:
    file = client.fetch("/depth", PHOTO, format="preview", colormap="viridis")
    assert file.media_type == "image/png"
    assert file.save(tmp_path / "preview.png").read_bytes().startswith(b"\x89PNG")


def test_refusals_are_exceptions_of_their_own(client: Client) -> None:
    with pytest.raises(BadPhoto) as bad:
        client.depth(b"these are words")
    assert bad.value.code == "not_an_image"
    with pytest.raises(UnknownModel):
        client.depth(PHOTO, model="nobody")
    with pytest.raises(NotAcceptable) as other:
        client.fetch("/depth", PHOTO, format="docx")
    assert any(entry["format"] == "npy" for entry in other.value.extra["available"])
    with pytest.raises(OutsideImage) as outside:
        client.focus(PHOTO, 960, 1)
    assert (outside.value.field, outside.value.value) == ("x", [960, 1])
    with pytest.raises(NotAPerson) as nobody:
        client.focus(PHOTO, 2, 2, mode="subject")
    assert len(nobody.value.extra["people"]) == 1
    with pytest.raises(UnknownPerson):
        client.focus(PHOTO, person=7)
    with pytest.raises(BadPhoto):
        client.depth(b"")


def test_keys(start: Callable[..., RunningGateway]) -> None:
    gateway = start(api_key_hashes=(hash_of("dl_right"),))
    with Client(url_of(gateway), api_key="dl_right") as client:
        assert client.depth(PHOTO).values.shape == (64, 96)
    with Client(url_of(gateway), api_key="dl_wrong") as client, pytest.raises(Unauthorized):
        client.depth(PHOTO)


def test_the_service_is_told_the_time(start: Callable[..., RunningGateway], client_of_triton: FakeDepthClient) -> None:
    """The 504 is the service's own: it was told to be done a little before the client gives up."""
    gateway = start()
    client_of_triton.hook = lambda: asyncio.sleep(30)
    with Client(url_of(gateway), timeout_s=1.0) as client, pytest.raises((DeadlineExceeded, TimedOut)):
        client.depth(PHOTO)
    with pytest.raises((DeadlineExceeded, TimedOut)):
        asyncio.run(_one(url_of(gateway)))


async def _one(url: str) -> None:
    async with AsyncClient(url, timeout_s=1.0) as client:
        await client.depth(PHOTO)


def test_a_silent_server_is_given_up() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with Client(url, timeout_s=0.3) as client, pytest.raises(TimedOut):
            client.depth(PHOTO)


def test_nobody_there() -> None:
    with Client("http://127.0.0.1:9", retries=1) as client, pytest.raises(ConnectionFailed):
        client.depth(PHOTO)


def test_somebody_else_there() -> None:
    import http.server

    class Other(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"hi")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Other) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with Client(f"http://127.0.0.1:{server.server_port}") as client, pytest.raises(UnexpectedAnswer):
            client.depth(PHOTO)
        thread.join()


def test_a_crowd_on_a_small_service_is_served_in_the_end(
    start: Callable[..., RunningGateway], client_of_triton: FakeDepthClient
) -> None:
    """One place and no queue: most calls are refused with Retry-After, wait, and succeed."""
    gateway = start(max_inflight=1, max_waiting=0)
    client_of_triton.hook = lambda: asyncio.sleep(0.02)

    async def crowd() -> list[float]:
        async with AsyncClient(url_of(gateway), timeout_s=60, retries=50) as client:
            photos = [encoded(picture(64 + index, 48)) for index in range(6)]
            maps = await asyncio.gather(*(client.depth(photo) for photo in photos))
            return [depth.values.shape[1] for depth in maps]

    assert asyncio.run(crowd()) == [64, 65, 66, 67, 68, 69]
    refusals = (("503", "overloaded"), ("429", "too_many_requests"))
    assert sum(gateway.metric("depthlens_requests_total", route="/depth", status=s, code=c) for s, c in refusals) > 0


def test_the_awaiting_client_does_the_same(edge: RunningGateway) -> None:
    async def all_of_it() -> None:
        async with AsyncClient(url_of(edge)) as client:
            photo = client.open(PHOTO)
            first, second = await photo.focus(*PERSON), await photo.focus(rx=0.1, ry=0.9)
            assert first.scene == second.scene
            assert len((await photo.people()).people) == 1
            with Client(url_of(edge)) as waiting:
                assert ((await photo.depth()).values == waiting.depth(PHOTO).values).all()
                assert ((await photo.segment()).alpha == waiting.segment(PHOTO).alpha).all()
                assert await client.models() == waiting.models()

    asyncio.run(all_of_it())


@pytest.mark.parametrize("kind", ["Client", "Photo"])
def test_both_clients_have_the_same_methods(kind: str) -> None:
    import inspect

    from service import client as package

    def methods(name: str) -> dict[str, list[str]]:
        return {
            member: list(inspect.signature(function).parameters)
            for member, function in inspect.getmembers(getattr(package, name), inspect.isfunction)
            if not member.startswith("_")
        }

    assert methods(kind) == methods(f"Async{kind}")


@pytest.mark.parametrize(
    ("options", "query", "elsewhere"),
    [
        (FocusOptions, FocusQuery, {"x", "y", "scene", "output"}),
        (SegmentOptions, SegmentationQuery, {"format"}),
        (
            DepthOptions,
            DepthQuery,
            # of previews, meshes and statistics, which `fetch` asks for
            {"format", "points", "colormap", "range", "near", "far", "near_m", "far_m"}
            | {"max_points", "depth_edge", "far_ratio"},
        ),
    ],
)
def test_options_are_the_routes_parameters(options: type, query: type, elsewhere: set[str]) -> None:
    assert set(get_type_hints(options)) == set(query.model_fields) - elsewhere
