"""Frame streams through the client, and videos through `depthlens video`: order, errors in place, times, sound."""

import asyncio
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from fakes import FakeDepthClient, encoded, picture
from films import film, scene, turn
from running import RunningGateway

from service.__main__ import main
from service.batch.video import upright
from service.client import (
    AsyncClient,
    BadPhoto,
    Client,
    ConnectionFailed,
    FrameError,
    FrameResult,
    InvalidParameter,
    Problem,
)


@pytest.fixture(scope="module")
def url() -> object:
    running = RunningGateway(FakeDepthClient(), max_body_bytes=2_000_000)
    yield f"http://127.0.0.1:{running.address[1]}"
    running.close()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEPTHLENS_GATEWAY_URL", url)
    return tmp_path


FRAMES = [encoded(picture(64 + 2 * index, 48)) for index in range(20)]


def test_every_frame_is_answered_in_order(url: str) -> None:
    with Client(url) as client, client.stream("depth", drop="none", format="npy") as stream:
        assert stream.ready["task"] == "depth"
        answers = list(stream.run(FRAMES))
        assert stream.counts is not None
        assert (stream.counts["frames"], stream.counts["dropped"]) == (20, 0)
    assert [answer.frame for answer in answers] == list(range(20))
    for index, answer in enumerate(answers):
        assert isinstance(answer, FrameResult)
        assert answer.values.shape == (48, 64 + 2 * index)  # the frame's own answer, not a neighbour's


def test_sixteen_bits_are_the_values(url: str) -> None:
    with Client(url) as client:
        maps = []
        for format in ("npy", "png16"):
            with client.stream("depth", drop="none", format=format) as stream:
                (answer,) = stream.run(FRAMES[:1])
                assert isinstance(answer, FrameResult)
                maps.append(answer.values)
    assert maps[1].dtype == np.float32
    assert np.abs(maps[0] - maps[1]).max() < 1e-3


def test_a_broken_frame_has_an_error_in_its_place(url: str) -> None:
    frames = [FRAMES[0], b"these are words", FRAMES[0]]
    with Client(url) as client, client.stream("segmentation", drop="none") as stream:
        first, second, third = stream.run(frames)
    assert isinstance(first, FrameResult)
    assert isinstance(third, FrameResult)
    assert isinstance(second, FrameError)
    assert second.frame == 1
    assert isinstance(second.problem, BadPhoto)


def test_settings_on_the_way(url: str) -> None:
    with Client(url) as client, client.stream("focus", drop="none", rx=0.75, ry=0.5, format="png") as stream:
        stream.send(FRAMES[0])
        first = stream.receive()
        stream.settings(max_side=32)
        stream.send(FRAMES[0])
        second = stream.receive()
        stream.end()
        assert stream.receive() is None
    assert isinstance(first, FrameResult)
    assert isinstance(second, FrameResult)
    assert first.pixels.shape == (48, 64, 3)
    assert max(second.pixels.shape) == 32


def test_refusals(url: str) -> None:
    with Client(url) as client, pytest.raises(InvalidParameter) as error, client.stream("depth", colormap="mud"):
        pass
    assert error.value.field == "colormap"
    with Client("http://127.0.0.1:9") as client, pytest.raises(ConnectionFailed), client.stream("depth"):
        pass


def test_awaiting(url: str) -> None:
    async def frames() -> object:
        for frame in FRAMES[:5]:
            yield frame

    async def both() -> tuple[list[int], list[int]]:
        async with AsyncClient(url) as client:
            async with client.stream("depth", drop="none") as stream:
                from_list = [answer.frame async for answer in stream.run(FRAMES[:5])]
            async with client.stream("depth", drop="none") as stream:
                from_stream = [answer.frame async for answer in stream.run(frames())]
            with pytest.raises(Problem):
                async with client.stream("depth", format="docx"):
                    pass
            return from_list, from_stream

    assert asyncio.run(both()) == (list(range(5)), list(range(5)))


def decoded(path: Path) -> tuple[list[float], list[np.ndarray], dict[str, str]]:
    with av.open(str(path)) as container:
        codecs = {stream.type: stream.codec_context.name for stream in container.streams}
        frames = list(container.decode(video=0))
    times = [float(frame.pts * frame.time_base) for frame in frames]
    return times, [frame.to_ndarray(format="rgb24") for frame in frames], codecs


