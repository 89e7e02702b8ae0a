"""From whatever a file stores to 8-bit sRGB, by one stated set of rules.

- 16-bit samples: their high byte; exact for 8-bit values widened by 257, at most one level off elsewhere.
- 9..15-bit samples (TIFF): shifted to 8 bits by their stated depth.
- 32-bit integers: as they are when within 0..255, their high byte when within 0..65535, else stretched from minimum to
  maximum.
- Floats: NaN and -inf count as 0, +inf as the largest finite value; then times 255 when within 0..1, as they are when
  within 0..255, else stretched from minimum to maximum.
- Palette, 1-bit, gray: the colours they stand for, gray in all three channels.
- Alpha, or one transparent colour: laid over white, in display values as browsers do.
- CMYK, YCCK: through the embedded profile; without one R = (1 - C)(1 - K) and so on, Adobe's inversion undone.
- CIE Lab, YCbCr: by Lab's definition (D50) and by ITU-R BT.601.
- ICC profile: converted to sRGB with perceptual intent; a broken or mismatched profile is ignored.
- PNG gAMA with neither profile nor sRGB chunk: display value = sample ** (1 / (2.2 gamma)), as PNG specifies.
"""

import io
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

_PROFILE_SPACE = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK", "LAB": "LAB"}
_ENCODING_GAMMA = 2.2  # display gamma that the PNG specification assumes for sRGB
_BAND_ROWS = 256  # read out in one piece, and as float64, 50 megapixels would take more than a gigabyte
_GAMMA_TOLERANCE = 0.05  # below it the correction stays under two levels and is skipped


def to_rgb(image: Image.Image, bit_depth: int) -> Image.Image:
    """Convert a loaded picture of any Pillow mode to 8-bit sRGB by the rules above.

    Args:
        image: decoded picture; its `info` may hold `icc_profile`, `transparency` and `gamma`.
        bit_depth: bits per sample in the file; tells a 12-bit from a 16-bit gray.

    Returns:
        A picture of mode "RGB" and the same size.
    """
    if image.mode == "RGB" and not image.info.get("icc_profile") and not {"transparency", "gamma"} & image.info.keys():
        return image
    colour, alpha = _split_alpha(image, bit_depth)
    colour = _managed(colour, image.info)
    if alpha is None or alpha.getextrema() == (255, 255):
        return colour
    flat = Image.new("RGB", colour.size, (255, 255, 255))
    flat.paste(colour, mask=alpha)
    return flat


def _split_alpha(image: Image.Image, bit_depth: int) -> tuple[Image.Image, Image.Image | None]:
    """The colour part in mode L, RGB, CMYK or LAB, and the opacity in mode L when there is any."""
    mode, transparent = image.mode, image.info.get("transparency")
    if mode in ("I", "F") or mode.startswith("I;"):
        colour = Image.fromarray(to_uint8(image, bit_depth))
        if isinstance(transparent, int):
            return colour, Image.fromarray(np.where(np.asarray(image) == transparent, 0, 255).astype(np.uint8))
        return colour, None
    if mode in ("RGBa", "La"):  # premultiplied
        image = image.convert(mode.upper())
        mode = image.mode
    if mode in ("P", "PA", "1", "L", "RGB") and (transparent is not None or mode == "PA"):
        image = image.convert("RGBA")
        mode = "RGBA"
    if mode in ("RGBA", "LA"):
        return image.convert("RGB" if mode == "RGBA" else "L"), image.getchannel("A")
    if mode == "1":
        return image.convert("L"), None
    if mode in ("L", "RGB", "CMYK", "LAB"):
        return image, None
    return image.convert("RGB"), None


