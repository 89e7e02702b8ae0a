"""OpenEXR, the format of compositing programs; written by the optional package OpenEXR (extra `exr`)."""

import io
from collections.abc import Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray

from service.imaging.errors import UnsupportedFormat


@cache
def exr_available() -> bool:
    """True when the optional OpenEXR is installed."""
    try:
        import OpenEXR  # noqa: F401
    except ImportError:
        return False
    return True


def encode_exr(values: NDArray[np.float32], notes: Mapping[str, str]) -> bytes:
    """An OpenEXR file with one float32 channel `Z`, losslessly packed (ZIP).

    Args:
        values: float32 (H, W).
        notes: text attributes of the header, by name.

    Raises:
        UnsupportedFormat: OpenEXR is not installed.
    """
    if not exr_available():
        raise UnsupportedFormat("OpenEXR is written only where the service has its `exr` extra.", field="format")
    import OpenEXR

    header = {name: text for name, text in notes.items()}
    header |= {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    stream = io.BytesIO()
    OpenEXR.File(header, {"Z": np.ascontiguousarray(values, np.float32)}).write(stream)
    return stream.getvalue()
