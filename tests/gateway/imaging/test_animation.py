"""Animated WebP written frame by frame, read back with Pillow."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from service.imaging.animation import assemble, durations_ms, encode_frame
from service.imaging.errors import ImageTooLarge


def read_back(body: bytes) -> tuple[list[np.ndarray], list[int], Image.Image]:
    image = Image.open(io.BytesIO(body))
    frames, durations = [], []
    for index in range(image.n_frames):
        image.seek(index)
        image.load()
        frames.append(np.asarray(image.convert("RGB")))
        durations.append(image.info["duration"])
    return frames, durations, image


@pytest.mark.parametrize("size", [(1, 1), (7, 12), (33, 20)])
def test_every_frame_comes_back(size: tuple[int, int]) -> None:
    levels = [10, 120, 120, 240]  # two alike, which must not be joined
    frames = [encode_frame(np.full((*size, 3), level, np.uint8), 90) for level in levels]
    body = assemble(frames, size, [40, 41, 42, 1000])
    pictures, durations, image = read_back(body)
    assert image.format == "WEBP"
    assert image.is_animated
    assert image.size == (size[1], size[0])
    assert image.info["loop"] == 0
    assert durations == [40, 41, 42, 1000]
    assert [round(float(picture.mean())) for picture in pictures] == pytest.approx(levels, abs=3)


def test_exif_travels_along() -> None:
    exif = Image.Exif()
    exif[0x010F] = "A maker"
    body = assemble([encode_frame(np.zeros((4, 4, 3), np.uint8))] * 2, (4, 4), [10, 10], exif.tobytes())
    assert Image.open(io.BytesIO(body)).getexif()[0x010F] == "A maker"


@given(st.integers(1, 60), st.floats(1, 60))
def test_durations_add_up(frames: int, fps: float) -> None:
    durations = durations_ms(frames, fps)
    assert len(durations) == frames
    assert abs(sum(durations) - frames * 1000 / fps) <= 0.5
    assert max(durations) - min(durations) <= 1


def test_too_long_a_side() -> None:
    with pytest.raises(ImageTooLarge) as caught:
        assemble([], (10, 16_384), [])
    assert caught.value.code == "side_too_long_for_format"
