"""Pixels and maps to bytes.

PNG goes through OpenCV with its default parameters: about nine times Pillow's speed on 16-bit depth maps for files 5 to
40 % larger. The other photo formats go through Pillow.
"""

import io
import struct
import zlib
from collections.abc import Mapping
from typing import Any, Final, Literal

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from service.imaging.errors import ImageTooLarge, InvalidMap, UnsupportedFormat

PhotoFormat = Literal["jpeg", "png", "webp", "avif", "tiff", "bmp", "gif"]

ENCODERS: Final[dict[str, dict[str, Any]]] = {
    "jpeg": {"quality": 92},
    "png": {},
    "webp": {"quality": 90, "method": 2},  # method 4, the default, takes twice as long for 1 % fewer bytes
    "avif": {"quality": 80, "speed": 10},  # speed 8 takes four times as long for 10 % fewer bytes
    "tiff": {"compression": "tiff_adobe_deflate"},
    "bmp": {},
    "gif": {},
}
"""Formats a photo can be written in, with Pillow's options; `quality` there is the default."""

_LONGEST_SIDE = {"jpeg": 65_500, "webp": 16_383, "avif": 16_384, "gif": 65_535}
_FULL_CHROMA_QUALITY = 90  # from here on halved chroma would be the JPEG's largest error
_PNG_HEADER_END = 33  # signature 8 + IHDR 25


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _text_chunk(keyword: str, text: str) -> bytes:
    name = keyword.encode("latin-1")
    if not 1 <= len(name) <= 79 or "\0" in keyword or "\0" in text:
        raise ValueError(f"PNG keywords have 1..79 Latin-1 characters and no NUL, not {keyword!r}")
    try:
        return _chunk(b"tEXt", name + b"\0" + text.encode("latin-1"))
    except UnicodeEncodeError:
        return _chunk(b"iTXt", name + b"\0\0\0\0\0" + text.encode("utf-8"))


def _encode_png(array: NDArray[Any], chunks: bytes) -> bytes:
    written, encoded = cv2.imencode(".png", array)
    if not written:
        raise InvalidMap(f"An array of shape {array.shape} cannot be written as PNG.", value=list(array.shape))
    data = encoded.tobytes()
    return data[:_PNG_HEADER_END] + chunks + data[_PNG_HEADER_END:] if chunks else data


def _encode_gray(array: NDArray[Any], dtype: type[np.generic], text: Mapping[str, str] | None) -> bytes:
    if array.ndim != 2 or array.dtype != dtype or array.size == 0:
        raise InvalidMap(
            f"A gray PNG needs a {np.dtype(dtype)} array of shape (H, W), not {array.dtype} {array.shape}.",
            value=list(array.shape),
        )
    return _encode_png(array, b"".join(_text_chunk(name, value) for name, value in (text or {}).items()))


def encode_png16(array: NDArray[np.uint16], text: Mapping[str, str] | None = None) -> bytes:
    """A 16-bit gray PNG.

    Args:
        array: uint16 (H, W).
        text: keyword to text, written as tEXt chunks (iTXt where Latin-1 does not suffice) before the pixels.
    """
    return _encode_gray(array, np.uint16, text)


def encode_png8(array: NDArray[np.uint8], text: Mapping[str, str] | None = None) -> bytes:
    """An 8-bit gray PNG of a uint8 (H, W) array; `text` as in `encode_png16`."""
    return _encode_gray(array, np.uint8, text)


def encode_image(
    pixels: NDArray[np.uint8], format: PhotoFormat | str, quality: int | None = None, exif: bytes | None = None
) -> bytes:
    """A photo in one of `ENCODERS`.

    Args:
        pixels: uint8 (H, W, 3), sRGB.
        format: a key of `ENCODERS`.
        quality: 1..100 for jpeg, webp and avif, None for a good default; the others ignore it. JPEG keeps full chroma
            from 90 on.
        exif: an EXIF block (`Photo.exif`) to carry along; TIFF keeps its first level only, BMP and GIF cannot.

    Raises:
        UnsupportedFormat: a format that is not written here.
        ImageTooLarge: a side longer than the format can hold.
        InvalidMap: not a uint8 (H, W, 3) array.
    """
    if format not in ENCODERS:
        names = ", ".join(ENCODERS)
        raise UnsupportedFormat(
            f"Photos are not written as {format!r}; choose one of {names}.", field="format", value=format, limit=names
        )
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or pixels.size == 0:
        raise InvalidMap(f"A photo is uint8 (H, W, 3), not {pixels.dtype} {pixels.shape}.", value=list(pixels.shape))
    _check_side(pixels.shape, format)
    if format == "png":
        chunk = _chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")) if exif else b""
        return _encode_png(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), chunk)
    options = dict(ENCODERS[format])
    if quality is not None and "quality" in options:
        options["quality"] = min(max(int(quality), 1), 100)
    if format == "jpeg":
        options["subsampling"] = 0 if options["quality"] >= _FULL_CHROMA_QUALITY else 2
    if exif and format not in ("bmp", "gif"):
        options["exif"] = _flat(exif) if format == "tiff" else exif
    image = Image.fromarray(np.ascontiguousarray(pixels))
    stream = io.BytesIO()
    image.save(stream, format=format.upper(), **options)
    return stream.getvalue()


def encode_rgba(pixels: NDArray[np.uint8], format: Literal["png", "webp", "avif"] | str) -> bytes:
    """A picture with straight alpha, uint8 (H, W, 4), as PNG, WebP or AVIF; alpha is lossless in all but AVIF.

    Raises:
        ImageTooLarge: a side longer than the format can hold.
    """
    _check_side(pixels.shape, format)
    if format == "png":
        return _encode_png(cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA), b"")
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format=format.upper(), **ENCODERS[format])
    return stream.getvalue()


def _check_side(shape: tuple[int, ...], format: str) -> None:
    longest = max(shape[:2])
    if longest > _LONGEST_SIDE.get(format, longest):
        raise ImageTooLarge(
            f"{format.upper()} holds sides of up to {_LONGEST_SIDE[format]} pixels, not {longest}; ask for PNG.",
            code="side_too_long_for_format",
            field="format",
            value=longest,
            limit=_LONGEST_SIDE[format],
        )


def _flat(block: bytes) -> Image.Exif:
    """The block's first level: Pillow's libtiff writer fails on the pointers to the others."""
    exif = Image.Exif()
    exif.load(block)
    for pointer in (0x8769, 0x8825):
        if pointer in exif:
            del exif[pointer]
    return exif


def encode_npy(array: NDArray[Any]) -> bytes:
    """A .npy file of one array, its dtype and shape as they are."""
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(array), allow_pickle=False)
    return stream.getvalue()


def encode_npz(**arrays: NDArray[Any]) -> bytes:
    """A compressed .npz file of named arrays, none of them of objects."""
    if any(array.dtype.hasobject for array in arrays.values()):
        raise ValueError("arrays of objects cannot be read back without pickle")
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def encode_tiff_float(array: NDArray[np.float32], description: str | None = None) -> bytes:
    """A deflated float32 TIFF of an (H, W) map, `description` in its first page."""
    if array.ndim != 2 or array.size == 0:
        raise InvalidMap(f"A TIFF map has the shape (H, W), not {array.shape}.", value=list(array.shape))
    stream = io.BytesIO()
    tifffile.imwrite(
        stream,
        array.astype(np.float32, copy=False),
        photometric="minisblack",
        compression="zlib",
        description=description,
        metadata=None,
    )
    return stream.getvalue()
