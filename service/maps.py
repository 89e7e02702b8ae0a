"""Maps that come with the photo: its own inverse depth, its own matte of people.

A map is a gray PNG of 8 or 16 bits, or a .npy file of float32 (H, W), of exactly the photo's displayed size. It is
looked at before it is decoded, so that a small file cannot ask for much memory.
"""

import hashlib
import io
import math
import struct
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.contract import Size
from service.errors import UnusableMap
from service.imaging import depth
from service.imaging.structure import Limits, survey

Kind = Literal["depth", "mask"]
FloatMap = NDArray[np.float32]

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_IHDR: Final = struct.Struct(
    ">4x4sIIBB"
)  # of the first chunk: name, width, height, bits, colour type; RFC 2083, 11.2.2
_NPY: Final = b"\x93NUMPY"
_MAX_NPY_HEADER: Final = 1_000  # characters; what NumPy writes for an array of two dimensions is 118


Maps = tuple[FloatMap | None, FloatMap | None]
"""Inverse depth and matte of all people, float32 (H, W) in 0..1 each; None where the model is to be asked."""


@dataclass(frozen=True, slots=True)
class OwnMaps:
    """The files of a photo's own maps, not yet read; None where the model is to be asked."""

    depth: bytes | None = None
    mask: bytes | None = None

    @property
    def complete(self) -> bool:
        """Whether no model is needed."""
        return self.depth is not None and self.mask is not None

    def digest(self) -> tuple[str | None, str | None]:
        """Content hashes."""
        return _digest(self.depth), _digest(self.mask)

    def read(self, size: Size) -> Maps:
        """Both maps.

        Raises:
            UnusableMap: as `read_inverse_depth` and `read_mask`.
        """
        inverse_depth = None if self.depth is None else read_inverse_depth(self.depth, size)
        return inverse_depth, None if self.mask is None else read_mask(self.mask, size)


def _digest(data: bytes | None) -> str | None:
    return None if data is None else hashlib.sha256(data).hexdigest()


def read_inverse_depth(data: bytes, size: Size) -> FloatMap:
    """Relative inverse depth, larger = nearer: float32 (H, W) in 0..1.

    A PNG's largest number (255 or 65535) is 1. Numbers of a .npy file are taken as they are when all lie within 0..1,
    else the map is stretched to 0..1, as the network's own are.

    Raises:
        UnusableMap: another kind of file, another size or type, a damaged file, or numbers that are not finite.
    """
    values = _read(data, size, "depth")
    if 0 <= float(values.min()) and float(values.max()) <= 1:
        return values
    relative, _, _ = depth.normalise(values)
    return relative


def read_mask(data: bytes, size: Size) -> FloatMap:
    """How much of each pixel shows a person: float32 (H, W) in 0..1; a PNG's largest number is 1.

    Raises:
        UnusableMap: as `read_inverse_depth`, and numbers outside 0..1.
    """
    values = _read(data, size, "mask")
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        raise UnusableMap("A mask holds numbers from 0 to 1.", field="mask", value=[low, high], limit=[0, 1])
    return values


def _read(data: bytes, size: Size, kind: Kind) -> FloatMap:
    if data.startswith(_PNG):
        return _from_png(data, size, kind)
    if data.startswith(_NPY):
        return _from_npy(data, size, kind)
    raise UnusableMap(
        f"The {kind} is neither a PNG nor a .npy file; send a gray PNG of 8 or 16 bits, or float32 .npy.",
        field=kind,
        value=data[:8].hex(),
    )


def _check_size(found: tuple[int, ...], size: Size, kind: Kind) -> None:
    if found != size:
        raise UnusableMap(
            f"The {kind} has (height, width) {found}, the photo as displayed {size}; they must agree.",
            field=kind,
            value=list(found),
            limit=list(size),
        )


def _damaged(kind: Kind) -> UnusableMap:
    return UnusableMap(f"The {kind} is cut off or damaged; send the file whole.", field=kind)


def _from_png(data: bytes, size: Size, kind: Kind) -> FloatMap:
    if len(data) < len(_PNG) + _IHDR.size:
        raise _damaged(kind)
    name, width, height, bits, colour_type = _IHDR.unpack_from(data, len(_PNG))
    if name != b"IHDR":
        raise _damaged(kind)
    _check_size((height, width), size, kind)
    if bits not in (8, 16) or colour_type != 0:
        raise UnusableMap(
            f"The {kind} must be a gray PNG of 8 or 16 bits without transparency.",
            field=kind,
            value={"bits": bits, "colour_type": colour_type},
            limit={"bits": [8, 16], "colour_type": 0},
        )
    try:
        survey(data, Limits(max_pixels=size[0] * size[1]))  # the rest of the file, too: texts, pieces, further sizes
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            stored: NDArray[Any] = np.asarray(image)
    except Exception as error:  # Pillow's decoders raise nearly every built-in exception on hostile content
        raise _damaged(kind) from error
    return stored.astype(np.float32) / np.float32(255 if bits == 8 else 65_535)


def _from_npy(data: bytes, size: Size, kind: Kind) -> FloatMap:
    stream = io.BytesIO(data)
    try:
        npy: Any = np.lib.format  # NumPy 1 has no types for it
        read = npy.read_array_header_1_0 if npy.read_magic(stream) == (1, 0) else npy.read_array_header_2_0
        shape, fortran_order, dtype = read(stream, max_header_size=_MAX_NPY_HEADER)
    except Exception as error:  # the header is a Python literal: ValueError, SyntaxError and others
        raise _damaged(kind) from error
    if dtype != np.float32:
        raise UnusableMap(
            f"The {kind} holds {dtype}; a .npy map holds float32.", field=kind, value=str(dtype)[:40], limit="float32"
        )
    _check_size(shape, size, kind)
    if len(data) - stream.tell() != math.prod(shape) * dtype.itemsize:
        raise _damaged(kind)
    order: Literal["F", "C"] = "F" if fortran_order else "C"
    values = np.frombuffer(data, np.float32, offset=stream.tell()).reshape(shape, order=order)
    if not np.isfinite(values).all():
        raise UnusableMap(f"The {kind} holds NaN or infinity; every pixel needs a number.", field=kind)
    return np.ascontiguousarray(values)
