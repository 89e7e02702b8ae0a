"""Refocusing: preparing and rendering by the megapixel, and what a second click on the same photo costs."""

import math
import statistics
import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from service.benchmark.clock import Timing, interleave
from service.benchmark.effort import Effort, Size
from service.benchmark.page import Part, Table
from service.benchmark.pictures import jpeg, photo
from service.benchmark.serving import Caller, distinct, serving
from service.imaging import refocus

PEOPLE = 4


def run(effort: Effort) -> Part:
    """The renderer alone at the largest size, then clicks through the gateway."""
    timings = interleave(contenders(effort.large), rounds=effort.rounds)
    clicks, figures = second_clicks(effort)
    return Part("refocus", (megapixels(effort.large, timings), clicks), figures | speeds(effort.large, timings))


def depth_scene(height: int, width: int) -> NDArray[np.float32]:
    """Inverse depth of a ground plane with three discs in front: (height, width) float32 in 0..1."""
    depth = np.repeat(np.linspace(0, 0.6, height, dtype=np.float32)[:, None], width, axis=1)
    for index, value in enumerate((0.5, 0.75, 1.0)):
        centre = (width * (index + 1) // 4, height // 2)
        cv2.circle(depth, centre, height // 6, (value,), -1)
    return depth


def mattes_of(size: Size) -> NDArray[np.float32]:
    """Soft-edged ellipses side by side, one per person: float32 (N, H, W) in 0..1."""
    height, width = size
    mattes = np.zeros((PEOPLE, height, width), np.float32)
    for index, matte in enumerate(mattes):
        centre = (width * (index + 1) // (PEOPLE + 1), height // 2)
        cv2.ellipse(matte, centre, (width // (3 * PEOPLE + 3), height // 3), 0, 0, 360, (1.0,), -1)
        cv2.blur(matte, (5, 5), dst=matte)
    return mattes


def contenders(size: Size) -> dict[str, Callable[[], object]]:
    """What is timed at a size."""
    image, depth, mattes = photo(*size), depth_scene(*size), mattes_of(size)
    reference, widest = refocus.strength_from_f_number(2.8, max(size)), refocus.strength_from_blur(1, max(size))
    empty, scene = refocus.prepare(image, depth), refocus.prepare(image, depth, mattes)
    return {
        "prepare": lambda: refocus.prepare(image, depth),
        f"prepare, {PEOPLE} people": lambda: refocus.prepare(image, depth, mattes),
        "render, f/2.8": lambda: refocus.render(empty, focus=1.0, strength_px=reference),
        f"render, f/2.8, one of {PEOPLE} people": lambda: refocus.render(
            scene, focus=0.5, strength_px=reference, subject=0
        ),
        f"render, widest, one of {PEOPLE} people": lambda: refocus.render(
            scene, focus=0.5, strength_px=widest, subject=0
        ),
    }


def speeds(size: Size, timings: dict[str, Timing]) -> dict[str, float]:
    """Megapixels a second of each contender."""
    return {f"{name}, Mpx/s": math.prod(size) / timing.wall_ms / 1e3 for name, timing in timings.items()}


def megapixels(size: Size, timings: dict[str, Timing], note: str = "") -> Table:
    """A row for each contender."""
    mpx = math.prod(size) / 1e6
    header = ("step", "wall ms", "Mpx/s", "CPU s a Mpx")
    rows = [
        (name, f"{each.wall_ms:.0f}", f"{mpx * 1e3 / each.wall_ms:.1f}", f"{each.cpu_ms / 1e3 / mpx:.3f}")
        for name, each in timings.items()
    ]
    return Table(f"Refocus, {size[1]} x {size[0]}", header, tuple(rows), note, plotted="wall ms")


def second_clicks(effort: Effort) -> tuple[Table, dict[str, float]]:
    """First and second click on photos that no cache has seen, one pair after the other."""
    rows, figures = [], {}
    with serving(effort.repository, {"DEPTHLENS_CACHE_BYTES": str(2**30)}) as served:
        caller = Caller(served.port)
        for name, size in effort.photos.items():
            bodies = distinct(jpeg(photo(*size)))
            pairs = [_pair(caller, bodies) for _ in range(effort.rounds + 1)][1:]
            share = statistics.median(second / first for first, second in pairs)
            first, second = (statistics.median(each) for each in zip(*pairs, strict=True))
            rows.append((name, f"{first * 1000:.0f}", f"{second * 1000:.0f}", f"{share:.2f}"))
            figures[f"second click, {name}"] = share
        caller.close()
    header = ("photo", "first click ms", "second click ms", "second / first")
    note = "`POST /focus` through the gateway, JPEG to JPEG, f/2.8; the ratio is the median of the pairs' own."
    return Table("A second click on the same photo", header, tuple(rows), note), figures


def _pair(caller: Caller, bodies: Iterator[bytes]) -> tuple[float, float]:
    body = next(bodies)
    times = []
    for rx, ry in ((0.5, 0.5), (0.25, 0.75)):
        start = time.perf_counter()
        caller.post(f"/focus?rx={rx}&ry={ry}", body)
        times.append(time.perf_counter() - start)
    return times[0], times[1]
