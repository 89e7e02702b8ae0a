"""Worker processes: the same pictures as in this process, and their deaths, each one problem and a successor."""

import asyncio
import gc
import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeDepthClient, encoded, picture
from PIL import Image
from starlette.testclient import TestClient

from service.app import create_app
from service.decoding import memory
from service.decoding.workers import DecodeWorkers
from service.errors import DecoderUnavailable, UndecodableImage
from service.imaging import codec
from service.imaging.codec import Limits
from service.imaging.errors import DamagedImage, ImageTooCostly, ImageTooLarge, TruncatedImage
from service.metrics import Metrics
from service.settings import Settings

Test = Callable[[DecodeWorkers], Awaitable[None]]


def with_workers(test: Test, *, count: int = 1, memory_bytes: int = 2**30, cpu_s: float = 30.0) -> Metrics:
    """Run `test` on workers of its own; afterwards none of their processes is left."""
    metrics = Metrics()

    async def run() -> None:
        workers = DecodeWorkers(count=count, memory_bytes=memory_bytes, cpu_s=cpu_s, metrics=metrics)
        workers.start()
        try:
            async with asyncio.timeout(60):
                await test(workers)
        finally:
            pids = workers.pids
            await workers.close()
        deadline = time.monotonic() + 10
        while any(Path(f"/proc/{pid}").exists() for pid in pids):
            assert time.monotonic() < deadline, "processes are left"
            time.sleep(0.01)

    asyncio.run(run())
    return metrics


@pytest.fixture(scope="module")
def at_work() -> Iterator["AtWork"]:
    """`at_work(test)`: run `test` on one worker that all such tests share; returns the metrics since they began."""
    metrics = Metrics()
    with asyncio.Runner() as runner:
        workers = DecodeWorkers(count=1, memory_bytes=2**30, cpu_s=30.0, metrics=metrics)

        async def limited(test: Test) -> None:
            async with asyncio.timeout(60):
                await test(workers)

        def run(test: Test) -> Metrics:
            runner.run(limited(test))
            return metrics

        yield run
        runner.run(workers.close())


AtWork = Callable[[Test], Metrics]


async def nothing(workers: DecodeWorkers) -> None:
    """For the metrics as they are."""


def ends(metrics: Metrics, reason: str) -> float:
    return metrics.registry.get_sample_value("depthlens_decoder_ends_total", {"reason": reason}) or 0.0


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within 30 s"
        await asyncio.sleep(0.01)


def noise(height: int, width: int, format: str, **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels), format, **options)


SLOW = noise(1200, 1600, "JPEG", progressive=True, quality=95)  # a second and more with its scans many times over
SLOW = SLOW[:-2] + SLOW[SLOW.rindex(b"\xff\xda") : -2] * 85 + SLOW[-2:]
QUICK = encoded(picture(), "WEBP")


def test_the_same_photo_as_in_this_process(at_work: AtWork) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    files = {
        format: encoded(picture(300, 200), format, exif=exif) for format in ("JPEG", "PNG", "WEBP", "AVIF", "TIFF")
    } | {format: encoded(picture(300, 200), format) for format in ("GIF", "BMP")}

    async def test(workers: DecodeWorkers) -> None:
        for format, data in files.items():
            here = codec.decode(data)
            header = await workers.inspect(data, Limits())
            assert header == here.header, format
            there = await workers.decode(data, header)
            assert np.array_equal(there.pixels, here.pixels), format
            assert (there.exif, there.scale, there.header) == (here.exif, here.scale, here.header), format
            assert not there.pixels.flags.writeable
        reduced = await workers.decode(SLOW, codec.inspect(SLOW), min_side=150)
        assert (reduced.scale, reduced.size) == (8, (150, 200))

    at_work(test)


def test_errors_come_back_as_they_are(at_work: AtWork) -> None:
    half = encoded(picture(), "TIFF", compression="tiff_lzw")[:2000]

    async def test(workers: DecodeWorkers) -> None:
        with pytest.raises(ImageTooLarge) as caught:
            await workers.inspect(QUICK, Limits(max_pixels=100))
        assert (caught.value.limit, caught.value.field) == (100, "image")
        with pytest.raises(TruncatedImage):
            await workers.inspect(QUICK[:20], Limits())
        with pytest.raises(DamagedImage):
            await workers.decode(half, await workers.inspect(encoded(picture(), "TIFF"), Limits()))
        assert (await workers.inspect(QUICK, Limits())).format == "webp"

    reasons = ("time", "crash", "killed", "start")
    before = sum(ends(at_work(nothing), reason) for reason in reasons)
    assert sum(ends(at_work(test), reason) for reason in reasons) == before


