"""What the tests of imported networks share: transformers' networks as oracles, and how files are written and read.

Random weights of one network of transformers are written in two layouts: transformers' own, by its `save_pretrained`,
and that of the authors' checkpoints, by the names in this file, which are written down apart from those of
`training.importers`. Both files are imported and must give what transformers gives.
"""

import re

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # as everybody writes it
from torch import nn

from training.importers.layout import read_state, translate
from training.models.focus_on_depth import Normalise

transformers = pytest.importorskip("transformers", reason="the oracle, transformers, is not installed (group dev)")

TOLERANCE = 1e-4
"""Of the difference from transformers, results being of the order of 1."""

HALF = (127.5,) * 3
IMAGENET = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "image_size": 64,
    "neck_hidden_sizes": [8, 16, 24, 32],
    "fusion_hidden_size": 16,
    "backbone_out_indices": [0, 1, 2, 3],
    "layer_norm_eps": 1e-6,  # timm's, with which the weights were trained; transformers' own default is 1e-12
}


def randomise(network: nn.Module, seed: int = 0) -> nn.Module:
    """Weights that let every layer matter: transformers' own start makes maps that are constant or dead."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if not value.is_floating_point():
            continue
        noise = torch.randn(value.shape, generator=generator)
        if name.endswith("running_var") or (value.ndim == 1 and name.endswith("weight")) or "layer_scale" in name:
            value.copy_(1 + 0.3 * noise.clamp(-2, 2))
        elif value.ndim > 1 and not ("embeddings" in name and "projection" not in name and "backbone" not in name):
            value.copy_(noise * (2 / value[0].numel()) ** 0.5)
        else:
            value.copy_(0.2 * noise)
    return network.eval()


def pictures(height: int, width: int, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height * width)
    coarse = torch.rand(count, 3, 5, 6, generator=generator) * 255
    smooth = F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False)
    return smooth.clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous()


def pixels(image: torch.Tensor, mean=HALF, std=HALF) -> torch.Tensor:
    return Normalise(mean, std)(image)


def as_in_files(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What transformers 5 calls q_proj in memory is query in the files it writes, as it was before."""
    words = {"q": "attention.query", "k": "attention.key", "v": "attention.value", "o": "output.dense"}
    return {
        re.sub(r"attention\.([qkvo])_proj", lambda m: f"attention.{words[m[1]]}", name): value
        for name, value in state.items()
    }


