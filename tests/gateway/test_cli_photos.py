"""`depthlens depth|segment|focus` on a real gateway: results, report, exit status, progress on a terminal, Ctrl-C."""

import asyncio
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeDepthClient, encoded, picture
from PIL import Image
from running import RunningGateway
from terminal import Terminal, depthlens

from service.__main__ import main
from service.clients import hash_of

CODES = {"ok", "not_an_image", "truncated_image", "unreadable"}


@pytest.fixture
def server(edge: RunningGateway, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A gateway that the command line finds in its environment."""
    monkeypatch.chdir(tmp_path)
    return use(edge, monkeypatch)


def use(gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> str:
    url = f"http://127.0.0.1:{gateway.address[1]}"
    monkeypatch.setenv("DEPTHLENS_GATEWAY_URL", url)
    return url


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three good photos in two folders, and two broken ones."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(encoded(picture(96, 64), "JPEG"))
    (folder / "b.png").write_bytes(encoded(picture(80, 60)))
    (folder / "sub/c.webp").write_bytes(encoded(picture(64, 64), "WEBP"))
    (folder / "cut.jpg").write_bytes(encoded(picture(96, 64), "JPEG")[:700])
    (folder / "words.jpg").write_bytes(b"these are words")
    return folder


def files_of(report: Path) -> dict[str, dict[str, object]]:
    return {Path(str(entry["input"])).name: entry for entry in json.loads(report.read_text())["files"]}


def test_a_folder_with_two_broken_files(server: str, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["focus", "photos", "-o", "out/", "--report", "report.json", "--rx", "0.75", "--ry", "0.5"]) == 1
    for name, (format, size) in {
        "a.jpg": ("JPEG", (96, 64)),
        "b.png": ("PNG", (80, 60)),
        "sub/c.webp": ("WEBP", (64, 64)),
    }.items():
        with Image.open(Path("out", name)) as image:
            assert (image.format, image.size) == (format, size)
    assert sorted(path.name for path in Path("out").rglob("*") if path.is_file()) == ["a.jpg", "b.png", "c.webp"]
    report = json.loads(Path("report.json").read_text())
    assert report["totals"] == {"ok": 3, "failed": 2, "skipped": 0, "interrupted": 0, "not_started": 0}
    assert (report["exit_status"], report["server"]) == (1, server)
    files = files_of(Path("report.json"))
    assert (files["words.jpg"]["code"], files["words.jpg"]["http_status"]) == ("not_an_image", 415)
    assert (files["cut.jpg"]["code"], files["cut.jpg"]["status"]) == ("truncated_image", "failed")
    assert (files["a.jpg"]["model"], files["a.jpg"]["model_version"]) == ("focus", "1")
    assert files["a.jpg"]["output"] == "out/a.jpg"
    assert float(str(files["a.jpg"]["seconds"])) > 0
    said = capsys.readouterr()
    assert said.out == ""
    assert re.search(r"^depthlens: photos/words.jpg: not_an_image: ", said.err, re.MULTILINE)
    assert re.search(r"^depthlens: 3 ok, 2 failed in ", said.err, re.MULTILINE)


def test_results_are_never_replaced_unasked(server: str, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "cut.jpg").unlink()
    (photos / "words.jpg").unlink()
    Path("out").mkdir()
    Path("out/a.png").write_bytes(b"mine")
    assert main(["depth", "photos", "-o", "out"]) == 2
    assert "out/a.png there already: --overwrite or --skip" in capsys.readouterr().err
    assert os.listdir("out") == ["a.png"]
    assert main(["depth", "photos", "-o", "out", "--skip", "--report", "r.json"]) == 0
    assert Path("out/a.png").read_bytes() == b"mine"
    assert {name: entry["status"] for name, entry in files_of(Path("r.json")).items()} == {
        "a.jpg": "skipped",
        "b.png": "ok",
        "c.webp": "ok",
    }
    assert main(["depth", "photos", "-o", "out", "--overwrite"]) == 0
    with Image.open("out/a.png") as image:
        assert image.mode == "I;16"


def test_a_file_that_cannot_be_read_is_named(server: str, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["segment", "photos/gone.jpg", "photos/a.jpg", "-o", "out", "--quiet"]) == 1
    assert capsys.readouterr().err == "depthlens: photos/gone.jpg: unreadable: No such file or directory\n"
    assert Path("out/a.png").exists()


def test_the_routes_parameters(server: str, photos: Path) -> None:
    assert main(["depth", "photos/a.jpg", "-o", "a.npy", "--size", "native", "--quiet"]) == 0
    assert np.load("a.npy").dtype == np.float32
    assert main(["depth", "photos/a.jpg", "-o", "a.json", "--points", "3,4"]) == 0
    assert json.loads(Path("a.json").read_text())["points"][0]["y"] == 4
    assert main(["focus", "photos/a.jpg", "-o", "all.zip", "--output", "all", "--person", "0", "--blades", "6"]) == 0
    assert (
        main(["focus", "photos/a.jpg", "-o", "pull/", "--rack-rx", "0.1", "--rack-ry", "0.1", "--rack-frames", "3"])
        == 0
    )
    with Image.open("pull/a.webp") as pull:
        assert pull.n_frames == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["depth", "photos"], "say where the result goes"),
        (["depth", "photos", "-o", "out", "--near", "2"], "--near 2: "),
        (["focus", "photos", "-o", "out", "--person", "many"], "--person many: "),
        (["depth", "photos", "-o", "out", "--server", "ftp://x"], "begins with http"),
        (["depth", "photos/a.jpg", "-o", "a.docx"], "no result in docx"),
        (["focus", "photos", "-o", "photos/", "--overwrite"], "replace a photo"),
        (["depth", "photos", "-o", "-"], "one photo"),
    ],
)
def test_wrong_use(
    server: str, photos: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("depthlens: ")
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("word", ["--format=docx", "--jobs=0", "--nonsense"])
def test_wrong_options(server: str, photos: Path, word: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["depth", "photos", "-o", "out", word])
    assert stopped.value.code == 2


def test_nobody_there(photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(photos.parent)
    assert main(["depth", "photos", "-o", "out", "--server", "http://127.0.0.1:9", "--report", "r.json"]) == 1
    assert "no service at http://127.0.0.1:9: " in capsys.readouterr().err
    assert json.loads(Path("r.json").read_text())["totals"]["not_started"] == 5


def test_a_wrong_key_ends_the_job(
    start: Callable[..., RunningGateway], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    use(start(api_key_hashes=(hash_of("dl_right"),)), monkeypatch)
    monkeypatch.setenv("DEPTHLENS_API_KEY", "dl_wrong")
    assert main(["depth", "photos", "-o", "out", "--report", "r.json", "--jobs", "1"]) == 1
    entries = list(files_of(Path("r.json")).values())
    assert [entry["code"] for entry in entries] == ["unauthorized", *["not_started"] * 4]
    monkeypatch.setenv("DEPTHLENS_API_KEY", "dl_right")
    assert main(["depth", "photos/a.jpg", "-o", "a.png"]) == 0


def test_a_busy_service_is_waited_for(
    start: Callable[..., RunningGateway],
    client_of_triton: FakeDepthClient,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One place and no queue: eight at a time are refused with Retry-After, and all come through."""
    monkeypatch.chdir(photos.parent)
    many = photos.parent / "many"
    many.mkdir()
    for index in range(8):
        (many / f"{index}.png").write_bytes(encoded(picture(64 + index, 48)))
    gateway = start(max_inflight=1, max_waiting=0)
    use(gateway, monkeypatch)
    client_of_triton.hook = lambda: asyncio.sleep(0.02)
    assert main(["depth", "many", "-o", "out", "--jobs", "8"]) == 0
    assert len(os.listdir("out")) == 8
    refusals = (("503", "overloaded"), ("429", "too_many_requests"))
    assert sum(gateway.metric("depthlens_requests_total", route="/depth", status=s, code=c) for s, c in refusals) > 0


def test_streams(server: str, photos: Path) -> None:
    """Standard input to standard output, and nothing else on it."""
    photo = (photos / "a.jpg").read_bytes()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = depthlens(server, "segment", "-", "--format", "npy", **pipes)
    out, err = process.communicate(photo, timeout=60)
    assert process.returncode == 0, err
    assert out.startswith(b"\x93NUMPY")
    assert err.startswith(b"depthlens: 1 ok in ")


def test_the_bar_and_the_failures_above_it(server: str, photos: Path) -> None:
    with Terminal(server, "focus", "photos", "-o", "out", "--jobs", "1") as terminal:
        shown = terminal.read_until(r"depthlens: 3 ok, 2 failed in")
    assert terminal.process.returncode == 1
    assert re.search(r"\rfocus: 100%\|█+\| 5/5 .*2 failed", shown)
    lines = [line.split("\r")[-1] for line in re.split(r"\r?\n", shown)]
    assert any(line.startswith("depthlens: photos/words.jpg: not_an_image") for line in lines)
    assert not any("words.jpg" in line and "█" in line for line in lines)  # a line of its own


def test_a_result_is_not_poured_onto_a_terminal(server: str, photos: Path) -> None:
    with Terminal(server, "depth", "photos/a.jpg", "-o", "-") as terminal:
        terminal.read_until("no text for a terminal")
    assert terminal.process.returncode == 2


def test_ctrl_c_ends_the_job_and_tells_how_far_it_came(
    start: Callable[..., RunningGateway],
    client_of_triton: FakeDepthClient,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(photos.parent)
    stuck = asyncio.Event()

    async def only_the_first() -> None:
        if Path("out/a.png").exists():
            await stuck.wait()

    gateway = start()
    url = use(gateway, monkeypatch)
    client_of_triton.hook = only_the_first
    with Terminal(url, "depth", "photos", "-o", "out", "--jobs", "1", "--report", "r.json") as terminal:
        terminal.read_until("1/5")
        os.kill(terminal.process.pid, signal.SIGINT)
        terminal.read_until("depthlens: interrupted: ")
    assert terminal.process.returncode == 130
    gateway.loop.call_soon_threadsafe(stuck.set)
    assert [entry["status"] for entry in files_of(Path("r.json")).values()] == [
        "ok",
        "interrupted",
        "not_started",
        "not_started",
        "not_started",
    ]
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.png"]  # and no half file