def test_too_much_time_ends_the_worker_and_nothing_else() -> None:
    async def test(workers: DecodeWorkers) -> None:
        header = codec.inspect(SLOW)
        slow = asyncio.create_task(workers.decode(SLOW, header))
        neighbours = [asyncio.create_task(workers.inspect(QUICK, Limits())) for _ in range(20)]
        with pytest.raises(UndecodableImage) as caught:
            await slow
        assert (caught.value.status, caught.value.code, caught.value.limit) == (422, "too_costly_image", 0.2)
        await asyncio.gather(*neighbours)
        await until(lambda: len(workers.pids) == 2)

    assert ends(with_workers(test, count=2, cpu_s=0.2), "time") == 1


def test_too_much_memory_is_refused_by_a_worker_that_lives_on() -> None:
    data = noise(2000, 2500, "TIFF")

    async def test(workers: DecodeWorkers) -> None:
        header = codec.inspect(data)
        with pytest.raises(ImageTooCostly, match="more memory than allowed"):
            await workers.decode(data, header)
        assert (await workers.decode(QUICK, codec.inspect(QUICK))).size == (64, 96)

    assert ends(with_workers(test, memory_bytes=20_000_000), "crash") == 0


@pytest.mark.parametrize(
    ("number", "error", "reason"),
    [(signal.SIGKILL, DecoderUnavailable, "killed"), (signal.SIGSEGV, UndecodableImage, "crash")],
)
def test_a_death_is_one_problem_and_then_a_successor(
    number: signal.Signals, error: type[Exception], reason: str, at_work: AtWork
) -> None:
    async def test(workers: DecodeWorkers) -> None:
        await workers.inspect(QUICK, Limits())
        (pid,) = workers.pids
        job = asyncio.create_task(workers.decode(SLOW, codec.inspect(SLOW)))
        await until(lambda: busy(pid))
        os.kill(pid, number)
        with pytest.raises(error):
            await job
        assert (await workers.inspect(QUICK, Limits())).format == "webp"
        assert pid not in workers.pids

    before = ends(at_work(nothing), reason)
    assert ends(at_work(test), reason) == before + 1


def busy(pid: int) -> bool:
    return "\nState:\tR" in Path(f"/proc/{pid}/status").read_text()


def running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_a_death_between_jobs_is_nobodys_problem(at_work: AtWork) -> None:
    async def test(workers: DecodeWorkers) -> None:
        for _ in range(3):
            await workers.inspect(QUICK, Limits())
            (pid,) = workers.pids
            os.kill(pid, signal.SIGKILL)
            while running(pid):  # not giving the loop a chance to see it
                time.sleep(0.001)
            await workers.inspect(QUICK, Limits())

    before = ends(at_work(nothing), "killed")
    assert ends(at_work(test), "killed") == before + 3


def test_who_gives_up_frees_the_worker(at_work: AtWork) -> None:
    async def test(workers: DecodeWorkers) -> None:
        await workers.inspect(QUICK, Limits())
        (pid,) = workers.pids
        job = asyncio.create_task(workers.decode(SLOW, codec.inspect(SLOW)))
        await until(lambda: busy(pid))
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        assert (await workers.inspect(QUICK, Limits())).format == "webp"
        assert pid not in workers.pids, "the job was not waited for"
        (pid,) = workers.pids
        short = asyncio.create_task(workers.inspect(QUICK, Limits()))
        await asyncio.sleep(0)
        short.cancel()
        await workers.inspect(QUICK, Limits())
        assert workers.pids == [pid], "a job that ends soon by itself costs no process"

    at_work(test)


def test_a_stopped_worker_and_a_stopped_nursery_are_replaced(at_work: AtWork) -> None:
    async def test(workers: DecodeWorkers) -> None:
        for also_the_nursery in (False, True):
            await workers.inspect(QUICK, Limits())
            (pid,) = workers.pids
            os.kill(pid, signal.SIGSTOP)
            if also_the_nursery:
                assert workers._nursery is not None
                os.kill(workers._nursery.pid, signal.SIGSTOP)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await workers.inspect(QUICK, Limits())
            assert (await workers.inspect(QUICK, Limits())).format == "webp"
            assert workers.pids != [pid]

    at_work(test)


def test_workers_that_cannot_start_are_said_at_once() -> None:
    async def test(workers: DecodeWorkers) -> None:
        await until(lambda: workers._failed_starts > 0)
        with pytest.raises(DecoderUnavailable) as caught:
            await workers.inspect(QUICK, Limits())
        assert caught.value.status == 503

    metrics = with_workers(test, memory_bytes=10**30)  # a limit the kernel does not take
    assert ends(metrics, "start") > 0


