"""Small photos that rows send."""

from tests.support.fakes import encoded, picture

PHOTO = encoded(picture())
"""A PNG of 96 x 64 pixels with a red `person`."""


def photo(seed: int) -> bytes:
    """Another PNG of 96 x 64, the same for the same seed, so that no cache has its result."""
    image = picture()
    image.putpixel((0, 0), (seed % 256, seed // 256 % 256, seed // 65536 % 256))
    return encoded(image)
