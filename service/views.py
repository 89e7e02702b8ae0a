"""What an exposure can be shown as: files of its matte, circles of confusion, depth and people, or all in one zip."""

import io
import zipfile
from typing import Final

import numpy as np
import orjson
from numpy.typing import NDArray

from service.exposure import Exposure, FloatMap, quantise_coc, report
from service.focusing import Focus, people_map
from service.imaging import codec
from service.negotiation import Offer
from service.pipeline import FocusScene

Headers = dict[str, str]

PHOTO_OFFERS: Final = tuple(
    Offer(name, f"image/{name}") for name in ("jpeg", "png", "webp", "avif", "tiff", "bmp", "gif")
)
_PNG16: Final = (Offer("png16", "image/png"), Offer("png", "image/png"), Offer("npy", "application/x-npy"))
OFFERS: Final = {
    "image": PHOTO_OFFERS,
    "alpha": (Offer("png", "image/png"),),
    "coc": _PNG16,
    "depth": _PNG16,
    "people": (Offer("json", "application/json"),),
    "labels": (Offer("png", "image/png"),),
    "all": (Offer("zip", "application/zip"),),
}
"""Formats by what is asked for, best first."""

_LEVELS_16: Final = 65_535
_ZIP_DATE: Final = (1980, 1, 1, 0, 0, 0)  # the format's first: the same exposure is the same bytes


def alpha(exposure: Exposure) -> tuple[bytes, Headers]:
    """The matte of the people kept whole, 8-bit gray PNG, 255 = kept."""
    return codec.encode_png8(exposure.alpha()), {}


def coc(coc_px: FloatMap, format: str) -> tuple[bytes, Headers]:
    """Signed circle of confusion in pixels, positive in front of the focal plane: float32 .npy, or 16-bit PNG.

    The headers, and the PNG's text chunks, say radius = stored * scale + offset.
    """
    said = {"X-CoC-Unit": "px"}
    if format == "npy":
        return codec.encode_npy(coc_px), said | {"X-CoC-Scale": "1", "X-CoC-Offset": "0"}
    stored, scale, offset = quantise_coc(coc_px)
    said |= {"X-CoC-Scale": repr(scale), "X-CoC-Offset": repr(offset)}
    return codec.encode_png16(stored, _text(said)), said


def depth(scene: FocusScene, format: str) -> tuple[bytes, Headers]:
    """The inverse depth that is rendered with, 0..1, edges snapped: float32 .npy, or 16-bit PNG with 65535 = 1."""
    values = scene.scene.inverse_depth
    said = {"X-Depth-Kind": "relative-inverse", "X-Depth-Unit": "relative"}
    if format == "npy":
        return codec.encode_npy(values), said | {"X-Depth-Scale": "1", "X-Depth-Offset": "0"}
    said |= {"X-Depth-Scale": repr(1 / _LEVELS_16), "X-Depth-Offset": "0"}
    stored = np.rint(values * np.float32(_LEVELS_16)).astype(np.uint16)
    return codec.encode_png16(stored, _text(said)), said


def people(
    scene: FocusScene, token: str | None, focus: Focus | None = None, coc_px: FloatMap | None = None
) -> tuple[bytes, Headers]:
    """Who is in the photo, and with circles of confusion who is sharp, as JSON."""
    return orjson.dumps(report(scene, token, focus, coc_px).model_dump()), {}


def labels(scene: FocusScene) -> tuple[bytes, Headers]:
    """Whom a click would pick, 8-bit gray PNG: 0 = nobody, otherwise the person's id + 1."""
    return codec.encode_png8(people_map(scene)), {}


def everything(
    exposure: Exposure, coc_px: FloatMap, pixels: NDArray[np.uint8], offer: Offer, quality: int, token: str | None
) -> tuple[bytes, Headers]:
    """A zip of the photo in the format of `offer`, alpha.png, coc.png, depth.png and people.json."""
    scene = exposure.scene
    circles, said = coc(coc_px, "png16")
    distances, about = depth(scene, "png16")
    files = {
        f"image.{offer.format}": codec.encode_image(pixels, offer.format, quality=quality, exif=scene.exif),
        "alpha.png": alpha(exposure)[0],
        "coc.png": circles,
        "depth.png": distances,
        "people.json": people(scene, token, exposure.focus, coc_px)[0],
    }
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:  # all of it is compressed already
        for name, body in files.items():
            archive.writestr(zipfile.ZipInfo(name, _ZIP_DATE), body)
    return stream.getvalue(), said | about


def _text(said: Headers) -> Headers:
    return {name.removeprefix("X-"): value for name, value in said.items()}
