"""A convolutional network, a transformer on its last feature, and a dense decoder: metric depth.

"Monocular Depth Estimation Methods using CNN and Transformer" (anonymous CVPR submission 100): the patch embedding is
applied to the CNN's final feature map with patches of p x p cells, and the CNN is either trained first, alone, and then
kept (multi-stage) or together with the transformer (end to end). What the paper leaves open follows its reference 13,
Ranftl et al., "Vision Transformers for Dense Prediction", arXiv:2103.13413, hybrid form: the tokens read their class
token and are laid out as a feature map again, the CNN's finer features join in the decoder. At 224 x 224 that makes 49
tokens; `Coarser` gives the reference's 196, with the transformer at 1/16.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.errors import TrainingError
from training.models.encoder_decoder import TYPICAL_M
from training.models.focus_on_depth import Decoder, Head, Normalise
from training.models.resnet import IMAGENET, ResNetEncoder
from training.models.timm_encoder import TimmEncoder
from training.models.vit import Read


class Transformer(nn.Module):
    """Puts a vision transformer's view of the coarsest feature in that feature's place.

    Args:
        name: In timm, e.g. `vit_base_patch16_224`: width, heads, class token and blocks are its own, so that its
            ImageNet weights fit; its patch embedding and places are not used.
        channels: Of the coarsest feature.
        grid: Rows (and columns) of tokens that the learned places are made for; other grids interpolate them.
        patch: Side of a patch in cells of the feature (the paper's p).
        depth: Number of blocks; None = all of them.

    Attributes:
        width: Channels of the result.

    Raises:
        TrainingError: timm missing, or no transformer of that name.
    """

    def __init__(self, name: str, channels: int, grid: int = 7, patch: int = 1, depth: int | None = None) -> None:
        super().__init__()
        blocks: dict[str, Any] = {} if depth is None else {"depth": depth}
        try:
            import timm
        except ImportError as error:
            raise TrainingError(f"transformer {name} needs timm: pip install 'depthlens[training]'") from error
        try:
            body: Any = timm.create_model(name, num_classes=0, **blocks)
        except (RuntimeError, TypeError) as error:
            raise TrainingError(f"transformer {name}: {str(error).splitlines()[0]}") from error
        if getattr(body, "cls_token", None) is None or getattr(body, "blocks", None) is None:
            raise TrainingError(f"transformer {name}: not a vision transformer with a class token")
        self.width: int = body.embed_dim
        self._patch = patch
        self.embed = nn.Conv2d(channels, self.width, patch, patch)
        self.places = nn.Parameter(torch.zeros(1, self.width, grid, grid))
        nn.init.trunc_normal_(self.places, std=0.02)
        self.cls_token: nn.Parameter = body.cls_token
        self.blocks: nn.Module = body.blocks
        self.norm: nn.Module = body.norm
        self.read = Read(self.width)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Features, fine to coarse -> the same, the coarsest (B, C, h, w) replaced by (B, width, h, w)."""
        *finer, coarsest = features
        embedded: Tensor = self.embed(coarsest)
        batch, _, height, width = embedded.shape
        places = F.interpolate(self.places, size=(height, width), mode="bilinear", align_corners=False)
        tokens = (embedded + places).flatten(2).transpose(1, 2)
        tokens = self.norm(self.blocks(torch.cat((self.cls_token.expand(batch, -1, -1), tokens), dim=1)))
        read = self.read(tokens[:, 1:].transpose(1, 2).reshape(batch, self.width, height, width), tokens[:, 0])
        if self._patch > 1:
            read = F.interpolate(read, size=coarsest.shape[2:], mode="bilinear", align_corners=False)
        return [*finer, read]


class Coarser(nn.Module):
    """Adds a feature of half the size to the coarsest, as the reference does below its tokens at 1/16."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.below = nn.Conv2d(channels, channels, 3, 2, 1)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Features, fine to coarse -> one more."""
        return [*features, self.below(features[-1])]


class CnnTransformer(nn.Module):
    """uint8 photo in, depth in metres out. Without a transformer it is the network of the paper's first stage.

    Args:
        normalise: What the encoder's first weights expect.
        encoder: (B, 3, H, W) -> features, fine to coarse.
        transformer: Those -> features at 1/4, 1/8, 1/16 and 1/32; `nn.Identity` for the CNN alone.
        decoder: Those -> (B, C, H / 2, W / 2).
        head: That -> (B, H, W), unbounded.
    """

    output: Literal["depth_m"] = "depth_m"
    stride = 32

    def __init__(
        self, normalise: nn.Module, encoder: nn.Module, transformer: nn.Module, decoder: nn.Module, head: nn.Module
    ) -> None:
        super().__init__()
        self.normalise = normalise
        self.encoder = encoder
        self.transformer = transformer
        self.decoder = decoder
        self.head = head

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """The CNN's, which may learn at a rate of their own."""
        return self.encoder.parameters()

    def features(self, image: Tensor) -> list[Tensor]:
        """uint8 (B, H, W, 3) -> the CNN's features, fine to coarse."""
        features: list[Tensor] = self.encoder(self.normalise(image))
        return features

    def decode(self, features: Sequence[Tensor]) -> Tensor:
        """Those features -> what `forward` returns."""
        # softplus: positive, as a loss of logarithms needs it, without a largest depth
        return F.softplus(self.head(self.decoder(self.transformer(features))).float())

    def forward(self, image: Tensor) -> Tensor:
        """Runs the network.

        Args:
            image: uint8 (B, H, W, 3) sRGB 0..255, H and W multiples of 32.

        Returns:
            float32 (B, H, W), depth in metres, > 0.
        """
        return self.decode(self.features(image))


# (mean, std) the weights of EfficientNet-Lite were trained with
_LITE = (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)
_VIT, _VIT_TINY = "vit_base_patch16_224", "vit_tiny_patch16_224"
_WIDTHS, _NARROW = (256, 256, 256, 256), (16, 16, 16, 16)  # of the decoder; 256 is the reference's


def _head(inputs: int, hidden: int) -> Head:
    """A head whose softplus begins at `TYPICAL_M`."""
    head = Head(inputs, hidden)
    last: Any = head.body[-1]
    nn.init.constant_(last.bias, math.log(math.expm1(TYPICAL_M)))
    return head


def _cnn(name: str, widths: tuple[int, int, int, int], hidden: int) -> CnnTransformer:
    encoder = ResNetEncoder(name)
    decoder = Decoder(encoder.channels, widths)
    return CnnTransformer(Normalise(*IMAGENET), encoder, nn.Identity(), decoder, _head(decoder.width, hidden))


def _with_transformer(
    name: str, vit: str, widths: tuple[int, int, int, int], hidden: int, depth: int | None = None
) -> CnnTransformer:
    encoder = ResNetEncoder(name)
    transformer = Transformer(vit, encoder.channels[-1], depth=depth)
    decoder = Decoder((*encoder.channels[:-1], transformer.width), widths)
    return CnnTransformer(Normalise(*IMAGENET), encoder, transformer, decoder, _head(decoder.width, hidden))


def cnn_transformer() -> CnnTransformer:
    """The paper's: ResNeXt-101 32x8d, and ViT-B on its feature at 1/32."""
    return _with_transformer("resnext101_32x8d", _VIT, _WIDTHS, 32)


def cnn_transformer_cnn() -> CnnTransformer:
    """Its first stage: ResNeXt-101 alone, which learns depth before the transformer comes."""
    return _cnn("resnext101_32x8d", _WIDTHS, 32)


def cnn_transformer_resnet50() -> CnnTransformer:
    """ResNet-50 in place of ResNeXt-101."""
    return _with_transformer("resnet50", _VIT, _WIDTHS, 32)


def cnn_transformer_resnet50_cnn() -> CnnTransformer:
    """Its first stage."""
    return _cnn("resnet50", _WIDTHS, 32)


def cnn_transformer_resnet50_sixteenth() -> CnnTransformer:
    """ResNet-50 without its last stage, ViT-B at 1/16 as in the reference's hybrid: four times the tokens."""
    encoder = ResNetEncoder("resnet50", coarsest=16)
    transformer = Transformer(_VIT, encoder.channels[-1], grid=14)
    width = transformer.width
    decoder = Decoder((*encoder.channels[:-1], width, width), _WIDTHS)
    whole = nn.Sequential(transformer, Coarser(width))
    return CnnTransformer(Normalise(*IMAGENET), encoder, whole, decoder, _head(decoder.width, 32))


def cnn_transformer_tiny() -> CnnTransformer:
    """For tests: a residual network of ten layers, two blocks of ViT-Ti."""
    return _with_transformer("resnet10t", _VIT_TINY, _NARROW, 8, depth=2)


def cnn_transformer_tiny_cnn() -> CnnTransformer:
    """Its first stage."""
    return _cnn("resnet10t", _NARROW, 8)


def cnn_student() -> CnnTransformer:
    """The paper's small network, in the manner of MiDaS-small: EfficientNet-Lite3, 64 to 512 channels from 1/4 on."""
    encoder = TimmEncoder("tf_efficientnet_lite3")
    decoder = Decoder(encoder.channels, (32, 64, 128, 256, 512), single=1)
    return CnnTransformer(Normalise(*_LITE), encoder, nn.Identity(), decoder, _head(decoder.width, 32))