def to_uint8(image: Image.Image, bit_depth: int) -> NDArray[np.uint8]:
    """Bring wide samples to 0..255 by the rules of this module, (H, W).

    Args:
        image: of mode I, F or I;*, any byte order.
        bit_depth: bits per sample in the file; counts for unsigned 16-bit samples only.
    """
    width, height = image.size
    bands = [(top, min(top + _BAND_ROWS, height)) for top in range(0, height, _BAND_ROWS)]

    def samples(band: tuple[int, int]) -> NDArray[np.generic]:
        return np.asarray(image.crop((0, band[0], width, band[1])))

    result = np.empty((height, width), np.uint8)
    kind, size = samples((0, 1)).dtype.kind, samples((0, 1)).dtype.itemsize
    if kind == "u" and size == 2:
        shift = np.uint16(bit_depth - 8 if 8 < bit_depth <= 16 else 8)
        for top, bottom in bands:
            result[top:bottom] = np.minimum(samples((top, bottom)).astype(np.uint16) >> shift, 255)
        return result
    largest = 0.0
    if kind == "f":
        finite = (values[np.isfinite(values)] for values in map(samples, bands))
        largest = max((float(values.max()) for values in finite if values.size), default=0.0)
    ranges = [(float(values.min()), float(values.max())) for values in (_real(samples(b), largest) for b in bands)]
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    for top, bottom in bands:
        values = _real(samples((top, bottom)), largest)
        if kind == "f" and low >= 0 and high <= 1:
            values *= 255
        elif low >= 0 and high <= 255:
            pass
        elif kind in "iu" and low >= 0 and high <= 65_535:
            values = np.floor(values / 256)
        elif high > low:
            values = (values - low) * (255 / (high - low))
        result[top:bottom] = np.clip(np.rint(values), 0, 255)
    return result


def _real(samples: NDArray[np.generic], largest: float) -> NDArray[np.float64]:
    """Samples as float64; NaN and negative infinity become 0, infinity becomes `largest`."""
    values = samples.astype(np.float64)
    return (
        np.nan_to_num(values, copy=False, nan=0.0, posinf=largest, neginf=0.0) if samples.dtype.kind == "f" else values
    )


def _managed(colour: Image.Image, info: dict[str | tuple[int, int], object]) -> Image.Image:
    """Colour management: `colour` (mode L, RGB, CMYK or LAB) as sRGB of mode "RGB"."""
    profile = info.get("icc_profile")
    if isinstance(profile, bytes) and profile and (converted := _through_profile(colour, profile)) is not None:
        return converted
    if colour.mode == "LAB":
        lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        return _transformed(colour, lab) or colour.convert("RGB")
    rgb = colour.convert("RGB")
    gamma = info.get("gamma")
    if isinstance(gamma, float) and 0.01 < gamma < 100 and "srgb" not in info:
        exponent = 1 / (_ENCODING_GAMMA * gamma)
        if abs(exponent - 1) > _GAMMA_TOLERANCE:
            rgb = rgb.point([round(255 * (level / 255) ** exponent) for level in range(256)] * 3)
    return rgb


def _through_profile(colour: Image.Image, profile: bytes) -> Image.Image | None:
    """`colour` converted by its embedded profile; None when the profile is broken or meant for other samples."""
    try:
        parsed = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if parsed.profile.xcolor_space.strip() != _PROFILE_SPACE.get(colour.mode):
            return None
        if _changes_nothing(profile, colour.mode):
            return colour.convert("RGB")
    except Exception:  # littlecms reports any defect of a profile as OSError, TypeError or its own error
        return None
    return _transformed(colour, parsed)


def _transformed(colour: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image | None:
    # One transform per call: littlecms keeps a one-pixel cache inside it, which threads must not share.
    try:
        return ImageCms.profileToProfile(colour, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return None


@lru_cache(maxsize=64)
def _changes_nothing(profile: bytes, mode: str) -> bool:
    """True when the profile is sRGB to within one level, whatever its name: a 9-step colour lattice tells."""
    if mode != "RGB":
        return False
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    lattice = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(27, 27, 3)
    converted = _transformed(Image.fromarray(lattice), ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    return converted is not None and bool(np.abs(np.asarray(converted).astype(int) - lattice).max() <= 1)
