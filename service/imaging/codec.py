"""Bytes to pixels and back, in one place: `decode`, by whose rules every part of the project sees the same picture.

The ways themselves are in `header`, `decoding` and `encoding`.
"""

from service.imaging.decoding import Photo, decode
from service.imaging.encoding import (
    ENCODERS,
    encode_image,
    encode_npy,
    encode_npz,
    encode_png8,
    encode_png16,
    encode_rgba,
    encode_tiff_float,
)
from service.imaging.exr import encode_exr, exr_available
from service.imaging.formats import MIME, heic_available
from service.imaging.header import ImageHeader, inspect
from service.imaging.structure import Limits, Structure, survey

__all__ = [
    "ENCODERS",
    "MIME",
    "ImageHeader",
    "Limits",
    "Photo",
    "Structure",
    "decode",
    "encode_exr",
    "encode_image",
    "encode_npy",
    "encode_npz",
    "encode_png8",
    "encode_png16",
    "encode_rgba",
    "encode_tiff_float",
    "exr_available",
    "heic_available",
    "inspect",
    "survey",
]