def sound_of(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def test_a_video_keeps_its_times_and_its_sound(here: Path) -> None:
    film(here / "in.mp4", frames=20)
    assert (
        main(["video", "in.mp4", "-o", "out.mp4", "--task", "focus", "--rx", "0.2", "--ry", "0.5", "--blur", "0"]) == 0
    )
    times, pictures, codecs = decoded(here / "out.mp4")
    assert times == pytest.approx([index / 25 for index in range(20)])
    assert codecs == {"video": "h264", "audio": "aac"}
    assert sound_of(here / "out.mp4") == sound_of(here / "in.mp4")
    for index, pixels in enumerate(pictures):  # without blur the frames come back, but for two encodings
        assert np.abs(pixels.astype(int) - scene(index, 20, (64, 96)).astype(int)).mean() < 8, index


def test_frames_that_come_unevenly_stay_so(here: Path) -> None:
    times = [0.0, 0.04, 0.3, 0.31, 1.0]
    film(here / "in.mp4", frames=5, sound=False, times_s=times)
    assert main(["video", "in.mp4", "-o", "out.mkv", "--quiet"]) == 0
    found, pictures, codecs = decoded(here / "out.mkv")
    assert found == pytest.approx(times, abs=0.002)  # Matroska counts milliseconds
    assert codecs == {"video": "h264"}
    assert len(pictures) == 5


def test_a_turned_video_comes_out_upright(here: Path) -> None:
    turn(film(here / "in.mp4", frames=3))
    assert main(["video", "in.mp4", "-o", "out.mp4", "--task", "segment"]) == 0
    _, pictures, _ = decoded(here / "out.mp4")
    assert pictures[0].shape == (96, 64, 3)
    person = scene(0, 3, (64, 96))[..., 1] == 0
    shown = np.rot90(person, -1)  # a quarter clockwise
    assert pictures[0][..., 0][shown].mean() > 200
    assert pictures[0][..., 0][~shown].mean() < 40


def test_odd_sizes_and_depth(here: Path) -> None:
    film(here / "in.mp4", frames=3, rate=Fraction(30_000, 1001))
    assert main(["video", "in.mp4", "-o", "out.mp4", "--max-side", "51"]) == 0
    times, pictures, _ = decoded(here / "out.mp4")
    assert pictures[0].shape == (34, 50, 3)
    assert times[2] == pytest.approx(2 * 1001 / 30_000, abs=1e-4)


@pytest.mark.parametrize(
    ("content", "out", "status", "said"),
    [
        (b"these are words", "out.mp4", 1, "in.mp4: "),
        (None, "out.mp4", 1, "in.mp4: No such file"),
        ("film", "in.mp4", 2, "replace the video itself"),
        ("film", "there.mp4", 2, "there already"),
        ("film", "out.docx", 1, "out.docx: cannot be written"),
        ("film", "out.webm", 1, "out.webm: cannot be written"),  # no AAC in WebM
    ],
)
def test_bad_videos(
    here: Path, capsys: pytest.CaptureFixture[str], content: bytes | str | None, out: str, status: int, said: str
) -> None:
    (here / "there.mp4").write_bytes(b"mine")
    if content == "film":
        film(here / "in.mp4", frames=3)
    elif isinstance(content, bytes):
        (here / "in.mp4").write_bytes(content)
    before = set(os.listdir(here))
    assert main(["video", "in.mp4", "-o", out]) == status
    assert said in capsys.readouterr().err
    assert set(os.listdir(here)) == before  # and nothing half done
    assert (here / "there.mp4").read_bytes() == b"mine"


def test_a_wrong_parameter_is_the_services_to_refuse(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film(here / "in.mp4", frames=3)
    assert main(["video", "in.mp4", "-o", "out.mp4", "--near", "7"]) == 1
    assert "near" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rotation", "corner"), [(0, (0, 0)), (-90, (0, 2)), (90, (1, 0)), (180, (1, 2)), (-180, (1, 2))]
)
def test_quarter_turns(rotation: int, corner: tuple[int, int]) -> None:
    pixels = np.zeros((2, 3, 3) if rotation % 180 == 0 else (3, 2, 3), np.uint8)
    pixels[0, 0] = 255
    turned = upright(pixels, rotation)
    assert turned.shape == (2, 3, 3)
    assert turned[corner].tolist() == [255] * 3
