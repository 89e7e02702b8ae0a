"""Dense prediction transformers (DPT) for depth and for people, as published.

Ranftl et al., "Vision Transformers for Dense Prediction", arXiv:2103.13413; github.com/isl-org/DPT (MIT), whose weights
`training.importers` reads. Parts of the published networks that no result depends on are left out: the classifier and
last norm of the transformer, the first residual unit of the coarsest fusion and the auxiliary head of the segmentation
network, so that every parameter here has a gradient.

`training.models.depth_anything` has the same decoder on another encoder.
"""

from collections.abc import Callable, Iterator, Sequence
from types import MappingProxyType
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.errors import TrainingError
from training.models import positions
from training.models.focus_on_depth import Normalise, ResidualUnit
from training.models.vit import Read, as_picture, tokens_after

_HALF = (127.5, 127.5, 127.5)  # RGB / 127.5 - 1, as the weights expect

ADE20K_CLASSES = 150
PERSON = 12
"""Of ADE20K's 150 classes, counted from 0."""


def timm_body(name: str, **shape: Any) -> Any:
    """A vision transformer of timm without classifier, for pictures of any size.

    Args:
        name: In timm.
        shape: What differs from it, e.g. `depth`.

    Raises:
        TrainingError: timm missing, or it knows no such transformer.
    """
    try:
        import timm
    except ImportError as error:
        raise TrainingError(f"encoder {name} needs timm: pip install 'depthlens[training]'") from error
    try:
        return timm.create_model(name, num_classes=0, dynamic_img_size=True, **shape)
    except (RuntimeError, TypeError) as error:
        raise TrainingError(f"encoder {name}: {str(error).splitlines()[0]}") from error


def resampling(width: int, channels: Sequence[int]) -> nn.ModuleList:
    """Four layers from tokens of `width` to `channels` at 4, 2, 1 and 1/2 times the grid."""
    fine, second, third, coarse = channels
    return nn.ModuleList(
        [
            nn.Sequential(nn.Conv2d(width, fine, 1), nn.ConvTranspose2d(fine, fine, 4, 4)),
            nn.Sequential(nn.Conv2d(width, second, 1), nn.ConvTranspose2d(second, second, 2, 2)),
            nn.Sequential(nn.Conv2d(width, third, 1)),
            nn.Sequential(nn.Conv2d(width, coarse, 1), nn.Conv2d(coarse, coarse, 3, 2, 1)),
        ]
    )


class DptEncoder(nn.Module):
    """Features at 1/4, 1/8, 1/16 and 1/32 of the picture from tokens of four blocks, read with the class token.

    Args:
        body: Transformer of `timm_body` with patches of 16 pixels.
        blocks: After which blocks tokens are taken, before the last norm.
        channels: Of the features, fine to coarse.
    """

    stride = 32

    def __init__(self, body: Any, blocks: Sequence[int], channels: Sequence[int]) -> None:
        super().__init__()
        body.norm = nn.Identity()
        self.body = body
        self.channels = tuple(channels)
        self._blocks = tuple(blocks)
        self.read = nn.ModuleList(Read(body.embed_dim) for _ in channels)
        self.resample = resampling(body.embed_dim, channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W), H and W multiples of 32 -> features, fine to coarse."""
        patches = self.body.patch_embed(x)
        rows, columns = patches.shape[1:3]
        taken = tokens_after(self.body, patches, positions.bilinear(self.body.pos_embed, rows, columns), self._blocks)
        return [
            resample(read(as_picture(tokens[:, 1:], rows, columns), tokens[:, 0]))
            for tokens, read, resample in zip(taken, self.read, self.resample, strict=True)
        ]


class HybridEncoder(nn.Module):
    """The same with a ResNetV2-50 before the transformer: the two finest features are the convolutions' own.

    Args:
        body: Transformer of `timm_body` behind a ResNetV2 of three stages, at 1/16 of the picture.
        blocks: Two, for the features at 1/16 and 1/32.
    """

    stride = 32

    def __init__(self, body: Any, blocks: Sequence[int]) -> None:
        super().__init__()
        body.norm = nn.Identity()
        self.body = body
        width = int(body.embed_dim)
        backbone = body.patch_embed.backbone
        self.channels = (*(info["num_chs"] for info in backbone.feature_info[1:3]), width, width)
        self._blocks = tuple(blocks)
        self.read = nn.ModuleList(Read(width) for _ in blocks)
        self.resample = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(width, width, 1)),
                nn.Sequential(nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 3, 2, 1)),
            ]
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W), H and W multiples of 32 -> features, fine to coarse."""
        embed = self.body.patch_embed
        quarter = embed.backbone.stages[0](embed.backbone.stem(x))
        eighth = embed.backbone.stages[1](quarter)
        patches = embed.proj(embed.backbone.norm(embed.backbone.stages[2](eighth))).permute(0, 2, 3, 1)
        rows, columns = patches.shape[1:3]
        taken = tokens_after(self.body, patches, positions.bilinear(self.body.pos_embed, rows, columns), self._blocks)
        coarse = [
            resample(read(as_picture(tokens[:, 1:], rows, columns), tokens[:, 0]))
            for tokens, read, resample in zip(taken, self.read, self.resample, strict=True)
        ]
        return [quarter, eighth, *coarse]