def test_workers_survive_the_process_they_come_from(at_work: AtWork) -> None:
    async def test(workers: DecodeWorkers) -> None:
        await workers.inspect(QUICK, Limits())
        assert workers._nursery is not None
        nursery = workers._nursery.pid
        assert "\nThreads:\t1\n" in Path(f"/proc/{nursery}/status").read_text(), "only then is forking safe"
        before = workers.pids
        os.kill(nursery, signal.SIGKILL)
        await until(lambda: bool(workers.pids) and workers.pids != before)
        assert (await workers.inspect(QUICK, Limits())).format == "webp"

    at_work(test)


_KILLED_WHILE_FORKING = """
import os, signal
from service.decoding import nursery
fork = os.fork
def fork_and_end():
    own = os.getpid()
    if fork():
        os.kill(own, signal.SIGKILL)
    while os.getppid() == own:
        pass
    return 0
os.fork = fork_and_end
nursery.main()
"""


def test_a_worker_whose_nursery_ends_before_it_looks_ends_too() -> None:
    """It would keep its socket, and the gateway wait for that to close, for ever."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    orders, read = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    limits = ["--memory-bytes", str(2**30), "--cpu-s", "10", "--parent", str(os.getpid())]
    with ours, orders:
        with theirs, read:
            nursery = subprocess.Popen([sys.executable, "-c", _KILLED_WHILE_FORKING, *limits], stdin=read.fileno())
            socket.send_fds(orders, [b'{"fork": 0}'], [theirs.fileno()])
        assert nursery.wait(30) == -signal.SIGKILL
        ours.settimeout(30)
        assert ours.recv(100) == b""


def test_photos_hold_their_memory_and_no_descriptor(at_work: AtWork) -> None:
    async def test(workers: DecodeWorkers) -> None:
        data = noise(500, 700, "WEBP")
        header = codec.inspect(data)
        await workers.decode(data, header)
        gc.collect()
        left_by_others = mapped()
        before = len(os.listdir("/proc/self/fd"))
        photos = [await workers.decode(data, header) for _ in range(20)]
        assert len(os.listdir("/proc/self/fd")) == before, "photos hold no descriptor"
        assert mapped() > left_by_others
        view = photos[0].pixels[10:20]
        del photos
        assert mapped() == left_by_others + 1, "a view keeps its photo's memory"
        assert view.sum() > 0

    before = shared_files()
    at_work(test)
    assert shared_files() <= before, "photos have no name that a killed gateway would leave behind"


def shared_files() -> set[str]:
    """Those below /dev/shm that this process maps; other tests may have left some."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    return {line[line.index("/dev/shm/") :] for line in maps if "/dev/shm/" in line}


def mapped() -> int:
    return sum("memfd:depthlens" in line for line in Path("/proc/self/maps").read_text().splitlines())


def test_the_gateway_says_what_happened() -> None:
    settings = Settings(decode_cpu_s=0.1, decode_workers=1, canary_period_s=60)
    with TestClient(create_app(settings, FakeDepthClient())) as gateway:
        answer = gateway.post("/depth?edges=sharp", content=SLOW)
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (422, "too_costly_image")
        assert (problem["field"], problem["limit"]) == ("image", 0.1)
        assert gateway.post("/depth", content=QUICK).status_code == 200
        assert gateway.post("/depth", content=QUICK[:60]).json()["code"] == "truncated_image"
        assert 'depthlens_decoder_ends_total{reason="time"} 1.0' in gateway.get("/metrics").text


def test_shared_memory_can_be_neither_written_nor_shortened() -> None:
    descriptor = memory.share(b"pixels")
    try:
        for change in (lambda: os.ftruncate(descriptor, 3), lambda: os.write(descriptor, b"x")):
            with pytest.raises(PermissionError):
                change()
        assert memory.view(descriptor, 6).tobytes() == b"pixels"
        with pytest.raises(ValueError, match="7"):
            memory.view(descriptor, 7).sum()
    finally:
        os.close(descriptor)


def test_memory_that_is_not_sealed_is_not_read() -> None:
    descriptor = os.memfd_create("depthlens", os.MFD_ALLOW_SEALING)
    with io.FileIO(descriptor, "w") as file:
        file.write(b"pixels")
        with pytest.raises(ValueError, match="not sealed"):
            memory.view(descriptor, 6)


def test_a_worker_imports_only_what_decoding_needs() -> None:
    code = (
        "import service.decoding.nursery, sys; "
        "print([name for name in ('cv2', 'tifffile', 'fastapi', 'pydantic', 'asyncio', 'grpc') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.strip() == "[]"
