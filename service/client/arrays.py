"""Photos and maps on their way in and out: paths, bytes and NumPy arrays."""

import io
import os
from pathlib import Path
from typing import Any, TypeAlias, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from service.client.errors import UnexpectedAnswer

Pixels: TypeAlias = NDArray[np.uint8]
FloatMap: TypeAlias = NDArray[np.float32]

PhotoSource: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | Pixels
"""A photo: the path of a file, a file's bytes, or pixels: uint8 (H, W) gray or (H, W, 3) sRGB, upright."""

FrameSource: TypeAlias = PhotoSource | tuple[PhotoSource, PhotoSource]
"""A frame of a stream: a photo, or with `task="stereo"` the left and the right picture of a pair."""

MapSource: TypeAlias = PhotoSource | FloatMap | NDArray[np.uint16]
"""An own map: the path or bytes of a gray PNG or a float32 .npy, or an array (H, W) of float32, uint8 or uint16."""


def photo_bytes(source: PhotoSource) -> bytes:
    """The file to send; pixels become a PNG.

    Raises:
        OSError: the file cannot be read.
        TypeError: an array of another type or shape.
    """
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or not (source.ndim == 2 or (source.ndim == 3 and source.shape[2] == 3)):
            raise TypeError(
                f"A photo is uint8 of shape (H, W) or (H, W, 3), sRGB, not {source.dtype} {source.shape}; "
                "bring floats into 0..255 and leave alpha out."
            )
        return _png(source[..., ::-1] if source.ndim == 3 else source)
    return _file_bytes(source)


def frame_bytes(source: FrameSource) -> bytes:
    """The binary message to send of a frame; raises as `photo_bytes`.

    Of a pair: four bytes with the length of the left file, big-endian, that file, and the right one.
    """
    if not isinstance(source, tuple):
        return photo_bytes(source)
    left, right = (photo_bytes(picture) for picture in source)
    return len(left).to_bytes(4) + left + right


def map_bytes(source: MapSource) -> bytes:
    """The file to send of an own depth map or mask: floats become .npy, whole numbers a PNG.

    Raises:
        OSError: the file cannot be read.
        TypeError: an array of another type or shape.
    """
    if isinstance(source, np.ndarray):
        if source.ndim != 2 or source.dtype not in (np.float32, np.uint8, np.uint16):
            raise TypeError(f"A map is float32, uint8 or uint16 of shape (H, W), not {source.dtype} {source.shape}.")
        if source.dtype != np.float32:
            return _png(source)
        stream = io.BytesIO()
        np.save(stream, np.ascontiguousarray(source), allow_pickle=False)
        return stream.getvalue()
    return _file_bytes(source)


def _file_bytes(source: Any) -> bytes:
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    return Path(source).read_bytes()


def _png(array: NDArray[Any]) -> bytes:
    if array.size == 0:
        raise TypeError(f"An array of shape {array.shape} has no pixels.")
    written, data = cv2.imencode(".png", np.ascontiguousarray(array))
    if not written:
        raise TypeError(f"An array of shape {array.shape} cannot be written as PNG.")
    return data.tobytes()


def read_npy(body: bytes) -> FloatMap:
    """The float32 (H, W) of a .npy file.

    Raises:
        UnexpectedAnswer: it is another kind of file.
    """
    try:
        values = np.load(io.BytesIO(body), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise UnexpectedAnswer(f"the answer is no .npy file: {error}") from error
    if not isinstance(values, np.ndarray) or values.dtype != np.float32 or values.ndim != 2:
        raise UnexpectedAnswer("the answer is no float32 map")
    return cast(FloatMap, values)


def read_gray(body: bytes) -> NDArray[Any]:
    """The uint8 or uint16 (H, W) of a gray PNG.

    Raises:
        UnexpectedAnswer: it is another kind of file.
    """
    pixels = _decoded(body, cv2.IMREAD_UNCHANGED)
    if pixels.ndim != 2:
        raise UnexpectedAnswer("the answer is no gray picture")
    return pixels


def read_photo(body: bytes) -> Pixels:
    """The uint8 (H, W, 3) sRGB of a picture file, as it is stored (answers are upright).

    Raises:
        UnexpectedAnswer: it is no picture that OpenCV reads.
    """
    pixels = _decoded(body, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return cast(Pixels, cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))


def _decoded(body: bytes, how: int) -> NDArray[Any]:
    try:
        pixels = cv2.imdecode(np.frombuffer(body, np.uint8), how) if body else None
    except cv2.error:
        pixels = None
    if pixels is None:
        raise UnexpectedAnswer("the answer is no picture that OpenCV reads; ask for format='png'")
    return cast("NDArray[Any]", pixels)
