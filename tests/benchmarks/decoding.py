"""What decoding in another process costs, and the figures its limits come from: `docs/results/decoding.md`.

Run: `python -m tests.benchmarks.decoding --out docs/results/decoding.md`
"""

import argparse
import asyncio
import io
import os
import resource
import signal
import statistics
import struct
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from service.benchmark.pictures import photo
from service.decoding.workers import DecodeWorkers
from service.imaging import codec
from service.imaging.codec import Limits
from service.imaging.errors import ImageError
from service.metrics import Metrics

from .__main__ import machine

MEGAPIXELS = {0.5: (612, 816), 2.0: (1224, 1632), 12.0: (3000, 4000), 48.0: (6000, 8000)}
OPTIONS = {
    "JPEG": {"quality": 90},
    "PNG": {"compress_level": 1},
    "WEBP": {"quality": 85, "method": 0},
    "AVIF": {"quality": 70, "speed": 10},
    "TIFF": {"compression": "tiff_lzw"},
    "GIF": {},
    "BMP": {},
}
MIB = 2**20


def encoded(pixels: np.ndarray, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, **(OPTIONS.get(format, {}) | options))
    return buffer.getvalue()


def pictures() -> dict[float, np.ndarray]:
    twelve = photo(3000, 4000)
    return {
        0.5: twelve[:612, :816],
        2.0: twelve[:1224, :1632],
        12.0: twelve,
        48.0: np.tile(twelve, (2, 2, 1)),
    }


def processor_ms(pids: list[int]) -> float:
    """Processor time of this process, all threads, and of the main threads of others."""
    others = sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pids)
    return time.process_time() * 1e3 + others / 1e6


