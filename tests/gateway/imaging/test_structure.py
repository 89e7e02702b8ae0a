"""Parsers of our own against bytes of any kind: bounded, typed, and no more generous than the library after them."""

import struct
import zlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.imaging.codec import Limits, inspect, survey
from service.imaging.errors import ImageError, ImageTooLarge
from service.imaging.structure import ORDINARY_PIXELS
from tests.chaos import bombs
from tests.fuzz.headers import check, mutated, seeds
from tests.support.fakes import encoded, picture

EDGES = (0, 1, 2, 7, 8, 255, 256, 300, 499, 500, 501, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)
number = st.one_of(st.sampled_from(EDGES), st.integers(0, 2**32 - 1))
payload = st.binary(max_size=40)


def packed(form: str) -> st.SearchStrategy[bytes]:
    """Fields of a `struct` format, extreme values first."""
    sizes = {"B": 8, "H": 16, "I": 32, "Q": 64}
    order, fields = form[0], form[1:]
    numbers = st.tuples(*(number.map(lambda value, bits=sizes[field]: value % 2**bits) for field in fields))
    return numbers.map(lambda values: struct.pack(order + fields, *values))


def with_length(form: str, name: st.SearchStrategy[bytes], body: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """A block whose stated length is mostly true."""

    def join(parts: tuple[bytes, bytes, int, bool]) -> bytes:
        kind, content, lie, true = parts
        length = len(content) if true else lie % 2 ** (8 * struct.calcsize(form))
        return struct.pack(form, length) + kind + content

    return st.tuples(name, body, number, st.sampled_from((True, True, True, False))).map(join)


png_chunk = with_length(
    ">I",
    st.sampled_from((b"IHDR", b"IDAT", b"IEND", b"acTL", b"fcTL", b"zTXt", b"eXIf", b"PLTE")),
    st.one_of(packed(">IIBBBBB"), packed(">II"), packed(">IIIIIHHBB"), payload),
).map(lambda block: block + struct.pack(">I", zlib.crc32(block[4:])))
jpeg_segment = st.tuples(
    st.integers(0xC0, 0xFE), st.one_of(packed(">BHHB"), payload), number, st.sampled_from((True, True, False))
).map(
    lambda parts: bytes((0xFF, parts[0])) + struct.pack(">H", len(parts[1]) + 2 if parts[3] else parts[2] % 65536)
    + parts[1]
)  # fmt: skip
gif_block = st.one_of(
    packed("<HHHHB").map(lambda fields: b"," + fields + b"\2"),
    payload.map(lambda content: b"!\xfe" + bytes((len(content),)) + content + b"\0"),
    payload.map(lambda content: bytes((len(content),)) + content),
)
webp_chunk = st.tuples(
    st.sampled_from((b"VP8X", b"VP8 ", b"VP8L", b"ANMF", b"ANIM", b"JUNK")), st.one_of(packed("<QQ"), payload), number
).map(lambda parts: parts[0] + struct.pack("<I", len(parts[1]) if parts[2] % 3 else parts[2]) + parts[1])
tiff_entry = packed("<HHII")


def joined(start: bytes, block: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.lists(block, max_size=12).map(lambda blocks: start + b"".join(blocks))


any_file = st.one_of(
    joined(b"\x89PNG\r\n\x1a\n", png_chunk),
    joined(b"\xff\xd8", jpeg_segment),
    st.tuples(packed("<HHBBB"), joined(b"", gif_block)).map(lambda parts: b"GIF89a" + b"".join(parts)),
    joined(b"RIFF\0\1\0\0WEBP", webp_chunk),
    st.tuples(number, joined(b"", tiff_entry)).map(
        lambda parts: b"II*\0\x08\0\0\0" + struct.pack("<H", parts[0] % 40) + parts[1]
    ),
    packed("<IHHIIiiHHI".replace("i", "I")).map(lambda fields: b"BM" + fields),
    packed(">QII").map(lambda fields: b"\0\0\0\x18ftypavif\0\0\0\0ispe\0\0\0\0" + fields),
)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(any_file)
@example(bombs.apng(2**31 - 1))
@example(b"II*\0\x08\0\0\0\xff\xff")
def test_files_of_the_right_shape_and_wrong_numbers(data: bytes) -> None:
    check(data)


def test_seeds_and_their_mutations() -> None:
    """What `make fuzz` starts from; finds of it join the seeds."""
    seen = {check(data) for data in seeds()}
    assert {"jpeg", "png", "webp", "avif", "tiff", "bmp", "gif", "image_too_large", "too_many_scans"} <= seen
    for data in mutated(800):
        check(data)


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: bombs.png(600, 600), "image_too_large"),
        (lambda: bombs.png_twice(30_000, 30_000), "image_too_large"),
        (lambda: bombs.gif_reaching(30_000, 9_000), "image_too_large"),
        (lambda: bombs.tiff(8, 8, tile=32_000), "image_too_large"),
        (lambda: bombs.webp(12_000, 12_000), "image_too_large"),
        (lambda: bombs.apng(2**31 - 1), "too_many_frames"),
        (lambda: bombs.gif(8, 8, frames=200), "too_many_frames"),
        (lambda: bombs.apng(400, 400), "too_many_blocks"),
        (lambda: bombs.jpeg(64, 64, 101), "too_many_scans"),
        (lambda: b"\xff\xd8" + b"\xff\xe0\0\2" * 301, "too_many_blocks"),
        (lambda: bombs.jpeg(64, 64, 200)[:-2] + b"\xff" * 5000, "too_many_blocks"),
    ],
)
def test_refused_by_structure_alone(make: object, code: str) -> None:
    limits = Limits(max_pixels=300_000, max_jpeg_scans=100, max_frames=100, max_blocks=300)
    with pytest.raises(ImageTooLarge) as caught:
        survey(make(), limits)  # type: ignore[operator]
    assert caught.value.code == code
    assert caught.value.limit


@pytest.mark.parametrize(
    ("data", "ordinary"),
    [
        (encoded(picture(), "JPEG"), True),
        (encoded(picture(), "JPEG", progressive=True), True),
        (encoded(picture(), "PNG"), True),
        (encoded(picture().convert("P"), "PNG"), True),
        (encoded(picture(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"), True),
        (encoded(picture().convert("CMYK"), "JPEG"), False),
        (bombs.jpeg(64, 64, 21), False),
        (encoded(picture(), "JPEG")[:20] + b"junk" + encoded(picture(), "JPEG")[20:], False),
        (encoded(picture(2001, 2000), "PNG"), False),
        (bombs.png(64, 64, bits=16), False),
        (bombs.png_text(20_000_000), False),
        (bombs.apng(1), False),
        *((encoded(picture(), format), False) for format in ("WEBP", "AVIF", "TIFF", "GIF", "BMP")),
    ],
)
def test_what_is_ordinary(data: bytes, ordinary: bool) -> None:
    assert ORDINARY_PIXELS == 4_000_000
    assert survey(data, Limits()).ordinary is ordinary


def test_sizes_agree_with_the_library() -> None:
    for data in seeds():
        try:
            header = inspect(data)
        except ImageError:
            continue
        assert {header.size, header.size[::-1]} & set(survey(data, Limits()).sizes), header.format
