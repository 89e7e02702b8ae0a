"""Refocusing and encoding, per megapixel."""

import ctypes
import gc
import io
import math
import resource
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from service.imaging import codec, refocus

from .clock import Section, interleave
from .pictures import photo
from .refocus import baselines
from .refocus.degrade import Inputs
from .refocus.renderers import Order


def depth_scene(height: int, width: int) -> np.ndarray:
    """Inverse depth of a ground plane with three discs in front: (height, width) float32 in 0..1."""
    depth = np.repeat(np.linspace(0, 0.6, height, dtype=np.float32)[:, None], width, axis=1)
    for index, value in enumerate((0.5, 0.75, 1.0)):
        centre = (width * (index + 1) // 4, height // 2)
        cv2.circle(depth, centre, height // 6, value, -1)
    return depth


def pillow_png16(stored: np.ndarray) -> bytes:
    """The peer's encoder."""
    buffer = io.BytesIO()
    Image.fromarray(stored).save(buffer, "PNG")
    return buffer.getvalue()


def peak_mib() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


SIZES = {"2 Mpx": (1152, 1728), "12 Mpx": (3000, 4000)}
PEOPLE = 4


def mattes_of(depth: np.ndarray) -> np.ndarray:
    """Soft-edged ellipses side by side, one per person: float32 (N, H, W)."""
    height, width = depth.shape
    mattes = np.zeros((PEOPLE, height, width), np.float32)
    for index, matte in enumerate(mattes):
        centre = (width * (index + 1) // (PEOPLE + 1), height // 2)
        cv2.ellipse(matte, centre, (width // (3 * PEOPLE + 3), height // 3), 0, 0, 360, 1.0, -1)
        cv2.blur(matte, (5, 5), dst=matte)
    return mattes


def contenders(name: str) -> dict[str, Callable[[], object]]:
    """What is timed at a size of `SIZES`. The plain ways of the refocus benchmark come first."""
    image, depth = photo(*SIZES[name]), depth_scene(*SIZES[name])
    mattes, none = mattes_of(depth), np.zeros((0, *depth.shape), np.float32)
    long_side = max(depth.shape)
    reference, widest = refocus.strength_from_f_number(2.8, long_side), refocus.strength_from_blur(1, long_side)
    empty, scene = refocus.prepare(image, depth), refocus.prepare(image, depth, mattes)
    inputs, order = Inputs(depth, none), Order(1.0, reference, None, 0)
    slow = {"gather": baselines.gather, "scatter": baselines.scatter, "layered": baselines.layered}
    return {
        "mask and one Gaussian": lambda: baselines.mask_and_gaussian(image, inputs, order),
        **({title: partial(call, image, inputs, order) for title, call in slow.items()} if name == "2 Mpx" else {}),
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


def status_bytes(field: str) -> int:
    """Resident memory of this process: `VmRSS` now, `VmHWM` at most since the last reset."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def peaks(name: str) -> dict[str, float]:
    """Bytes per pixel that each contender takes at most beyond what stood before; for a fresh process, on Linux."""
    height, width = SIZES[name]
    found = {}
    for title, call in contenders(name).items():
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what was freed must not stand ready
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is resident
        before = status_bytes("VmRSS")
        call()
        found[title] = (status_bytes("VmHWM") - before) / height / width
    return found


def refocus_section(name: str, rounds: int) -> Section:
    """Time of this process, memory of a fresh one."""
    timings = interleave(contenders(name), rounds=rounds)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        memory = pool.submit(peaks, name).result()
    mpx = math.prod(SIZES[name]) / 1e6
    note = "CPU seconds per megapixel, and peak memory in bytes per pixel beyond what stood before: "
    note += "; ".join(
        f"{title} {one.cpu_ms / 1e3 / mpx:.3f} s, {memory[title]:.0f} B" for title, one in timings.items()
    )
    if name != "2 Mpx":
        note += "; the other plain ways, minutes at this size, are timed at 2 Mpx only"
    return Section(f"Refocus, {name}", timings, note + ".")


def run(*, rounds: int) -> list[Section]:
    """Refocusing at two sizes, and the PNG encoder."""
    parts = [refocus_section(name, max(2, rounds // 5)) for name in SIZES]
    stored = (depth_scene(720, 1280) * 65535).astype(np.uint16)
    stored += np.random.default_rng(0).integers(0, 64, stored.shape).astype(np.uint16)
    encoders = {"Pillow": lambda: pillow_png16(stored), "ours": lambda: codec.encode_png16(stored)}
    note = f"Peak memory of the benchmark process until here: {peak_mib():.0f} MiB."
    parts.append(Section("16-bit PNG, 720p", interleave(encoders, rounds=rounds), note))
    return parts
