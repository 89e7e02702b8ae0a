"""Formats by magic bytes, and limits that hold before anything is decoded."""

import resource
import struct
import time
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from service.imaging.codec import Limits, inspect
from service.imaging.errors import (
    DamagedImage,
    EmptyImage,
    ImageError,
    ImageTooLarge,
    NotAnImage,
    TruncatedImage,
    UnsupportedFormat,
)
from service.imaging.formats import heic_available
from service.imaging.structure import survey

Saved = Callable[..., bytes]

GIF_DOT = b",\0\0\0\0\1\0\1\0\0\2\2L\1\0;"  # one frame of one pixel, and the end


def png_header(width: int, height: int, bit_depth: int = 8, colour: int = 2) -> bytes:
    body = struct.pack(">IIBBBBB", width, height, bit_depth, colour, 0, 0, 0)
    chunk = b"IHDR" + body
    data = zlib.compress(bytes(64))
    idat = b"IDAT" + data
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
        + struct.pack(">I", len(data)) + idat + struct.pack(">I", zlib.crc32(idat))
        + b"\0\0\0\0IEND\xaeB`\x82"
    )  # fmt: skip


def webp_canvas(width: int, height: int) -> bytes:
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + (width - 1).to_bytes(3, "little")
    body += (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    ("format", "name"),
    [
        ("JPEG", "jpeg"),
        ("PNG", "png"),
        ("WEBP", "webp"),
        ("AVIF", "avif"),
        ("TIFF", "tiff"),
        ("BMP", "bmp"),
        ("GIF", "gif"),
    ],
)
def test_header_of_every_format(format: str, name: str, asymmetric: np.ndarray, saved: Saved) -> None:
    header = inspect(saved(asymmetric, format))
    assert (header.format, header.mime) == (name, f"image/{name}")
    assert (header.height, header.width, header.size) == (24, 40, (24, 40))
    assert (header.orientation, header.frames, header.bit_depth) == (1, 1, 8)
    assert not header.has_alpha
    assert not header.has_icc


def test_header_shows_the_displayed_size(asymmetric: np.ndarray, saved: Saved) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for format in ("JPEG", "PNG", "WEBP", "TIFF"):
        header = inspect(saved(asymmetric, format, exif=exif))
        assert (header.height, header.width, header.orientation) == (40, 24, 6), format


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"\0\0\1\0\1\0\x10\x10", "ICO"),
        (b"8BPS\0\1" + bytes(20), "PSD"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"\xef\xbb\xbf <?xml version='1.0'?>\n<svg/>", "SVG"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\xff\x4f\xff\x51\0", "JPEG 2000"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "EPS"),
        (b"\0\0\x02\0" + bytes(14) + b"pixels" + bytes(8) + b"TRUEVISION-XFILE.\0", "CUR"),
        (b"\0\1\x02\0" + bytes(14) + b"pixels" + bytes(8) + b"TRUEVISION-XFILE.\0", "TGA"),
        (b"P6\n2 2\n255\n" + bytes(12), "PNM"),
        (b"%PDF-1.7", "PDF"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "video"),
    ],
)
def test_other_pictures_are_named_and_refused(data: bytes, named: str) -> None:
    with pytest.raises(UnsupportedFormat, match=named) as caught:
        inspect(data)
    assert caught.value.code == "unsupported_format"
    assert "PNG" in str(caught.value)


@pytest.mark.skipif(heic_available(), reason="pi_heif is installed, so HEIC is read")
def test_heic_without_its_extra_names_the_extra() -> None:
    with pytest.raises(UnsupportedFormat, match="`heic` extra"):
        inspect(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))


