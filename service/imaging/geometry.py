"""Where a photo's pixels lie in the network's input, and where the network's output lies in the photo.

Pixel centres are at half-integers on both sides, so a resize maps x to (x + 1/2) * scale - 1/2: nothing is shifted by
half a pixel on the way there and back.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from service.contract import NETWORK_SIZES, Size
from service.imaging.errors import InvalidMap, OutsideImage

Scalar = TypeVar("Scalar", bound=np.generic)

_STRIP_ASPECT: Final = 8
_ROUND_UP_TO_PX: Final = 20


def choose_size(height: int, width: int, sizes: Sequence[Size] = NETWORK_SIZES) -> Size:
    """The one of `sizes` whose aspect is nearest to height : width, as a ratio (in logarithms)."""
    aspect = math.log(height / width)
    return min(sizes, key=lambda size: abs(math.log(size[0] / size[1]) - aspect))


def resize(image: NDArray[Scalar], size: Size) -> NDArray[Scalar]:
    """Resize (H, W) or (H, W, C) to `size` without shift or overshoot; area average when shrinking, else linear.

    Args:
        image: uint8, uint16 or float32.
        size: (height, width).
    """
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    shrinks_rows, shrinks_columns = height < image.shape[0], width < image.shape[1]
    if shrinks_rows != shrinks_columns and image.shape[0] != height and image.shape[1] != width:
        # OpenCV's area average falls back to plain linear, which aliases, unless both axes shrink: one at a time
        first = (height, image.shape[1]) if shrinks_rows else (image.shape[0], width)
        return resize(resize(image, first), size)
    method = cv2.INTER_AREA if shrinks_rows or shrinks_columns else cv2.INTER_LINEAR
    source: NDArray[Any] = image
    resized: NDArray[Any] = cv2.resize(source, (width, height), interpolation=method)
    return resized.reshape(height, width, *image.shape[2:])


def row_strips(source_rows: int, rows: int, strip_rows: int) -> Iterator[tuple[slice, slice, NDArray[np.float32]]]:
    """Enlarge along the rows a strip at a time, as `resize` does: strip = weights @ source[needed].

    Yields:
        the rows of a strip, the source rows needed for them, float32 weights (made, needed).
    """
    places = np.clip((np.arange(rows) + 0.5) * source_rows / rows - 0.5, 0, source_rows - 1)
    above = np.minimum(places.astype(np.int64), max(0, source_rows - 2))
    for start in range(0, rows, strip_rows):
        stop = min(rows, start + strip_rows)
        first, end = int(above[start]), min(source_rows, int(above[stop - 1]) + 2)
        made, share = np.arange(stop - start), (places - above)[start:stop]
        weights = np.zeros((stop - start, end - first), np.float32)
        weights[made, above[start:stop] - first] = 1 - share
        if source_rows > 1:
            weights[made, above[start:stop] - first + 1] = share
        yield slice(start, stop), slice(first, end), weights


def bounded_long_side(size: tuple[int, ...]) -> int:
    """The longer of height and width, but no more than 8 times the shorter: what radii are measured by.

    A radius that follows the long side of a strip without end (8 x 36000) is many times its height, and costs seconds.
    """
    return min(max(size[0], size[1]), _STRIP_ASPECT * min(size[0], size[1]))


def neighbourhood(radius_px: int) -> NDArray[np.uint8]:
    """A structuring element of a radius: round up to 20 pixels, square beyond, which OpenCV does one axis at a time."""
    shape = cv2.MORPH_ELLIPSE if radius_px <= _ROUND_UP_TO_PX else cv2.MORPH_RECT
    element: NDArray[Any] = cv2.getStructuringElement(shape, (2 * radius_px + 1, 2 * radius_px + 1))
    return element


def check_inside(x: float, y: float, height: int, width: int, fields: tuple[str, str] = ("x", "y")) -> None:
    """Refuse a point beyond a picture; (0, 0) is its top left pixel, (width - 1, height - 1) its last.

    Args:
        x: column.
        y: row.
        height: of the picture.
        width: of the picture.
        fields: what the caller calls the two; the error names the one that is outside.

    Raises:
        OutsideImage: not 0 <= x < width or not 0 <= y < height; NaN is outside.
    """
    if not (0 <= x < width and 0 <= y < height):
        raise OutsideImage(
            f"The point ({x:g}, {y:g}) is not in the displayed picture of {width} x {height} pixels; "
            f"x goes from 0 to {width - 1}, y from 0 to {height - 1}.",
            field=fields[1 if 0 <= x < width else 0],
            value=[x if math.isfinite(x) else str(x), y if math.isfinite(y) else str(y)],
            limit=[width - 1, height - 1],
        )


def relative_to_pixel(rx: float, ry: float, height: int, width: int) -> tuple[float, float]:
    """Pixel (x, y) of a point given in shares of the picture: 0, 0 is the first pixel's centre, 1, 1 the last one's.

    Raises:
        OutsideImage: rx or ry not within 0..1.
    """
    if not (0 <= rx <= 1 and 0 <= ry <= 1):
        raise OutsideImage(
            f"The relative point ({rx:g}, {ry:g}) is not within 0..1.", field="rx", value=[str(rx), str(ry)], limit=1
        )
    return rx * (width - 1), ry * (height - 1)


@dataclass(frozen=True, slots=True)
class Letterbox:
    """A photo of `source` size inside the network's input of `network` size, aspect kept, padding shared out evenly.

    `top` and `left` are the padding before the content, `content_size` is the resized photo's (height, width) there.
    """

    source: Size
    network: Size
    content_size: Size
    top: int
    left: int

    @classmethod
    def of(cls, height: int, width: int, network: Size | None = None) -> "Letterbox":
        """The letterbox of a photo of `height` x `width`, in `network` or else in the size nearest in aspect."""
        if height < 1 or width < 1:
            raise InvalidMap(f"A picture of {width} x {height} has no pixels.", value=[width, height])
        network = network or choose_size(height, width)
        scale = min(network[0] / height, network[1] / width)
        content = (
            min(network[0], max(1, round(height * scale))),
            min(network[1], max(1, round(width * scale))),
        )
        top, left = (network[0] - content[0]) // 2, (network[1] - content[1]) // 2
        return cls((height, width), network, content, top, left)

    def fit(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The network's input: `image` resized to the content rectangle, its edge pixels repeated into the padding.

        Args:
            image: uint8 (H, W, 3) of the source's size, or the same photo decoded at a reduced size.

        Returns:
            uint8 (h, w, 3) of the network's size.
        """
        content = resize(image, self.content_size)
        bottom = self.network[0] - self.top - self.content_size[0]
        right = self.network[1] - self.left - self.content_size[1]
        padding = ((self.top, bottom), (self.left, right), (0, 0))
        return np.ascontiguousarray(np.pad(content, padding, mode="edge"))

    def crop(self, network_map: NDArray[Scalar]) -> NDArray[Scalar]:
        """The content rectangle of a map (h, w) of the network's size: what lies on the photo and not on padding."""
        if network_map.shape[:2] != self.network:
            raise InvalidMap(
                f"The map has the size {network_map.shape[:2]}, the letterbox {self.network}.",
                value=list(network_map.shape),
                limit=list(self.network),
            )
        rows = slice(self.top, self.top + self.content_size[0])
        columns = slice(self.left, self.left + self.content_size[1])
        return network_map[rows, columns]

    def unfit(self, network_map: NDArray[np.float32]) -> NDArray[np.float32]:
        """A map (h, w) of the network's size brought back to the source's size: crop, then resize. float32 (H, W)."""
        return resize(np.ascontiguousarray(self.crop(network_map)), self.source)
