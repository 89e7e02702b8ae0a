"""Which picture format bytes are in, by their magic bytes alone; and which formats are read at all."""

import re
from functools import cache
from typing import Final

from service.imaging.errors import EmptyImage, NotAnImage, UnsupportedFormat

MIME: Final = {
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "avif": "image/avif",
    "tiff": "image/tiff",
    "bmp": "image/bmp",
    "gif": "image/gif",
    "heic": "image/heic",
}
"""Media type of every format that can be read; HEIC only with the optional `pi_heif`."""

_READABLE = "JPEG, PNG, WebP, AVIF, TIFF, BMP, GIF"

_MAGIC = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"BM", "bmp"),
)
_FOREIGN = (
    (b"\0\0\1\0", "ICO"),
    (b"\0\0\2\0", "CUR"),
    (b"8BPS", "PSD"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"II\xbc", "JPEG XR"),
    (b"%!PS", "EPS"),
    (b"\xc5\xd0\xd3\xc6", "EPS"),
    (b"%PDF", "PDF"),
    (b"\x01\xda", "SGI"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"DDS ", "DDS"),
    (b"qoif", "QOI"),
    (b"\x59\xa6\x6a\x95", "Sun raster"),
)
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avci", b"avcs"}


@cache
def heic_available() -> bool:
    """True when the optional `pi_heif` is installed; its opener is then registered with Pillow."""
    try:
        import pi_heif  # type: ignore[import-not-found,unused-ignore]  # an extra: mypy may or may not see it
    except ImportError:
        return False
    pi_heif.register_heif_opener()
    return True


def sniff(data: bytes) -> str:
    """The format of `data` by its magic bytes, a key of `MIME`.

    Raises:
        EmptyImage: no bytes.
        UnsupportedFormat: a picture (or document or video) format that is known and not read.
        NotAnImage: anything else.
    """
    if not data:
        raise EmptyImage("There are no bytes to read a picture from; send one file.")
    for magic, name in _MAGIC:
        if data.startswith(magic):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp":
        return _sniff_isobmff(data)
    foreign = next((name for magic, name in _FOREIGN if data.startswith(magic)), None) or _sniff_foreign(data)
    if foreign is not None:
        raise UnsupportedFormat(f"{foreign} is not read here; send {_READABLE}.", value=foreign, limit=_READABLE)
    raise NotAnImage(f"The bytes start like no picture format; send {_READABLE}.", value=data[:8].hex())


def _sniff_isobmff(data: bytes) -> str:
    end = min(int.from_bytes(data[:4], "big"), len(data), 4096)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))}
    if brands & _AVIF_BRANDS:
        return "avif"
    if brands & _HEIC_BRANDS:
        if heic_available():
            return "heic"
        raise UnsupportedFormat(
            f"HEIC is read only where the service is installed with its `heic` extra; send {_READABLE}.",
            value="HEIC",
            limit=_READABLE,
        )
    raise UnsupportedFormat(f"This is a video or another media file; send {_READABLE}.", value="ISO media")


def _sniff_foreign(data: bytes) -> str | None:
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(b"<svg") or (
        start.startswith((b"<?xml", b"<!--", b"<!DOCTYPE svg")) and b"<svg" in data[:4096]
    ):
        return "SVG"
    if re.match(rb"P[1-7f][\s#]", data, re.IGNORECASE):
        return "PNM"
    if data[4:6] in (b"\x11\xaf", b"\x12\xaf"):
        return "FLI"
    if data.endswith(b"TRUEVISION-XFILE.\0"):
        return "TGA"
    return None
