"""What holds for every imported network: names and sizes of the large ones, gradients, and files that do not fit."""

import pytest
import torch
from oracles import (
    TO_DEPTH_ANYTHING,
    TO_DPT,
    as_in_files,
    depth_anything_oracle,
    imported,
    pictures,
    randomise,
    renamed,
    transformers,
)

from training.errors import TrainingError
from training.importers import depth_anything as depth_anything_names
from training.importers.layout import read_state, translate
from training.importers.networks import IMPORTERS
from training.models import create_model, depth_anything, dpt

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