def merged(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """query, key and value of each block as one tensor, in that order of rows."""
    result = {}
    for name, value in state.items():
        if ".attention.attention.query." in name:
            parts = [state[name.replace(".query.", f".{part}.")] for part in ("query", "key", "value")]
            result[name.replace(".attention.attention.query.", ".attn.qkv.")] = torch.cat(parts)
        elif ".attention.attention." not in name:
            result[name] = value
    return result


def renamed(state: dict[str, torch.Tensor], rules: list[tuple]) -> dict[str, torch.Tensor]:
    result = {}
    for name, value in merged(state).items():
        new = name
        for pattern, replacement in rules:
            new = re.sub(pattern, replacement, new)
        result[new] = value.clone()
    return result


FUSION = [
    (r"neck\.convs\.(\d)", lambda m: f"scratch.layer{int(m[1]) + 1}_rn"),
    (r"neck\.fusion_stage\.layers\.(\d)", lambda m: f"scratch.refinenet{4 - int(m[1])}"),
    (r"(refinenet\d)\.projection", r"\1.out_conv"),
    (r"residual_layer(\d)\.convolution(\d)", r"resConfUnit\1.conv\2"),
    (r"residual_layer(\d)\.batch_norm(\d)", r"resConfUnit\1.bn\2"),
]
TO_DEPTH_ANYTHING = [
    *FUSION,
    (r"^scratch", "depth_head.scratch"),
    (r"neck\.reassemble_stage\.layers\.(\d)\.projection", r"depth_head.projects.\1"),
    (r"neck\.reassemble_stage\.layers\.(\d)\.resize", r"depth_head.resize_layers.\1"),
    (r"^head\.conv1", "depth_head.scratch.output_conv1"),
    (r"^head\.conv2", "depth_head.scratch.output_conv2.0"),
    (r"^head\.conv3", "depth_head.scratch.output_conv2.2"),
    (r"backbone\.embeddings\.patch_embeddings\.projection", "pretrained.patch_embed.proj"),
    (r"backbone\.embeddings\.position_embeddings", "pretrained.pos_embed"),
    (r"backbone\.embeddings", "pretrained"),
    (r"backbone\.encoder\.layer", "pretrained.blocks"),
    (r"backbone\.layernorm", "pretrained.norm"),
    (r"attention\.output\.dense", "attn.proj"),
    (r"layer_scale(\d)\.lambda1", r"ls\1.gamma"),
]
TO_DPT = [
    *FUSION,
    (
        r"neck\.reassemble_stage\.readout_projects\.(\d)\.0",
        lambda m: f"pretrained.act_postprocess{int(m[1]) + 1}.0.project.0",
    ),
    (
        r"neck\.reassemble_stage\.layers\.(\d)\.(projection|resize)",
        lambda m: f"pretrained.act_postprocess{int(m[1]) + 1}.{3 if m[2] == 'projection' else 4}",
    ),
    (r"^head\.head", "scratch.output_conv"),
    (r"^auxiliary_head\.head", "auxlayer"),
    (r"dpt\.embeddings\.backbone\.bit\.embedder\.convolution", "pretrained.model.patch_embed.backbone.stem.conv"),
    (r"dpt\.embeddings\.backbone\.bit\.embedder", "pretrained.model.patch_embed.backbone.stem"),
    (r"dpt\.embeddings\.backbone\.bit\.encoder\.stages", "pretrained.model.patch_embed.backbone.stages"),
    (r"(stages\.\d)\.layers", r"\1.blocks"),
    (r"dpt\.embeddings\.(patch_embeddings\.)?projection", "pretrained.model.patch_embed.proj"),
    (r"dpt\.embeddings\.position_embeddings", "pretrained.model.pos_embed"),
    (r"dpt\.embeddings", "pretrained.model"),
    (r"dpt\.encoder\.layer", "pretrained.model.blocks"),
    (r"dpt\.layernorm", "pretrained.model.norm"),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"intermediate\.dense", "mlp.fc1"),
    (r"attention\.output\.dense", "attn.proj"),
    (r"(blocks\.\d+)\.output\.dense", r"\1.mlp.fc2"),
]


def saved(oracle, folder):
    """The file transformers writes, and its tensors."""
    oracle.save_pretrained(folder)
    return folder / "model.safetensors", read_state(folder / "model.safetensors")


def imported(builder, layouts, path):
    network = builder()
    translate(read_state(path), network, layouts, f"weights {path.name}")
    return network.eval()


def both(oracle, builder, layouts, rules, folder, wrap=lambda state: state):
    """The network imported from the authors' file, which is the one imported from transformers', and the former."""
    path, state = saved(oracle, folder)
    published = renamed(state, rules)
    torch.save(wrap(published), folder / "published.pth")
    first, second = (imported(builder, layouts, file) for file in (folder / "published.pth", path))
    own, same = first.state_dict(), second.state_dict()
    assert all(torch.equal(value, same[name]) for name, value in own.items())
    return first, published


def agree(network, image, expected):
    with torch.no_grad():
        found = network(image)
    assert expected.std() > 0.01, "a constant result proves nothing"
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < TOLERANCE * max(1, expected.abs().max())


def depth_anything_oracle(image_size=518, hidden=384, layers=12, heads=6, out=(3, 6, 9, 12), necks=None, width=64):
    backbone = transformers.Dinov2Config(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        image_size=image_size,
        patch_size=14,
        out_indices=list(out),
        apply_layernorm=True,
        reshape_hidden_states=False,
    )
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=hidden,
        patch_size=14,
        neck_hidden_sizes=necks or [48, 96, 192, 384],
        fusion_hidden_size=width,
    )
    return transformers.DepthAnythingForDepthEstimation(config)
