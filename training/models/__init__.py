"""Networks by name: a name in a recipe's `model` builds it."""

from collections.abc import Callable
from types import MappingProxyType

from torch import nn

from training.errors import TrainingError
from training.models.ccnn import CCNN
from training.models.cnn_transformer import (
    cnn_student,
    cnn_transformer,
    cnn_transformer_cnn,
    cnn_transformer_resnet50,
    cnn_transformer_resnet50_cnn,
    cnn_transformer_resnet50_sixteenth,
    cnn_transformer_tiny,
    cnn_transformer_tiny_cnn,
)
from training.models.context import Context
from training.models.depth_anything import NETWORKS as DEPTH_ANYTHING_NETWORKS
from training.models.dispnet import DispNetC
from training.models.dpt import NETWORKS as DPT_NETWORKS
from training.models.encoder_decoder import resnet50_encoder_decoder, resnet50_encoder_decoder_tiny
from training.models.focus_on_depth import Crisp, Decoder, DepthwiseDecoder, FocusOnDepth, Head, Normalise, SubpixelHead
from training.models.focus_on_depth_vit import NETWORKS as FOCUS_ON_DEPTH_VIT_NETWORKS
from training.models.madnet import MADNet, NormalisedMADNet
from training.models.mobilenet_v2 import MobileNetV2
from training.models.person_votes import PersonVotes
from training.models.stack import NETWORKS as STACK_NETWORKS
from training.models.timm_encoder import TimmEncoder
from training.models.vit import VitEncoder

# RGB / 127.5 - 1, what the encoder's ImageNet weights expect
_HALF = (127.5, 127.5, 127.5)
# (mean, std) the weights of EfficientNet-Lite were trained with
_LITE = (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)


def _mobilenet(widths: tuple[int, ...], hidden: int) -> FocusOnDepth:
    encoder = MobileNetV2()
    decoder = Decoder(encoder.channels, widths)
    heads = Head(decoder.width, hidden), Head(decoder.width, hidden)
    return FocusOnDepth(Normalise(_HALF, _HALF), encoder, decoder, *heads)


def _subpixel(
    encoder: MobileNetV2 | TimmEncoder, widths: tuple[int, ...], hidden: int, context: Context | None = None
) -> FocusOnDepth:
    decoder = Decoder(encoder.channels, widths, single=1, context=context)
    heads = SubpixelHead(decoder.width, hidden, precise=True), SubpixelHead(decoder.width, hidden)
    normalise = Normalise(*_LITE) if isinstance(encoder, TimmEncoder) else Normalise(_HALF, _HALF)
    return FocusOnDepth(normalise, encoder, decoder, *heads)


def _transformer(name: str, blocks: tuple[int, int, int, int], width: int) -> FocusOnDepth:
    encoder = VitEncoder(name, blocks, (width, width, width, width))
    decoder = Decoder(encoder.channels, (width,) * 4)
    heads = SubpixelHead(width, width // 2, precise=True), SubpixelHead(width, width // 2)
    return FocusOnDepth(Normalise(_HALF, _HALF), encoder, decoder, *heads)


def focus_on_depth_small() -> FocusOnDepth:
    """The first served network: both heads at half size, interpolated."""
    return _mobilenet((32, 64, 96, 128, 128), hidden=24)


def focus_on_depth_tiny() -> FocusOnDepth:
    """For tests: the same encoder, a decoder of 8 channels."""
    return _mobilenet((8, 8, 8, 8, 8), hidden=8)


def focus_on_depth_prototype() -> FocusOnDepth:
    """The design of the first experiments: a depthwise decoder, 64 channels at every scale."""
    encoder = MobileNetV2()
    decoder = DepthwiseDecoder(encoder.channels, 64)
    return FocusOnDepth(Normalise(_HALF, _HALF), encoder, decoder, Head(64, 24), Head(64, 24))


def focus_on_depth_sharp() -> FocusOnDepth:
    """MobileNetV2, little work at half size, sub-pixel heads."""
    return _subpixel(MobileNetV2(), (24, 64, 96, 128, 128), hidden=24)


def focus_on_depth_context() -> FocusOnDepth:
    """`sharp` with three transformer blocks between encoder and decoder."""
    return _subpixel(MobileNetV2(), (24, 64, 96, 128, 128), hidden=24, context=Context(128, blocks=3, heads=4))


def focus_on_depth_crisp() -> FocusOnDepth:
    """`context`, whose depth has its ramps made steps at the end."""
    network = focus_on_depth_context()
    network.finish = Crisp(window=7, steepness=12.0, rounds=2, flat=0.03, step=0.1)
    return network


def focus_on_depth_wide() -> FocusOnDepth:
    """The same with a wider decoder."""
    return _subpixel(MobileNetV2(), (32, 96, 160, 192, 256), hidden=32)


def focus_on_depth_lite0() -> FocusOnDepth:
    """EfficientNet-Lite0 with the decoder of `sharp`."""
    return _subpixel(TimmEncoder("tf_efficientnet_lite0"), (24, 64, 96, 128, 128), hidden=24)


def focus_on_depth_lite2() -> FocusOnDepth:
    """EfficientNet-Lite2 with the decoder of `sharp`."""
    return _subpixel(TimmEncoder("tf_efficientnet_lite2"), (24, 64, 96, 128, 128), hidden=24)


def focus_on_depth_vit_tiny() -> FocusOnDepth:
    """A vision transformer of 5.5 M parameters: FocusOnDepth as the paper has it, small enough for a CPU."""
    return _transformer("vit_tiny_patch16_384", (2, 5, 8, 11), 64)


MODELS: MappingProxyType[str, Callable[[], nn.Module]] = MappingProxyType(
    {
        builder.__name__: builder
        for builder in (
            focus_on_depth_small,
            focus_on_depth_tiny,
            focus_on_depth_prototype,
            focus_on_depth_sharp,
            focus_on_depth_context,
            focus_on_depth_crisp,
            focus_on_depth_wide,
            focus_on_depth_lite0,
            focus_on_depth_lite2,
            focus_on_depth_vit_tiny,
            resnet50_encoder_decoder,
            resnet50_encoder_decoder_tiny,
            cnn_student,
            cnn_transformer,
            cnn_transformer_cnn,
            cnn_transformer_resnet50,
            cnn_transformer_resnet50_cnn,
            cnn_transformer_resnet50_sixteenth,
            cnn_transformer_tiny,
            cnn_transformer_tiny_cnn,
        )
    }
    | FOCUS_ON_DEPTH_VIT_NETWORKS
    | STACK_NETWORKS
    | DPT_NETWORKS
    | DEPTH_ANYTHING_NETWORKS
    | {"madnet": MADNet, "madnet_normalised": NormalisedMADNet, "dispnetc": DispNetC, "ccnn": CCNN}
    | {"person_votes": PersonVotes}
)
"""Builder of each network."""


def create_model(name: str) -> nn.Module:
    """A new network with random weights; TrainingError names the known ones when `name` is not among them."""
    if name not in MODELS:
        raise TrainingError(f"unknown model {name!r}; known: {', '.join(sorted(MODELS))}")
    return MODELS[name]()