async def cost(workers: DecodeWorkers, pixels: dict[float, np.ndarray], rounds: int) -> list[str]:
    """Rows of the table: a thread of this process decodes, or a worker does."""
    loop = asyncio.get_running_loop()
    rows = []
    for format in ("JPEG", "PNG"):
        for megapixels, picture in pixels.items():
            data = encoded(picture, format)
            header = codec.inspect(data)
            times: list[tuple[float, float, float, float]] = []
            for _ in range(max(5, rounds if megapixels <= 2 else rounds // 3) + 1):
                marks = [(time.perf_counter() * 1e3, processor_ms(workers.pids))]
                photo = await loop.run_in_executor(None, codec.decode, data, header)
                marks.append((time.perf_counter() * 1e3, processor_ms(workers.pids)))
                del photo
                marks.append((time.perf_counter() * 1e3, processor_ms(workers.pids)))
                photo = await workers.decode(data, header)
                marks.append((time.perf_counter() * 1e3, processor_ms(workers.pids)))
                del photo
                (a, ca), (b, cb), (c, cc), (d, cd) = marks
                times.append((b - a, d - c, cb - ca, cd - cc))
            here, there, here_cpu, there_cpu = (list(column) for column in zip(*times[1:], strict=True))
            wall = statistics.median(t - h for h, t in zip(here, there, strict=True))
            cpu = statistics.median(t - h for h, t in zip(here_cpu, there_cpu, strict=True))
            middles = (statistics.median(column) for column in (here, there, here_cpu, there_cpu))
            figures = " | ".join(f"{figure:.1f}" for figure in middles)
            rows.append(f"| {format} | {megapixels:g} | {len(data) / 1e6:.1f} | {figures} | {wall:+.1f} | {cpu:+.1f} |")
            print(rows[-1], flush=True)
    return rows


def demand(format: str) -> tuple[float, float]:
    """Processor seconds and peak bytes per pixel of decoding 48 megapixels; in a fresh process."""
    data = encoded(np.tile(photo(1500, 2000), (4, 4, 1)), format)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    used = time.process_time()
    pixels = codec.decode(data).pixels
    return time.process_time() - used, (resident("VmHWM") - before) / (pixels.size / 3)


def resident(field: str, pid: int | str = "self") -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024


def proportional(pid: int) -> int:
    """Resident bytes of a process, each shared page divided by its holders."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) * 1024


def hostile(size: int) -> dict[str, bytes]:
    """Files of `size` bytes made to keep a parser busy."""
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB4x", 13, b"IHDR", 8, 8, 8, 2, 0, 0, 0)
    gif = b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0, 0, 0)
    frame = b"," + struct.pack("<HHHHB", 0, 0, 8, 8, 0) + b"\2"
    return {
        "JPEG, 0xFF only": b"\xff\xd8" + b"\xff" * size,
        "JPEG, empty segments": b"\xff\xd8" + b"\xff\xe0\0\2" * (size // 4),
        "JPEG, zeros": b"\xff\xd8\xff\xe0\0\2" + bytes(size),
        "JPEG, start-of-scan markers": b"\xff\xd8" + b"\xff\xda\0\2" * (size // 4),
        "PNG, empty chunks": png + b"\0\0\0\0tEXt\0\0\0\0" * (size // 12),
        "GIF, blocks of one byte": gif + frame + b"\1x" * (size // 2),
        "GIF, full blocks": gif + frame + (b"\xff" + bytes(255)) * (size // 256) + b"\0;",
        "GIF, frames": gif + (frame + b"\1x\0") * (size // 14),
        "WebP, empty chunks": b"RIFF\0\0\0\0WEBP" + b"JUNK\0\0\0\0" * (size // 8),
        "TIFF, one directory of 65,535": b"II*\0\x08\0\0\0\xff\xff" + b"\1\1\3\0\1\0\0\0\1\0\0\0" * (size // 12),
        "BigTIFF, a directory of everything": b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**40) + b"\1" * size,
        "AVIF, sizes": b"\0\0\0\x18ftypavif" + b"\0\0\0\0" + b"ispe\0\0\0\0\0\0\0\1\0\0\0\1" * (size // 16),
    }


def surveyed(size: int) -> Iterator[str]:
    for name, data in hostile(size).items():
        start = time.thread_time()
        try:
            said = f"ordinary: {codec.survey(data, Limits()).ordinary}"
        except ImageError as error:
            said = error.code
        yield f"| {name} | {(time.thread_time() - start) * 1e3:.1f} | {said} |"


_LINE = """## The line

A worker costs more than 2 ms at 2 megapixels, so small ordinary files are decoded in a thread of the gateway. The line
is drawn in one place, `service/imaging/structure.py` (`Structure.ordinary`), by parsers that decode nothing:

- JPEG: 8 bits, gray or colour, Huffman-coded, at most 20 scans, nothing between its segments, segments of the usual
  kinds, at most 128 kB of metadata
- PNG: at most 8 bits, one header, no animation, chunks of the usual kinds, at most 64 kB of metadata, of it 4 kB
  deflated
- either: at most 4 megapixels. Decoding takes 10 bytes of each pixel, hence at most 40 MB, and, with 20 scans, 0.1 s
  that nobody can cut short

Everything else is neither opened nor decoded by a library in the gateway's own process. What a worker costs it is
moving the pixels, 2 to 4 ms by megapixel: into sealed anonymous memory in the worker, mapped by the gateway without a
copy, and two copies of the file. A decode at reduced size (`POST /depth` and `/segmentation` of JPEGs) moves next to
nothing.
"""


async def timed(what: Callable[[], Awaitable[object]]) -> float:
    start = time.perf_counter()
    await what()
    return (time.perf_counter() - start) * 1e3


async def measure(rounds: int) -> str:
    metrics = Metrics()
    workers = DecodeWorkers(count=2, memory_bytes=2**30, cpu_s=60.0, metrics=metrics)
    small = encoded(photo(64, 64), "WEBP")
    first = await timed(lambda: workers.inspect(small, Limits()))
    await asyncio.sleep(0.5)
    memory = ", ".join(f"{resident('VmRSS', pid) / MIB:.0f} ({proportional(pid) / MIB:.0f})" for pid in workers.pids)
    assert workers._nursery is not None
    nursery = workers._nursery.pid
    memory = f"{resident('VmRSS', nursery) / MIB:.0f} ({proportional(nursery) / MIB:.0f}) and {memory}"
    trips, births = [], []
    for _ in range(rounds):
        trips.append(await timed(lambda: workers.inspect(small, Limits())))
    for _ in range(rounds):
        before = set(workers.pids)
        start = time.perf_counter()
        os.kill(min(before), signal.SIGKILL)
        while len(set(workers.pids) - before) < 1:
            await asyncio.sleep(0.0005)
        births.append((time.perf_counter() - start) * 1e3)
    rows = await cost(workers, pictures(), rounds)
    await workers.close()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        demands = {format: pool.submit(demand, format).result() for format in OPTIONS}
    return "\n".join(
        [
            "## Cost of a worker",
            "",
            "Milliseconds of one decode, from and to the event loop, in a thread of the gateway and in a worker, "
            "interleaved: medians, and the median of the rounds' own differences. Processor time is that of both "
            "processes together; on an idle machine the wall's differences are its.",
            "",
            "| format | Mpx | MB | thread, wall | worker, wall | thread, CPU | worker, CPU | more, wall | more, CPU |",
            "|---|---|---|---|---|---|---|---|---|",
            *rows,
            "",
            f"A question and its answer without pixels (the header of a small WebP): {statistics.median(trips):.2f} "
            f"ms. First answer after a cold start of everything: {first:.0f} ms. From `kill -9` of a worker to its "
            f"successor's readiness: {statistics.median(births):.1f} ms.",
            "",
            f"Resident memory in MiB, in brackets with shared pages divided among their holders: {memory} (the process "
            "they are forked from, then the workers).",
            "",
            "## What decoding takes",
            "",
            "48 megapixels of one photo in each format, in a fresh process: what the default limits of 10 s and 1 GiB "
            "leave room for.",
            "",
            "| format | processor seconds | peak bytes per pixel |",
            "|---|---|---|",
            *(f"| {name} | {seconds:.1f} | {peak:.1f} |" for name, (seconds, peak) in demands.items()),
            "",
            "## Time of the structure check",
            "",
            "Hostile files of 50 MB, nothing of them decoded:",
            "",
            "| file | processor ms | outcome |",
            "|---|---|---|",
            *surveyed(50_000_000),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    said = machine()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    text = f"# Decoding in workers\n\n`python -m tests.benchmarks.decoding`: {said}.\n\n"
    text += _LINE + "\n" + asyncio.run(measure(options.rounds)) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
