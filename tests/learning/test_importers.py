"""Key maps and arithmetic of imported networks, against the implementation of the same networks in transformers.

Random weights of one network of transformers are written in two layouts: transformers' own, by its `save_pretrained`,
and that of the authors' checkpoints, by the names in this file, which are written down apart from those of
`training.importers`. Both files are imported and must give what transformers gives.
"""

import re

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # as everybody writes it
from torch import nn

from training.errors import TrainingError
from training.importers import depth_anything as depth_anything_names
from training.importers import dpt as dpt_names
from training.importers.layout import read_state, translate
from training.importers.networks import IMPORTERS
from training.models import create_model, depth_anything, dpt
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


# ---------------------------------------------------------------------------------------------------- Depth Anything


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


def tiny_depth_anything():
    return randomise(depth_anything_oracle(70, 32, 4, 2, (1, 2, 3, 4), [8, 16, 24, 32], 16))


def dinov2_rule(oracle):
    """Position embeddings as DINOv2's own code resamples them."""
    embeddings = oracle.backbone.embeddings
    trained = embeddings.position_embeddings
    side = int((trained.shape[1] - 1) ** 0.5)

    def interpolate(_, height, width):
        rows, columns = height // 14, width // 14
        if rows == columns == side:
            return trained
        grid = trained[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, scale_factor=((rows + 0.1) / side, (columns + 0.1) / side), mode="bicubic")
        assert grid.shape[-2:] == (rows, columns)
        return torch.cat((trained[:, :1], grid.permute(0, 2, 3, 1).flatten(1, 2)), dim=1)

    embeddings.interpolate_pos_encoding = interpolate
    return oracle


def test_depth_anything_small_is_the_published_network(tmp_path):
    oracle = randomise(depth_anything_oracle())
    network, published = both(
        oracle, depth_anything.depth_anything_v2_small, depth_anything_names.LAYOUTS, TO_DEPTH_ANYTHING, tmp_path
    )
    assert len(published) == 239
    assert sum(value.numel() for value in published.values()) == 24_785_089
    image = pictures(518, 518, count=1)
    with torch.no_grad():
        agree(network, image, oracle(pixels(image, *IMAGENET)).predicted_depth)


def test_depth_anything_at_any_size(tmp_path):
    oracle = tiny_depth_anything()
    network, _ = both(
        oracle, depth_anything.depth_anything_v2_tiny, depth_anything_names.LAYOUTS, TO_DEPTH_ANYTHING, tmp_path
    )
    sizes = [(70, 70), (56, 70), (98, 42), (84, 84), (126, 168)]
    with torch.no_grad():
        as_transformers_has_it = [oracle(pixels(pictures(*size), *IMAGENET)).predicted_depth for size in sizes]
        dinov2_rule(oracle)
        for size, other in zip(sizes, as_transformers_has_it, strict=True):
            image = pictures(*size)
            expected = oracle(pixels(image, *IMAGENET)).predicted_depth
            agree(network, image, expected)
            if size != (70, 70):  # transformers resamples position embeddings by size, DINOv2 by its offset scale
                assert (other - expected).abs().max() > TOLERANCE


# --------------------------------------------------------------------------------------------------------------- DPT