def test_no_bytes() -> None:
    with pytest.raises(EmptyImage) as caught:
        inspect(b"")
    assert caught.value.code == "empty_image"


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.binary(min_size=1, max_size=400))
def test_random_bytes_are_not_an_image(data: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        inspect(data)
    assert caught.value.code
    assert caught.value.field == "image"


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"MM\0*"]), st.binary())
def test_the_right_start_and_then_anything(magic: bytes, rest: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        inspect(magic + rest)
    assert not isinstance(caught.value, NotAnImage)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (png_header(30_000, 30_000), "image_too_large"),
        (png_header(30_000, 30_000, bit_depth=1, colour=0), "image_too_large"),
        (png_header(100_000, 10), "image_too_long"),
        (png_header(2**31 - 1, 2**31 - 1), "image_too_large"),
        (b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + GIF_DOT, "image_too_large"),
        (webp_canvas(16_384, 16_384), "image_too_large"),
        (b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03" + bytes(40), "image_too_large"),
        (b"BM" + struct.pack("<IIIIiiHH", 99, 0, 54, 40, 60_000, 60_000, 1, 24) + bytes(24), "image_too_large"),
    ],
)  # fmt: skip
def test_bombs_are_refused_by_their_header(data: bytes, code: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    with pytest.raises(ImageTooLarge) as caught:
        inspect(data)
    assert caught.value.code == code
    assert caught.value.limit in (Limits().max_pixels, Limits().max_side)
    assert time.perf_counter() - start < 0.1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024


def test_limits_are_exact(saved: Saved) -> None:
    data = saved(np.zeros((10, 20, 3), np.uint8), "PNG")
    assert inspect(data, Limits(max_pixels=200, max_side=20)).width == 20
    with pytest.raises(ImageTooLarge, match="20 x 10 = 200"):
        inspect(data, Limits(max_pixels=199))
    with pytest.raises(ImageTooLarge, match="longer side"):
        inspect(data, Limits(max_side=19))


def test_a_tiff_cannot_hide_its_size_in_tiles(saved: Saved) -> None:
    tags = [(256, 3, 8), (257, 3, 8), (258, 3, 8), (259, 3, 1), (262, 3, 1), (322, 4, 32_000), (323, 4, 32_000),
            (324, 4, 8), (325, 4, 64)]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    with pytest.raises(ImageTooLarge):
        inspect(data)


def test_scan_bomb_is_counted_not_decoded(photo_like: np.ndarray, saved: Saved) -> None:
    data = saved(photo_like, "JPEG", progressive=True)
    scans = survey(data, Limits()).scans
    assert 5 <= scans <= 12  # libjpeg's default script for colour has 10
    first = data.rindex(b"\xff\xda")
    bomb = data[:-2] + data[first:-2] * 200 + b"\xff\xd9"
    with pytest.raises(ImageTooLarge) as caught:
        inspect(bomb)
    assert caught.value.code == "too_many_scans"
    assert caught.value.limit == 100


def test_scans_in_metadata_do_not_count(photo_like: np.ndarray, saved: Saved) -> None:
    thumbnail = saved(photo_like, "JPEG", progressive=True) * 30
    data = saved(photo_like, "JPEG", comment=thumbnail[:60_000])
    assert survey(data, Limits(max_jpeg_scans=20)).scans == 1
    assert inspect(data, Limits(max_jpeg_scans=20)).width == 128


def test_lossless_and_12_bit_jpeg_are_named() -> None:
    for marker, precision, named in ((0xC3, 8, "lossless"), (0xC1, 12, "12-bit")):
        data = b"\xff\xd8\xff" + bytes([marker]) + struct.pack(">HBHHB", 11, precision, 4, 4, 1) + bytes(20)
        with pytest.raises(UnsupportedFormat, match=named):
            inspect(data)


def test_text_bomb(saved: Saved) -> None:
    from service.imaging.encoding import _chunk

    data = saved(np.zeros((4, 4, 3), np.uint8), "PNG")
    bomb = _chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(20_000_000)))
    with pytest.raises(ImageTooLarge) as caught:
        inspect(data[:33] + bomb + data[33:])
    assert caught.value.code == "metadata_too_large"


@pytest.mark.parametrize("data", [png_header(0, 5), b"\x89PNG\r\n\x1a\n" + bytes(40), b"\xff\xd8\xff\xe0"])
def test_contradictory_headers(data: bytes) -> None:
    with pytest.raises(DamagedImage):
        inspect(data)


def test_a_header_cut_off_is_truncated(photo_like: np.ndarray, saved: Saved) -> None:
    for format in ("JPEG", "PNG", "WEBP", "GIF", "BMP"):
        with pytest.raises(TruncatedImage):
            inspect(saved(photo_like, format)[:20])


def test_animations_say_so(asymmetric: np.ndarray, saved: Saved) -> None:
    frames = [Image.fromarray(np.roll(asymmetric, shift, axis=1)) for shift in (0, 8, 16)]
    for format, expected in (("GIF", 2), ("PNG", 3), ("WEBP", 3), ("AVIF", 3), ("TIFF", 2)):
        data = saved(frames[0], format, save_all=True, append_images=frames[1:])
        assert inspect(data).frames == expected, format
