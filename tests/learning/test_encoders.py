import copy

import pytest
import timm
import torch
from timm.layers import Conv2dSame
from torch import nn

from training.errors import TrainingError
from training.models import create_model
from training.models.timm_encoder import SamePadded, TimmEncoder, fold_batch_norm
from training.models.vit import VitEncoder


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def settled(network, seed=0):
    """`network` in eval mode with norm statistics as after training, so that folding has something to do."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in (
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.3, 0.3),
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 2.0),
            ):
                values.uniform_(low, high, generator=generator)
    return network.eval()


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 2), (3, 1), (1, 1), (1, 2)])
@pytest.mark.parametrize("size", [(32, 32), (6, 10)])
def test_fixed_padding_is_timms(kernel, stride, size):
    torch.manual_seed(0)
    computed = Conv2dSame(4, 6, kernel, stride, bias=kernel == 3)
    fixed = SamePadded(computed)
    assert fixed.convolution.weight is computed.weight
    assert torch.equal(fixed(noise(2, 4, *size)), computed(noise(2, 4, *size)))


def test_fixed_padding_keeps_depthwise_convolutions_depthwise():
    torch.manual_seed(0)
    computed = Conv2dSame(8, 8, 3, 2, groups=8)
    assert torch.equal(SamePadded(computed)(noise(1, 8, 16, 16)), computed(noise(1, 8, 16, 16)))


@pytest.mark.parametrize("bias", [True, False])
def test_a_folded_norm_by_hand(bias):
    block = nn.Sequential(nn.Conv2d(1, 1, 1, bias=bias), nn.BatchNorm2d(1, eps=0.0), nn.ReLU())
    with torch.no_grad():
        block[0].weight.fill_(3.0)
        if bias:
            block[0].bias.fill_(0.5)
        block[1].weight.fill_(2.0)
        block[1].bias.fill_(1.0)
        block[1].running_mean.fill_(0.25)
        block[1].running_var.fill_(4.0)
    fold_batch_norm(block)
    # gain 2 / sqrt(4) = 1
    assert block[0].weight.item() == pytest.approx(3.0)
    assert block[0].bias.item() == pytest.approx(1.0 + (0.5 if bias else 0.0) - 0.25)
    assert isinstance(block[1], nn.Identity)
    assert isinstance(block[2], nn.ReLU)


def test_only_a_norm_right_behind_a_convolution_is_folded():
    block = nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU(), nn.BatchNorm2d(2))
    fold_batch_norm(block)
    assert isinstance(block[2], nn.BatchNorm2d)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18"])
def test_a_folded_network_computes_what_the_unfolded_one_does(name):
    torch.manual_seed(0)
    whole = settled(timm.create_model(name, features_only=True))
    folded = copy.deepcopy(whole)
    TimmEncoder._fold(folded)
    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        for found, wanted in zip(folded(noise(1, 3, 64, 96)), whole(noise(1, 3, 64, 96)), strict=True):
            assert (found - wanted).abs().max() < 1e-4 * wanted.abs().max()


def test_features_of_a_convolutional_encoder():
    encoder = TimmEncoder("tf_efficientnet_lite0")
    features = encoder(noise(1, 3, 64, 96))
    assert encoder.channels == (16, 24, 40, 112, 320)
    assert [tuple(f.shape[1:]) for f in features] == [
        (channels, 64 // scale, 96 // scale)
        for channels, scale in zip(encoder.channels, (2, 4, 8, 16, 32), strict=True)
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("efficientnet_of_mars", r"encoder efficientnet_of_mars: "),
        ("convnext_atto", r"encoder convnext_atto: its features are at 1/\[4, 8, 16, 32\]"),
    ],
)
def test_encoders_that_cannot_be_used_are_named(name, message):
    with pytest.raises(TrainingError, match=message):
        TimmEncoder(name)


@pytest.mark.parametrize("size", [(64, 96), (128, 32)])
def test_features_of_a_transformer_at_sizes_it_was_not_made_for(size):
    encoder = VitEncoder("vit_tiny_patch16_384", (2, 5, 8, 11), (8, 12, 16, 20))
    with torch.no_grad():
        features = encoder(noise(2, 3, *size))
    assert [tuple(f.shape) for f in features] == [
        (2, channels, size[0] // scale, size[1] // scale)
        for channels, scale in zip((8, 12, 16, 20), (4, 8, 16, 32), strict=True)
    ]
    assert all(torch.isfinite(f).all() for f in features)


def test_tokens_come_from_the_named_blocks_before_the_last_norm():
    torch.manual_seed(0)
    encoder = VitEncoder("vit_tiny_patch16_384", (0, 3, 7, 11), (8, 8, 8, 8)).eval()
    seen = {}
    for index, block in enumerate(encoder.body.blocks):
        block.register_forward_hook(lambda _m, _i, out, index=index: seen.update({index: out}))
    read = {}
    for place, module in enumerate(encoder.read):
        module.register_forward_pre_hook(lambda _m, args, place=place: read.update({place: args}))
    with torch.no_grad():
        encoder(noise(1, 3, 64, 96))
    for place, index in enumerate((0, 3, 7, 11)):
        tokens, readout = read[place]
        assert torch.equal(readout, seen[index][:, 0])
        assert torch.equal(tokens.flatten(2).transpose(1, 2), seen[index][:, 1:])


@pytest.mark.parametrize("name", ["vit_of_mars", "resnet18", "vit_small_patch8_224", "vit_small_patch32_224"])
def test_transformers_that_cannot_be_used_are_named(name):
    with pytest.raises(TrainingError, match=f"encoder {name}: "):
        VitEncoder(name, (2, 5, 8, 11), (8, 8, 8, 8))


@pytest.mark.parametrize("head", ["depth_head", "person_head"])
def test_sub_pixel_heads_start_without_a_checkerboard(head):
    torch.manual_seed(0)
    network = create_model("focus_on_depth_sharp")
    head = getattr(network, head)
    with torch.no_grad():
        result = head(noise(1, network.decoder.width, 8, 12))
    assert result.shape == (1, 16, 24)
    assert result.std() > 0
    blocks = result.unfold(1, 2, 2).unfold(2, 2, 2).flatten(3)
    assert torch.equal(blocks, blocks[..., :1].expand_as(blocks))


def test_sub_pixel_heads_learn_an_edge_within_a_block():
    torch.manual_seed(0)
    head = create_model("focus_on_depth_sharp").depth_head
    x = noise(1, 24, 8, 8)
    result = head(x)
    (result[:, :, ::2].sum() - result[:, :, 1::2].sum()).backward()
    with torch.no_grad():
        for parameter in head.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
        result = head(x)
    assert (result[:, :, ::2] < result[:, :, 1::2]).all()


def test_sub_pixel_heads_answer_in_float32_under_autocast():
    head = create_model("focus_on_depth_sharp").depth_head
    with torch.autocast("cpu", torch.bfloat16):
        result = head(noise(1, 24, 8, 8))
    assert result.dtype == torch.float32
    # steps of bfloat16 would leave few values
    assert result.unique().numel() > 50
