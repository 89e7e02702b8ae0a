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
    """Ours at the largest size, the plain ways at two megapixels, second clicks, the encoder."""
    size, middle = effort.large, MIDDLE if effort.rounds > 1 else effort.small
    timings = interleave(contenders(size), rounds=effort.rounds, title="rendering at the largest size")
    say("memory at the largest size")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        memory = pool.submit(peaks, size).result()
    note = "At its peak, bytes a pixel beyond what stood before: " + _listed(memory) + "."
    tables = [megapixels(size, timings, note)]
    both = plain_ways(middle) | ours(middle)
    with one_thread():
        plain = interleave(both, rounds=effort.rounds, title="plain ways")
    note = "The plain ways, minutes at 12 Mpx but for the first, and ours, on one thread of OpenCV's: idle ones spin."
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


def contenders(size: Size) -> dict[str, Callable[[], object]]:
    """The commonest plain way first, then ours."""
    return {"mask and one Gaussian": plain_ways(size)["mask and one Gaussian"]} | ours(size)


def plain_ways(size: Size) -> dict[str, Callable[[], object]]:
    """Those of the refocus benchmark, on exact inputs without people."""
    image, depth = photo(*size), depth_scene(*size)
    strength = refocus.strength_from_f_number(2.8, max(size))
    inputs, order = Inputs(depth, np.zeros((0, *size), np.float32)), Order(1.0, strength, None, 0)
    ways = {
        "mask and one Gaussian": baselines.mask_and_gaussian,
        "gather": baselines.gather,
        "scatter": baselines.scatter,
        "layered": baselines.layered,
    }
    return {title: partial(way, image, inputs, order) for title, way in ways.items()}


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
    for title, call in contenders(size).items():
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what was freed must not stand ready
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is resident
        before = status_bytes("VmRSS")
        call()
        found[title] = (status_bytes("VmHWM") - before) / math.prod(size)
    return found


def _listed(memory: dict[str, float]) -> str:
    return "; ".join(f"{title} {count:.0f}" for title, count in memory.items())
