"""Short videos, drawn: a gray ramp with a red person who walks to the right, and a tone."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

TIME_BASE = Fraction(1, 12_800)


def film(
    path: Path,
    frames: int = 20,
    size: tuple[int, int] = (64, 96),
    rate: Fraction = Fraction(25),
    sound: bool = True,
    times_s: list[float] | None = None,
) -> Path:
    """An H.264 file of (height, width), its frames at `times_s` or at a constant rate, AAC beside it."""
    height, width = size
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=rate, options={"crf": "10"})
        picture.width, picture.height, picture.pix_fmt = width, height, "yuv420p"
        picture.codec_context.time_base = TIME_BASE
        tone = container.add_stream("aac", rate=48_000) if sound else None
        if tone is not None:
            tone.layout = "mono"
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(scene(index, frames, size), format="rgb24")
            seconds = index / float(rate) if times_s is None else times_s[index]
            frame.pts, frame.time_base = round(seconds / TIME_BASE), TIME_BASE
            container.mux(picture.encode(frame))
        container.mux(picture.encode(None))
        if tone is not None:
            samples = np.sin(np.arange(48_000 * frames // int(rate)) * 0.05).astype(np.float32)[None]
            block = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            block.sample_rate, block.pts = 48_000, 0
            container.mux(tone.encode(block))
            container.mux(tone.encode(None))
    return path


def scene(index: int, frames: int, size: tuple[int, int]) -> np.ndarray:
    """uint8 (H, W, 3)."""
    height, width = size
    pixels = np.repeat(np.repeat(np.linspace(60, 180, width, dtype=np.uint8)[None, :, None], height, 0), 3, 2)
    left = width // 8 + index * width // (2 * frames)
    pixels[height // 4 : height * 7 // 8, left : left + width // 4] = (255, 0, 0)
    return pixels


def turn(path: Path) -> Path:
    """Say in the file's head that it is to be shown turned by a quarter, clockwise (ISO 14496-12, tkhd matrix)."""
    data = bytearray(path.read_bytes())
    head = data.index(b"tkhd")  # of the first track, the picture
    matrix = head + 4 + 4 + 4 * 5 + 8 + 2 * 4
    data[matrix : matrix + 36] = b"".join(
        number.to_bytes(4, "big", signed=True) for number in (0, 65_536, 0, -65_536, 0, 0, 0, 0, 1 << 30)
    )
    path.write_bytes(data)
    return path
