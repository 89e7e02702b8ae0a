"""What can be wrong with a picture, in one tree.

ImageError(ValueError)
├── NotAnImage          not_an_image          the bytes start like no picture format at all
├── UnsupportedFormat   unsupported_format    a picture, of a kind that is not read here
├── ImageTooLarge       image_too_large       more pixels, longer sides or more JPEG scans than allowed
├── ImageTooCostly      too_costly_image      within the limits, but its decoder went beyond its time or memory
├── DamagedImage        damaged_image         the right start, but the content contradicts itself
│   ├── EmptyImage      empty_image           no bytes, or no pixels
│   └── TruncatedImage  truncated_image       cut off before the last pixel
├── OutsideImage        outside_image         a point beyond the picture's border
└── InvalidMap          invalid_map           an array of the wrong shape, or without one finite value

`service.imaging` knows nothing of HTTP: the gateway gives each branch its status.
"""

from typing import Any, ClassVar


class ImageError(ValueError):
    """Base of everything `service.imaging` refuses.

    Args:
        message: what was wrong, the values, and what to do; fit to be shown to the caller.
        code: a more exact stable code than the class's own, in snake_case.
        field: the part of the request at fault ("image", "x", ...), when it is known.
        value: what was given; short and JSON-ready.
        limit: what is allowed; JSON-ready.
    """

    default_code: ClassVar[str] = "image_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        field: str | None = "image",
        value: Any = None,
        limit: Any = None,
    ) -> None:
        super().__init__(message)
        self.code: str = code or type(self).default_code
        self.field = field
        self.value = value
        self.limit = limit


class NotAnImage(ImageError):
    """The bytes start like no picture format this module knows of."""

    default_code = "not_an_image"


class UnsupportedFormat(ImageError):
    """A picture format, or a variant of one, that is not read or written here."""

    default_code = "unsupported_format"


class ImageTooLarge(ImageError):
    """The header promises more than the limits allow; nothing was decoded."""

    default_code = "image_too_large"


class ImageTooCostly(ImageError):
    """The header looks harmless, but decoding takes more time or memory than any picture of its size should."""

    default_code = "too_costly_image"


class DamagedImage(ImageError):
    """The bytes start as a known format and then contradict themselves."""

    default_code = "damaged_image"


class EmptyImage(DamagedImage):
    """No bytes at all, or a header that declares no pixels."""

    default_code = "empty_image"


class TruncatedImage(DamagedImage):
    """The bytes end before the last pixel; a half picture is never returned."""

    default_code = "truncated_image"


class OutsideImage(ImageError):
    """A point that does not lie in the displayed picture."""

    default_code = "outside_image"


class InvalidMap(ImageError):
    """An array of the wrong number of dimensions or size, or without any finite value."""

    default_code = "invalid_map"