class PlainUnit(nn.Module):
    """ReLU, 3x3, ReLU, 3x3, plus the input as it came."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        y: Tensor = self.body(x)
        return x + y


class Fusion(nn.Module):
    """Fuses four features from coarse to fine, each at the next one's size, the finest at twice its own.

    Args:
        channels: Of the features, fine to coarse.
        width: Of the result.
        unit: Channels -> residual unit.
    """

    def __init__(self, channels: Sequence[int], width: int, unit: Callable[[int], nn.Module] = PlainUnit) -> None:
        super().__init__()
        self.width = width
        self.narrow = nn.ModuleList(nn.Conv2d(count, width, 3, padding=1, bias=False) for count in channels)
        self.skip = nn.ModuleList(unit(width) for _ in channels[1:])  # the coarsest has nothing to be added to
        self.refine = nn.ModuleList(unit(width) for _ in channels)
        self.project = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in channels)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features, fine to coarse -> (B, width, 2 h, 2 w) for the finest of h x w."""
        narrowed = [narrow(feature) for narrow, feature in zip(self.narrow, features, strict=True)]
        finest = narrowed[0].shape[-2:]
        x: Tensor = narrowed.pop()
        for level in reversed(range(len(self.refine))):
            size = narrowed[-1].shape[-2:] if narrowed else (2 * finest[0], 2 * finest[1])
            x = F.interpolate(self.refine[level](x), size=size, mode="bilinear", align_corners=True)
            x = self.project[level](x)
            if narrowed:
                x = x + self.skip[level - 1](narrowed.pop())
        return x


