"""Pairs through the typed client, `depthlens stereo` and `depthlens video --task stereo`."""

import asyncio
import json
from pathlib import Path

import av
import numpy as np
import pytest
from fakes import FakeDepthClient
from PIL import Image
from running import RunningGateway
from stereo_pairs import HEIGHT, LEFT, RIGHT, SHIFT, WIDTH, cut, seen

from service.__main__ import main
from service.client import AsyncClient, Client, FrameError, FrameResult


@pytest.fixture(scope="module")
def url() -> object:
    running = RunningGateway(FakeDepthClient())
    yield f"http://127.0.0.1:{running.address[1]}"
    running.close()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEPTHLENS_GATEWAY_URL", url)
    for name, data in (("left.png", LEFT), ("right.png", RIGHT)):
        (tmp_path / name).write_bytes(data)
    return tmp_path


def rig(folder: Path, count: int) -> None:
    """Folders of pairs; the last pair but one is a picture twice."""
    for side, start in (("left", 20), ("right", 20 + SHIFT)):
        (folder / side).mkdir()
        for number in range(count):
            same = number == count - 2
            (folder / side / f"{side[0]}{number:03}.png").write_bytes(cut(20 if same else start + number))


def test_pairs_of_a_stream_are_files_or_pixels(url: str, here: Path) -> None:
    pairs = [(LEFT, RIGHT), (seen(20), seen(20 + SHIFT)), (here / "left.png", here / "right.png"), (LEFT, LEFT)]
    for format in ("npy", "png16"):
        with Client(url) as client, client.stream("stereo", drop="none", format=format) as stream:
            *good, bad = stream.run(pairs)
        for answer in good:
            assert isinstance(answer, FrameResult)
            assert answer.values.shape == (HEIGHT, WIDTH)
            assert (answer.values[0, 0], answer.values[-1, -1]) == (4, 8)
        assert [answer.words["adaptation"]["frames"] for answer in good] == [1, 2, 3]
        assert isinstance(bad, FrameError)
        assert "same" in str(bad.problem)


def test_the_same_awaited(url: str) -> None:
    async def run() -> float:
        async with AsyncClient(url) as client, client.stream("stereo", format="npy", adapt="none") as stream:
            [answer] = [answer async for answer in stream.run([(LEFT, RIGHT)])]
        assert isinstance(answer, FrameResult)
        return float(answer.values[0, 0])

    assert asyncio.run(run()) == 4


def test_one_pair_in_the_format_of_its_name(here: Path) -> None:
    words = ["stereo", "left.png", "right.png", "--quiet"]
    assert main([*words, "-o", "depth.npy", "--focal-px", "800", "--baseline-m", "0.25"]) == 0
    assert np.load(here / "depth.npy")[0, 0] == 50  # metres
    assert main([*words, "-o", "disparity.png"]) == 0
    with Image.open(here / "disparity.png") as stored:
        assert (stored.size, stored.getpixel((0, 0))) == ((WIDTH, HEIGHT), 4 * 256)
    assert main([*words, "-o", "look.jpg", "--adapt", "none"]) == 0
    with Image.open(here / "look.jpg") as shown:
        assert shown.format == "JPEG"


def test_folders_are_a_sequence_and_what_fails_is_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rig(here, 5)
    (here / "left" / "notes.txt").write_text("no picture")
    assert main(["stereo", "left", "right", "-o", "maps", "--report", "report.jsonl", "--adapt", "full"]) == 1
    written = sorted(path.name for path in (here / "maps").iterdir())
    assert written == ["l000.png", "l001.png", "l002.png", "l004.png"]
    said = [json.loads(line) for line in (here / "report.jsonl").read_text().splitlines()]
    assert [words["type"] for words in said] == ["result"] * 3 + ["error", "result"]
    assert [words["adaptation"]["frames"] for words in said if "adaptation" in words] == [1, 2, 3, 4]
    assert said[0]["adaptation"]["mode"] == "full"
    error = capsys.readouterr().err
    assert "l003.png" in error
    assert "5 pairs, 1 failed" in error


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["left.png", "nowhere.png", "-o", "out.png"], 2, "nowhere.png: no such file"),
        (["left.png", "right", "-o", "out"], 2, "both folders"),
        (["left.png", "right.png", "-o", "left.png"], 2, "replace a picture"),
        (["left.png", "right.png", "-o", "there.png"], 2, "there already"),
        (["left", "empty", "-o", "out"], 2, "no pictures"),
        (["left", "few", "-o", "out"], 2, "few has 1"),
        (["left.png", "right.png", "-o", "out.png", "--focal-px", "800"], 1, "baseline_m"),
        (["left.png", "right.png", "-o", "out.png", "--server", "ftp://x"], 2, "http://"),
    ],
)
def test_command_lines_that_cannot_be_done(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], status: int, said: str
) -> None:
    rig(here, 3)
    (here / "there.png").write_bytes(b"mine")
    (here / "empty").mkdir()
    (here / "few").mkdir()
    (here / "few" / "a.png").write_bytes(RIGHT)
    assert main(["stereo", *words]) == status
    assert said in capsys.readouterr().err
    assert (here / "there.png").read_bytes() == b"mine"
    assert (here / "left.png").read_bytes() == LEFT
    assert not (here / "out.png").exists()


@pytest.mark.parametrize(("more", "axis"), [([], 1), (["--pair", "top_bottom"], 0)])
def test_a_video_that_holds_both_pictures(here: Path, more: list[str], axis: int) -> None:
    both = np.concatenate([seen(20), seen(20 + SHIFT)], axis=axis)
    with av.open("in.mp4", "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "5"})
        stream.height, stream.width, stream.pix_fmt = *both.shape[:2], "yuv420p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(both), format="rgb24")))
        container.mux(stream.encode(None))
    assert main(["video", "in.mp4", "-o", "out.mp4", "--task", "stereo", "--colormap", "gray", "--quiet", *more]) == 0
    with av.open("out.mp4") as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 3
    assert frames[0].shape == (HEIGHT, WIDTH, 3)
    assert frames[0][-1, -1, 0] > frames[0][0, 0, 0] + 60  # the lower half is nearer
