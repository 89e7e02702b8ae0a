"""Every odd file of the shared collection: a photo or an ImageError, nothing else, and the size Pillow finds."""

import io
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from service.imaging.codec import Photo, decode, inspect
from service.imaging.errors import ImageError

ODD = Path(__file__).parents[4] / "shared" / "data" / "odd"
SLOWEST_S = 5.0

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not ODD.is_dir(), reason="there is no shared/data/odd beside the checkout"),
]


def outcome(data: bytes) -> Photo | ImageError:
    try:
        return decode(data, inspect(data))
    except ImageError as error:
        return error


def pillow_size(data: bytes) -> tuple[int, int] | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(data))
            image.load()
            width, height = ImageOps.exif_transpose(image).size
        except Exception:
            return None
    return height, width


def test_every_file_is_a_photo_or_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    files = sorted(path for path in ODD.rglob("*") if path.is_file())
    assert len(files) > 100
    photos = 0
    for path in files:
        data = path.read_bytes()
        start = time.process_time()
        result = outcome(data)
        assert time.process_time() - start < SLOWEST_S, path.name
        if isinstance(result, ImageError):
            assert result.code, path.name
            assert str(ODD) not in str(result), path.name
            assert "Traceback" not in str(result), path.name
            continue
        photos += 1
        assert result.pixels.dtype == np.uint8, path.name
        assert result.pixels.shape == (*result.header.size, 3), path.name
        assert result.header.size == pillow_size(data), path.name
    assert photos > 300
    capfd.readouterr()  # libtiff writes to stderr about the broken TIFFs among them; Pillow offers no way to stop it


def test_what_pillow_opens_in_a_format_we_read_we_open() -> None:
    suffixes = {".jpg", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff"}
    refused = []
    for path in sorted(path for path in ODD.rglob("*") if path.suffix in suffixes):
        data = path.read_bytes()
        if isinstance(outcome(data), ImageError) and pillow_size(data) is not None:
            refused.append(path.name)
    assert refused == []


def test_orientation_examples_show_the_same_picture() -> None:
    for kind in ("Landscape", "Portrait"):
        pictures = [decode(path.read_bytes()).pixels for path in sorted((ODD / "exif").glob(f"{kind}_*.jpg"))]
        assert len(pictures) >= 3
        assert len({picture.shape for picture in pictures}) == 1
        reference = small(pictures[0])
        for picture in pictures[1:]:
            assert np.abs(small(picture) - reference).mean() < 12, kind  # the number drawn into each differs


def small(picture: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((32, 32), Image.Resampling.BOX)).astype(float)