class DepthHead(nn.Module):
    """3x3 to half the channels, bilinear to the picture's size, 3x3, ReLU, 1x1, ReLU."""

    output: Literal["inverse_depth"] = "inverse_depth"

    def __init__(self, inputs: int, hidden: int = 32) -> None:
        super().__init__()
        self.before = nn.Conv2d(inputs, inputs // 2, 3, padding=1)
        self.after = nn.Sequential(nn.Conv2d(inputs // 2, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, 1, 1))

    def forward(self, x: Tensor, rows: int, columns: int) -> Tensor:
        """(B, C, H / 2, W / 2) -> (B, rows, columns), relative inverse depth >= 0, larger = nearer."""
        x = F.interpolate(self.before(x), size=(rows, columns), mode="bilinear", align_corners=True)
        return F.relu(self.after(x).float())[:, 0]


class PersonHead(nn.Module):
    """Semantic segmentation, of which one class is asked for: 3x3, norm, ReLU, 1x1, bilinear to the picture's size.

    Args:
        inputs: Channels.
        classes: In all.
        person: Which of them, counted from 0.
    """

    output: Literal["person"] = "person"

    def __init__(self, inputs: int, classes: int, person: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, inputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Conv2d(inputs, classes, 1),
        )
        self._person = person

    def forward(self, x: Tensor, rows: int, columns: int) -> Tensor:
        """(B, C, H / 2, W / 2) -> (B, rows, columns), logit: its sigmoid is the class's share of the softmax."""
        scores = self.body(x).float()
        scores = F.interpolate(scores, size=(rows, columns), mode="bilinear", align_corners=True)
        others = torch.cat((scores[:, : self._person], scores[:, self._person + 1 :]), dim=1)
        return scores[:, self._person] - torch.logsumexp(others, dim=1)


class Dpt(nn.Module):
    """uint8 photo in, one map of its size out.

    Args:
        normalise: What the encoder's weights expect.
        encoder: (B, 3, H, W) -> four features, fine to coarse.
        decoder: Those -> (B, C, h, w).
        head: That and the picture's height and width -> (B, H, W).

    Attributes:
        output: What `forward` gives, `inverse_depth` or `person`.
        stride: Height and width of the input are multiples of this.
    """

    def __init__(
        self,
        normalise: Normalise,
        encoder: "DptEncoder | HybridEncoder | nn.Module",
        decoder: Fusion,
        head: DepthHead | PersonHead,
    ) -> None:
        super().__init__()
        self.normalise = normalise
        self.encoder = encoder
        self.decoder = decoder
        self.head = head
        self.output: Literal["inverse_depth", "person"] = head.output
        self.stride = int(encoder.stride)  # type: ignore[arg-type]  # every encoder says it

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Those of the transformer (and the convolutions before it), which are pretrained."""
        parameters: Iterator[nn.Parameter] = self.encoder.body.parameters()  # type: ignore[union-attr]  # all have one
        return parameters

    def forward(self, image: Tensor) -> Tensor:
        """Runs the network.

        Args:
            image: uint8 (B, H, W, 3) sRGB 0..255, H and W multiples of `stride`.

        Returns:
            float32 (B, H, W): relative inverse depth >= 0, or a logit that the pixel shows a person.
        """
        x = self.normalise(image)
        rows, columns = image.shape[1:3]
        result: Tensor = self.head(self.decoder(self.encoder(x)), rows, columns)
        return result


def _dpt(encoder: DptEncoder | HybridEncoder, width: int) -> Dpt:
    return Dpt(Normalise(_HALF, _HALF), encoder, Fusion(encoder.channels, width), DepthHead(width))


def _large() -> DptEncoder:
    return DptEncoder(timm_body("vit_large_patch16_384"), (5, 11, 17, 23), (256, 512, 1024, 1024))


def _tiny() -> DptEncoder:
    body = timm_body("vit_tiny_patch16_384", embed_dim=32, depth=4, num_heads=2, img_size=64)
    return DptEncoder(body, (0, 1, 2, 3), (8, 16, 24, 32))


def dpt_large() -> Dpt:
    """DPT-Large (MiDaS 3.0): ViT-L/16, inverse depth."""
    return _dpt(_large(), 256)


def dpt_hybrid() -> Dpt:
    """DPT-Hybrid (MiDaS 3.0): ResNetV2-50 and ViT-B, inverse depth."""
    return _dpt(HybridEncoder(timm_body("vit_base_r50_s16_384"), (8, 11)), 256)


def dpt_large_ade20k() -> Dpt:
    """DPT-Large for the 150 classes of ADE20K, of which it gives the person."""
    encoder = _large()
    decoder = Fusion(encoder.channels, 256, ResidualUnit)
    return Dpt(Normalise(_HALF, _HALF), encoder, decoder, PersonHead(256, ADE20K_CLASSES, PERSON))


def dpt_tiny() -> Dpt:
    """For tests."""
    return _dpt(_tiny(), 16)


def dpt_ade20k_tiny() -> Dpt:
    """For tests."""
    encoder = _tiny()
    decoder = Fusion(encoder.channels, 16, ResidualUnit)
    return Dpt(Normalise(_HALF, _HALF), encoder, decoder, PersonHead(16, ADE20K_CLASSES, PERSON))


NETWORKS = MappingProxyType(
    {builder.__name__: builder for builder in (dpt_large, dpt_hybrid, dpt_large_ade20k, dpt_tiny, dpt_ade20k_tiny)}
)
"""By the names recipes and `import` use."""
