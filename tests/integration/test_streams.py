"""Frame streams through `depthlens serve` and the real Triton: twenty frames, three hundred, a kill, a stop."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fakes import encoded
from PIL import Image
from served_gateway import Served
from streaming import Heard, streaming

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def served(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    running = Served(repository, tmp_path_factory.mktemp("streams") / "log")
    yield running
    if running.process.poll() is None:
        running.process.terminate()
    assert running.process.wait(60) == 0, running.log.read_text()[-4000:]


def frames(count: int, seed: int = 0) -> Iterator[bytes]:
    """A square wanders over a texture; light and noise change."""
    rng = np.random.default_rng(seed)
    texture = np.kron(rng.uniform(40, 200, (15, 20, 3)), np.ones((8, 8, 1)))
    for index in range(count):
        light = texture * (1 + 0.1 * np.sin(index / 9))
        left = 10 + index % 100
        light[40:80, left : left + 30] = (40, 120, 220)
        pixels = np.clip(light + rng.normal(0, 3, light.shape), 0, 255).astype(np.uint8)
        yield encoded(Image.fromarray(pixels), "JPEG", quality=90)


def numbers(heard: list[Heard]) -> list[int]:
    return [each.words["frame"] for each in heard if "frame" in each.words]


def test_twenty_frames_in_order(served: Served) -> None:
    with streaming(served.address, "task=depth&drop=none&queue=16") as stream:
        stream.send(*frames(16))
        heard = [stream.hear() for _ in range(10)]
        stream.send(*frames(4))
        heard += stream.ended()
    assert numbers(heard) == list(range(20))
    assert [each.words["type"] for each in heard] == ["result"] * 20 + ["end"]
    assert len({each.words["depth"]["scale"] for each in heard[:-1]}) == 1


def test_three_hundred_frames_in_order_with_drops_counted_and_memory_flat(served: Served) -> None:
    sent, answered, dropped, resident = 0, [], 0, {}
    with streaming(served.address, "task=depth&size=native&queue=2") as stream:
        for index, frame in enumerate(frames(300, seed=1)):
            stream.send(frame)
            sent += 1
            if index % 5 < 3:  # bursts: two frames in five come before the last was answered
                heard = stream.hear()
                answered.append(heard.words["frame"])
                dropped = heard.words["dropped"]
            if index in (100, 299):
                resident[index] = served.resident_bytes()
        rest = stream.ended()
    end = rest[-1].words
    answered += numbers(rest)
    assert answered == sorted(set(answered))
    assert end["frames"] == sent == 300
    assert end["errors"] == 0
    assert end["results"] == len(answered)
    assert end["results"] + end["dropped"] == 300
    assert end["dropped"] >= dropped > 0
    assert resident[299] - resident[100] < 16 * 2**20
    assert served.metric("depthlens_streams") == 0
    assert served.metric("depthlens_inflight") == 0
    assert served.metric('depthlens_frames_total{result="dropped"}') >= end["dropped"]


def test_a_killed_triton_costs_frames_and_not_the_stream(served: Served) -> None:
    before, after = 0, 0
    seen: list[str] = []
    with streaming(served.address, "task=depth&size=native&drop=none&timeout=5") as stream:
        source = frames(10_000, seed=2)
        started = time.monotonic()
        while after < 3:
            assert time.monotonic() - started < 120, seen[-20:]
            stream.send(next(source))
            heard = stream.hear()
            seen.append(heard.words["type"])
            if seen[-1] == "result" and "error" not in seen:
                before += 1
                if before == 3:
                    os.kill(served.triton_pid(), signal.SIGKILL)
            elif seen[-1] == "result":
                after += 1
                assert heard.words["reset"] is None  # what was known of the stream is not Triton's to lose
            else:
                assert heard.words["problem"]["status"] in (503, 504)
        numbered = heard.words["frame"]
    assert numbered == len(seen) - 1
    assert seen.count("error") >= 1


def test_the_example_of_the_documentation_runs_as_written(served: Served, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "streams.md").read_text()
    [example] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "frames").mkdir()
    for index, frame in enumerate(frames(12, seed=4)):
        (tmp_path / "frames" / f"{index:03}.jpg").write_bytes(frame if index != 5 else b"broken")
    code = example.replace("localhost:8080", "{}:{}".format(*served.address))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"5 .+\n", done.stdout)
    written = sorted(path.name for path in tmp_path.glob("depth-*.jpg"))
    assert written == [f"depth-{index:04}.jpg" for index in range(12) if index != 5]
    for name in written:
        with Image.open(tmp_path / name) as image:
            assert image.size == (160, 120)


def test_a_stop_answers_what_was_taken_and_says_so(served: Served) -> None:
    """The last test on this server."""
    with streaming(served.address, "task=depth&size=native&drop=none") as stream:
        stream.send(*frames(3, seed=3))
        assert stream.hear().words["frame"] == 0
        served.process.terminate()
        heard = stream.rest()
    assert numbers(heard) == [1, 2]
    assert stream.closed[0] == 1001
