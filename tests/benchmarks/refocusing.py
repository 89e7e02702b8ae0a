"""Refocusing by the megapixel beside plain ways of doing it, with the memory it takes; and the PNG encoder."""

import ctypes
import gc
import io
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from service.benchmark.clock import interleave, table
from service.benchmark.effort import Effort, Size
from service.benchmark.page import Part
from service.benchmark.pictures import photo
from service.benchmark.progress import say
from service.benchmark.refocus import contenders as ours
from service.benchmark.refocus import depth_scene, megapixels, second_clicks, speeds
from service.imaging import codec, refocus

from .refocus import baselines
from .refocus.degrade import Inputs
from .refocus.renderers import Order

MIDDLE = (1152, 1728)


def run(effort: Effort) -> Part:
    """Ours beside the plain ways at two sizes, second clicks, the encoder."""
    size, middle = effort.large, MIDDLE if effort.rounds > 1 else effort.small
    timings = interleave(fast(size), rounds=effort.rounds, title="rendering at the largest size")
    slow = interleave(slow_ways(size), rounds=1, title="slow ways at the largest size")
    note = "Gather, scatter and layered, half a minute each, once; the others in turn. " + _memory(size)
    tables = [megapixels(size, timings | slow, note)]
    with one_thread():
        plain = interleave(everything(middle), rounds=effort.rounds, title="everything at two megapixels")
    note = "On one thread of OpenCV's: idle ones spin. " + _memory(middle)
    tables.append(megapixels(middle, plain, note))
    say("second clicks")
    clicks, figures = second_clicks(effort)
    stored = (depth_scene(*effort.small) * 65535).astype(np.uint16)
    stored += np.random.default_rng(0).integers(0, 64, stored.shape).astype(np.uint16)
    encoders = {"Pillow": lambda: pillow_png16(stored), "ours": lambda: codec.encode_png16(stored)}
    encoding = table(f"16-bit PNG, {next(iter(effort.photos))}", interleave(encoders, rounds=effort.many))
    return Part("refocus", (*tables, clicks, encoding), figures | speeds(size, timings))


@contextmanager
def one_thread() -> Iterator[None]:
    """OpenCV on one thread, so that processor time is that of the work."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def fast(size: Size) -> dict[str, Callable[[], object]]:
    """The commonest plain way first, then ours."""
    return {"mask and one Gaussian": _plain(baselines.mask_and_gaussian, size)} | ours(size)


def slow_ways(size: Size) -> dict[str, Callable[[], object]]:
    """The other plain ways of the refocus benchmark."""
    ways = {"gather": baselines.gather, "scatter": baselines.scatter, "layered": baselines.layered}
    return {title: _plain(way, size) for title, way in ways.items()}


def everything(size: Size) -> dict[str, Callable[[], object]]:
    """What is timed at a size."""
    return fast(size) | slow_ways(size)


def _plain(way: Callable[[np.ndarray, Inputs, Order], np.ndarray], size: Size) -> Callable[[], object]:
    """At the service's f/2.8, on exact inputs without people."""
    order = Order(1.0, refocus.strength_from_f_number(2.8, max(size)), None, 0)
    return partial(way, photo(*size), Inputs(depth_scene(*size), np.zeros((0, *size), np.float32)), order)


def pillow_png16(stored: np.ndarray) -> bytes:
    """The peer's encoder."""
    buffer = io.BytesIO()
    Image.fromarray(stored).save(buffer, "PNG")
    return buffer.getvalue()


def status_bytes(field: str) -> int:
    """Resident memory of this process: `VmRSS` now, `VmHWM` at most since the last reset."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def peaks(size: Size) -> dict[str, float]:
    """Bytes per pixel that each contender takes at most beyond what stood before; for a fresh process, on Linux."""
    found = {}
    for title, call in everything(size).items():
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what was freed must not stand ready
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is resident
        before = status_bytes("VmRSS")
        call()
        found[title] = (status_bytes("VmHWM") - before) / math.prod(size)
    return found


def _memory(size: Size) -> str:
    say(f"memory at {size[1]} x {size[0]}")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        found = pool.submit(peaks, size).result()
    listed = "; ".join(f"{title} {count:.0f}" for title, count in found.items())
    return f"At its peak, bytes a pixel beyond what stood before: {listed}."
