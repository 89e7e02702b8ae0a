"""Builders of seed 3's networks: three base networks on GhostNet, the meta-learner's variants, and small siblings.

Parameters, against those of the slides (4 bytes each, section "Result (4)"): AdaBins 17.2 of 17.2 M, BTS 8.9 of 8.9,
LapDepth 15.0 of 14.9, the meta-learner 4.4 of 4.3. The slides do not give widths: these are chosen to fit.
"""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from torch import nn

from training.models.adabins import AdaBins, MiniVit
from training.models.bts import Bts, PlanarDecoder
from training.models.focus_on_depth import Normalise
from training.models.ghostnet import IMAGENET_MEAN, IMAGENET_STD, GhostNetEncoder
from training.models.lapdepth import LapDepth, LaplacianDecoder
from training.models.meta_learner import (
    Average,
    DepthView,
    Linear,
    MetaLearner,
    PhotoView,
    Shares,
    Stacked,
    WholeView,
)
from training.models.unet import UnetDecoder

_SMALL = "ghostnet_050"
_META_WIDTH = 32  # channels of the meta-learner at half size


def _normalise() -> Normalise:
    return Normalise(IMAGENET_MEAN, IMAGENET_STD)


def _adabins(encoder: GhostNetEncoder, width: int, channels: int, transformer: MiniVit) -> AdaBins:
    return AdaBins(_normalise(), encoder, UnetDecoder(encoder.channels, width, channels), transformer)


def _bts(encoder: GhostNetEncoder, width: int) -> Bts:
    return Bts(_normalise(), encoder, PlanarDecoder(encoder.channels, width))


def _lapdepth(encoder: GhostNetEncoder, width: int) -> LapDepth:
    return LapDepth(_normalise(), encoder, LaplacianDecoder(encoder.channels, width))


def adabins_ghost() -> AdaBins:
    """AdaBins with the paper's tokens of 32x32 pixels: 352x384 is about the smallest picture it takes."""
    return _adabins(GhostNetEncoder(), 2496, 128, MiniVit())


def adabins_ghost_served() -> AdaBins:
    """AdaBins with tokens of 16x16 pixels, for the served sizes; the decoder makes up for the smaller embedding."""
    return _adabins(GhostNetEncoder(), 2944, 128, MiniVit(patch=8, positions=1024))


def adabins_ghost_tiny() -> AdaBins:
    """For tests: 7 queries and 16 bins, from 64x64 on."""
    transformer = MiniVit(16, patch=8, positions=1024, queries=7, bins=16, hidden=16, blocks=1)
    return _adabins(GhostNetEncoder(_SMALL), 64, 16, transformer)


def bts_ghost() -> Bts:
    """BTS."""
    return _bts(GhostNetEncoder(), 944)


def bts_ghost_tiny() -> Bts:
    """For tests."""
    return _bts(GhostNetEncoder(_SMALL), 128)


def lapdepth_ghost() -> LapDepth:
    """LapDepth, its encoder's batch norm frozen, as the paper trains it: for encoders with weights from ImageNet."""
    network = lapdepth_ghost_scratch()
    network.encoder.freeze_norm()
    return network


def lapdepth_ghost_scratch() -> LapDepth:
    """LapDepth for encoders that begin with random weights, whose norm has yet to learn."""
    return _lapdepth(GhostNetEncoder(), 1216)


def lapdepth_ghost_tiny() -> LapDepth:
    """For tests; its norm learns."""
    return _lapdepth(GhostNetEncoder(_SMALL), 128)


def _meta(view: DepthView | PhotoView | WholeView, bound: nn.Module, name: str, width: int) -> MetaLearner:
    encoder = GhostNetEncoder(name, view.inputs)
    return MetaLearner(view, encoder, UnetDecoder(encoder.channels, width, _META_WIDTH), _META_WIDTH, bound)


def _views() -> dict[str, DepthView | PhotoView | WholeView]:
    photo, depth = PhotoView(_normalise()), DepthView()
    return {"d": depth, "rgb": photo, "rgbd": WholeView(photo, depth)}


def meta_learner(variant: str, bound: Callable[[], nn.Module] = Shares) -> MetaLearner:
    """The meta-learner alone: `d`, `rgb` or `rgbd`, coefficients bound by `Shares` unless told otherwise."""
    return _meta(_views()[variant], bound(), "ghostnet_100", 896)


def meta_learner_tiny(variant: str, bound: Callable[[], nn.Module] = Shares) -> MetaLearner:
    """The same for tests."""
    return _meta(_views()[variant], bound(), _SMALL, 64)


def base_networks() -> dict[str, nn.Module]:
    """The three, untrained, as they are stacked."""
    return {"adabins": adabins_ghost_served(), "bts": bts_ghost(), "lapdepth": lapdepth_ghost_scratch()}


def base_networks_tiny() -> dict[str, nn.Module]:
    """The same for tests."""
    return {"adabins": adabins_ghost_tiny(), "bts": bts_ghost_tiny(), "lapdepth": lapdepth_ghost_tiny()}


def stacked(bases: Callable[[], Mapping[str, nn.Module]], meta: Callable[[], nn.Module]) -> Stacked:
    """Base networks and what weighs them, from the builders of both."""
    return Stacked(bases(), meta())


NETWORKS: MappingProxyType[str, Callable[[], nn.Module]] = MappingProxyType(
    {
        "adabins_ghost": adabins_ghost,
        "adabins_ghost_served": adabins_ghost_served,
        "adabins_ghost_tiny": adabins_ghost_tiny,
        "bts_ghost": bts_ghost,
        "bts_ghost_tiny": bts_ghost_tiny,
        "lapdepth_ghost": lapdepth_ghost,
        "lapdepth_ghost_scratch": lapdepth_ghost_scratch,
        "lapdepth_ghost_tiny": lapdepth_ghost_tiny,
        "stacked_average": partial(stacked, base_networks, Average),
        "stacked_average_tiny": partial(stacked, base_networks_tiny, Average),
        "stacked_meta_d": partial(stacked, base_networks, partial(meta_learner, "d")),
        "stacked_meta_d_tiny": partial(stacked, base_networks_tiny, partial(meta_learner_tiny, "d")),
        "stacked_meta_rgb": partial(stacked, base_networks, partial(meta_learner, "rgb")),
        "stacked_meta_rgb_tiny": partial(stacked, base_networks_tiny, partial(meta_learner_tiny, "rgb")),
        "stacked_meta_rgbd": partial(stacked, base_networks, partial(meta_learner, "rgbd")),
        "stacked_meta_rgbd_linear": partial(stacked, base_networks, partial(meta_learner, "rgbd", Linear)),
        "stacked_meta_rgbd_tiny": partial(stacked, base_networks_tiny, partial(meta_learner_tiny, "rgbd")),
    }
)
"""Builder of each network; those called `stacked_` run the three bases and then what weighs them."""