def dpt_of_transformers(oracle, image):
    """Its result for a picture that need not be square: `forward` takes the grid for a square one."""
    *_, height, width = image.shape
    outputs = oracle.dpt(image, output_hidden_states=True)
    if oracle.config.is_hybrid:
        taken = [*outputs.intermediate_activations, *(outputs.hidden_states[1:][i] for i in (2, 3))]
    else:
        taken = list(outputs.hidden_states[1:])
    result = oracle.head(oracle.neck(taken, height // 16, width // 16))
    return result if result.ndim == 3 else result.softmax(1)[:, dpt.PERSON]


def test_dpt_at_any_size(tmp_path):
    oracle = randomise(transformers.DPTForDepthEstimation(transformers.DPTConfig(**TINY)))
    network, _ = both(oracle, dpt.dpt_tiny, dpt_names.DEPTH, TO_DPT, tmp_path, lambda s: {"model": s, "optimizer": {}})
    for size in [(64, 64), (96, 96), (64, 96), (128, 32)]:
        image = pictures(*size)
        with torch.no_grad():
            expected = dpt_of_transformers(oracle, pixels(image))
            if size[0] == size[1]:
                assert torch.equal(expected, oracle(pixels(image)).predicted_depth)
        agree(network, image, expected)


def test_dpt_for_people_gives_the_probability_of_class_12(tmp_path):
    config = transformers.DPTConfig(
        **TINY, num_labels=dpt.ADE20K_CLASSES, use_batch_norm_in_fusion_residual=True, use_auxiliary_head=True
    )
    oracle = randomise(transformers.DPTForSemanticSegmentation(config))
    with torch.no_grad():
        oracle.head.head[4].bias[dpt.PERSON] += 5  # of 150, else hardly ever seen
    network, published = both(oracle, dpt.dpt_ade20k_tiny, dpt_names.SEGMENTATION, TO_DPT, tmp_path)
    assert any(name.startswith("auxlayer.") for name in published)
    for size in [(64, 64), (96, 64)]:
        image = pictures(*size)
        with torch.no_grad():
            expected = dpt_of_transformers(oracle, pixels(image))
        agree(lambda image: torch.sigmoid(network(image)), image, expected)


def tiny_hybrid():
    body = dpt.timm_body("vit_base_r50_s16_384", embed_dim=32, depth=4, num_heads=2, img_size=64)
    encoder = dpt.HybridEncoder(body, (2, 3))
    return dpt.Dpt(Normalise(HALF, HALF), encoder, dpt.Fusion(encoder.channels, 16), dpt.DepthHead(16))


def test_dpt_hybrid(tmp_path):
    config = transformers.DPTConfig(
        **TINY | {"neck_hidden_sizes": [256, 512, 32, 32]}, is_hybrid=True, backbone_featmap_shape=[1, 1024, 4, 4]
    )
    oracle = randomise(transformers.DPTForDepthEstimation(config))
    network, _ = both(oracle, tiny_hybrid, dpt_names.HYBRID, TO_DPT, tmp_path)
    for size in [(64, 64), (64, 96)]:
        oracle.dpt.embeddings.image_size = size  # it refuses others, though it resamples position embeddings
        image = pictures(*size, count=1)
        with torch.no_grad():
            agree(network, image, dpt_of_transformers(oracle, pixels(image)))


# ------------------------------------------------------------------------------------------------- sizes and mistakes

LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "backbone_out_indices": [5, 11, 17, 23],
    "neck_hidden_sizes": [256, 512, 1024, 1024],
}


def large_dpt():
    return transformers.DPTForDepthEstimation(transformers.DPTConfig(**LARGE))


def hybrid_dpt():
    config = transformers.DPTConfig(is_hybrid=True, neck_hidden_sizes=[256, 512, 768, 768])
    return transformers.DPTForDepthEstimation(config)


def large_dpt_for_people():
    config = transformers.DPTConfig(**LARGE, num_labels=150, use_batch_norm_in_fusion_residual=True)
    return transformers.DPTForSemanticSegmentation(config)


def base_depth_anything():
    return depth_anything_oracle(hidden=768, heads=12, necks=[96, 192, 384, 768], width=128)


def large_depth_anything():
    return depth_anything_oracle(518, 1024, 24, 16, (5, 12, 18, 24), [256, 512, 1024, 1024], 256)


@pytest.mark.parametrize(
    ("name", "oracle", "rules"),
    [
        ("depth_anything_v2_base", base_depth_anything, TO_DEPTH_ANYTHING),
        ("depth_anything_v2_large", large_depth_anything, TO_DEPTH_ANYTHING),
        ("dpt_large", large_dpt, TO_DPT),
        ("dpt_hybrid", hybrid_dpt, TO_DPT),
        ("dpt_large_ade20k", large_dpt_for_people, TO_DPT),
    ],
)
def test_names_and_shapes_of_the_large_networks(name, oracle, rules):
    with torch.device("meta"):
        state, network = oracle().state_dict(), create_model(name)
    state = as_in_files(state)
    for layout in (state, renamed(state, rules)):
        translate(layout, network, IMPORTERS[name], name)


UNIT = 2 * (256 * 256 * 9 + 256)  # first residual unit of the coarsest fusion, which has nothing to be added to
DEPTH_ANYTHING_UNIT = {64: 73_856, 128: 295_168, 256: UNIT}


@pytest.mark.parametrize(
    ("builder", "in_the_file", "unused"),
    [
        (depth_anything.depth_anything_v2_base, 97_470_785, 768 + DEPTH_ANYTHING_UNIT[128]),  # mask token, unit
        (depth_anything.depth_anything_v2_large, 335_315_649, 1024 + DEPTH_ANYTHING_UNIT[256]),
        (dpt.dpt_large, 344_055_465, UNIT + 1025 * 1000 + 2 * 1024),  # unit, classifier, last norm
        (dpt.dpt_hybrid, 123_146_985, UNIT + 769 * 1000 + 2 * 768),
        # units have batch norm instead of bias; and an auxiliary head: 3x3, norm, 1x1
        (
            dpt.dpt_large_ade20k,
            344_985_364,
            UNIT + 2 * 256 + 1025 * 1000 + 2 * 1024 + 256 * 256 * 9 + 512 + 257 * 150,
        ),
    ],
)
def test_large_networks_have_the_published_number_of_parameters(builder, in_the_file, unused):
    with torch.device("meta"):
        network = builder()
    assert sum(parameter.numel() for parameter in network.parameters()) == in_the_file - unused


@pytest.mark.parametrize("builder", [dpt.dpt_tiny, dpt.dpt_ade20k_tiny, depth_anything.depth_anything_v2_tiny])
def test_every_parameter_gets_a_gradient(builder):
    network = randomise(builder()).train()
    network(pictures(2 * network.stride, 3 * network.stride)).square().mean().backward()
    assert [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()] == []
    encoder = {id(value) for value in network.encoder_parameters()}
    names = {name.split(".")[1] for name, value in network.named_parameters() if id(value) in encoder}
    assert names == {"body"}


def published_tiny():
    state = randomise(depth_anything.depth_anything_v2_tiny()).state_dict()
    layout = depth_anything_names.LAYOUTS[0]
    return {layout.there(name)[0]: value for name, value in state.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("depth_head.projects.1.bias"), "weights a.pth: no tensor depth_head.projects.1.bias"),
        (lambda s: s.update(extra=torch.zeros(1)), "weights a.pth: extra is not part of the network (1 such tensors)"),
        (
            lambda s: s.update({"pretrained.norm.bias": torch.zeros(7)}),
            "weights a.pth: pretrained.norm.bias is (7,), the network has (32,)",
        ),
        (
            lambda s: s.pop("pretrained.cls_token"),
            "weights a.pth: of another network: no tensor pretrained.cls_token or backbone.embeddings.cls_token; "
            "its first is pretrained.pos_embed",
        ),
    ],
)
def test_a_file_that_does_not_fit_names_the_tensor(change, message):
    state = published_tiny()
    change(state)
    with pytest.raises(TrainingError) as caught:
        translate(state, depth_anything.depth_anything_v2_tiny(), depth_anything_names.LAYOUTS, "weights a.pth")
    assert str(caught.value) == message


def test_names_of_data_parallel_and_half_precision_are_understood(tmp_path):
    state = published_tiny()
    torch.save({f"module.{name}": value.half() for name, value in state.items()}, tmp_path / "a.pth")
    network = imported(depth_anything.depth_anything_v2_tiny, depth_anything_names.LAYOUTS, tmp_path / "a.pth")
    assert torch.equal(network.head.after[2].bias, state["depth_head.scratch.output_conv2.2.bias"].half().float())


class Harmful:
    def __reduce__(self):
        return (print, ("this must never run",))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pth", None, "weights not found"),
        ("a.pth", b"not a checkpoint", "not readable"),
        ("a.safetensors", b"not a checkpoint", "not readable"),
        ("a.pth", {"epoch": 3}, "not a state dict"),
        ("a.pth", {"model": Harmful()}, "not readable"),
    ],
)
def test_unreadable_files_are_one_line(tmp_path, capsys, name, content, message):
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif content:
        torch.save(content, tmp_path / name)
    with pytest.raises(TrainingError, match=message) as caught:
        read_state(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert not capsys.readouterr().out
