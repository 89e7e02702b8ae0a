"""Refocusing and encoding, per megapixel."""

import io
import resource

import cv2
import numpy as np
from PIL import Image

from service.imaging import codec, refocus

from .clock import Section, interleave
from .pictures import photo


def depth_scene(height: int, width: int) -> np.ndarray:
    """Inverse depth of a ground plane with three discs in front: (height, width) float32 in 0..1."""
    depth = np.repeat(np.linspace(0, 0.6, height, dtype=np.float32)[:, None], width, axis=1)
    for index, value in enumerate((0.5, 0.75, 1.0)):
        centre = (width * (index + 1) // 4, height // 2)
        cv2.circle(depth, centre, height // 6, value, -1)
    return depth


def mask_and_gaussian(image: np.ndarray, depth: np.ndarray, focus: float, strength_px: float) -> np.ndarray:
    """The simplest peer: one Gaussian behind a mask, in display values."""
    blurred = cv2.GaussianBlur(image, (0, 0), strength_px * 0.25)
    sharp = (np.abs(depth - focus) < 0.1)[..., None]
    return np.where(sharp, image, blurred)


def pillow_png16(stored: np.ndarray) -> bytes:
    """The peer's encoder."""
    buffer = io.BytesIO()
    Image.fromarray(stored).save(buffer, "PNG")
    return buffer.getvalue()


def peak_mib() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(*, rounds: int) -> list[Section]:
    """Refocusing at two sizes, and the PNG encoder."""
    parts = []
    for name, size, times in (("2 Mpx", (1152, 1728), rounds), ("12 Mpx", (3000, 4000), max(2, rounds // 5))):
        image, depth = photo(*size), depth_scene(*size)
        strength_px = refocus.strength_from_f_number(2.8, max(size))
        scene = refocus.prepare(image, depth, None)
        timings = interleave(
            {
                "mask and one Gaussian": lambda i=image, d=depth, s=strength_px: mask_and_gaussian(i, d, 1.0, s),
                "prepare": lambda i=image, d=depth: refocus.prepare(i, d, None),
                "render": lambda c=scene, s=strength_px: refocus.render(c, focus=1.0, strength_px=s),
            },
            rounds=times,
        )
        note = f"Scene: {scene.nbytes / image.shape[0] / image.shape[1]:.0f} bytes per pixel; radius up to "
        note += f"{strength_px:.0f} px."
        parts.append(Section(f"Refocus, {name}", timings, note))
    stored = (depth_scene(720, 1280) * 65535).astype(np.uint16)
    stored += np.random.default_rng(0).integers(0, 64, stored.shape).astype(np.uint16)
    encoders = {"Pillow": lambda: pillow_png16(stored), "ours": lambda: codec.encode_png16(stored)}
    note = f"Peak memory of the benchmark process until here: {peak_mib():.0f} MiB."
    parts.append(Section("16-bit PNG, 720p", interleave(encoders, rounds=rounds), note))
    return parts
