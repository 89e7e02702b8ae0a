"""Networks by name: a name in a recipe's `model` builds it."""

from collections.abc import Callable
from types import MappingProxyType

from training.errors import TrainingError
from training.models.focus_on_depth import Decoder, FocusOnDepth, Head, Normalise
from training.models.mobilenet_v2 import MobileNetV2

# RGB / 127.5 - 1, what the encoder's ImageNet weights expect
_HALF = (127.5, 127.5, 127.5)


def _focus_on_depth(widths: tuple[int, ...], head: int) -> FocusOnDepth:
    encoder = MobileNetV2()
    decoder = Decoder(encoder.channels, widths)
    return FocusOnDepth(Normalise(_HALF, _HALF), encoder, decoder, Head(decoder.width, head), Head(decoder.width, head))


def focus_on_depth_small() -> FocusOnDepth:
    """The first served network."""
    return _focus_on_depth((32, 64, 96, 128, 128), head=24)


def focus_on_depth_tiny() -> FocusOnDepth:
    """For tests: the same encoder, a decoder of 8 channels."""
    return _focus_on_depth((8, 8, 8, 8, 8), head=8)


MODELS: MappingProxyType[str, Callable[[], FocusOnDepth]] = MappingProxyType(
    {"focus_on_depth_small": focus_on_depth_small, "focus_on_depth_tiny": focus_on_depth_tiny}
)
"""Builder of each network."""


def create_model(name: str) -> FocusOnDepth:
    """A new network with random weights; TrainingError names the known ones when `name` is not among them."""
    if name not in MODELS:
        raise TrainingError(f"unknown model {name!r}; known: {', '.join(sorted(MODELS))}")
    return MODELS[name]()
