"""FocusOnDepth's own checkpoints, against its arithmetic written out here on their names."""

import math

import pytest
import timm
import torch
import torch.nn.functional as F  # noqa: N812  # as everybody writes it

from training.errors import TrainingError
from training.importers.networks import import_checkpoint
from training.models import create_model


def published_shapes(transformer, channels):
    """Of the authors' tensors, by name."""
    width = transformer.embed_dim
    shapes = {f"transformer_encoders.{name}": value.shape for name, value in transformer.state_dict().items()}

    def layer(name, *weight):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = weight, (weight[0],)

    kernels = {0: 4, 1: 2, 3: 2}
    for i in range(4):
        layer(f"reassembles.{i}.read.project.0", width, 2 * width)
        layer(f"reassembles.{i}.resample.conv1", channels, width, 1, 1)
        if i in kernels:
            layer(f"reassembles.{i}.resample.conv2", channels, channels, kernels[i], kernels[i])
        for unit in (1, 2):
            for convolution in (1, 2):
                layer(f"fusions.{i}.res_conv{unit}.conv{convolution}", channels, channels, 3, 3)
    for head, outputs in (("head_depth", 1), ("head_segmentation", 2)):
        layer(f"{head}.head.0", channels // 2, channels, 3, 3)
        layer(f"{head}.head.2", 32, channels // 2, 3, 3)
        layer(f"{head}.head.4", outputs, 32, 1, 1)
    return shapes


def published(transformer, channels):
    """Random weights in their layout."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in published_shapes(transformer, channels).items():
        noise = torch.randn(shape, generator=generator)
        if ".norm" in name and name.endswith("weight"):
            state[name] = 1 + 0.2 * noise
        elif len(shape) > 1 and not name.endswith(("cls_token", "pos_embed")):
            state[name] = noise * (1.5 / noise[0].numel()) ** 0.5
        else:
            state[name] = 0.2 * noise
    return state


def expected(state, transformer, blocks, x):
    """Depth and the two classes' logits for normalised pictures (B, 3, 384, 384)."""

    def convolution(name, x, **more):
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **more)

    def unit(name, x):
        x = F.relu(x)  # in place: so is what is added at the end
        return convolution(f"{name}.conv2", F.relu(convolution(f"{name}.conv1", x, padding=1)), padding=1) + x

    def twice(x):
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)

    def head(name, x):
        x = convolution(f"{name}.head.2", twice(convolution(f"{name}.head.0", x, padding=1)), padding=1)
        return convolution(f"{name}.head.4", F.relu(x))

    transformer.load_state_dict(
        {name.removeprefix("transformer_encoders."): v for name, v in state.items() if name.startswith("transformer")}
    )
    taken = []
    hooks = [transformer.blocks[i].register_forward_hook(lambda *a: taken.append(a[2])) for i in blocks]
    transformer.eval()(x)
    for hook in hooks:
        hook.remove()
    fused = None
    for i in (3, 2, 1, 0):
        tokens, first = taken[i][:, 1:], taken[i][:, :1]
        name = f"reassembles.{i}.read.project.0"
        tokens = F.linear(
            torch.cat((tokens, first.expand_as(tokens)), -1), state[f"{name}.weight"], state[f"{name}.bias"]
        )
        picture = F.gelu(tokens).transpose(1, 2).reshape(len(x), -1, 24, 24)
        picture = convolution(f"reassembles.{i}.resample.conv1", picture)
        name = f"reassembles.{i}.resample.conv2"
        if i < 2:
            side = (4, 2)[i]
            picture = F.conv_transpose2d(picture, state[f"{name}.weight"], state[f"{name}.bias"], stride=side)
        elif i == 3:
            picture = convolution(name, picture, stride=2)
        joined = unit(f"fusions.{i}.res_conv1", picture)
        fused = twice(unit(f"fusions.{i}.res_conv2", joined if fused is None else joined + fused))
    return torch.sigmoid(head("head_depth", fused))[:, 0], head("head_segmentation", fused)


def test_the_authors_checkpoint_gives_what_their_network_gives(tmp_path):
    transformer = timm.create_model("vit_tiny_patch16_384")
    state = published(transformer, 16)
    path = tmp_path / "FocusOnDepth.p"
    torch.save({"model_state_dict": state, "optimizer_backbone_state_dict": {"state": {}, "param_groups": []}}, path)
    checkpoint = import_checkpoint(path, "focus_on_depth_vit_base_tiny")
    network = create_model("focus_on_depth_vit_base_tiny")
    network.load_state_dict(checkpoint.ema)
    image = torch.randint(0, 256, (1, 384, 384, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        depth, classes = expected(state, transformer, (2, 5, 8, 11), image.permute(0, 3, 1, 2) / 127.5 - 1)
        found_depth, person = network.eval()(image)
    assert depth.std() > 0.01
    assert (found_depth - depth).abs().max() < 1e-4
    assert (torch.sigmoid(person) - classes.softmax(1)[:, 1]).abs().max() < 1e-4


def test_the_layout_is_the_published_one():
    with torch.device("meta"):
        shapes = published_shapes(timm.create_model("vit_base_patch16_384"), 256)
    assert len(shapes) == 218
    assert sum(math.prod(shape) for shape in shapes.values()) == 104_047_499


def test_a_network_of_depth_alone_is_refused_by_name(tmp_path):
    state = published(timm.create_model("vit_tiny_patch16_384"), 16)
    path = tmp_path / "depth_only.p"
    torch.save({"model_state_dict": {k: v for k, v in state.items() if "segmentation" not in k}}, path)
    with pytest.raises(TrainingError, match=r"depth_only\.p: no tensor head_segmentation\.head\.0\.weight"):
        import_checkpoint(path, "focus_on_depth_vit_base_tiny")
