"""Metadata of a photo: its orientation is applied, what describes it goes along into every format."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageCms

from service.imaging import codec
from service.imaging.codec import decode, inspect

Saved = Callable[..., bytes]

AVIF_EXACT = {"quality": 100, "subsampling": "4:4:4"}

# how a displayed picture is stored under each orientation (EXIF 2.32, tag 274), written out by hand
STORED_AS = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: p.swapaxes(0, 1)[::-1],
    7: lambda p: p.swapaxes(0, 1)[::-1, ::-1],
    8: lambda p: p.swapaxes(0, 1)[:, ::-1],
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "JPEG", "AVIF"])
def test_all_orientations_decode_to_one_picture(
    orientation: int, format: str, asymmetric: np.ndarray, saved: Saved
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(STORED_AS[orientation](asymmetric))
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}, "AVIF": AVIF_EXACT}
    photo = decode(saved(stored, format, exif=exif, **options.get(format, {})))
    assert photo.header.orientation == orientation
    assert photo.size == photo.header.size == (24, 40)
    assert np.abs(photo.pixels.astype(int) - asymmetric).max() <= (12 if format in ("JPEG", "AVIF") else 0)
    if photo.exif is not None:
        kept = Image.Exif()
        kept.load(photo.exif)
        assert kept.get(0x0112, 1) == 1


def test_broken_exif_costs_nothing(asymmetric: np.ndarray, saved: Saved) -> None:
    for block in (
        b"Exif\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(30),
        b"junk",
    ):
        photo = decode(saved(asymmetric, "JPEG", exif=block))
        assert photo.header.orientation == 1
        assert photo.size == (24, 40)


def test_orientation_out_of_range_is_upright(asymmetric: np.ndarray, saved: Saved) -> None:
    for value in (0, 9, 65_535):
        exif = Image.Exif()
        exif[0x0112] = value
        assert decode(saved(asymmetric, "JPEG", exif=exif)).size == (24, 40)


def test_exif_behind_the_pixels_of_a_png(asymmetric: np.ndarray, saved: Saved) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(asymmetric, "PNG", exif=exif)
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    moved = data[:start] + data[end:-12] + data[start:end] + data[-12:]
    assert inspect(moved).orientation == 6
    assert decode(moved).size == (40, 24)


def test_exif_is_kept_upright_and_can_be_written(asymmetric: np.ndarray, saved: Saved) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    exif[0x010F] = "A camera"
    photo = decode(saved(asymmetric, "JPEG", exif=exif))
    for format in ("jpeg", "png", "webp", "avif", "tiff"):
        again = codec.encode_image(photo.pixels, format, exif=photo.exif)
        kept = Image.open(io.BytesIO(again)).getexif()
        assert kept[0x010F] == "A camera", format
        assert kept.get(0x0112, 1) == 1, format
        assert decode(again).size == photo.size, format


def phone_photo(format: str) -> bytes:
    exif = Image.Exif()
    exif[0x0110] = "Camera"
    exif[0x0112] = 6
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    exif.get_ifd(0x8825)[1] = "N"
    stream = io.BytesIO()
    Image.new("RGB", (40, 30), (90, 60, 30)).save(stream, format, exif=exif)
    return stream.getvalue()


@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "avif", "tiff"])
def test_a_phones_exif_goes_along_into_every_format(format: str) -> None:
    photo = codec.decode(phone_photo("JPEG"))
    answer = Image.open(io.BytesIO(codec.encode_image(photo.pixels, format, exif=photo.exif)))
    exif = answer.getexif()
    assert answer.size == (30, 40)
    assert exif[0x0110] == "Camera"
    assert exif.get(0x0112, 1) == 1
    if format != "tiff":
        assert exif.get_ifd(0x8769)[0x9003] == "2020:01:01 00:00:00"


def test_a_tiffs_own_structure_does_not_go_along() -> None:
    stream = io.BytesIO()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.new("RGB", (40, 30)).save(stream, "TIFF", description="a wall", icc_profile=profile)
    photo = codec.decode(stream.getvalue())
    assert photo.exif is not None
    exif = Image.Exif()
    exif.load(photo.exif)
    assert set(exif) == {0x010E}
    assert exif[0x010E] == "a wall"
