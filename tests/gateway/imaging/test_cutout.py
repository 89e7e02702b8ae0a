"""Cut-outs: the person's colours, not those of what was behind him."""

import io

import numpy as np
import pytest
from PIL import Image

from service.imaging import codec, cutout
from service.imaging.errors import ImageTooLarge, InvalidMap


def mixed(height: int = 120, width: int = 160) -> tuple[np.ndarray, np.ndarray]:
    """A red disc with a border 8 pixels soft before green, mixed as a camera would; and its matte."""
    rows, columns = np.mgrid[:height, :width]
    far = np.hypot(rows - height / 2, columns - width / 2) - 40
    alpha = np.clip(0.5 - far / 8, 0, 1)[..., None]
    photo = alpha * np.array([200, 30, 30]) + (1 - alpha) * np.array([20, 220, 40])
    return np.rint(photo).astype(np.uint8), np.rint(alpha[..., 0] * 255).astype(np.uint8)


def test_no_fringe_of_the_old_background() -> None:
    photo, matte = mixed()
    result = cutout.cut_out(photo, matte)
    np.testing.assert_array_equal(result[..., 3], matte)
    border = (matte > 30) & (matte < 225)
    off = np.abs(result[border][:, :3].astype(int) - [200, 30, 30]).max(axis=1)
    plain = np.abs(photo[border].astype(int) - [200, 30, 30]).max(axis=1)
    assert plain.mean() > 70, "the photo itself is green there"
    assert off.mean() < 12
    np.testing.assert_array_equal(result[matte == 255][:, :3], photo[matte == 255])
    assert not result[matte == 0].any()


def test_a_large_photo_has_no_fringe_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """Colours are estimated on a small copy: what is seen in the pixel itself keeps its detail."""
    monkeypatch.setattr(cutout, "_WORKING_PX", 40)
    photo, matte = mixed()
    result = cutout.cut_out(photo, matte)
    border = (matte > 30) & (matte < 225)
    assert np.abs(result[border][:, :3].astype(int) - [200, 30, 30]).max(axis=1).mean() < 20
    np.testing.assert_array_equal(result[matte == 255][:, :3], photo[matte == 255])


def test_nobody_and_everybody() -> None:
    photo, _ = mixed()
    assert not cutout.cut_out(photo, np.zeros(photo.shape[:2], np.uint8)).any()
    everybody = cutout.cut_out(photo, np.full(photo.shape[:2], 255, np.uint8))
    np.testing.assert_array_equal(everybody[..., :3], photo)
    with pytest.raises(InvalidMap):
        cutout.cut_out(photo, np.zeros((3, 3), np.uint8))


@pytest.mark.parametrize("format", ["png", "webp", "avif"])
def test_files_keep_their_alpha(format: str) -> None:
    result = cutout.cut_out(*mixed())
    opened = Image.open(io.BytesIO(codec.encode_rgba(result, format)))
    assert opened.format == format.upper()
    read = np.asarray(opened.convert("RGBA"))
    off = np.abs(read[..., 3].astype(int) - result[..., 3])
    assert off.mean() < 1 if format == "avif" else off.max() == 0
    inside = result[..., 3] == 255
    assert np.abs(read[inside].astype(int) - result[inside]).mean() < (4 if format != "png" else 1e-9)


def test_a_side_that_the_format_cannot_hold() -> None:
    with pytest.raises(ImageTooLarge, match="16383"):
        codec.encode_rgba(np.zeros((1, 20_000, 4), np.uint8), "webp")
