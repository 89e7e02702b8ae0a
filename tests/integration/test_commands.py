"""`depthlens focus` and `video` with nothing running: they start the real service, and leave nothing behind."""

import json
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
from fakes import encoded, picture
from films import film
from PIL import Image
from running import until
from terminal import Terminal

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

TIMEOUT_S = 200


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three photos, and two broken ones."""
    monkeypatch.chdir(tmp_path)  # a folder without a model repository
    folder = tmp_path / "photos"
    (folder / "holiday").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(encoded(picture(320, 240), "JPEG"))
    (folder / "b.png").write_bytes(encoded(picture(200, 300)))
    (folder / "holiday/c.webp").write_bytes(encoded(picture(300, 200), "WEBP"))
    (folder / "cut.jpg").write_bytes((folder / "a.jpg").read_bytes()[:2000])
    (folder / "words.jpg").write_bytes(b"these are words")
    return folder


def served(parent: int) -> list[int]:
    """Processes whose parents lead up to it, the embedded service and its Triton among them."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                rest = (entry / "stat").read_text().rpartition(") ")[2].split()
            except OSError:
                continue
            if rest[0] != "Z":
                parents[int(entry.name)] = int(rest[1])
    found = [parent]
    for pid in found:
        found += [child for child, above in parents.items() if above == pid]
    return found[1:]


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_a_folder_with_two_broken_files(photos: Path) -> None:
    """Results, a report, an exit status, a progress bar; the service is started for the job, and gone after it."""
    with Terminal(None, "focus", "photos/", "-o", "out/", "--report", "report.json") as terminal:
        terminal.read_until(r"[1-5]/5 ", TIMEOUT_S)
        family = served(terminal.process.pid)
        shown = terminal.read_until(r"depthlens: 3 ok, 2 failed in", TIMEOUT_S)
    assert terminal.process.returncode == 1
    assert family
    assert not alive(family)
    assert re.search(r"focus: 100%\|█+\| 5/5 .*2 failed", shown)
    for name in ("photos/cut.jpg: truncated_image: ", "photos/words.jpg: not_an_image: "):
        assert f"depthlens: {name}" in shown
    for name, size in {"a.jpg": (320, 240), "b.png": (200, 300), "holiday/c.webp": (300, 200)}.items():
        with Image.open(Path("out", name)) as image:
            assert image.size == size
            with Image.open(photos / name) as before:  # something was blurred
                assert np.abs(np.asarray(image.convert("RGB"), int) - np.asarray(before.convert("RGB"), int)).max() > 20
    report = json.loads(Path("report.json").read_text())
    assert report["server"] == "embedded"
    assert (report["totals"]["ok"], report["totals"]["failed"], report["exit_status"]) == (3, 2, 1)
    assert {entry["model"] for entry in report["files"] if entry["status"] == "ok"} == {"focus"}


def test_ctrl_c_stops_the_service_too(photos: Path) -> None:
    with Terminal(None, "depth", "photos/a.jpg", "-o", "out/") as terminal:
        terminal.read_until("waiting for the service")
        until(lambda: bool(served(terminal.process.pid)))
        family = served(terminal.process.pid)
        os.kill(terminal.process.pid, signal.SIGINT)
        terminal.read_until("interrupted: 1 not started", TIMEOUT_S)
    assert terminal.process.returncode == 130
    assert not alive(family)
    assert not Path("out").exists()


def test_killed_it_takes_the_service_along(photos: Path) -> None:
    """Even when there is no time to stop it."""
    with Terminal(None, "depth", "photos/a.jpg", "photos/b.png", "-o", "out/", "--jobs", "1") as terminal:
        terminal.read_until(r"[12]/2 ", TIMEOUT_S)
        family = served(terminal.process.pid)
        os.kill(terminal.process.pid, signal.SIGKILL)
    until(lambda: not alive(family), 60)


def test_a_video(photos: Path) -> None:
    film(photos / "in.mp4", frames=6, size=(96, 128))
    with Terminal(None, "video", "photos/in.mp4", "-o", "out.mp4", "--task", "focus", "--blur", "1") as terminal:
        shown = terminal.read_until(r"depthlens: 6 frames in", TIMEOUT_S)
    assert terminal.process.returncode == 0
    assert re.search(r"video focus: 100%\|█+\| 6/6", shown)
    assert Path("out.mp4").stat().st_size > 1000
